//! Mistral. Up to tokenizer v7 `[TOOL_CALLS][{"name": N, "arguments": {…}}, …]`, from v11 on
//! `[TOOL_CALLS]N[ARGS]{…}`, repeated. The reader takes both, and `N{…}`, which some write; the grammar goes by whether
//! there is an `[ARGS]` token.

use super::{
    CallReader, CallSyntax, TokenOf, Tool, Wanted,
    input::{Input, Read, Symbol, Waiting},
    lark::{Lark, arguments, quoted},
    letters,
    object::{list_rule, read_list},
};

const OPEN: &str = "[TOOL_CALLS]";
const ID: &str = "[CALL_ID]";
const ARGUMENTS: &str = "[ARGS]";

/// A list behind a token, or name and arguments each behind one.
pub(super) struct Mistral;

impl CallSyntax for Mistral {
    fn name(&self) -> &'static str {
        "mistral"
    }

    fn fits(&self, template: &str) -> bool {
        template.contains(OPEN)
    }

    fn markers(&self) -> &'static [&'static str] {
        &[OPEN, ID, ARGUMENTS]
    }

    fn reader(&self, _: &[Tool], token: TokenOf<'_>, sure: bool) -> Box<dyn CallReader> {
        Waiting::reader(self.markers(), token, sure, |input| async move {
            while input.text_until(&[OPEN]).await.is_some() {
                let calls = read(&input).await;
                input.settle(calls);
            }
        })
    }

    fn grammar(&self, tools: &[Tool], wanted: Wanted, token: TokenOf<'_>) -> String {
        let mut lark = Lark::new(token);
        if !lark.is_token(ARGUMENTS) {
            let list = list_rule(&mut lark, tools, wanted.parallel);
            lark.rule("body", &format!("\" \"? {list}"));
            return lark.marked(OPEN, "body", None, wanted);
        }
        let mut calls = Vec::new();
        for (place, tool) in tools.iter().enumerate() {
            lark.json(&format!("args_{place}"), &arguments(tool));
            calls.push(format!("{} {} args_{place}", quoted(&tool.name), lark.mark(ARGUMENTS)));
        }
        lark.rule("body", &calls.join(" | "));
        lark.marked(OPEN, "body", Some(""), wanted)
    }

    /// Mistral's templates refuse ids of another form.
    fn new_id(&self, random: u64) -> String {
        letters(random, 9)
    }
}

async fn read(input: &Input) -> Read<()> {
    input.space().await;
    if input.peek().await == Some(Symbol::Char('[')) {
        return read_list(input).await;
    }
    let (name, end) = input.name_before(&[ID, ARGUMENTS], Some('{')).await?;
    let id = if end == Some(ID) { Some(input.name(&[ARGUMENTS]).await?.0) } else { None };
    input.space().await;
    input.call(name, id);
    input.json_arguments().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::trial::{check, check_grammar, check_grammar_with, check_plain};

    #[test]
    fn reads_calls() {
        for (answer, seen) in [
            ("Hi.«[TOOL_CALLS]»[{\"name\": \"f\", \"arguments\": {\"a\": 1}}]", "Hi.|f{\"a\": 1}"),
            (
                "«[TOOL_CALLS]» [{\"arguments\":{\"a\": \"[]}]\"}, \"name\": \"f\"} , \
                {\"name\": \"g\", \"arguments\": {}}]\n",
                "f{\"a\": \"[]}]\"}|g{}",
            ),
            ("«[TOOL_CALLS]»f«[ARGS]»{\"a\": {\"b\": []}}«[TOOL_CALLS]»g«[ARGS]»{}", "f{\"a\": {\"b\": []}}|g{}"),
            ("«[TOOL_CALLS]»f{\"a\": 1}", "f{\"a\": 1}"),
            ("«[TOOL_CALLS]»f«[CALL_ID]»abc123XYZ«[ARGS]»{\"a\": 1}", "f#abc123XYZ{\"a\": 1}"),
            ("«[TOOL_CALLS]»[]", "[TOOL_CALLS][]"),
            (
                "«[TOOL_CALLS]»[{\"name\": \"f\", \"arguments\": {}}",
                "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {}}",
            ),
            ("«[TOOL_CALLS]»f«[ARGS]»[1]", "[TOOL_CALLS]f[ARGS][1]"),
            ("«[TOOL_CALLS]»f«[ARGS]»{\"a\": ", "[TOOL_CALLS]f[ARGS]{\"a\": "),
            ("«[TOOL_CALLS]»f", "[TOOL_CALLS]f"),
        ] {
            check(&Mistral, answer, seen);
        }
        check_plain(&Mistral, &[], "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {}}]", "f{}");
        check_plain(&Mistral, &[OPEN], "[TOOL_CALLS][]", "[TOOL_CALLS][]");
    }

    #[test]
    fn ids_are_nine_letters() {
        for random in [0, 1, u64::MAX] {
            let id = Mistral.new_id(random);
            assert!(id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{id}");
        }
        assert_ne!(Mistral.new_id(1), Mistral.new_id(2));
    }

    #[test]
    fn grammar() {
        check_grammar(
            &Mistral,
            &[
                "«[TOOL_CALLS]»get_weather«[ARGS]»{\"city\": \"x\", \"days\": 2}",
                "«[TOOL_CALLS]»ping«[ARGS]»{}«[TOOL_CALLS]»ping«[ARGS]»{}",
            ],
            &["«[TOOL_CALLS]»pong«[ARGS]»{}", "«[TOOL_CALLS]»get_weather«[ARGS]»{\"city\": 1}"],
        );
        check_grammar_with(
            &Mistral,
            &[OPEN],
            &[
                "«[TOOL_CALLS]»[{\"name\": \"get_weather\", \"arguments\": {\"city\": \"x\"}}]",
                "«[TOOL_CALLS]»[{\"name\": \"ping\", \"arguments\": {}}, {\"name\": \"ping\", \"arguments\": {}}]",
            ],
            &["«[TOOL_CALLS]»[{\"name\": \"pong\", \"arguments\": {}}]", "«[TOOL_CALLS]»[]"],
        );
    }
}
