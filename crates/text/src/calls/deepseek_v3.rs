//! DeepSeek V3.1: `<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>N<｜tool▁sep｜>{…}<｜tool▁call▁end｜>…<｜tool▁calls▁end｜>`.
//! V3 and R1 write `function<｜tool▁sep｜>N` instead of the name, then the arguments in a code fence. The reader takes
//! both.

use super::{
    CallReader, CallSyntax, TokenOf, Tool, Wanted,
    input::{Input, Read, Symbol, Waiting},
    lark::{Lark, arguments, quoted},
};

const SECTION: &str = "<｜tool▁calls▁begin｜>";
const SECTION_END: &str = "<｜tool▁calls▁end｜>";
const OPEN: &str = "<｜tool▁call▁begin｜>";
const SEPARATOR: &str = "<｜tool▁sep｜>";
const CLOSE: &str = "<｜tool▁call▁end｜>";

/// Name and arguments between tokens.
pub(super) struct DeepseekV3 {
    /// The arguments stand in a code fence.
    fenced: bool,
}

pub(super) static V3: DeepseekV3 = DeepseekV3 { fenced: true };

pub(super) static V31: DeepseekV3 = DeepseekV3 { fenced: false };

impl CallSyntax for DeepseekV3 {
    fn name(&self) -> &'static str {
        if self.fenced { "deepseek_v3" } else { "deepseek_v31" }
    }

    fn fits(&self, template: &str) -> bool {
        template.contains(OPEN) && template.contains("```json") == self.fenced
    }

    fn markers(&self) -> &'static [&'static str] {
        &[SECTION, SECTION_END, OPEN, SEPARATOR, CLOSE]
    }

    fn reader(&self, _: &[Tool], token: TokenOf<'_>, sure: bool) -> Box<dyn CallReader> {
        let fenced = self.fenced;
        Waiting::reader(self.markers(), token, sure, move |input| async move {
            // A grammar leaves text before the section free.
            let mut openings = if sure { vec![SECTION] } else { vec![SECTION, OPEN] };
            while let Some(open) = input.text_until(&openings).await {
                openings = vec![SECTION, OPEN];
                let calls = read(&input, open, fenced).await;
                input.settle(calls);
            }
        })
    }

    fn grammar(&self, tools: &[Tool], wanted: Wanted, token: TokenOf<'_>) -> String {
        let mut lark = Lark::new(token);
        let mut calls = Vec::new();
        for (place, tool) in tools.iter().enumerate() {
            lark.json(&format!("args_{place}"), &arguments(tool));
            let separator = lark.mark(SEPARATOR);
            calls.push(if self.fenced {
                let head = quoted(&format!("{}\n```json\n", tool.name));
                format!("\"function\" {separator} {head} args_{place} \"\\n```\"")
            } else {
                format!("{} {separator} args_{place}", quoted(&tool.name))
            });
        }
        lark.rule("named", &calls.join(" | "));
        let again = if self.fenced { "\n" } else { "" };
        lark.section([SECTION, OPEN, CLOSE, SECTION_END], "named", again, wanted)
    }
}

async fn read(input: &Input, open: &str, fenced: bool) -> Read<()> {
    if open == SECTION {
        input.space().await;
        input.literal(OPEN).await?;
    }
    let (name, _) = input.name(&[SEPARATOR]).await?;
    input.space().await;
    if input.peek().await == Some(Symbol::Char('{')) {
        input.call(name, None);
        input.json_arguments().await?;
    } else if !fenced && input.maybe(CLOSE).await {
        input.call(name, None);
        input.arguments("{}");
        input.maybe_close(SECTION_END).await;
        return Ok(());
    } else {
        let (name, _) = input.name(&["\n"]).await?;
        input.literal("```json").await?;
        input.space().await;
        input.call(name, None);
        input.json_arguments().await?;
        input.space().await;
        input.literal("```").await?;
    }
    input.close(CLOSE).await?;
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
        for (short, marker) in [("S", SECTION), ("E", SECTION_END), ("O", OPEN), ("P", SEPARATOR), ("C", CLOSE)] {
            text = text.replace(&format!("«{short}»"), &format!("«{marker}»"));
        }
        text
    }

    #[test]
    fn reads_calls() {
        for (answer, seen) in [
            ("Hi.«S»«O»f«P»{\"a\": 1}«C»«E»", "Hi.|f{\"a\": 1}"),
            ("«S»«O»f«P»{}«C»\n«O»g«P»{\"b\":\"}\"}«C»«E» \n", "f{}|g{\"b\":\"}\"}"),
            ("«O»f«P»{}«C» more", "f{}| more"),
            ("«S»«O»f«P»«C»\n«O»g«P» «C»«E»", "f{}|g{}"),
            ("«S»«O»f«P»", "«S»«O»f«P»"),
            ("«S»«O»f«P»{}«C»«O»g«P»{\"b\"", "f{}|«O»g«P»{\"b\""),
            (
                "«S»«O»function«P»f\n```json\n{\"a\": \"```\"}\n```«C»\n«O»function«P»g\n```json\n{}\n```«C»«E»",
                "f{\"a\": \"```\"}|g{}",
            ),
            ("«S»«O»function«P»f\n```\n{}\n```«C»«E»", "«S»«O»function«P»f\n```\n{}\n```«C»«E»"),
            ("«S»f«P»{}«E»", "«S»f«P»{}«E»"),
            ("«S»«O»f«P»{x}«C»«E»", "«S»«O»f«P»{x}«C»«E»"),
            ("«S»«E»", "«S»«E»"),
            ("«S»«O»f«C»", "«S»«O»f«C»"),
        ] {
            check(&V31, &spelled(answer), &spelled(seen).replace(['«', '»'], ""));
        }
    }

    #[test]
    fn grammar() {
        check_grammar_twice(
            &V3,
            &[
                &spelled("«S»«O»function«P»get_weather\n```json\n{\"city\": \"x\"}\n```«C»«E»"),
                &spelled("«S»«O»function«P»ping\n```json\n{}\n```«C»\n«O»function«P»ping\n```json\n{}\n```«C»«E»"),
            ],
            &[&spelled("«S»«O»function«P»pong\n```json\n{}\n```«C»«E»"), &spelled("«S»«O»ping«P»{}«C»«E»")],
        );
        check_grammar_twice(
            &V31,
            &[
                &spelled("«S»«O»ping«P»{}«C»«O»get_weather«P»{\"city\": \"x\"}«C»«E»"),
                &spelled("«S»«O»ping«P»{}«C»«E»"),
            ],
            &[
                &spelled("«S»«O»pong«P»{}«C»«E»"),
                &spelled("«S»«E»"),
                &spelled("«S»«O»get_weather«P»{\"city\": 1}«C»«E»"),
            ],
        );
    }
}
