//! Conversations through a chat template, for checks against transformers and TRL (`xtask/checks/template_check.py`).
//!
//! Each line of the standard input is `{"template": …, "tokens": {"bos_token": …}, "conversation": …}`; each line of
//! the output is `{"text": …, "prompted": …, "documents": [[text, [what is trained, …]], …]}` or `{"error": …}`. With
//! `"input": {"prompt": …, "others": {…}}` it is `{"text": …}` alone.

use narthex_base::{Conversation, Error, Result};
use narthex_text::{ChatInput, ChatTemplate, Tokenizer};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    io::{BufRead, Write},
    sync::Arc,
};

/// 2024-07-26, in seconds since 1970: what `strftime_now` tells.
const NOW: u64 = 1_722_000_000;

#[derive(Deserialize)]
struct Question {
    template: String,
    tokens: BTreeMap<String, String>,
    conversation: Conversation,
    input: Option<Asked>,
}

#[derive(Deserialize)]
struct Asked {
    prompt: bool,
    others: Map<String, Value>,
}

fn rendered(template: &ChatTemplate, conversation: &Conversation, asked: &Asked) -> Result<String> {
    let mut others = asked.others.clone();
    let unfinished = others.remove("unfinished").is_some();
    let Conversation { messages, tools } = conversation;
    let (add_generation_prompt, others) = (asked.prompt, Some(&others));
    let input = ChatInput { messages, tools, add_generation_prompt, others, ..ChatInput::default() };
    if unfinished { template.render_unfinished(&input) } else { template.render_input(&input) }
}

fn answer(bytes: &Tokenizer, line: &str) -> Result<Value> {
    let asked: Question = serde_json::from_str(line).map_err(|error| Error::input("not a question").cause(error))?;
    let template = ChatTemplate::with_clock(&asked.template, asked.tokens, Arc::new(|| NOW))?;
    if let Some(input) = &asked.input {
        return Ok(json!({"text": rendered(&template, &asked.conversation, input)?}));
    }
    let Conversation { messages, tools } = &asked.conversation;
    let render = |prompt: bool| template.render_with_tools(messages, tools, prompt);
    let mut documents = Vec::new();
    for (ids, mask) in template.encode_chat(bytes, &asked.conversation)? {
        let mut pieces: Vec<Vec<u32>> = Vec::new();
        for (at, id) in ids.iter().enumerate().filter(|(at, _)| mask[*at]) {
            if at == 0 || !mask[at - 1] {
                pieces.push(vec![]);
            }
            pieces.last_mut().expect("one was pushed").push(*id);
        }
        let pieces = pieces.iter().map(|piece| bytes.decode(piece, false)).collect::<Result<Vec<_>>>()?;
        documents.push(json!([bytes.decode(&ids, false)?, pieces]));
    }
    Ok(json!({"text": render(false)?, "prompted": render(true)?, "documents": documents}))
}

fn main() -> Result<()> {
    // Every byte is a token, so that borders are seen to the letter.
    let bytes = Tokenizer::train_bpe(std::iter::empty(), 256, &[])?;
    let mut out = std::io::stdout().lock();
    let fail = |error| Error::io("cannot write", "stdout", error);
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| Error::io("cannot read", "stdin", error))?;
        let reply = answer(&bytes, &line)
            .unwrap_or_else(|error| json!({"error": format!("{}: {}", error.what(), error.causes().join(": "))}));
        writeln!(out, "{reply}").and_then(|()| out.flush()).map_err(fail)?;
    }
    Ok(())
}
