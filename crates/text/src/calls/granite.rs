//! Granite 3: `<|tool_call|>[{"name": N, "arguments": {…}}, …]`, from 3.1 on with `<tool_call>`. Nothing closes: the
//! list's end does. Granite 4 writes as Hermes.

use super::{
    CallReader, CallSyntax, TokenOf, Tool, Wanted,
    input::{Input, Read, Waiting},
    lark::Lark,
    object::{list_rule, read_list},
};

const TOKEN: &str = "<|tool_call|>";
const TEXT: &str = "<tool_call>";

/// A list behind a marker.
pub(super) struct Granite;

impl CallSyntax for Granite {
    fn name(&self) -> &'static str {
        "granite"
    }

    fn fits(&self, template: &str) -> bool {
        template.contains(TOKEN) || (template.contains("<|start_of_role|>") && template.contains("<tool_call>["))
    }

    fn markers(&self) -> &'static [&'static str] {
        &[TOKEN, TEXT]
    }

    fn reader(&self, _: &[Tool], token: TokenOf<'_>, sure: bool) -> Box<dyn CallReader> {
        // A grammar leaves text free in which the other marker stands.
        let openings = if sure { vec![opening(token)] } else { vec![TOKEN, TEXT] };
        Waiting::reader(self.markers(), token, sure, |input| async move {
            while input.text_until(&openings).await.is_some() {
                let calls = read(&input).await;
                input.settle(calls);
            }
        })
    }

    fn grammar(&self, tools: &[Tool], wanted: Wanted, token: TokenOf<'_>) -> String {
        let mut lark = Lark::new(token);
        let list = list_rule(&mut lark, tools, wanted.parallel);
        lark.rule("body", &format!("\" \"? {list}"));
        lark.marked(opening(token), "body", None, wanted)
    }
}

/// The marker that the grammar takes.
fn opening(token: TokenOf<'_>) -> &'static str {
    if token(TOKEN).is_some() { TOKEN } else { TEXT }
}

async fn read(input: &Input) -> Read<()> {
    input.space().await;
    read_list(input).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::trial::{check, check_grammar, check_grammar_with, check_plain};

    #[test]
    fn reads_calls() {
        for (answer, seen) in [
            ("«<|tool_call|>»[{\"name\": \"f\", \"arguments\": {\"a\": 1}}]", "f{\"a\": 1}"),
            ("So: «<|tool_call|>» [ {\"name\": \"f\", \"arguments\": {}}, {\"name\": \"g\"} ] ok", "So:|f{}|g{}| ok"),
            ("«<|tool_call|>»{\"name\": \"f\"}", "<|tool_call|>{\"name\": \"f\"}"),
            ("«<|tool_call|>»[{\"name\": \"f\"}, {]", "<|tool_call|>[{\"name\": \"f\"}, {]"),
        ] {
            check(&Granite, answer, seen);
        }
        check_plain(&Granite, &[], "<tool_call>[{\"name\": \"f\", \"arguments\": {}}]", "f{}");
        check_plain(&Granite, &[TOKEN], "a <tool_call> b", "a <tool_call> b");
    }

    #[test]
    fn grammar() {
        let calls =
            "[{\"name\": \"ping\", \"arguments\": {}}, {\"name\": \"get_weather\", \"arguments\": {\"city\": \"x\"}}]";
        let wrong =
            "[{\"name\": \"ping\", \"arguments\": {}}, {\"name\": \"get_weather\", \"arguments\": {\"city\": [}}]";
        check_grammar(&Granite, &[&format!("«{TOKEN}»{calls}")], &[&format!("«{TOKEN}»{wrong}")]);
        check_grammar_with(&Granite, &[], &[&format!("{TEXT}{calls}")], &[&format!("{TEXT}{wrong}")]);
    }
}
