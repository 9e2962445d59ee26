//! Who may use the server: a token is judged by whoever the caller of this crate says, and its audience here. Knows
//! tokens, not requests.

use futures::future::BoxFuture;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// The tenant of a server that asks for no token.
pub const LOCAL_TENANT: &str = "local";

/// That a server asks for tokens, as an OAuth 2.1 resource server does (RFC 9728).
#[derive(Clone)]
pub struct Access {
    /// Judges tokens.
    pub tokens: Arc<dyn Tokens>,
    /// The address of this server as clients know it, such as `https://agents.example/mcp`: what a token must be for.
    pub resource: String,
    /// Who gives tokens. May be empty where keys are handed out by hand.
    pub authorization_servers: Vec<String>,
    /// What a token must allow.
    pub scopes: Vec<String>,
}

/// Judges tokens.
pub trait Tokens: Send + Sync {
    /// Whose this token is, and what it is for. Must check signature and expiry; the audience and the scopes are
    /// compared by the server.
    fn judge(&self, token: &str) -> BoxFuture<'static, Result<Bearer, BadToken>>;
}

/// Whose a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// The tenant that every call names.
    pub tenant: String,
    /// For whom the token was given.
    pub audience: Audience,
    /// What it allows.
    pub scopes: Vec<String>,
}

/// For whom a token was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// This server, which gave it itself.
    Here,
    /// Those whose addresses the token names.
    Named(Vec<String>),
}

/// A token that is not known, has lapsed, or is none; which, nobody is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadToken;

/// Keys that were handed out by hand, each with its tenant. They allow everything.
#[derive(Clone, Default)]
pub struct StaticKeys(Vec<([u8; 32], String)>);

impl StaticKeys {
    /// Of pairs of key and tenant.
    pub fn new(keys: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(keys.into_iter().map(|(key, tenant)| (Sha256::digest(key.as_bytes()).into(), tenant)).collect())
    }
}

impl Tokens for StaticKeys {
    fn judge(&self, token: &str) -> BoxFuture<'static, Result<Bearer, BadToken>> {
        let given: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        // All are compared, by their digests: the time tells neither which key nor how much of it was right.
        let mut found = None;
        for (key, tenant) in &self.0 {
            let difference = std::hint::black_box(key.iter().zip(&given).fold(0, |all, (a, b)| all | (a ^ b)));
            if difference == 0 {
                found = Some(tenant.clone());
            }
        }
        let bearer = found.map(|tenant| Bearer { tenant, audience: Audience::Here, scopes: vec!["*".into()] });
        Box::pin(std::future::ready(bearer.ok_or(BadToken)))
    }
}

/// Why a request without the right token is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Denial {
    /// None came.
    Missing,
    /// It is not good, or not for this server.
    Bad,
    /// It is good and does not allow enough.
    Weak,
}

impl Access {
    /// Whose request it is.
    pub(crate) async fn admit(&self, token: Option<&str>) -> Result<String, Denial> {
        let bearer = self.tokens.judge(token.ok_or(Denial::Missing)?).await.map_err(|BadToken| Denial::Bad)?;
        let here = match &bearer.audience {
            Audience::Here => true,
            Audience::Named(named) => named.iter().any(|named| same_address(named, &self.resource)),
        };
        if !here {
            return Err(Denial::Bad);
        }
        let allows = |scope: &String| bearer.scopes.iter().any(|has| has == "*" || has == scope);
        if self.scopes.iter().all(allows) { Ok(bearer.tenant) } else { Err(Denial::Weak) }
    }
}

/// Whether two addresses are one; a slash at the end says nothing.
fn same_address(a: &str, b: &str) -> bool {
    a.trim_end_matches('/') == b.trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes any token, and says this of it.
    struct Says(Bearer);

    impl Tokens for Says {
        fn judge(&self, _: &str) -> BoxFuture<'static, Result<Bearer, BadToken>> {
            Box::pin(std::future::ready(Ok(self.0.clone())))
        }
    }

    fn access(tokens: impl Tokens + 'static) -> Access {
        Access {
            tokens: Arc::new(tokens),
            resource: "https://agents.example/mcp".into(),
            authorization_servers: vec![],
            scopes: vec!["agents".into()],
        }
    }

    #[tokio::test]
    async fn tokens_are_for_this_server() {
        for (audience, scopes, expected) in [
            (vec!["https://agents.example/mcp"], vec!["agents"], Ok("ann")),
            (vec!["https://agents.example/mcp/"], vec!["agents", "more"], Ok("ann")),
            (vec!["https://other.example", "https://agents.example/mcp"], vec!["*"], Ok("ann")),
            (vec!["https://agents.example"], vec!["agents"], Err(Denial::Bad)),
            (vec!["https://agents.example/mcp2"], vec!["agents"], Err(Denial::Bad)),
            (vec![], vec!["agents"], Err(Denial::Bad)),
            (vec!["https://agents.example/mcp"], vec![], Err(Denial::Weak)),
            (vec!["https://agents.example/mcp"], vec!["agent"], Err(Denial::Weak)),
        ] {
            let strings = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect::<Vec<_>>();
            let audience = Audience::Named(strings(&audience));
            let bearer = Bearer { tenant: "ann".into(), audience: audience.clone(), scopes: strings(&scopes) };
            let admitted = access(Says(bearer)).admit(Some("token")).await;
            assert_eq!(admitted, expected.map(String::from), "{audience:?} {scopes:?}");
        }
    }

    #[tokio::test]
    async fn keys() {
        let keys = StaticKeys::new([("one".into(), "ann".into()), ("two".into(), "bob".into())]);
        let access = access(keys);
        for (token, expected) in [
            (Some("one"), Ok("ann")),
            (Some("two"), Ok("bob")),
            (Some("One"), Err(Denial::Bad)),
            (Some(""), Err(Denial::Bad)),
            (None, Err(Denial::Missing)),
        ] {
            assert_eq!(access.admit(token).await, expected.map(String::from), "{token:?}");
        }
    }
}
