//! An agent of somebody else: its card is fetched, checked, and one of its interfaces chosen. Knows how it is reached;
//! what it is asked is a tool's affair.

use crate::{
    client_options::ClientOptions,
    remote_tool::RemoteTool,
    screen::Screen,
    wire::{Wire, WireLimits, limited},
};
use a2a::AgentCard;
use a2a_server::WELL_KNOWN_AGENT_CARD_PATH;
use narthex_agent::Tool;
use narthex_base::{Error, Result};
use reqwest::header;
use serde_json::Value;
use std::{fmt, sync::Arc, time::Duration};
use url::Url;

/// The longest card that is read, in bytes.
const CARD_BYTES_MAX: usize = 1 << 20;

/// How long fetching a card may take.
const CARD_TIMEOUT: Duration = Duration::from_secs(20);

/// The longest description that a model is shown, in characters: it is somebody else's text.
const DESCRIPTION_CHARS_MAX: usize = 2_000;

/// The longest name of a tool.
const NAME_CHARS_MAX: usize = 128;

/// An agent of somebody else, ready to be called.
#[derive(Clone)]
pub struct RemoteAgent {
    card: AgentCard,
    is_signed: bool,
    tool: Arc<RemoteTool>,
}

impl fmt::Debug for RemoteAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteAgent").field("name", &self.card.name).finish_non_exhaustive()
    }
}

impl RemoteAgent {
    /// What it calls itself.
    pub fn name(&self) -> &str {
        &self.card.name
    }

    /// What it says of itself.
    pub fn description(&self) -> &str {
        &self.card.description
    }

    /// Which version of it.
    pub fn version(&self) -> &str {
        &self.card.version
    }

    /// Whether its card was signed by one of the keys that were given.
    pub fn is_signed(&self) -> bool {
        self.is_signed
    }

    /// The tool that asks it: `{"message", "context"?, "task"?}` → what it says, and its files.
    pub fn tool(&self) -> Arc<dyn Tool> {
        self.tool.clone()
    }
}

/// Fetches the card of the agent at this URL (its base, or the card itself) and chooses how to reach it.
///
/// # Errors
/// If the URL or every interface is refused by the screen; if the card cannot be fetched, is too large, is none, or is
/// not signed by one of the keys.
pub async fn connect(url: &str, options: ClientOptions) -> Result<RemoteAgent> {
    let cannot = |why: String| Error::input("cannot use this A2A agent").at(shown(url), None).cause(why);
    let card_url = match url.split(['?', '#']).next() {
        Some(path) if path.ends_with(".json") => url.to_string(),
        _ => format!("{}{WELL_KNOWN_AGENT_CARD_PATH}", url.trim_end_matches('/')),
    };
    let card_url = options.screen.check_form(&card_url).map_err(|refusal| {
        cannot(format!("its URL must not be asked: {refusal}"))
            .help("if it is a host of yours, name it among the allowed hosts")
    })?;
    let json = fetch(&card_url, &options.screen).await.map_err(cannot)?;
    let card: AgentCard = serde_json::from_value(json.clone())
        .map_err(|error| cannot(format!("what stands there is no agent card of A2A 1.0: {error}")))?;
    let is_signed = options.keys.iter().any(|key| key.fits(&json));
    if !options.keys.is_empty() && !is_signed {
        return Err(cannot("its card is not signed by any of the keys that were given".into())
            .help("ask its owner for the public key, or leave the keys out to use it unsigned"));
    }
    let client = options.screen.client().redirect(options.screen.redirects()).build();
    let client = client.map_err(|error| cannot(error.to_string()))?;
    let limits = WireLimits {
        answer_bytes: options.answer_bytes,
        event_bytes: options.event_bytes,
        stream_bytes: options.stream_bytes,
    };
    let wire = Wire::choose(&card.supported_interfaces, client, &options.screen, limits).map_err(cannot)?;
    let is_home = Url::parse(wire.url()).is_ok_and(|url| url.origin() == card_url.origin());
    let wire = wire.with_token(options.token.clone().filter(|_| is_home || is_signed));
    let name = tool_name(options.name.as_deref().unwrap_or(&card.name));
    let description = options.description.clone().unwrap_or_else(|| described(&card));
    let tool = Arc::new(RemoteTool::new(wire, name, description, card.capabilities.streaming == Some(true), &options));
    Ok(RemoteAgent { card, is_signed, tool })
}

async fn fetch(url: &Url, screen: &Screen) -> Result<Value, String> {
    let client = screen.client().redirect(screen.redirects()).timeout(CARD_TIMEOUT).build();
    let client = client.map_err(|error| error.to_string())?;
    let request = client.get(url.clone()).header(header::ACCEPT, "application/json");
    let response = request.send().await.map_err(|error| {
        let error = error.without_url();
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        format!("its card cannot be fetched: {error}{cause}")
    })?;
    if !response.status().is_success() {
        return Err(format!("its card cannot be fetched: {} answered {}", shown(url.as_str()), response.status()));
    }
    let bytes = limited(response, CARD_BYTES_MAX).await?;
    serde_json::from_slice(&bytes).map_err(|error| format!("its card is no JSON: {error}"))
}

/// A URL without what may be secret in it.
fn shown(url: &str) -> String {
    url.split(['?', '#']).next().unwrap_or_default().chars().take(200).collect()
}

/// A name that every model takes.
fn tool_name(name: &str) -> String {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.');
    let name: String =
        name.chars().map(|letter| if fits(letter) { letter } else { '_' }).take(NAME_CHARS_MAX).collect();
    if name.is_empty() { "agent".into() } else { name }
}

fn described(card: &AgentCard) -> String {
    let mut text = card.description.clone();
    for skill in &card.skills {
        text.push_str("\n- ");
        text.push_str(&skill.name);
        if !skill.description.is_empty() && skill.description != card.description {
            text.push_str(": ");
            text.push_str(&skill.description);
        }
    }
    text.chars().take(DESCRIPTION_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_to_fit() {
        for (name, expected) in [("bard", "bard"), ("My Agent!", "My_Agent_"), ("", "agent"), ("a/b.c-d", "a_b.c-d")] {
            assert_eq!(tool_name(name), expected);
        }
        assert_eq!(tool_name(&"x".repeat(500)).len(), NAME_CHARS_MAX);
    }
}
