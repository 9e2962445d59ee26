//! What a reader of calls reads from. A reader is written as a plain recursive descent which waits (`await`) where
//! the answer has not gone on yet, so it can stop and go on at any character. Nothing runs beside it: each piece of
//! the answer drives it as far as it can go. Knows text, marker tokens and what was seen, no syntax.

use super::{CallReader, Seen, TokenOf, json::Scanner};
use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

/// Names of tools and parameters are shorter, in bytes.
const LONGEST_NAME: usize = 256;

/// One step of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Symbol {
    Char(char),
    /// A marker that came as a token.
    Token(&'static str),
}

/// The answer is no call after all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

/// What reading a part of a call gives.
pub(crate) type Read<T> = Result<T, Broken>;

struct Feed {
    /// What is not settled yet: white space that may be dropped, then the call being read, then what is unread.
    symbols: VecDeque<Symbol>,
    /// How many of them are read.
    read: usize,
    ended: bool,
    /// The answer follows a grammar, so what is read of a call may be given out at once.
    sure: bool,
    /// Markers which the tokenizer has as tokens.
    tokens: Vec<&'static str>,
    seen: Vec<Seen>,
    /// Calls that aren't complete yet.
    draft: Vec<Seen>,
    /// Since the last call there was only white space.
    after_call: bool,
    /// A call broke off, so markers that follow belong to its text.
    broken: bool,
    /// Something of the call being read was given out already.
    given: bool,
}

/// The answer as far as it came.
#[derive(Clone)]
pub(crate) struct Input(Arc<Mutex<Feed>>);

impl Input {
    fn new(sure: bool, tokens: Vec<&'static str>) -> Self {
        Self(Arc::new(Mutex::new(Feed {
            symbols: VecDeque::new(),
            read: 0,
            ended: false,
            sure,
            tokens,
            seen: vec![],
            draft: vec![],
            after_call: false,
            broken: false,
            given: false,
        })))
    }

    /// A whole text that is all there is.
    pub(crate) fn whole(text: &str) -> Self {
        let input = Self::new(false, vec![]);
        input.feed().symbols.extend(text.chars().map(Symbol::Char));
        input.feed().ended = true;
        input
    }

    fn feed(&self) -> MutexGuard<'_, Feed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next symbol, which stays unread; `None` at the end of the answer.
    pub(crate) async fn peek(&self) -> Option<Symbol> {
        poll_fn(|_| {
            let feed = self.feed();
            match feed.symbols.get(feed.read) {
                Some(symbol) => Poll::Ready(Some(*symbol)),
                None if feed.ended => Poll::Ready(None),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// The next symbol if it is a character.
    pub(crate) async fn peek_char(&self) -> Option<char> {
        match self.peek().await {
            Some(Symbol::Char(char)) => Some(char),
            _ => None,
        }
    }

    /// The symbol that was peeked is read.
    pub(crate) fn advance(&self) {
        self.feed().read += 1;
    }

    fn is_token(&self, marker: &str) -> bool {
        self.feed().tokens.contains(&marker)
    }

    /// Reads the first of `texts` that stands here; reads nothing if none does.
    pub(crate) async fn one_of(&self, texts: &[&'static str]) -> Option<&'static str> {
        let start = self.feed().read;
        let first = self.peek().await?;
        if let Symbol::Token(token) = first {
            let text = texts.iter().find(|text| **text == token).copied();
            if text.is_some() {
                self.advance();
            }
            return text;
        }
        let mut left: Vec<&'static str> = texts.iter().filter(|text| !self.is_token(text)).copied().collect();
        let mut bytes = 0;
        while let Some(Symbol::Char(char)) = self.peek().await {
            left.retain(|text| text[bytes..].starts_with(char));
            if left.is_empty() {
                break;
            }
            self.advance();
            bytes += char.len_utf8();
            if let Some(text) = left.iter().find(|text| text.len() == bytes) {
                return Some(text);
            }
        }
        self.feed().read = start;
        None
    }

    /// Reads this text or marker if it stands here.
    pub(crate) async fn maybe(&self, text: &'static str) -> bool {
        self.one_of(&[text]).await.is_some()
    }

    /// Reads this text or marker, which must stand here.
    pub(crate) async fn literal(&self, text: &'static str) -> Read<()> {
        self.maybe(text).await.then_some(()).ok_or(Broken)
    }

    /// Reads white space.
    pub(crate) async fn space(&self) {
        while self.peek_char().await.is_some_and(char::is_whitespace) {
            self.advance();
        }
    }

    /// Reads a closing marker behind white space. An answer that ends here lacks nothing else, so it may end.
    pub(crate) async fn close(&self, text: &'static str) -> Read<()> {
        self.space().await;
        if self.maybe(text).await || self.peek().await.is_none() { Ok(()) } else { Err(Broken) }
    }

    /// Reads a marker behind white space if it stands there; else reads nothing.
    pub(crate) async fn maybe_close(&self, text: &'static str) {
        let start = self.feed().read;
        self.space().await;
        if !self.maybe(text).await {
            self.feed().read = start;
        }
    }

    /// The answer must end here, white space aside.
    pub(crate) async fn end(&self) -> Read<()> {
        self.space().await;
        if self.peek().await.is_none() { Ok(()) } else { Err(Broken) }
    }

    /// Reads characters that `fits`.
    pub(crate) async fn take_while(&self, fits: impl Fn(char) -> bool) -> String {
        let mut taken = String::new();
        while let Some(char) = self.peek_char().await.filter(|char| fits(*char)) {
            self.advance();
            taken.push(char);
        }
        taken
    }

    /// Reads up to the first of `ends`, and that. Tells which it was. Each part of the text before goes to `each`
    /// as soon as it can't belong to an end.
    pub(crate) async fn until(&self, ends: &[&'static str], mut each: impl FnMut(&str)) -> Read<&'static str> {
        let mut space = [0; 4];
        loop {
            if let Some(end) = self.one_of(ends).await {
                return Ok(end);
            }
            if self.is_cut(ends) {
                return Err(Broken);
            }
            match self.peek().await.ok_or(Broken)? {
                Symbol::Char(char) => each(char.encode_utf8(&mut space)),
                Symbol::Token(token) => each(token),
            }
            self.advance();
        }
    }

    /// The answer ends in the midst of one of these texts.
    fn is_cut(&self, texts: &[&'static str]) -> bool {
        let feed = self.feed();
        let left = feed.symbols.len() - feed.read;
        let begins = |text: &str| {
            let mut chars = text.chars();
            feed.symbols.range(feed.read..).all(|left| chars.next().map(Symbol::Char) == Some(*left))
        };
        let may_be = |text: &&'static str| !feed.tokens.contains(text) && left < text.len() && begins(text);
        feed.ended && left > 0 && texts.iter().any(may_be)
    }

    /// Reads a name: up to the first of `ends`, and that; white space around the name is dropped.
    pub(crate) async fn name(&self, ends: &[&'static str]) -> Read<(String, &'static str)> {
        let (name, end) = self.name_before(ends, None).await?;
        Ok((name, end.ok_or(Broken)?))
    }

    /// The same, or up to the character `stop`, which stays unread. What can't be a name is refused at once, so that
    /// text behind a stray marker isn't held back.
    pub(crate) async fn name_before(
        &self,
        ends: &[&'static str],
        stop: Option<char>,
    ) -> Read<(String, Option<&'static str>)> {
        self.space().await;
        let mut name = String::new();
        let end = loop {
            if let Some(end) = self.one_of(ends).await {
                break Some(end);
            }
            match self.peek_char().await.ok_or(Broken)? {
                char if Some(char) == stop => break None,
                '{' | '<' | '"' | '\n' => return Err(Broken),
                _ if name.len() > LONGEST_NAME => return Err(Broken),
                char => name.push(char),
            }
            self.advance();
        };
        let name = name.trim_end();
        if name.is_empty() { Err(Broken) } else { Ok((name.to_string(), end)) }
    }

    /// Reads one JSON value and the text or marker behind it, or nothing.
    pub(crate) async fn json_before(&self, end: &'static str) -> Option<String> {
        let (start, mut raw) = (self.feed().read, String::new());
        self.space().await;
        if self.json(|part| raw.push_str(part)).await.is_ok() {
            self.space().await;
            if self.maybe(end).await {
                return Some(raw);
            }
        }
        self.feed().read = start;
        None
    }

    /// Reads one JSON value. Each part goes to `each` as it comes.
    pub(crate) async fn json(&self, mut each: impl FnMut(&str)) -> Read<()> {
        let (mut scanner, mut space) = (Scanner::new(), [0; 4]);
        loop {
            match self.peek_char().await {
                Some(char) if scanner.push(char)? => {
                    self.advance();
                    each(char.encode_utf8(&mut space));
                    // Only numbers don't show their end, and no caller needs one at an answer's end.
                    if scanner.is_closed() {
                        return Ok(());
                    }
                }
                _ => return if scanner.is_complete() { Ok(()) } else { Err(Broken) },
            }
        }
    }

    /// Reads a JSON object as the arguments of the latest call.
    pub(crate) async fn json_arguments(&self) -> Read<()> {
        if self.peek().await != Some(Symbol::Char('{')) {
            return Err(Broken);
        }
        self.json(|part| self.arguments(part)).await
    }

    /// A call begins.
    pub(crate) fn call(&self, name: String, id: Option<String>) {
        self.show(Seen::Call { name, id });
    }

    /// Arguments of the latest call go on.
    pub(crate) fn arguments(&self, text: &str) {
        if !text.is_empty() {
            self.show(Seen::Arguments(text.to_string()));
        }
    }

    fn show(&self, seen: Seen) {
        let feed = &mut *self.feed();
        if feed.sure {
            feed.given = true;
            add(&mut feed.seen, seen);
        } else {
            add(&mut feed.draft, seen);
        }
    }

    /// What was read since the opening is a call or several, or isn't.
    pub(crate) fn settle(&self, outcome: Read<()>) {
        let feed = &mut *self.feed();
        let draft = std::mem::take(&mut feed.draft);
        let given = std::mem::take(&mut feed.given);
        if outcome.is_ok() && draft.iter().all(is_sound) {
            feed.symbols.drain(..feed.read);
            feed.read = 0;
            draft.into_iter().for_each(|seen| add(&mut feed.seen, seen));
            (feed.after_call, feed.broken) = (true, false);
        } else if feed.sure && (given || feed.ended) {
            // Cut in the midst of a call: what is out stays, and no markup gets into the text.
            let read = if feed.ended { feed.symbols.len() } else { feed.read };
            feed.symbols.drain(..read);
            feed.read = 0;
            feed.after_call = true;
        } else {
            feed.broken = true;
            feed.flush();
        }
    }

    /// Reads text up to the first of `openings`, and that. `None` at the end of the answer.
    pub(crate) async fn text_until(&self, openings: &[&'static str]) -> Option<&'static str> {
        loop {
            if let Some(opening) = self.one_of(openings).await {
                return Some(opening);
            }
            let Some(symbol) = self.peek().await else {
                let feed = &mut *self.feed();
                if !feed.after_call {
                    feed.flush();
                }
                return None;
            };
            self.advance();
            let feed = &mut *self.feed();
            match symbol {
                Symbol::Char(char) if char.is_whitespace() => {}
                Symbol::Token(_) if !feed.broken => {
                    feed.read -= 1;
                    feed.symbols.remove(feed.read);
                }
                _ => feed.flush(),
            }
        }
    }
}

impl Feed {
    /// All that is read is text.
    fn flush(&mut self) {
        let read: String = self.symbols.drain(..self.read).fold(String::new(), |mut text, symbol| {
            match symbol {
                Symbol::Char(char) => text.push(char),
                Symbol::Token(token) => text.push_str(token),
            }
            text
        });
        self.read = 0;
        if !read.is_empty() {
            self.after_call = false;
            add(&mut self.seen, Seen::Text(read));
        }
    }
}

/// Joins what belongs together.
fn add(list: &mut Vec<Seen>, seen: Seen) {
    match (list.last_mut(), seen) {
        (Some(Seen::Text(text)), Seen::Text(more)) => text.push_str(&more),
        (Some(Seen::Arguments(text)), Seen::Arguments(more)) => text.push_str(&more),
        (_, seen) => list.push(seen),
    }
}

/// Arguments must be an object that whoever gets them can read.
fn is_sound(seen: &Seen) -> bool {
    match seen {
        Seen::Arguments(text) => serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).is_ok(),
        _ => true,
    }
}

/// A reader whose work is a future that waits for the answer to go on.
pub(crate) struct Waiting {
    input: Input,
    markers: &'static [&'static str],
    work: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Waiting {
    /// Starts the work.
    pub(crate) fn reader<F: Future<Output = ()> + Send + 'static>(
        markers: &'static [&'static str],
        token: TokenOf<'_>,
        sure: bool,
        work: impl FnOnce(Input) -> F,
    ) -> Box<dyn CallReader> {
        let tokens = markers.iter().filter(|marker| token(marker).is_some()).copied().collect();
        let input = Input::new(sure, tokens);
        Box::new(Self { work: Some(Box::pin(work(input.clone()))), input, markers })
    }

    fn go_on(&mut self) -> Vec<Seen> {
        if let Some(work) = &mut self.work
            && work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
        {
            self.work = None;
        }
        std::mem::take(&mut self.input.feed().seen)
    }
}

impl CallReader for Waiting {
    fn text(&mut self, text: &str) -> Vec<Seen> {
        self.input.feed().symbols.extend(text.chars().map(Symbol::Char));
        self.go_on()
    }

    fn token(&mut self, token: &str) -> Vec<Seen> {
        match self.markers.iter().find(|marker| **marker == token) {
            Some(marker) => {
                self.input.feed().symbols.push_back(Symbol::Token(marker));
                self.go_on()
            }
            None => vec![],
        }
    }

    fn finish(&mut self) -> Vec<Seen> {
        self.input.feed().ended = true;
        self.go_on()
    }
}

/// The outcome of work that never waits, as its whole input is there.
pub(crate) fn at_once<T>(work: impl Future<Output = Read<T>>) -> Read<T> {
    match std::pin::pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => Err(Broken),
    }
}
