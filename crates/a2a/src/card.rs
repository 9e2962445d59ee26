//! Agent cards: what an agent says of itself, and where it is reached. Knows no request and no run.

use crate::{front::VERSION, options::A2aOptions};
use a2a::{
    AgentCapabilities, AgentCard, AgentInterface, AgentProvider, AgentSkill, HttpAuthSecurityScheme, SecurityScheme,
    TRANSPORT_PROTOCOL_HTTP_JSON, TRANSPORT_PROTOCOL_JSONRPC,
};
use a2a_pb::protojson_conv;
use narthex_agent::AgentView;
use narthex_base::Digest;
use serde_json::Value;
use std::{collections::HashMap, fmt::Write};

/// Where public keys of cards stand.
pub(crate) const KEYS_PATH: &str = "/.well-known/a2a-keys.json";

/// The name of the scheme of bearer tokens in a card.
const BEARER: &str = "bearer";

/// A card as it is sent.
#[derive(Clone, Debug)]
pub(crate) struct ServedCard {
    pub json: String,
    pub etag: String,
}

/// The path under which an agent is served, with what no path may hold written as `%XX`.
pub(crate) fn agent_path(name: &str) -> String {
    let mut path = String::from("/a2a/");
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => path.push(byte.into()),
            _ => write!(path, "%{byte:02X}").expect("a string takes all text"),
        }
    }
    path
}

/// The card of an agent, signed if there is a key. Holds no empty field: a reader may write those or leave them out,
/// and would then compute another signed text.
pub(crate) fn served_card(agent: &AgentView, options: &A2aOptions) -> ServedCard {
    // It fails on no card that was built from texts.
    let mut json = protojson_conv::to_value(&card(agent, options)).unwrap_or(Value::Null);
    if let Some(signer) = &options.signer {
        signer.sign(&mut json, &format!("{}{KEYS_PATH}", options.base_url));
    }
    let json = json.to_string();
    let etag = format!("\"{}\"", Digest::of(json.as_bytes()).short());
    ServedCard { json, etag }
}

fn card(agent: &AgentView, options: &A2aOptions) -> AgentCard {
    let url = format!("{}{}", options.base_url, agent_path(&agent.name));
    let interface =
        |binding: &str| AgentInterface { protocol_version: VERSION.into(), ..AgentInterface::new(&url, binding) };
    let described = |text: &str| if text.is_empty() { agent.name.clone() } else { text.to_string() };
    let output = if agent.output.is_some() { "application/json" } else { "text/plain" };
    let skill = AgentSkill {
        id: agent.name.clone(),
        name: agent.name.clone(),
        description: described(&agent.description),
        tags: vec!["agent".into()],
        examples: None,
        input_modes: None,
        output_modes: None,
        security_requirements: None,
    };
    let bearer = options.bearer.then(|| {
        let scheme = HttpAuthSecurityScheme { scheme: "Bearer".into(), description: None, bearer_format: None };
        HashMap::from([(BEARER.to_string(), SecurityScheme::HttpAuth(scheme))])
    });
    AgentCard {
        name: agent.name.clone(),
        description: described(&agent.description),
        version: agent.version.clone(),
        supported_interfaces: vec![interface(TRANSPORT_PROTOCOL_JSONRPC), interface(TRANSPORT_PROTOCOL_HTTP_JSON)],
        capabilities: AgentCapabilities {
            streaming: Some(true),
            push_notifications: Some(true),
            extensions: None,
            extended_agent_card: Some(false),
        },
        default_input_modes: options.input_modes.clone(),
        default_output_modes: vec![output.into()],
        skills: vec![skill],
        provider: options.provider.clone().map(|(organization, url)| AgentProvider { organization, url }),
        documentation_url: None,
        icon_url: None,
        security_requirements: bearer.as_ref().map(|_| vec![HashMap::from([(BEARER.to_string(), vec![])])]),
        security_schemes: bearer,
        signatures: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_paths() {
        for (name, path) in [("bard", "/a2a/bard"), ("a b/c", "/a2a/a%20b%2Fc"), ("{x}é", "/a2a/%7Bx%7D%C3%A9")] {
            assert_eq!(agent_path(name), path);
        }
    }
}
