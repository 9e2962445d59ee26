//! Kimi K2: `<|tool_calls_section_begin|>`, then `<|tool_call_begin|>functions.N:0<|tool_call_argument_begin|>{…}`
//! `<|tool_call_end|>` for each call, then `<|tool_calls_section_end|>`. The model writes the ids itself, and they
//! must come back to it with the results.

use super::{
    CallReader, CallSyntax, TokenOf, Tool, Wanted,
    input::{Broken, Input, Read, Waiting},
    lark::{Lark, arguments, quoted},
};

const SECTION: &str = "<|tool_calls_section_begin|>";
const SECTION_END: &str = "<|tool_calls_section_end|>";
const OPEN: &str = "<|tool_call_begin|>";
const ARGUMENTS: &str = "<|tool_call_argument_begin|>";
const CLOSE: &str = "<|tool_call_end|>";

/// Id and arguments between tokens.
pub(super) struct KimiK2;

impl CallSyntax for KimiK2 {
    fn name(&self) -> &'static str {
        "kimi_k2"
    }

    fn fits(&self, template: &str) -> bool {
        template.contains(OPEN)
    }

    fn markers(&self) -> &'static [&'static str] {
        &[SECTION, SECTION_END, OPEN, ARGUMENTS, CLOSE]
    }

    fn reader(&self, _: &[Tool], token: TokenOf<'_>, sure: bool) -> Box<dyn CallReader> {
        Waiting::reader(self.markers(), token, sure, move |input| async move {
            // A grammar leaves text before the section free.
            let mut openings = if sure { vec![SECTION] } else { vec![SECTION, OPEN] };
            while let Some(open) = input.text_until(&openings).await {
                openings = vec![SECTION, OPEN];
                let calls = read(&input, open).await;
                input.settle(calls);
            }
        })
    }

    fn grammar(&self, tools: &[Tool], wanted: Wanted, token: TokenOf<'_>) -> String {
        let mut lark = Lark::new(token);
        let mut calls = Vec::new();
        for (place, tool) in tools.iter().enumerate() {
            lark.json(&format!("args_{place}"), &arguments(tool));
            let head = quoted(&format!("functions.{}:", tool.name));
            calls.push(format!("{head} /[0-9]{{1,4}}/ {} args_{place}", lark.mark(ARGUMENTS)));
        }
        lark.rule("named", &calls.join(" | "));
        lark.section([SECTION, OPEN, CLOSE, SECTION_END], "named", "", wanted)
    }
}

async fn read(input: &Input, open: &str) -> Read<()> {
    if open == SECTION {
        input.space().await;
        input.literal(OPEN).await?;
    }
    let (id, _) = input.name(&[ARGUMENTS]).await?;
    let (path, _) = id.rsplit_once(':').unwrap_or((&id, ""));
    let name = path.strip_prefix("functions.").unwrap_or(path).to_string();
    if name.is_empty() {
        return Err(Broken);
    }
    input.space().await;
    input.call(name, Some(id));
    if input.maybe(CLOSE).await {
        input.arguments("{}");
    } else {
        input.json_arguments().await?;
        input.close(CLOSE).await?;
    }
    input.maybe_close(SECTION_END).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::trial::{check, check_grammar_twice};

    /// The tokens' names are a nuisance to type.
    fn spelled(text: &str) -> String {
        let mut text = text.to_string();
        for (short, marker) in [("S", SECTION), ("E", SECTION_END), ("O", OPEN), ("A", ARGUMENTS), ("C", CLOSE)] {
            text = text.replace(&format!("«{short}»"), &format!("«{marker}»"));
        }
        text
    }

    #[test]
    fn reads_calls() {
        for (answer, seen) in [
            ("Hi. «S»«O»functions.f:0«A»{\"a\": 1}«C»«E»", "Hi.|f#functions.f:0{\"a\": 1}"),
            (
                "«S» «O» functions.f:0 «A» {} «C» «O»functions.g.h:1«A»{}«C» «E»",
                "f#functions.f:0{}|g.h#functions.g.h:1{}",
            ),
            ("«O»f:3«A»{}«C»", "f#f:3{}"),
            ("«S»«O»f«A»{}«C»«E»", "f#f{}"),
            ("«S»«O»functions.f:0«A»«C»«O»functions.g:1«A» «C»«E»", "f#functions.f:0{}|g#functions.g:1{}"),
            ("«S»«O»functions.f:0«A»", "«S»«O»functions.f:0«A»"),
            ("«S»«O»functions.f:0«A»{}«C»«O»functions.g:1«A»{", "f#functions.f:0{}|«O»functions.g:1«A»{"),
            ("«S»«O»functions.:0«A»{}«C»«E»", "«S»«O»functions.:0«A»{}«C»«E»"),
            ("«S»«O»functions.f:0«A»1«C»«E»", "«S»«O»functions.f:0«A»1«C»«E»"),
        ] {
            check(&KimiK2, &spelled(answer), &spelled(seen).replace(['«', '»'], ""));
        }
    }

    #[test]
    fn grammar() {
        check_grammar_twice(
            &KimiK2,
            &[&spelled("«S»«O»functions.ping:0«A»{}«C»«O»functions.get_weather:1«A»{\"city\": \"x\"}«C»«E»")],
            &[
                &spelled("«S»«O»functions.pong:0«A»{}«C»«E»"),
                &spelled("«S»«O»functions.ping:«A»{}«C»«E»"),
                &spelled("«S»«O»functions.get_weather:1«A»{\"city\": 1}«C»«E»"),
            ],
        );
    }
}
