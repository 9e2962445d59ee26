//! What whoever calls agents of somebody else decides, with the limits.

use crate::{screen::Screen, signature::CardKey};

/// How another's agent is called.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Where it may be.
    pub screen: Screen,
    /// Keys of which one must have signed the card; without any, no signature is asked for.
    pub keys: Vec<CardKey>,
    /// A bearer token. It is sent only where the card came from, unless the card is signed by one of `keys`.
    pub token: Option<String>,
    /// What the tool is called instead of the card's name.
    pub name: Option<String>,
    /// What the model reads of it instead of the card's description.
    pub description: Option<String>,
    /// Bytes of one answer that is no stream.
    pub answer_bytes: usize,
    /// Bytes of one event of a stream.
    pub event_bytes: usize,
    /// Bytes of a whole stream.
    pub stream_bytes: usize,
    /// Bytes of what a call gives back.
    pub result_bytes: usize,
    /// Milliseconds that a call may take.
    pub call_ms: u64,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            screen: Screen::default(),
            keys: vec![],
            token: None,
            name: None,
            description: None,
            answer_bytes: 16 << 20,
            event_bytes: 4 << 20,
            stream_bytes: 64 << 20,
            result_bytes: 4 << 20,
            call_ms: 600_000,
        }
    }
}
