//! GLM 4.5 to 4.7: `<tool_call>N\n<arg_key>K</arg_key>\n<arg_value>V</arg_value>\n</tool_call>`, from 4.7 on without
//! the newlines, repeated.

use super::{
    CallReader, CallSyntax, TokenOf, Tool, Wanted,
    input::{Broken, Input, Read, Waiting},
    lark::{Lark, quoted},
    members::Members,
    tagged::Tags,
    typed::Parameters,
};

static TAGS: Tags = Tags {
    open: "<tool_call>",
    close: "</tool_call>",
    call: ["", "", ""],
    key: ["<arg_key>", "</arg_key>"],
    value: ["<arg_value>", "</arg_value>"],
    spaces: ["", "", ""],
    loose: true,
    untyped_is_json: true,
};

/// The name, then pairs of tags.
pub(super) struct Glm4;

impl CallSyntax for Glm4 {
    fn name(&self) -> &'static str {
        "glm4"
    }

    fn other_names(&self) -> &'static [&'static str] {
        &["glm45", "glm47"]
    }

    fn fits(&self, template: &str) -> bool {
        template.contains("<arg_key>")
    }

    fn markers(&self) -> &'static [&'static str] {
        &["<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"]
    }

    fn reader(&self, tools: &[Tool], token: TokenOf<'_>, sure: bool) -> Box<dyn CallReader> {
        let tools = tools.to_vec();
        Waiting::reader(self.markers(), token, sure, |input| async move {
            while input.text_until(&[TAGS.open]).await.is_some() {
                let call = read(&input, &tools).await;
                input.settle(call);
            }
        })
    }

    fn grammar(&self, tools: &[Tool], wanted: Wanted, token: TokenOf<'_>) -> String {
        let mut lark = Lark::new(token);
        let mut calls = Vec::new();
        for (place, tool) in tools.iter().enumerate() {
            let arguments = TAGS.arguments(&mut lark, tool, place);
            // 4.5 and 4.6 write a newline behind the name, 4.7 doesn't.
            calls.push(format!("{} \"\\n\"? {arguments}", quoted(&tool.name)));
        }
        lark.rule("call", &calls.join(" | "));
        let close = lark.mark(TAGS.close);
        lark.rule("body", &format!("call {close}"));
        lark.marked(TAGS.open, "body", Some("\n"), wanted)
    }
}

async fn read(input: &Input, tools: &[Tool]) -> Read<()> {
    let (key, close) = (TAGS.key[0], TAGS.close);
    input.space().await;
    let (name, mut end) = input.name_before(&[key, close], Some('\n')).await?;
    let parameters = Parameters::of(tools, &name, TAGS.untyped_is_json);
    input.call(name, None);
    let mut members = Members::open(input);
    loop {
        if end.is_none() {
            input.space().await;
            end = input.one_of(&[key, close]).await;
        }
        match end.take() {
            Some(end) if end == close => break,
            Some(_) => TAGS.read_argument(input, &parameters, &mut members).await?,
            // Nothing closes it but the end of the answer: vLLM doesn't take that for a call.
            None => return Err(Broken),
        }
    }
    members.close();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::trial::{check, check_grammar_twice, check_grammar_with, check_plain};

    #[test]
    fn reads_calls() {
        for (answer, seen) in [
            (
                "Ok\n«<tool_call>»get_weather\n«<arg_key>»city«</arg_key>»\n«<arg_value>»12«</arg_value>»\n«\
                <arg_key>»days«</arg_key>»\n«<arg_value>»3«</arg_value>»\n«</tool_call>»",
                "Ok|get_weather{\"city\":\"12\",\"days\":3}",
            ),
            (
                "«<tool_call>»f«<arg_key>»a«</arg_key>»«<arg_value>»{\"b\": 1}«</arg_value>»«<arg_key>»c«\
                </arg_key>»«<arg_value>»some <text>«</arg_value>»«</tool_call>»\n«<tool_call>»g«</tool_call>»",
                "f{\"a\":{\"b\":1},\"c\":\"some <text>\"}|g{}",
            ),
            ("«<tool_call>»f\n«</tool_call>»", "f{}"),
            ("«<tool_call>»f\n", "<tool_call>f\n"),
            (
                "«<tool_call>»f\n«<arg_key>»a«</arg_key>»«<arg_value>»x",
                "<tool_call>f\n<arg_key>a</arg_key><arg_value>x",
            ),
            ("«<tool_call>»f\nx«</tool_call>»", "<tool_call>f\nx</tool_call>"),
            ("«<tool_call>»«</tool_call>»", "<tool_call></tool_call>"),
        ] {
            check(&Glm4, answer, seen);
        }
        check_plain(
            &Glm4,
            &[],
            "<tool_call>f<arg_key>a</arg_key><arg_value>true</arg_value></tool_call>",
            "f{\"a\":true}",
        );
    }

    #[test]
    fn grammar() {
        let right = [
            "«<tool_call>»get_weather\n«<arg_key>»city«</arg_key>»«<arg_value>»x <y>«</arg_value>»«\
            <arg_key>»days«</arg_key>»«<arg_value>»3«</arg_value>»«</tool_call>»",
            "«<tool_call>»ping«</tool_call>»\n«<tool_call>»ping«</tool_call>»",
        ];
        let wrong = [
            "«<tool_call>»pong«</tool_call>»",
            "«<tool_call>»get_weather«</tool_call>»",
            "«<tool_call>»get_weather«<arg_key>»city«</arg_key>»«<arg_value>»x«</arg_value>»«<arg_key>»days«\
            </arg_key>»«<arg_value>»x«</arg_value>»«</tool_call>»",
        ];
        check_grammar_twice(&Glm4, &right, &wrong);
        check_grammar_with(&Glm4, &["<tool_call>", "</tool_call>"], &right, &wrong);
    }
}
