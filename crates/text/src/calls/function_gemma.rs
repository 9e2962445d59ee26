//! FunctionGemma: `<start_function_call>call:N{k:<escape>v<escape>}<end_function_call>`, repeated.

use super::{
    CallReader, CallSyntax, TokenOf, Tool, Wanted,
    gemma::{call_rule, read_call},
    input::{Input, Read, Waiting},
    lark::Lark,
    literal_grammar::Dialect,
};

const OPEN: &str = "<start_function_call>";
const CLOSE: &str = "<end_function_call>";
const QUOTE: &str = "<escape>";

static DIALECT: Dialect = Dialect {
    argument: [":", ","],
    member: [":", ","],
    words: [&["true"], &["false"], &["null"]],
    bare_keys: true,
    sorted: true,
    quote: Some(QUOTE),
};

/// Bare keys, strings between tokens.
pub(super) struct FunctionGemma;

impl CallSyntax for FunctionGemma {
    fn name(&self) -> &'static str {
        "function_gemma"
    }

    fn other_names(&self) -> &'static [&'static str] {
        &["functiongemma"]
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

    /// The markers are a nuisance to type.
    fn spelled(text: &str) -> String {
        text.replace('$', "«<escape>»")
            .replace("«O»", "«<start_function_call>»")
            .replace("«C»", "«<end_function_call>»")
    }

    #[test]
    fn reads_calls() {
        for (answer, seen) in [
            ("«O»call:get_weather{city:$London$}«C»", "get_weather{\"city\":\"London\"}"),
            (
                "Let me check the weather for you. «O»call:f{a:$x$,b:$42$}«C»",
                "Let me check the weather for you.|f{\"a\":\"x\",\"b\":42}",
            ),
            ("«O»call:f{on:$true$}«C»«O»call:g{m:$Hello World$}«C»", "f{\"on\":true}|g{\"m\":\"Hello World\"}"),
            ("«O»call:f{a:$x$", "«O»call:f{a:$x$"),
        ] {
            check(&FunctionGemma, &spelled(answer), &spelled(seen).replace(['«', '»'], ""));
        }
        check_plain(
            &FunctionGemma,
            &[],
            "<start_function_call>call:f{a:<escape>x<escape>}<end_function_call>",
            "f{\"a\":\"x\"}",
        );
    }

    #[test]
    fn grammar() {
        let right = ["«O»call:get_weather{city:$x$,days:3}«C»", "«O»call:ping{}«C»«O»call:ping{}«C»"].map(spelled);
        let wrong = ["«O»call:pong{}«C»", "«O»call:get_weather{city:$x$,days:$x$}«C»"].map(spelled);
        check_grammar_twice(
            &FunctionGemma,
            &right.each_ref().map(String::as_str),
            &wrong.each_ref().map(String::as_str),
        );
    }
}
