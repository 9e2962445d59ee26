//! For templates that ignore tools: the whole answer is `[{"name": N, "arguments": {…}}, …]`. The tools must be listed
//! in a system message. A list with text behind it, or one of other objects, is an answer in text.

use super::{
    CallReader, CallSyntax, TokenOf, Tool, Wanted,
    input::{Input, Read, Symbol, Waiting},
    lark::Lark,
    object::{list_rule, read_list},
};

/// A list that is the answer.
pub(super) struct Generic;

impl CallSyntax for Generic {
    fn name(&self) -> &'static str {
        "json"
    }

    /// Nothing asks for it: it is what is left.
    fn fits(&self, _: &str) -> bool {
        false
    }

    fn markers(&self) -> &'static [&'static str] {
        &[]
    }

    fn reader(&self, _: &[Tool], token: TokenOf<'_>, sure: bool) -> Box<dyn CallReader> {
        Waiting::reader(self.markers(), token, sure, |input| async move {
            input.space().await;
            if input.peek().await == Some(Symbol::Char('[')) {
                let calls = read(&input).await;
                input.settle(calls);
            }
            input.text_until(&[]).await;
        })
    }

    fn grammar(&self, tools: &[Tool], wanted: Wanted, token: TokenOf<'_>) -> String {
        let mut lark = Lark::new(token);
        let list = list_rule(&mut lark, tools, wanted.parallel);
        lark.at_start('[', list, None, wanted)
    }
}

async fn read(input: &Input) -> Read<()> {
    read_list(input).await?;
    input.end().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::trial::{check, check_grammar};

    #[test]
    fn reads_calls() {
        for (answer, seen) in [
            ("[{\"name\": \"f\", \"arguments\": {\"a\": \"]\"}}]", "f{\"a\": \"]\"}"),
            (" [{\"name\":\"f\",\"arguments\":{}},{\"name\":\"g\",\"arguments\":{}}]\n", "f{}|g{}"),
            ("[{\"name\": \"f\", \"arguments\": {}}] is a call", "[{\"name\": \"f\", \"arguments\": {}}] is a call"),
            ("[1] A source.", "[1] A source."),
            ("[]", "[]"),
            ("[{\"name\": \"f\"", "[{\"name\": \"f\""),
            ("text [{\"name\": \"f\"}]", "text [{\"name\": \"f\"}]"),
            ("", ""),
            (" \n", " \n"),
        ] {
            check(&Generic, answer, seen);
        }
    }

    #[test]
    fn grammar() {
        check_grammar(
            &Generic,
            &["[{\"name\": \"ping\", \"arguments\": {}}, {\"name\": \"get_weather\", \"arguments\": \
                {\"city\": \"x\"}}]"],
            &["[{\"name\": \"pong\", \"arguments\": {}}]", "[]", "[1]"],
        );
    }
}
