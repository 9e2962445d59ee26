//! MiniMax M2: `<minimax:tool_call>\n<invoke name="N">\n<parameter name="K">V</parameter>\n</invoke>\n`
//! `</minimax:tool_call>`, several calls within one block.

use super::{CallReader, CallSyntax, TokenOf, Tool, Wanted, input::Waiting, lark::Lark, tagged::Tags};

static TAGS: Tags = Tags {
    open: "<minimax:tool_call>",
    close: "</minimax:tool_call>",
    call: ["<invoke name=\"", "\">", "</invoke>"],
    key: ["<parameter name=\"", "\">"],
    value: ["", "</parameter>"],
    spaces: ["\n", "\n", ""],
    loose: false,
    untyped_is_json: false,
};

/// Tags with the names as attributes.
pub(super) struct MinimaxM2;

impl CallSyntax for MinimaxM2 {
    fn name(&self) -> &'static str {
        "minimax_m2"
    }

    fn fits(&self, template: &str) -> bool {
        template.contains(TAGS.open)
    }

    fn markers(&self) -> &'static [&'static str] {
        &["<minimax:tool_call>", "</minimax:tool_call>"]
    }

    fn reader(&self, tools: &[Tool], token: TokenOf<'_>, sure: bool) -> Box<dyn CallReader> {
        let tools = tools.to_vec();
        Waiting::reader(self.markers(), token, sure, |input| async move {
            while input.text_until(&[TAGS.open]).await.is_some() {
                let calls = TAGS.read(&input, &tools, false).await;
                input.settle(calls);
            }
        })
    }

    fn grammar(&self, tools: &[Tool], wanted: Wanted, token: TokenOf<'_>) -> String {
        TAGS.grammar(Lark::new(token), tools, None, wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::trial::{check, check_grammar_twice};

    #[test]
    fn reads_calls() {
        for (answer, seen) in [
            (
                "Hm. «<minimax:tool_call>»\n<invoke name=\"get_weather\">\n<parameter name=\"city\">\nx\
                </parameter>\n<parameter name=\"days\">3</parameter>\n</invoke>\n<invoke name=\"f\">\n\
                </invoke>\n«</minimax:tool_call>»",
                "Hm.|get_weather{\"city\":\"\\nx\",\"days\":3}|f{}",
            ),
            (
                "«<minimax:tool_call>»<invoke name=\"get_weather\"><parameter name=\"city\">x</parameter>\
                </invoke>«</minimax:tool_call>»",
                "get_weather{\"city\":\"x\"}",
            ),
            (
                "«<minimax:tool_call>»<invoke name=\"f\"></invoke><invoke «</minimax:tool_call>»",
                "<minimax:tool_call><invoke name=\"f\"></invoke><invoke </minimax:tool_call>",
            ),
        ] {
            check(&MinimaxM2, answer, seen);
        }
    }

    #[test]
    fn grammar() {
        check_grammar_twice(
            &MinimaxM2,
            &["«<minimax:tool_call>»\n<invoke name=\"get_weather\">\n<parameter name=\"city\">x</parameter>\n\
                <parameter name=\"days\">3</parameter>\n</invoke>\n<invoke name=\"ping\">\n</invoke>\n«\
                </minimax:tool_call>»"],
            &[
                "«<minimax:tool_call>»\n<invoke name=\"pong\">\n</invoke>\n«</minimax:tool_call>»",
                "«<minimax:tool_call>»\n<invoke name=\"get_weather\">\n<parameter name=\"city\">x</parameter>\n\
                <parameter name=\"days\">x</parameter>\n</invoke>\n«</minimax:tool_call>»",
            ],
        );
    }
}
