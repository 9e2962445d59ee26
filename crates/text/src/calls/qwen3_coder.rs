//! Qwen3-Coder and Qwen3.5:
//! `<tool_call>\n<function=N>\n<parameter=K>\nV\n</parameter>\n</function>\n</tool_call>`, repeated. The outer tag is
//! missing at times.

use super::{CallReader, CallSyntax, TokenOf, Tool, Wanted, input::Waiting, lark::Lark, tagged::Tags};

static TAGS: Tags = Tags {
    open: "<tool_call>",
    close: "</tool_call>",
    call: ["<function=", ">", "</function>"],
    key: ["<parameter=", ">"],
    value: ["", "</parameter>"],
    spaces: ["\n", "\n", "\n"],
    loose: false,
    untyped_is_json: false,
};

/// Tags with the names inside.
pub(super) struct Qwen3Coder;

impl CallSyntax for Qwen3Coder {
    fn name(&self) -> &'static str {
        "qwen3_coder"
    }

    fn other_names(&self) -> &'static [&'static str] {
        &["qwen3_xml", "mimo"]
    }

    fn fits(&self, template: &str) -> bool {
        template.contains("<function=") && template.contains("<parameter=")
    }

    fn markers(&self) -> &'static [&'static str] {
        &["<tool_call>", "</tool_call>"]
    }

    fn reader(&self, tools: &[Tool], token: TokenOf<'_>, sure: bool) -> Box<dyn CallReader> {
        let tools = tools.to_vec();
        // A grammar leaves text free in which the inner tag stands.
        let openings = if sure { vec![TAGS.open] } else { vec![TAGS.open, TAGS.call[0]] };
        Waiting::reader(self.markers(), token, sure, |input| async move {
            while let Some(open) = input.text_until(&openings).await {
                let calls = TAGS.read(&input, &tools, open == TAGS.call[0]).await;
                input.settle(calls);
            }
        })
    }

    fn grammar(&self, tools: &[Tool], wanted: Wanted, token: TokenOf<'_>) -> String {
        TAGS.grammar(Lark::new(token), tools, Some("\n"), wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::trial::{check, check_grammar, check_grammar_with, check_live, check_plain};

    #[test]
    fn reads_calls() {
        let call = |body: &str| format!("«<tool_call>»\n<function=get_weather>\n{body}</function>\n«</tool_call>»");
        let city = |value: &str| call(&format!("<parameter=city>\n{value}\n</parameter>\n"));
        for (answer, seen) in [
            (city("Köln"), "get_weather{\"city\":\"Köln\"}"),
            (city("12"), "get_weather{\"city\":\"12\"}"),
            (
                city("a\n\"b\"\\\n\n  c <x> </parameter "),
                "get_weather{\"city\":\"a\\n\\\"b\\\"\\\\\\n\\n  c <x> </parameter \"}",
            ),
            (city(""), "get_weather{\"city\":\"\"}"),
            (call(""), "get_weather{}"),
            (
                call(
                    "<parameter=days>\n3\n</parameter>\n<parameter=city>x</parameter><parameter=tags>\n\
                    [\"a\", \"}\"]\n</parameter>\n",
                ),
                "get_weather{\"days\":3,\"city\":\"x\",\"tags\":[\"a\",\"}\"]}",
            ),
            (call("<parameter=days>\nmany\n</parameter>\n"), "get_weather{\"days\":\"many\"}"),
            (call("<parameter=unknown>\n5\n</parameter>\n"), "get_weather{\"unknown\":\"5\"}"),
            (
                call("<parameter=city>\na\n</parameter>\n<parameter=city>\nb\n</parameter>\n"),
                "get_weather{\"city\":\"a\"}",
            ),
            (
                format!("Ok.\n\n{}\n{}\n", city("a"), city("b")),
                "Ok.|get_weather{\"city\":\"a\"}|get_weather{\"city\":\"b\"}",
            ),
            ("So:\n<function=f>\n</function>\n«</tool_call>»".to_string(), "So:|f{}"),
            ("<function=f>\n</function> x".to_string(), "f{}| x"),
            ("«<tool_call>»<function=f></function>".to_string(), "f{}"),
            (
                "«<tool_call>»\n<function=f>\n<parameter=a>\nx".to_string(),
                "<tool_call>\n<function=f>\n<parameter=a>\nx",
            ),
            ("«<tool_call>»\nno\n«</tool_call>»".to_string(), "<tool_call>\nno\n</tool_call>"),
            ("«<tool_call>»\n<function=f>\nno</function>".to_string(), "<tool_call>\n<function=f>\nno</function>"),
            ("a <function of b".to_string(), "a <function of b"),
        ] {
            check(&Qwen3Coder, &answer, seen);
        }
        check_plain(&Qwen3Coder, &[], "<tool_call>\n<function=f>\n</function>\n</tool_call>", "f{}");
    }

    #[test]
    fn strings_come_as_they_are_written() {
        let parts = [
            "«<tool_call>»\n<function=get_weather>",
            "\n<parameter=city>\nN",
            "ew\n",
            "York\n</para",
            "meter>\n<parameter=days>\n1",
            "2\n</parameter>",
            "\n</function>\n",
            "«</tool_call>»",
        ];
        let live = "get_weather{ + \"city\":\"N + ew + \\nYork + \" + ,\"days\":12 + } +  + ";
        check_live(&Qwen3Coder, true, &parts, live);
    }

    #[test]
    fn grammar() {
        let right = [
            "«<tool_call>»\n<function=get_weather>\n<parameter=city>\nKöln\n</parameter>\n<parameter=days>\n3\n\
            </parameter>\n</function>\n«</tool_call>»",
            "«<tool_call>»\n<function=get_weather>\n<parameter=city>\na\n\"b\n</parameter>\n\
            <parameter=unit>\ncelsius\n</parameter>\n<parameter=tags>\n[\"x\"]\n</parameter>\n</function>\n«\
            </tool_call>»",
            "«<tool_call>»\n<function=ping>\n</function>\n«</tool_call>»\n«<tool_call>»\n<function=ping>\n\
            </function>\n«</tool_call>»",
        ];
        let wrong = [
            "«<tool_call>»\n<function=pong>\n</function>\n«</tool_call>»",
            "«<tool_call>»\n<function=get_weather>\n</function>\n«</tool_call>»",
            "«<tool_call>»\n<function=get_weather>\n<parameter=city>\nx\n</parameter>\n<parameter=days>\nmany\n\
            </parameter>\n</function>\n«</tool_call>»",
            "«<tool_call>»\n<function=get_weather>\n<parameter=city>\nx\n</parameter>\n\
            <parameter=unit>\nkelvin\n</parameter>\n</function>\n«</tool_call>»",
            "«<tool_call>»\n<function=ping>\n<parameter=x>\nx\n</parameter>\n</function>\n«</tool_call>»",
        ];
        check_grammar(&Qwen3Coder, &right, &wrong);
        check_grammar_with(&Qwen3Coder, &[], &right, &wrong);
    }
}
