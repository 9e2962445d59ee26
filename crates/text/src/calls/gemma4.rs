//! Gemma 4: `<|tool_call>call:N{k:<|"|>v<|"|>,n:42}<tool_call|>`, repeated.

use super::{
    CallReader, CallSyntax, TokenOf, Tool, Wanted,
    gemma::{call_rule, read_call},
    input::{Input, Read, Waiting},
    lark::Lark,
    literal_grammar::Dialect,
};

const OPEN: &str = "<|tool_call>";
const CLOSE: &str = "<tool_call|>";
const QUOTE: &str = "<|\"|>";

static DIALECT: Dialect = Dialect {
    argument: [":", ","],
    member: [":", ","],
    words: [&["true"], &["false"], &["null"]],
    bare_keys: true,
    sorted: true,
    quote: Some(QUOTE),
};

/// Bare keys, strings between tokens.
pub(super) struct Gemma4;

impl CallSyntax for Gemma4 {
    fn name(&self) -> &'static str {
        "gemma4"
    }

    fn fits(&self, template: &str) -> bool {
        template.contains(OPEN)
    }

    fn markers(&self) -> &'static [&'static str] {
        &[OPEN, CLOSE, QUOTE]
    }

    fn reader(&self, tools: &[Tool], token: TokenOf<'_>, sure: bool) -> Box<dyn CallReader> {
        let tools = tools.to_vec();
        Waiting::reader(self.markers(), token, sure, |input| async move {
            while input.text_until(&[OPEN]).await.is_some() {
                let call = read(&input, &tools).await;
                input.settle(call);
            }
        })
    }

    fn grammar(&self, tools: &[Tool], wanted: Wanted, token: TokenOf<'_>) -> String {
        let mut lark = Lark::new(token);
        let call = call_rule(&mut lark, tools, &DIALECT);
        let close = lark.mark(CLOSE);
        lark.rule("body", &format!("{call} {close}"));
        lark.marked(OPEN, "body", Some(""), wanted)
    }
}

async fn read(input: &Input, tools: &[Tool]) -> Read<()> {
    read_call(input, QUOTE, tools).await?;
    input.close(CLOSE).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::trial::{check, check_grammar_twice, check_plain};

    /// The quotation mark is a nuisance to type.
    fn spelled(text: &str) -> String {
        text.replace('$', "«<|\"|>»").replace("«O»", "«<|tool_call>»").replace("«C»", "«<tool_call|>»")
    }

    #[test]
    fn reads_calls() {
        for (answer, seen) in [
            ("«O»call:get_weather{city:$London$}«C»", "get_weather{\"city\":\"London\"}"),
            (
                "Ok. «O»call:get_weather{city:$a, {b}: \"c\"\n$,days:3}«C»«O»call:f{}«C»",
                "Ok.|get_weather{\"city\":\"a, {b}: \\\"c\\\"\\n\",\"days\":3}|f{}",
            ),
            (
                "«O»call:f{a:true,b:false,c:null,d:-1.5,e:1e3,g:bare words}«C»",
                "f{\"a\":true,\"b\":false,\"c\":null,\"d\":-1.5,\"e\":1000.0,\"g\":\"bare words\"}",
            ),
            ("«O»call:f{o:{k:$v$,l:[1,$x$,[],{}]},e:[]}«C»", "f{\"o\":{\"k\":\"v\",\"l\":[1,\"x\",[],{}]},\"e\":[]}"),
            ("«O»call:f{$a b$:1, $c$ : $$ }«C»", "f{\"a b\":1,\"c\":\"\"}"),
            ("«O»call:get_weather{city:12,days:$3$}«C»", "get_weather{\"city\":12,\"days\":3}"),
            ("«O»call:ns.do-it{}«C» then", "ns.do-it{}| then"),
            ("«O»call:f{a:1}", "f{\"a\":1}"),
            ("«O»call:f{a:$x", "«O»call:f{a:$x"),
            ("«O»call:f{a:}«C»", "«O»call:f{a:}«C»"),
            ("«O»call:f{a 1}«C»", "«O»call:f{a 1}«C»"),
            ("«O»call:f{a:1 b:{}}«C»", "«O»call:f{a:1 b:{}}«C»"),
            ("«O»f{}«C»", "«O»f{}«C»"),
            ("«O»call:{}«C»", "«O»call:{}«C»"),
        ] {
            check(&Gemma4, &spelled(answer), &spelled(seen).replace(['«', '»'], ""));
        }
        check_plain(&Gemma4, &[], "<|tool_call>call:f{a:<|\"|>x<|\"|>}<tool_call|>", "f{\"a\":\"x\"}");
    }

    #[test]
    fn grammar() {
        let right = [
            "«O»call:get_weather{city:$Köln, \"x\"$,days:3}«C»",
            "«O»call:get_weather{city:$x$,tags:[$a$,$b$],unit:$celsius$}«C»",
            "«O»call:ping{}«C»«O»call:ping{}«C»",
        ]
        .map(spelled);
        let wrong = [
            "«O»call:pong{}«C»",
            "«O»call:get_weather{}«C»",
            "«O»call:get_weather{city:5}«C»",
            "«O»call:get_weather{city:$x$,days:$3$}«C»",
            "«O»call:get_weather{city:$x$,unit:$kelvin$}«C»",
            "«O»call:ping{a:1}«C»",
        ]
        .map(spelled);
        check_grammar_twice(&Gemma4, &right.each_ref().map(String::as_str), &wrong.each_ref().map(String::as_str));
    }
}
