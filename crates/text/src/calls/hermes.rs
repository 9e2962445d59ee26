//! Hermes and what took it over: Qwen 2, 2.5 and 3, SmolLM3, Granite 4.
//! `<tool_call>\n{"name": N, "arguments": {…}}\n</tool_call>`, repeated.

use super::{
    CallReader, CallSyntax, TokenOf, Tool, Wanted,
    input::{Input, Read, Waiting},
    lark::{Lark, quoted},
    object::{object_rule, read_object},
};

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

/// One JSON object between two tags.
pub(super) struct Hermes;

impl CallSyntax for Hermes {
    fn name(&self) -> &'static str {
        "hermes"
    }

    fn other_names(&self) -> &'static [&'static str] {
        &["granite4"]
    }

    fn fits(&self, template: &str) -> bool {
        // Apriel shows a list of calls between tags of another name.
        let shown = ["\"arguments\":", "\\\"arguments\\\":"].iter().any(|key| template.contains(key));
        template.contains(OPEN) && shown && !template.contains("<tool_calls>")
    }

    fn markers(&self) -> &'static [&'static str] {
        &[OPEN, CLOSE]
    }

    fn reader(&self, _: &[Tool], token: TokenOf<'_>, sure: bool) -> Box<dyn CallReader> {
        Waiting::reader(self.markers(), token, sure, |input| async move {
            while input.text_until(&[OPEN]).await.is_some() {
                let call = read(&input).await;
                input.settle(call);
            }
        })
    }

    fn grammar(&self, tools: &[Tool], wanted: Wanted, token: TokenOf<'_>) -> String {
        let mut lark = Lark::new(token);
        let object = object_rule(&mut lark, tools, "arguments");
        let close = lark.spaced("\n", CLOSE);
        lark.rule("body", &format!("{} {object} {close}", quoted("\n")));
        lark.marked(OPEN, "body", Some("\n"), wanted)
    }
}

async fn read(input: &Input) -> Read<()> {
    input.space().await;
    read_object(input, false).await?;
    input.close(CLOSE).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::trial::{check, check_grammar_twice, check_live, check_plain};

    #[test]
    fn reads_calls() {
        let one = r#"f{"a": 1}"#;
        for (answer, seen) in [
            ("Hello.", "Hello."),
            ("  Hello. \n", "  Hello. \n"),
            ("«<tool_call>»\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n«</tool_call>»", one),
            ("«<tool_call>»{\"name\": \"f\", \"arguments\": {\"a\": 1}}«</tool_call>»", one),
            ("«<tool_call>»{\"arguments\":{\"a\": 1},\"name\":\"f\"}«</tool_call>»\n", one),
            ("«<tool_call>»{\"name\": \"f\", \"parameters\": {\"a\": 1}}«</tool_call>»", one),
            ("«<tool_call>»{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\"}«</tool_call>»", one),
            (
                "«<tool_call>»{\"type\": \"function\", \"name\": \"f\", \"arguments\": {\"a\": 1}, \"x\": [1, \
                {}]}«</tool_call>»",
                one,
            ),
            ("«<tool_call>»{\"name\": \"f\"}«</tool_call>»", "f{}"),
            ("«<tool_call>»{\"name\": \"f\", \"arguments\": null}«</tool_call>»", "f{}"),
            ("«<tool_call>»{\"name\": \"f\", \"arguments\": {}}«</tool_call>»", "f{}"),
            ("«<tool_call>»\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}", one),
            ("«<tool_call>»\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n", one),
            (
                "Let me see.\n\n«<tool_call>»{\"name\": \"f\", \"arguments\": {\"a\":  \"}{]\\\"é\\u00e9 \
                <tool_call>😀\"}}«</tool_call>»\n\n«<tool_call>»{\"name\": \"g\", \"arguments\": {\"b\": [[], \
                {\"c\": {}}]}}«</tool_call>» \nDone.",
                "Let me see.|f{\"a\":  \"}{]\\\"é\\u00e9 <tool_call>😀\"}|g{\"b\": [[], {\"c\": {}}]}| \nDone.",
            ),
            ("«<think>»a«</think>»b", "ab"),
            ("a < b <tool_cal and <<x", "a < b <tool_cal and <<x"),
        ] {
            check(&Hermes, answer, seen);
        }
        // The tags as letters are text where the tokenizer has them as tokens.
        check_plain(
            &Hermes,
            &[OPEN, CLOSE],
            "<tool_call>{\"name\": \"f\"}</tool_call>",
            "<tool_call>{\"name\": \"f\"}</tool_call>",
        );
        check_plain(&Hermes, &[], "x <tool_call>{\"name\": \"f\"}</tool_call>", "x|f{}");
        check_plain(&Hermes, &[], "<<tool_call>{\"name\": \"f\"}</tool_call>", "<|f{}");
    }

    #[test]
    fn gives_out_what_it_can() {
        let parts = [
            "Hi",
            " the",
            "re\n",
            "«<tool_call>»\n{\"na",
            "me\": \"f\"",
            ", \"arguments\": {\"a",
            "\": 1",
            "}}",
            "\n«</tool_call>»",
        ];
        check_live(&Hermes, true, &parts, "Hi +  the + re +  + f + {\"a + \": 1 + } +  + ");
        check_live(&Hermes, false, &parts, "Hi +  the + re +  +  +  +  +  + f{\"a\": 1} + ");
        check_live(&Hermes, true, &parts[3..6], " + f + {\"a + ");
        check_live(&Hermes, true, &parts[3..4], " + ");
        check_live(&Hermes, false, &["«<tool_call>»{\"a\": x", " y"], "<tool_call>{\"a\": x +  y + ");
    }

    #[test]
    fn what_is_no_call_is_text() {
        for answer in [
            "«<tool_call>»",
            "a\n«<tool_call>»\n",
            "«<tool_call>»{\"name\": \"f\", \"arguments\": {\"a\": 1}",
            "«<tool_call>»{\"name\": \"f\", \"arguments\": {\"a\": }}\n«</tool_call>» after",
            "«<tool_call>»{\"name\": \"f\", \"arguments\": [1]}«</tool_call>»",
            "«<tool_call>»{\"name\": \"f\", \"arguments\": \"hello\"}«</tool_call>»",
            "«<tool_call>»{\"name\": 5}«</tool_call>»",
            "«<tool_call>»{\"name\": \"f\", \"name\": \"g\"}«</tool_call>»",
            "«<tool_call>»{\"arguments\": {}}«</tool_call>»",
            "«<tool_call>»{}«</tool_call>»",
            "«<tool_call>»null«</tool_call>»",
            "«<tool_call>»{\"name\": \"f\", \"arguments\": {\"a\": \"\n\"}}«</tool_call>»",
            "«<tool_call>»{\"name\": \"f\", \"arguments\": {\"a\": \"\\ud800\"}}«</tool_call>»",
            "«<tool_call>»{\"name\": \"f\", \"arguments\": {\"a\": 1e999}}«</tool_call>»",
            " «<tool_call>»{\"name\": \"f\"} and more «</tool_call>» ",
        ] {
            check(&Hermes, answer, &answer.replace(['«', '»'], ""));
        }
        check(
            &Hermes,
            "«<tool_call>»{\"name\": \"f\" «</tool_call>»\n«<tool_call>»{\"name\": \"g\"}«</tool_call>»",
            "<tool_call>{\"name\": \"f\" </tool_call>|g{}",
        );
        check(
            &Hermes,
            "«<tool_call>»{\"name\": \"f\"}«<tool_call>»{\"name\": \"g\"}«</tool_call>»",
            "<tool_call>{\"name\": \"f\"}|g{}",
        );
    }

    #[test]
    fn grammar() {
        check_grammar_twice(
            &Hermes,
            &[
                "«<tool_call>»\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Köln \\\"\
                <>\", \"days\": 3}}\n«</tool_call>»",
                "«<tool_call>»\n{\"name\": \"ping\", \"arguments\": {}}\n«</tool_call>»\n«<tool_call>»\n\
                {\"name\": \"ping\", \"arguments\": {}}\n«</tool_call>»",
            ],
            &[
                "«<tool_call>»\n{\"name\": \"get_wether\", \"arguments\": {\"city\": \"x\"}}\n«</tool_call>»",
                "«<tool_call>»\n{\"name\": \"get_weather\", \"arguments\": {\"city\": 5}}\n«</tool_call>»",
                "«<tool_call>»\n{\"name\": \"get_weather\", \"arguments\": {}}\n«</tool_call>»",
                "«<tool_call>»\n{\"name\": \"ping\", \"arguments\": {}}}\n«</tool_call>»",
            ],
        );
    }
}
