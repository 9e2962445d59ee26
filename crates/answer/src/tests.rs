//! Texts through models that answer by a script.

use crate::{
    constraint::Constraints,
    defaults::{SamplingDefaults, SamplingWish},
    error::AnswerError,
    generation::{Ended, Generation, Life, Piece, Reading, Watcher},
    model::TextModel,
    tasks::{TaskItem, score_task},
};
use narthex_base::{Message, Observer, Role};
use narthex_infer::{
    FinishReason, Output, Request, SubmitError,
    scripted::{Scripted, say},
};
use narthex_text::{CHATML, ChatTemplate, Tokenizer};
use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// One token per byte, and three special tokens before them.
fn tokenizer() -> Tokenizer {
    let special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
    Tokenizer::train_bpe(std::iter::empty(), 256 + special.len(), &special).unwrap()
}

/// A model with a context of 100 tokens that answers by a script.
fn scripted(script: impl Fn(&Request) -> Vec<Output> + Send + Sync + 'static) -> TextModel {
    TextModel {
        tokenizer: tokenizer(),
        template: Some(ChatTemplate::new(CHATML, None, None).unwrap()),
        engine: Arc::new(Scripted::new(script).with_context(100)),
        stop_tokens: vec![2],
        defaults: SamplingDefaults::default(),
        constraints: Arc::new(Constraints::new(&tokenizer())),
    }
}

/// One that always says this.
fn saying(text: &str) -> TextModel {
    let tokens = tokenizer().encode(text, false).unwrap();
    scripted(move |request| say(request, &tokens))
}

fn request(model: &TextModel, prompt: &str, tokens_max: usize) -> Request {
    let prompt = model.tokenizer.encode(prompt, false).unwrap();
    model.request(prompt, tokens_max, model.defaults.sampling(&SamplingWish::default()))
}

#[test]
fn text_comes_in_pieces_and_is_counted() {
    for (said, tokens_max, pieces, tokens, reason) in [
        ("né", 50, vec!["n", "é", ""], 3, FinishReason::Stop),
        ("né", 2, vec!["n", "\u{fffd}", ""], 2, FinishReason::Length),
        ("", 50, vec![""], 0, FinishReason::Stop),
    ] {
        let (model, mut shown) = (saying(said), vec![]);
        let told = model.tell(request(&model, "x", tokens_max), |text| {
            shown.push(text.to_string());
            ControlFlow::Continue(())
        });
        let told = told.unwrap();
        assert_eq!((told.tokens, told.reason), (tokens, reason), "{said:?}");
        assert_eq!(shown, pieces, "{said:?}");
        assert_eq!(told.text, pieces.concat());
        assert!(told.first_token_seconds <= told.seconds);
    }
    let model = saying("abc");
    let cut = model.tell(request(&model, "x", 50), |_| ControlFlow::Break(())).unwrap();
    assert_eq!((cut.text.as_str(), cut.reason), ("a", FinishReason::Length), "nobody wants more");
    let go_on = |_: &str| ControlFlow::Continue(());
    let refused = model.tell(request(&model, "", 5), go_on).unwrap_err();
    assert!(matches!(refused, AnswerError::NotTaken(SubmitError::EmptyPrompt)), "{refused}");
    let failing = scripted(|_| vec![Output::Failed("out of memory".into())]);
    let failed = failing.tell(request(&failing, "x", 5), go_on).unwrap_err();
    assert_eq!(failed.to_string(), "the engine failed: out of memory");
    let silent = scripted(|_| vec![]);
    assert!(matches!(silent.tell(request(&silent, "x", 5), go_on), Err(AnswerError::Stopped)));
}

/// Writes down what it is told.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn add(&self, note: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(note);
    }
}

impl Watcher for Notes {
    fn first_token(&mut self, _: Duration) {
        self.add("first".into());
    }

    fn next_token(&mut self, _: Duration) {
        self.add("next".into());
    }

    fn ended(&mut self, ended: Ended, life: &Life) {
        self.add(format!("{ended:?} after {}", life.generation_tokens));
    }
}

#[tokio::test]
async fn whoever_waits_and_whoever_does_not_read_the_same() {
    let model = saying("one two three");
    let requests = || vec![request(&model, "x", 50), request(&model, "y", 5)];
    let stop = Reading { stop: vec!["two".to_string()], ..Reading::default() };
    let notes = Notes::default();
    let mut generation = Generation::start(&model, requests(), &stop, notes.clone()).unwrap();
    let wholes = generation.wholes().await.unwrap();
    let found: Vec<_> = wholes.iter().map(|whole| (whole.text.as_str(), whole.ending.reason)).collect();
    assert_eq!(found, [("one ", FinishReason::Stop), ("one t", FinishReason::Length)]);
    assert_eq!(generation.completion_tokens(), 7 + 5);
    let (of, waited) = (model.clone(), requests());
    let pieces = tokio::task::spawn_blocking(move || {
        let mut generation =
            Generation::start(&of, waited, &Reading { stop: vec!["two".to_string()], ..Reading::default() }, ())
                .unwrap();
        let mut texts = vec![String::new(); 2];
        while let Some((index, piece)) = generation.next_blocking().unwrap() {
            if let Piece::Text(text, ..) = piece {
                texts[index] += &text;
            }
        }
        texts
    });
    assert_eq!(pieces.await.unwrap(), ["one ", "one t"]);
    let mut notes = notes.0.lock().unwrap().clone();
    notes.sort();
    notes.dedup();
    assert_eq!(notes, ["Length after 5", "Stop after 7", "first", "next"]);
    // Nobody reads it: what has not ended is told as given up.
    let dropped = Notes::default();
    drop(Generation::start(&model, requests(), &Reading::default(), dropped.clone()).unwrap());
    assert_eq!(*dropped.0.lock().unwrap(), ["Abort after 0", "Abort after 0"]);
}

#[test]
fn a_conversation_that_fills_the_context_is_refused_or_shortened() {
    let model = saying("x");
    // A message of CHATML takes 3 special tokens' and its own bytes: 14 + 11 for `user`, the answer's head 12.
    let message = |role, text: &str| Message::new(role, text);
    let long = |count| message(Role::User, &"a".repeat(count));
    let tokens = |messages: &[Message]| {
        let text = model.render(messages, true).unwrap();
        model.tokenizer.encode(&text, false).unwrap().len()
    };
    let most = 100 - tokens(&[long(0)]);
    assert_eq!(model.chat_prompt(&[long(most - 1)]).unwrap().len(), 99);
    for count in [most, most + 5] {
        match model.chat_prompt(&[long(count)]) {
            Err(AnswerError::Full { tokens, context }) => assert_eq!((tokens, context), (100 + count - most, 100)),
            other => panic!("{other:?}"),
        }
    }
    let opening = message(Role::System, "be");
    let conversation =
        [opening, long(20), message(Role::Assistant, "b"), long(10), message(Role::Assistant, "c"), long(3)];
    for (count, room, kept, forgotten) in [(6, 0, 4, 2), (6, 40, 2, 4), (6, 99, 2, 4), (2, 0, 2, 0)] {
        let mut messages = conversation[..count].to_vec();
        let (ids, gone) = model.shortened_chat_prompt(&mut messages, 1, room).unwrap();
        assert_eq!((messages.len(), gone), (kept, forgotten), "{count} messages, room for {room}");
        assert_eq!((messages[0].role, ids.len()), (Role::System, tokens(&messages)));
        assert_eq!(messages.last(), conversation[..count].last(), "the last is kept");
    }
    let mut alone = vec![long(most + 1)];
    assert!(matches!(model.shortened_chat_prompt(&mut alone, 0, 5), Err(AnswerError::Full { .. })));
    let bare = TextModel { template: None, ..saying("x") };
    assert!(matches!(bare.chat_prompt(&[long(1)]), Err(AnswerError::NoTemplate)));
}

#[test]
fn tasks_are_scored() {
    let exact = |answer: &str| TaskItem::Exact { prompt: "p".into(), answer: answer.into() };
    // The script gives every token of a prompt the same score, so that the first choice is the best.
    let choice = |answer| TaskItem::Choice { prompt: "p".into(), choices: vec!["ab".into(), "cd".into()], answer };
    let long = TaskItem::Exact { prompt: "p".repeat(100), answer: "yes".into() };
    let items = [exact("yes"), exact(" yes\n"), exact("no"), choice(0), choice(1), long];
    let score = score_task(&saying("yes"), &items, 10, Observer::silent()).unwrap();
    let figures = score.figures();
    let shown = |name: &str| figures.get(name).copied();
    assert_eq!((shown("exact_match"), shown("exact_match_rows")), (Some(2.0 / 3.0), Some(3.0)));
    assert_eq!((shown("acc"), shown("choice_rows"), shown("skipped_rows")), (Some(0.5), Some(2.0), Some(1.0)));
    // The standard deviation of (1, 1, 0) is the root of 1/3, that of (1, 0) the root of 1/2.
    assert!((figures["exact_match_stderr"] - (1.0f64 / 3.0 / 3.0).sqrt()).abs() < 1e-12);
    assert!((figures["acc_stderr"] - 0.5).abs() < 1e-12);

    // Three tokens of three letters, and two of one letter: the sum, and the shares of letters and of bytes, differ.
    let unlike = |answer| TaskItem::Choice { prompt: "p".into(), choices: vec!["abc".into(), "ü".into()], answer };
    let figures = score_task(&saying("yes"), &[unlike(1)], 10, Observer::silent()).unwrap().figures();
    assert_eq!((figures["acc"], figures["acc_norm"], figures["acc_bytes"]), (1.0, 0.0, 0.0));
    assert_eq!(figures.get("acc_stderr"), None, "of one row there is none");

    // A space at the prompt's end belongs to the choice; an empty prompt is an end of text where there is no BOS.
    for prompt in ["p ", ""] {
        let item = TaskItem::Choice { prompt: prompt.into(), choices: vec!["a".into(), "bcd".into()], answer: 0 };
        let figures = score_task(&saying("yes"), &[item], 10, Observer::silent()).unwrap().figures();
        assert_eq!(figures["acc"], 1.0, "{prompt:?}");
    }
}

/// A model whose next token depends on the last one: after `a` likely `b`, but then nothing likely; `c` less likely,
/// but then an end that is nearly certain.
fn forked() -> TextModel {
    let tokenizer = tokenizer();
    let id = move |text: &str| tokenizer.encode(text, false).unwrap()[0];
    let (a, b, c) = (id("a"), id("b"), id("c"));
    scripted(move |request| {
        let logprob = |share: f32| share.ln();
        let top = match request.prompt.last() {
            Some(last) if *last == a => vec![(b, logprob(0.6)), (c, logprob(0.4))],
            Some(last) if *last == c => vec![(2, logprob(0.9)), (a, logprob(0.1))],
            _ => vec![(a, logprob(0.3)), (b, logprob(0.3)), (c, logprob(0.2)), (2, logprob(0.2))],
        };
        let scores = narthex_infer::TokenLogprobs { logprob: top[0].1, rank: 1, top };
        let token = scores.top[0].0;
        vec![Output::Token { id: token, logprobs: Some(scores) }, Output::Finished(FinishReason::Length)]
    })
}

#[tokio::test]
async fn beams_see_further_than_one_token() {
    let model = forked();
    let asked = Request { stop_tokens: vec![2], ..request(&model, "a", 2) };
    let search = |width| crate::BeamSearch { width, length_penalty: 1.0 };
    let (found, _) = search(2).run(&model, &asked).await.unwrap();
    let shown: Vec<_> = found.iter().map(|whole| (whole.text.as_str(), whole.ending.reason)).collect();
    assert_eq!(shown, [("c", FinishReason::Stop), ("ba", FinishReason::Length)]);
    let (found, tokens) = search(1).run(&model, &asked).await.unwrap();
    assert_eq!((found.len(), found[0].text.as_str(), tokens), (1, "ba", 2));
}
