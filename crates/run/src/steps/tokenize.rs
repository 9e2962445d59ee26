//! `tokenize`: documents, conversations or pairs of answers -> a tokenizer and token shards.

use super::{Made, StepContext};
use narthex_base::{
    Answers, ArtifactKind, ComponentKind, Conversation, Error, Message, Pair, Result, Role, config::TokenizeStep,
};
use narthex_data::{count_rows, read_chats, read_pairs, read_texts};
use narthex_model::ModelConfig;
use narthex_text::{
    CHATML, ChatTemplate, GenerationConfig, ShardWriter, TokenShard, Tokenizer, TokenizerConfig, encode_pair,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

/// Ends a text.
const END_OF_TEXT: &str = "<|endoftext|>";
/// Begins and ends a turn of a conversation.
const TURN: [&str; 2] = ["<|im_start|>", "<|im_end|>"];

/// Documents encoded at a time.
const CHUNK: usize = 256;

pub(super) fn make(context: &StepContext, step: &TokenizeStep) -> Result<Made> {
    let (input, data) = context.input("from")?;
    let kind = data.manifest.kind;
    let tokenizer = match step.vocab_size {
        Some(size) => train(context, data, kind, size as usize)?,
        None => {
            let (input, artifact) = context.input("tokenizer")?;
            Tokenizer::read(&context.model_folder(input, artifact)?)?
        }
    };
    let config = tokenizer_config(context, step, &tokenizer)?;
    context.write("tokenizer.json", tokenizer.to_json()?)?;
    context.write("tokenizer_config.json", config.to_json())?;
    let mut figures = BTreeMap::from([("vocabulary".to_string(), tokenizer.vocab_size() as f64)]);
    for part in ["train", "validation"] {
        let parquet = data.path(&format!("{part}.parquet"));
        if !parquet.is_file() {
            continue;
        }
        let path = context.files.join(format!("{part}.tokens"));
        let size = tokenizer.vocab_size();
        match kind {
            ArtifactKind::Chat => {
                let template = ChatTemplate::from_config(&config)?.ok_or_else(|| {
                    Error::input(format!("the tokenizer of step `{}` has no chat template", context.planned.name))
                        .help("take the tokenizer of a model that has one, or train one with `vocab_size`")
                })?;
                let mut writer = ShardWriter::create(&path, size, true)?;
                let seen = write_chats(context, &parquet, &tokenizer, &template, &mut writer)?;
                writer.finish()?;
                seen.warn(context, part);
                figures.insert(format!("{part}_conversations"), seen.conversations as f64);
                figures.insert(format!("{part}_answers"), seen.answers as f64);
                figures.insert(format!("{part}_trained_answers"), seen.trained as f64);
            }
            ArtifactKind::Pairs => {
                let template = ChatTemplate::from_config(&config)?;
                let end = end_of(context, step, &tokenizer, &config)?;
                let mut writer = ShardWriter::create_pairs(&path, size)?;
                write_pairs(context, &parquet, &tokenizer, template.as_ref(), end, &mut writer)?;
                writer.finish()?;
            }
            _ => {
                let mut writer = ShardWriter::create(&path, size, false)?;
                let end = end_of(context, step, &tokenizer, &config)?;
                write_texts(context, &parquet, &tokenizer, end, &mut writer)?;
                writer.finish()?;
            }
        }
        let shard = TokenShard::open(&path)?;
        figures.insert(format!("{part}_tokens"), shard.len() as f64);
        figures.insert(format!("{part}_documents"), shard.documents() as f64);
        if shard.has_mask() {
            let trained = (0..shard.len()).filter(|position| shard.mask(*position)).count();
            figures.insert(format!("{part}_trained_tokens"), trained as f64);
        } else if !shard.is_empty() {
            figures.insert(format!("{part}_bytes_per_token"), shard.text_bytes() as f64 / shard.len() as f64);
        }
    }
    if figures.get("train_tokens").copied().unwrap_or(0.0) == 0.0 {
        return Err(Error::input(format!("`{}` has no training part to tokenize", input.name))
            .help("lower `validation` in its step"));
    }
    let own = context.own("tokenizer", ComponentKind::ModelMetadata, &["tokenizer.json", "tokenizer_config.json"]);
    let taken = context.inputs_as("tokenizer").next();
    let mut components = vec![match taken {
        Some(taken) => context.of_input(taken, "tokenizer.json", own),
        None => own,
    }];
    // Token shards are the text in another form.
    let shards: Vec<String> =
        super::paths_below(context.files)?.into_iter().filter(|path| path.ends_with(".tokens")).collect();
    for component in data.manifest.components.iter().filter(|component| !component.paths.is_empty()) {
        components.push(narthex_base::Component { paths: shards.clone(), ..component.clone() });
    }
    Ok(Made::new(ArtifactKind::Tokens, components, figures))
}

/// Trains a tokenizer. The library's trainer cannot be stopped: it works on a thread of its own, which an interrupted
/// run leaves behind.
fn train(context: &StepContext, data: &narthex_ledger::Artifact, kind: ArtifactKind, size: usize) -> Result<Tokenizer> {
    const LOOK: Duration = Duration::from_millis(100);
    let path = data.path("train.parquet");
    let total = count_rows(&path)?;
    let read = Arc::new(AtomicU64::new(0));
    let (sender, receiver) = mpsc::channel();
    let counter = read.clone();
    std::thread::spawn(move || _ = sender.send(trained(&path, kind, size, &counter)));
    loop {
        match receiver.recv_timeout(LOOK) {
            Ok(tokenizer) => return tokenizer,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(Error::internal("training the tokenizer failed")),
        }
        context.observer.check()?;
        let read = read.load(Ordering::Relaxed);
        // The pairs are counted once all is read, which takes longest.
        let doing = if read < total { "reading for the vocabulary" } else { "making the vocabulary" };
        context.observer.progress(read, total, "documents", doing);
    }
}

fn trained(path: &Path, kind: ArtifactKind, size: usize, read: &AtomicU64) -> Result<Tokenizer> {
    let mut problem = None;
    let mut keep = |result: Result<String>| match result {
        Ok(text) => {
            read.fetch_add(1, Ordering::Relaxed);
            Some(text)
        }
        Err(error) => {
            problem = Some(error);
            None
        }
    };
    let special: Vec<&str> = [END_OF_TEXT].into_iter().chain(TURN).collect();
    let joined = |chat: &[Message]| chat.iter().map(Message::text).collect::<Vec<_>>().join("\n");
    let tokenizer = match kind {
        ArtifactKind::Chat => {
            let texts = read_chats(path)?.map(|chat| chat.map(|chat| joined(&chat.messages)));
            Tokenizer::train_bpe(texts.map_while(&mut keep), size, &special)?
        }
        ArtifactKind::Pairs => {
            let texts = |pair: Pair| match pair {
                Pair::Text(Answers { prompt, chosen, rejected }) => [prompt, chosen, rejected],
                Pair::Chat(Answers { prompt, chosen, rejected }) => {
                    [prompt, chosen, rejected].map(|chat| joined(&chat))
                }
            };
            let texts = read_pairs(path)?.map(|pair| pair.map(texts)).collect::<Result<Vec<[String; 3]>>>()?;
            Tokenizer::train_bpe(texts.into_iter().flatten(), size, &special)?
        }
        _ => Tokenizer::train_bpe(read_texts(path)?.map_while(&mut keep), size, &special)?,
    };
    problem.map_or(Ok(tokenizer), Err)
}

fn tokenizer_config(context: &StepContext, step: &TokenizeStep, tokenizer: &Tokenizer) -> Result<TokenizerConfig> {
    if step.tokenizer.is_some() {
        let (input, artifact) = context.input("tokenizer")?;
        return TokenizerConfig::read(&context.model_folder(input, artifact)?);
    }
    let mut config = TokenizerConfig {
        eos_token: Some(END_OF_TEXT.into()),
        chat_template: Some(CHATML.into()),
        ..TokenizerConfig::default()
    };
    config.other.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
    config.other.insert("clean_up_tokenization_spaces".into(), false.into());
    config.other.insert("additional_special_tokens".into(), serde_json::json!(TURN));
    debug_assert!(tokenizer.token_id(END_OF_TEXT).is_some());
    Ok(config)
}

/// The token that ends a text: the tokenizer's, or what the model's own configuration names.
fn end_of(
    context: &StepContext,
    step: &TokenizeStep,
    tokenizer: &Tokenizer,
    config: &TokenizerConfig,
) -> Result<Option<u32>> {
    let own = config.eos_token.as_deref().and_then(|token| tokenizer.token_id(token));
    if own.is_some() || step.tokenizer.is_none() {
        return Ok(own);
    }
    let (input, artifact) = context.input("tokenizer")?;
    let folder = context.model_folder(input, artifact)?;
    let generation = GenerationConfig::read(&folder)?;
    let of_model =
        || ModelConfig::read(&folder.join("config.json")).ok().and_then(|config| config.eos_tokens.first().copied());
    let end = generation.eos_token_id.first().copied().or_else(of_model);
    let end = end.filter(|id| (*id as usize) < tokenizer.vocab_size());
    if end.is_none() {
        context.observer.warn(format!(
            "the tokenizer of `{}` names no token that ends a text: nothing stands between documents, and a model that \
             learns from them will not know when to stop; name an `eos_token` in its tokenizer_config.json",
            input.name
        ));
    }
    Ok(end)
}

fn write_pairs(
    context: &StepContext,
    parquet: &Path,
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
    end: Option<u32>,
    writer: &mut ShardWriter,
) -> Result<()> {
    let total = count_rows(parquet)?;
    for (done, pair) in read_pairs(parquet)?.enumerate() {
        if done % CHUNK == 0 {
            context.observer.check()?;
            context.observer.progress(done as u64, total, "pairs", "");
        }
        let answers = encode_pair(tokenizer, template, end, &pair?)?;
        if let Some(empty) = answers.iter().position(|(_, mask)| !mask.contains(&true)) {
            let which = ["chosen", "rejected"][empty];
            return Err(Error::input(format!("nothing of the {which} answer of pair {} would be trained", done + 1))
                .cause("the chat template writes no assistant's part for it")
                .help("an answer's messages must be the assistant's"));
        }
        for (ids, mask) in answers {
            let own: Vec<u32> = ids.iter().zip(&mask).filter(|(_, own)| **own).map(|(id, _)| *id).collect();
            writer.push(&ids, Some(&mask), tokenizer.decode(&own, true)?.len() as u64)?;
        }
    }
    Ok(())
}

fn write_texts(
    context: &StepContext,
    parquet: &Path,
    tokenizer: &Tokenizer,
    end: Option<u32>,
    writer: &mut ShardWriter,
) -> Result<()> {
    let mut texts = read_texts(parquet)?;
    let (total, prefix) = (count_rows(parquet)?, tokenizer.prefix()?);
    let mut done = 0;
    loop {
        context.observer.check()?;
        let chunk = texts.by_ref().take(CHUNK).collect::<Result<Vec<String>>>()?;
        if chunk.is_empty() {
            return Ok(());
        }
        for (text, ids) in chunk.iter().zip(tokenizer.encode_batch(&chunk, false)?) {
            // As generation and transformers begin a text.
            let ids: Vec<u32> = prefix.iter().copied().chain(ids).chain(end).collect();
            writer.push(&ids, None, text.len() as u64)?;
        }
        done += chunk.len() as u64;
        context.observer.progress(done, total, "documents", "");
    }
}

/// What a conversation says beside its texts and the template does not write.
fn unwritten(template: &ChatTemplate, chat: &Conversation) -> Result<Vec<String>> {
    let mut keys: BTreeSet<&str> =
        chat.messages.iter().flat_map(|message| message.others.keys()).map(String::as_str).collect();
    keys.extend(chat.messages.iter().filter(|message| !message.tool_calls.is_empty()).map(|_| "tool_calls"));
    keys.extend(chat.messages.iter().filter(|m| m.name.is_some() && m.role != Role::Tool).map(|_| "name"));
    keys.extend((!chat.tools.is_empty()).then_some("tools"));
    if keys.is_empty() {
        return Ok(vec![]);
    }
    let render = |chat: &Conversation| template.render_with_tools(&chat.messages, &chat.tools, false);
    let whole = render(chat)?;
    let is_unwritten = |key: &&str| {
        let mut without = chat.clone();
        if *key == "tools" {
            without.tools.clear();
        }
        for message in &mut without.messages {
            match *key {
                "tool_calls" => message.tool_calls.clear(),
                "name" => message.name = None,
                other => _ = message.others.shift_remove(other),
            }
        }
        // A template that fails without a key makes something of it.
        render(&without).is_ok_and(|text| text == whole)
    };
    Ok(keys.into_iter().filter(is_unwritten).map(str::to_string).collect())
}

/// What was seen in conversations.
#[derive(Default)]
struct Seen {
    conversations: usize,
    /// Messages of the assistant.
    answers: usize,
    /// Those of them that are learnt.
    trained: usize,
    /// Documents that teach something.
    taught: usize,
    /// Those of them that end with a token beside the vocabulary.
    ended: usize,
    /// What messages say that the template does not write: the key, and in how many conversations.
    unwritten: BTreeMap<String, usize>,
}

impl Seen {
    fn warn(&self, context: &StepContext, part: &str) {
        for (key, count) in &self.unwritten {
            context.observer.warn(format!(
                "the chat template does not write `{key}`, which {count} of {} conversations of the {part} part have: it is \
                 not learnt; take the tokenizer of a model whose template does",
                self.conversations
            ));
        }
        if self.taught > 0 && self.ended == 0 {
            context.observer.warn(format!(
                "no answer of the {part} part ends with a token of its own: the chat template does not close the last \
                 turn, so a model that is tuned on them will not learn when to stop"
            ));
        }
    }
}

fn write_chats(
    context: &StepContext,
    parquet: &Path,
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    writer: &mut ShardWriter,
) -> Result<Seen> {
    let total = count_rows(parquet)?;
    let mut seen = Seen::default();
    for (done, chat) in read_chats(parquet)?.enumerate() {
        if done % CHUNK == 0 {
            context.observer.check()?;
            context.observer.progress(done as u64, total, "conversations", "");
        }
        let chat = chat?;
        let documents = template
            .encode_chat(tokenizer, &chat)
            .map_err(|error| error.context(format!("conversation {} cannot be rendered", done + 1)))?;
        let answers = || chat.messages.iter().filter(|message| message.role == Role::Assistant);
        // Where texts alone are learnt their bytes are known; else they are those of the tokens.
        let plain = documents.len() == 1
            && answers().all(|answer| answer.train && answer.tool_calls.is_empty() && answer.others.is_empty());
        seen.conversations += 1;
        for key in unwritten(template, &chat)? {
            *seen.unwritten.entry(key).or_default() += 1;
        }
        seen.answers += answers().count();
        seen.trained += answers().filter(|answer| answer.train).count();
        for (ids, mask) in documents {
            let own: Vec<u32> = ids.iter().zip(&mask).filter(|(_, own)| **own).map(|(id, _)| *id).collect();
            seen.taught += usize::from(!own.is_empty());
            seen.ended += usize::from(own.last().is_some_and(|id| tokenizer.is_added(*id)));
            let bytes = match plain {
                true => answers().map(|message| message.text().len() as u64).sum(),
                false => tokenizer.decode(&own, true)?.len() as u64,
            };
            writer.push(&ids, Some(&mask), bytes)?;
        }
    }
    Ok(seen)
}
