//! Llama 3.1 to 3.3: the answer is `{"name": N, "parameters": {…}}`, or several with `; ` between, or stands behind
//! `<|python_tag|>`. Without that token only an answer that begins with a call is one: an object amid text may be an
//! example (vLLM takes any object).

use super::{
    CallReader, CallSyntax, TokenOf, Tool, Wanted,
    input::{Broken, Input, Read, Symbol, Waiting},
    lark::Lark,
    object::{object_rule, read_object},
};

const OPEN: &str = "<|python_tag|>";
/// How templates ask for this form. Llama 4's own template does too.
pub(super) const ASKED: &str = "\"parameters\": dictionary";

/// Objects that begin the answer.
pub(super) struct Llama3Json;

impl CallSyntax for Llama3Json {
    fn name(&self) -> &'static str {
        "llama3_json"
    }

    fn other_names(&self) -> &'static [&'static str] {
        &["llama4_json"]
    }

    fn fits(&self, template: &str) -> bool {
        // Functionary calls code with the token, and tools otherwise.
        (template.contains(OPEN) && !template.contains("<function=")) || template.contains(ASKED)
    }

    fn markers(&self) -> &'static [&'static str] {
        &[OPEN]
    }

    fn reader(&self, _: &[Tool], token: TokenOf<'_>, sure: bool) -> Box<dyn CallReader> {
        // A grammar leaves text free in which the marker stands as letters.
        let openings = if sure && token(OPEN).is_none() { vec![] } else { vec![OPEN] };
        Waiting::reader(self.markers(), token, sure, |input| async move {
            input.space().await;
            if input.peek().await == Some(Symbol::Char('{')) {
                let calls = read(&input).await;
                input.settle(calls);
            }
            while input.text_until(&openings).await.is_some() {
                let calls = read(&input).await;
                input.settle(calls);
            }
        })
    }

    fn grammar(&self, tools: &[Tool], wanted: Wanted, token: TokenOf<'_>) -> String {
        let mut lark = Lark::new(token);
        let object = object_rule(&mut lark, tools, "parameters");
        let more = if wanted.parallel { format!(" (\"; \" {object})*") } else { String::new() };
        lark.rule("body", &format!("{object}{more}"));
        let marked = lark.is_token(OPEN).then(|| format!("{} body", lark.mark(OPEN)));
        lark.at_start('{', "body", marked, wanted)
    }
}

async fn read(input: &Input) -> Read<()> {
    input.space().await;
    loop {
        // A call without arguments is too easily an object that is meant as the answer.
        read_object(input, true).await?;
        input.space().await;
        let more = input.maybe(";").await;
        input.space().await;
        match input.peek().await {
            Some(Symbol::Char('{')) => {}
            None => return Ok(()),
            _ if more => return Err(Broken),
            // Text may follow.
            _ => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::trial::{check, check_grammar};

    #[test]
    fn reads_calls() {
        for (answer, seen) in [
            ("Hi {\"name\": \"f\", \"parameters\": {}}", "Hi {\"name\": \"f\", \"parameters\": {}}"),
            ("{\"name\": \"f\", \"parameters\": {\"a\": 1}}", "f{\"a\": 1}"),
            (" \n{\"name\": \"f\", \"arguments\": {\"a\": 1}} ", "f{\"a\": 1}"),
            ("{\"type\": \"function\", \"name\": \"f\", \"parameters\": {}}", "f{}"),
            ("«<|python_tag|>»{\"name\": \"f\", \"parameters\": {}}", "f{}"),
            (
                "{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"g\", \"parameters\": {\"b\": \"};{\"}}",
                "f{}|g{\"b\": \"};{\"}",
            ),
            (
                "{\"name\": \"f\", \"parameters\": {}} ;{\"name\": \"f\", \"parameters\": {}}\n\
                {\"name\": \"f\", \"parameters\": {}};",
                "f{}|f{}|f{}",
            ),
            ("{\"name\": \"f\", \"parameters\": {}} I used {f}.", "f{}|I used {f}."),
            ("{\"name\": \"f\"}", "{\"name\": \"f\"}"),
            ("{\"parameters\": {}}", "{\"parameters\": {}}"),
            ("{\"name\": \"f\", \"parameters\": {x}", "{\"name\": \"f\", \"parameters\": {x}"),
            ("{\"a\": 1} is JSON", "{\"a\": 1} is JSON"),
            ("«<|python_tag|>»print(1)", "<|python_tag|>print(1)"),
            (
                "{\"name\": \"f\", \"parameters\": {}}; {\"name\": ",
                "{\"name\": \"f\", \"parameters\": {}}; {\"name\": ",
            ),
        ] {
            check(&Llama3Json, answer, seen);
        }
    }

    #[test]
    fn grammar() {
        check_grammar(
            &Llama3Json,
            &[
                "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"x\"}}",
                "«<|python_tag|>»{\"name\": \"ping\", \"parameters\": {}}; {\"name\": \"ping\", \"parameters\": {}}",
            ],
            &[
                "{\"name\": \"pong\", \"parameters\": {}}",
                "{\"name\": \"get_weather\", \"parameters\": {\"city\": null}}",
            ],
        );
    }
}
