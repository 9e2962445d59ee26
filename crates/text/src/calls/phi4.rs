//! Phi-4-mini: `functools[{"name": N, "arguments": {…}}, …]`, with the newer template
//! `<|tool_call|>[…]<|/tool_call|>`, or one object between these tokens.

use super::{
    CallReader, CallSyntax, TokenOf, Tool, Wanted,
    input::{Input, Read, Symbol, Waiting},
    lark::Lark,
    object::{list_rule, read_list, read_object, read_rest, rest_rule},
};

const WORD: &str = "functools[";
const OPEN: &str = "<|tool_call|>";
const CLOSE: &str = "<|/tool_call|>";

/// A list behind a word or between tokens.
pub(super) struct Phi4;

impl CallSyntax for Phi4 {
    fn name(&self) -> &'static str {
        "phi4"
    }

    fn other_names(&self) -> &'static [&'static str] {
        &["phi4_mini_json"]
    }

    fn fits(&self, template: &str) -> bool {
        template.contains("functools") || template.contains("<|/tool|>") || template.contains(CLOSE)
    }

    fn markers(&self) -> &'static [&'static str] {
        &[OPEN, CLOSE]
    }

    fn reader(&self, _: &[Tool], token: TokenOf<'_>, sure: bool) -> Box<dyn CallReader> {
        // A grammar leaves text free in which the other opening stands.
        let openings = if sure { vec![opening(token)] } else { vec![WORD, OPEN] };
        Waiting::reader(self.markers(), token, sure, |input| async move {
            while let Some(open) = input.text_until(&openings).await {
                let calls = read(&input, open).await;
                input.settle(calls);
            }
        })
    }

    fn grammar(&self, tools: &[Tool], wanted: Wanted, token: TokenOf<'_>) -> String {
        let mut lark = Lark::new(token);
        if opening(token) == OPEN {
            let list = list_rule(&mut lark, tools, wanted.parallel);
            let close = lark.mark(CLOSE);
            lark.rule("body", &format!("{list} {close}"));
            return lark.marked(OPEN, "body", None, wanted);
        }
        let rest = rest_rule(&mut lark, tools, wanted.parallel);
        lark.marked(WORD, rest, None, wanted)
    }
}

/// The opening that the grammar takes.
fn opening(token: TokenOf<'_>) -> &'static str {
    if token(OPEN).is_some() && token(CLOSE).is_some() { OPEN } else { WORD }
}

async fn read(input: &Input, open: &str) -> Read<()> {
    if open == WORD {
        return read_rest(input).await;
    }
    input.space().await;
    if input.peek().await == Some(Symbol::Char('{')) {
        read_object(input, false).await?;
    } else {
        read_list(input).await?;
    }
    input.close(CLOSE).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::trial::{check, check_grammar, check_grammar_with, check_plain};

    #[test]
    fn reads_calls() {
        for (answer, seen) in [
            ("functools[{\"name\": \"f\", \"arguments\": {\"a\": [1, 2]}}]", "f{\"a\": [1, 2]}"),
            (
                "Ok functools[ {\"name\": \"f\", \"parameters\": {}},\n{\"name\": \"g\", \"arguments\": {}} ]",
                "Ok|f{}|g{}",
            ),
            ("«<|tool_call|>»[{\"name\": \"f\", \"arguments\": {}}]«<|/tool_call|>»", "f{}"),
            (
                "«<|tool_call|>»{\"name\": \"f\", \"arguments\": {}}«<|/tool_call|>»«<|tool_call|>»\
                {\"name\": \"g\"}«<|/tool_call|>»",
                "f{}|g{}",
            ),
            ("import functools\nfunctools.reduce", "import functools\nfunctools.reduce"),
            ("functools[0]", "functools[0]"),
            ("functools[", "functools["),
            ("functools[{\"name\": \"f\", \"arguments\": {}", "functools[{\"name\": \"f\", \"arguments\": {}"),
        ] {
            check(&Phi4, answer, seen);
        }
        check_plain(&Phi4, &[], "functoolsfunctools[{\"name\": \"f\"}]", "functools|f{}");
    }

    #[test]
    fn grammar() {
        let calls =
            "{\"name\": \"ping\", \"arguments\": {}}, {\"name\": \"get_weather\", \"arguments\": {\"city\": \"x\"}}]";
        let wrong = "{\"name\": \"ping\", \"arguments\": {\"a\": 1}}]";
        check_grammar(&Phi4, &[&format!("«{OPEN}»[{calls}«{CLOSE}»")], &[&format!("«{OPEN}»[{wrong}«{CLOSE}»")]);
        check_grammar_with(&Phi4, &[], &[&format!("functools[{calls}")], &[&format!("functools[{wrong}")]);
    }
}
