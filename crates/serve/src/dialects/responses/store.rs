//! Responses kept in memory, and in a journal if there is one, so that a later request can go on from one. Forgets the
//! oldest first. Knows neither requests nor how answers are made.

use super::{
    fields::Fields,
    ids::response_of,
    journal::{self, Journal, Line},
};
use narthex_http::ApiError;
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    iter::successors,
    mem::size_of,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct StoreLimits {
    /// Responses; 0 keeps none.
    pub responses: usize,
    /// Bytes of all responses and of what was given with them, about.
    pub bytes: usize,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self { responses: 4096, bytes: 64 << 20 }
    }
}

/// Items of one page at most, and how many unless the client says.
const PAGE_ITEMS_MAX: i64 = 100;
const PAGE_ITEMS: i64 = 20;

/// The responses kept.
#[derive(Debug)]
pub struct Responses {
    limits: StoreLimits,
    /// Bytes of all turns that something still holds.
    bytes: Arc<AtomicUsize>,
    kept: Mutex<Kept>,
    /// Held while something is kept or deleted, so that its lines stand in that order.
    journal: Mutex<Option<Journal>>,
}

#[derive(Debug, Default)]
struct Kept {
    next: u64,
    /// Oldest first.
    entries: BTreeMap<u64, Entry>,
    /// Where each name stands.
    places: HashMap<String, u64>,
}

#[derive(Debug)]
struct Entry {
    id: String,
    /// Without its output, which the turn has.
    response: Value,
    turn: Arc<Turn>,
}

/// What was given and answered at once. A turn stays as long as a later one goes on from it, also if its response was
/// deleted or forgotten meanwhile.
#[derive(Debug)]
struct Turn {
    /// Of its response.
    id: String,
    input: Vec<Value>,
    output: Vec<Value>,
    before: Option<Arc<Turn>>,
    bytes: usize,
    /// Where its bytes are counted.
    count: Arc<AtomicUsize>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.count.fetch_sub(self.bytes, Ordering::Relaxed);
        // One after the other: a long conversation would otherwise be dropped in as many nested calls.
        let mut before = self.before.take();
        while let Some(mut turn) = before.and_then(Arc::into_inner) {
            before = turn.before.take();
        }
    }
}

/// A conversation that a new response goes on from.
#[derive(Debug, Clone)]
pub(super) struct Conversation(Arc<Turn>);

impl Conversation {
    /// All items, oldest first: inputs and outputs, without instructions.
    pub fn items(&self) -> Vec<&Value> {
        let mut turns: Vec<&Turn> = successors(Some(&*self.0), |turn| turn.before.as_deref()).collect();
        turns.reverse();
        turns.into_iter().flat_map(|turn| turn.input.iter().chain(&turn.output)).collect()
    }
}

/// What a response is kept with.
#[derive(Debug)]
pub struct Given {
    pub(super) input: Vec<Value>,
    pub(super) before: Option<Conversation>,
}

impl Responses {
    /// Keeps nothing yet.
    pub fn new(limits: StoreLimits) -> Self {
        Self { limits, bytes: Arc::default(), kept: Mutex::default(), journal: Mutex::default() }
    }

    /// Keeps what the journal at `path` says, and writes there what comes.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub fn open(limits: StoreLimits, path: &Path) -> io::Result<Self> {
        let store = Self::new(limits);
        for line in journal::read(path)? {
            store.replay(line);
        }
        // Not before: what others go on from is there for a while and then deleted.
        store.trim();
        let journal = Journal::begin(path, &store.lines())?;
        *store.journal() = Some(journal);
        Ok(store)
    }

    /// Whether anything is kept at all.
    pub fn is_on(&self) -> bool {
        self.limits.responses > 0
    }

    /// Keeps a response; the oldest ones give way. One that is too large alone is not kept. May wait for the disk.
    ///
    /// # Errors
    /// If the journal cannot be written: then it is not kept.
    pub fn insert(&self, given: Given, mut response: Value) -> io::Result<()> {
        let Some(id) = response["id"].as_str().map(str::to_string) else { return Ok(()) };
        let output = match response["output"].take() {
            Value::Array(output) => output,
            _ => vec![],
        };
        let bytes = held_by(&response, &given.input, &output);
        if !self.is_on() || bytes > self.limits.bytes {
            return Ok(());
        }
        let before = given.before.map(|conversation| conversation.0);
        let turn = self.turn(id.clone(), given.input, output, before, bytes);
        let mut journal = self.journal();
        if let Some(journal) = &mut *journal {
            journal.append(&line_of(&turn, response.clone()))?;
        }
        self.put(id, response, turn);
        self.trim();
        if let Some(grown) = journal.as_ref().filter(|journal| journal.has_grown()) {
            *journal = Some(Journal::begin(grown.path(), &self.lines())?);
        }
        Ok(())
    }

    fn turn(
        &self,
        id: String,
        input: Vec<Value>,
        output: Vec<Value>,
        before: Option<Arc<Turn>>,
        bytes: usize,
    ) -> Arc<Turn> {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Arc::new(Turn { id, input, output, before, bytes, count: Arc::clone(&self.bytes) })
    }

    fn put(&self, id: String, response: Value, turn: Arc<Turn>) {
        let mut kept = self.kept();
        kept.remove(&id);
        let place = kept.next;
        kept.next += 1;
        kept.places.insert(id.clone(), place);
        kept.entries.insert(place, Entry { id, response, turn });
    }

    /// Forgets the oldest until what is left is within the limits.
    fn trim(&self) {
        let mut kept = self.kept();
        while kept.entries.len() > self.limits.responses || self.bytes.load(Ordering::Relaxed) > self.limits.bytes {
            let Some((_, oldest)) = kept.entries.pop_first() else { break };
            kept.places.remove(&oldest.id);
        }
    }

    /// Does again what a line says.
    fn replay(&self, line: Line) {
        match line {
            Line::Add { id, response, input, output, before } => {
                let bytes = held_by(&response, &input, &output);
                let before = before.and_then(|before| self.conversation(&before)).map(|conversation| conversation.0);
                let turn = self.turn(id.clone(), input, output, before, bytes);
                self.put(id, response, turn);
            }
            Line::Delete { id } => {
                self.kept().remove(&id);
            }
        }
    }

    /// Lines that lead to what is kept.
    fn lines(&self) -> Vec<Line> {
        let kept = self.kept();
        let (mut lines, mut written) = (vec![], HashSet::new());
        for entry in kept.entries.values() {
            let mut turns: Vec<&Arc<Turn>> = successors(Some(&entry.turn), |turn| turn.before.as_ref()).collect();
            turns.reverse();
            for turn in turns.into_iter().filter(|turn| written.insert(Arc::as_ptr(turn))) {
                let response = kept.entry(&turn.id).map_or_else(|| json!({}), |entry| entry.response.clone());
                lines.push(line_of(turn, response));
            }
        }
        let is_gone = |line: &Line| match line {
            Line::Add { id, .. } if kept.entry(id).is_none() => Some(Line::Delete { id: id.clone() }),
            _ => None,
        };
        let gone: Vec<Line> = lines.iter().filter_map(is_gone).collect();
        lines.extend(gone);
        lines
    }

    /// A response.
    pub fn get(&self, id: &str) -> Option<Value> {
        let kept = self.kept();
        let entry = kept.entry(id)?;
        let mut response = entry.response.clone();
        response["output"] = Value::Array(entry.turn.output.clone());
        Some(response)
    }

    /// Deletes a response, and says so; none if there is none. Conversations that went on from it keep its text until
    /// they go too. May wait for the disk.
    ///
    /// # Errors
    /// If the journal cannot be written: then it stays.
    pub fn delete(&self, id: &str) -> io::Result<Option<Value>> {
        let mut journal = self.journal();
        if self.kept().entry(id).is_none() {
            return Ok(None);
        }
        if let Some(journal) = &mut *journal {
            journal.append(&Line::Delete { id: id.into() })?;
        }
        self.kept().remove(id);
        Ok(Some(json!({"id": id, "object": "response", "deleted": true})))
    }

    /// One page of what was given with a response; none if the response is unknown.
    ///
    /// # Errors
    /// If the page is to begin after an item that the response was not given.
    pub fn input_items(&self, id: &str, page: &Page) -> Option<Result<Value, ApiError>> {
        let turn = Arc::clone(&self.kept().entry(id)?.turn);
        Some(page.of(&turn.input))
    }

    pub(super) fn conversation(&self, id: &str) -> Option<Conversation> {
        Some(Conversation(Arc::clone(&self.kept().entry(id)?.turn)))
    }

    /// An item that was given or answered.
    pub(super) fn item(&self, id: &str) -> Option<Value> {
        let turn = Arc::clone(&self.kept().entry(&response_of(id)?)?.turn);
        turn.input.iter().chain(&turn.output).find(|item| item["id"] == id).cloned()
    }

    fn journal(&self) -> MutexGuard<'_, Option<Journal>> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The line that keeps a response again.
fn line_of(turn: &Turn, response: Value) -> Line {
    let before = turn.before.as_ref().map(|before| before.id.clone());
    Line::Add { id: turn.id.clone(), response, input: turn.input.clone(), output: turn.output.clone(), before }
}

impl Kept {
    fn entry(&self, id: &str) -> Option<&Entry> {
        self.entries.get(self.places.get(id)?)
    }

    fn remove(&mut self, id: &str) -> Option<Entry> {
        self.entries.remove(&self.places.remove(id)?)
    }
}

/// Which of a response's input items to list.
#[derive(Debug)]
pub struct Page {
    limit: usize,
    newest_first: bool,
    after: Option<String>,
}

impl Page {
    /// From the names and values of a query: `limit`, `order`, `after`; `include` changes nothing.
    ///
    /// # Errors
    /// If a value is none that its name can have.
    pub fn read<'a>(query: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, ApiError> {
        let value = |(name, text): (&str, &str)| {
            let number = text.parse::<i64>().ok().filter(|_| name == "limit");
            (name.to_string(), number.map_or_else(|| json!(text), |number| json!(number)))
        };
        let mut fields = Fields::top(query.into_iter().map(value).collect::<Map<String, Value>>());
        let limit = fields.integer("limit", 1..=PAGE_ITEMS_MAX)?.unwrap_or(PAGE_ITEMS);
        let order = fields.word("order", &["asc", "desc"])?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Ok(Self { limit, newest_first: order.as_deref() != Some("asc"), after: fields.string("after")? })
    }

    fn of(&self, items: &[Value]) -> Result<Value, ApiError> {
        let mut items: Vec<&Value> = items.iter().collect();
        if self.newest_first {
            items.reverse();
        }
        let start = match &self.after {
            None => 0,
            Some(after) => {
                let place = items.iter().position(|item| item["id"] == after.as_str()).map(|place| place + 1);
                let message = || ApiError::field("after", format!("the response was given no item `{after}`"));
                place.ok_or_else(message)?
            }
        };
        let rest = &items[start..];
        let data = &rest[..rest.len().min(self.limit)];
        let id = |item: Option<&&Value>| item.map_or(Value::Null, |item| item["id"].clone());
        Ok(json!({
            "object": "list", "data": data, "first_id": id(data.first()), "last_id": id(data.last()),
            "has_more": rest.len() > data.len(),
        }))
    }
}

fn held_by(response: &Value, input: &[Value], output: &[Value]) -> usize {
    held(response) + input.iter().chain(output).map(held).sum::<usize>()
}

/// Bytes that a value takes in memory, about.
fn held(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::String(text) => text.len(),
            Value::Array(list) => list.iter().map(held).sum(),
            // A name stands in its entry beside its hash and in the table of places.
            Value::Object(map) => {
                map.iter().map(|(name, value)| name.len() + size_of::<(String, u64, u64)>() + held(value)).sum()
            }
            _ => 0,
        }
}

#[cfg(test)]
mod tests;
