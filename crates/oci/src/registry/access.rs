//! Who asks: what a registry's challenge wants, and the token that answers it. Knows no blobs.

use super::{Registry, Wish, read_whole, words};
use crate::credentials::Credentials;
use base64::{Engine, engine::general_purpose::STANDARD};
use narthex_base::{Error, Result};
use narthex_remote::{Failure, unreachable_host};
use serde_json::Value;
use std::collections::BTreeSet;
use ureq::http::{HeaderMap, Uri, header};

/// Credentials, and what they were exchanged for.
pub(super) struct Access {
    credentials: Option<Credentials>,
    scopes: BTreeSet<String>,
    header: Option<String>,
}

impl Access {
    pub fn new(repository: &str, wish: Wish, credentials: Option<Credentials>) -> Self {
        let actions = if wish == Wish::Push { "pull,push" } else { "pull" };
        Self { credentials, scopes: BTreeSet::from([format!("repository:{repository}:{actions}")]), header: None }
    }

    /// Reading another repository of the same registry is wanted too; the next challenge is answered with that.
    pub fn also_pull(&mut self, repository: &str) {
        if self.scopes.insert(format!("repository:{repository}:pull"))
            && self.header.as_ref().is_some_and(|h| !h.starts_with("Basic"))
        {
            self.header = None;
        }
    }

    pub fn has_credentials(&self) -> bool {
        self.credentials.is_some()
    }

    /// What a request carries.
    pub fn header(&self) -> Option<&str> {
        self.header.as_deref()
    }
}

/// What a registry wants to know: `Bearer realm="…",service="…"`.
struct Challenge<'a> {
    scheme: &'a str,
    parameters: Vec<(String, String)>,
}

impl<'a> Challenge<'a> {
    fn read(text: &'a str) -> Self {
        let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let mut parameters = Vec::new();
        let mut left = rest.trim();
        while let Some((name, value)) = left.split_once('=') {
            let (value, after) = match value.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
                None => value.split_once(',').unwrap_or((value, "")),
            };
            parameters.push((name.trim().to_ascii_lowercase(), value.to_string()));
            left = after.trim_start_matches([',', ' ']);
        }
        Self { scheme, parameters }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl Registry {
    /// Answers the challenge of a 401.
    pub(super) fn authorize(&self, headers: &HeaderMap) -> Result<()> {
        let texts: Vec<&str> =
            headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()).collect();
        let challenges: Vec<Challenge> = texts.into_iter().map(Challenge::read).collect();
        let find = |scheme: &str| challenges.iter().find(|known| known.scheme.eq_ignore_ascii_case(scheme));
        let value = if let Some(challenge) = find("bearer") {
            format!("Bearer {}", self.token(challenge)?)
        } else if find("basic").is_some() {
            self.basic().ok_or_else(|| self.needs_login())?
        } else {
            return Err(self.needs_login());
        };
        self.access.borrow_mut().header = Some(value);
        Ok(())
    }

    fn needs_login(&self) -> Error {
        Error::input(format!("{} wants to know who asks", self.name()))
            .help("log in first: `docker login`, `podman login` or `skopeo login` write the file that is read here")
    }

    fn basic(&self) -> Option<String> {
        match &self.access.borrow().credentials {
            Some(Credentials::Password { user, password }) if self.is_safe(&self.uri) => {
                Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
            }
            _ => None,
        }
    }

    /// Exchanges credentials, or nothing, for a token.
    fn token(&self, challenge: &Challenge) -> Result<String> {
        let wrong =
            |cause: String| Error::input(format!("{} does not say where tokens are given", self.name())).cause(cause);
        let realm = challenge.get("realm").ok_or_else(|| wrong("its challenge has no realm".into()))?;
        let uri: Uri = realm.parse().map_err(|error| wrong(format!("`{realm}`: {error}")))?;
        if !matches!(uri.scheme_str(), Some("https" | "http")) {
            return Err(wrong(format!("`{realm}` is neither http nor https")));
        }
        let (scopes, credentials) = {
            let access = self.access.borrow();
            // Not for all to read, wherever the registry points to.
            let credentials = access.credentials.clone().filter(|_| self.is_safe(&uri));
            (access.scopes.iter().cloned().collect::<Vec<_>>(), credentials)
        };
        let mut fields: Vec<(&str, String)> = vec![];
        fields.extend(challenge.get("service").map(|service| ("service", service.to_string())));
        let answer = match &credentials {
            Some(Credentials::Identity(token)) => {
                fields.push(("scope", scopes.join(" ")));
                fields.push(("grant_type", "refresh_token".into()));
                fields.push(("client_id", "narthex".into()));
                fields.push(("refresh_token", token.clone()));
                self.agent.post(uri.clone()).send_form(fields)
            }
            _ => {
                fields.extend(scopes.into_iter().map(|scope| ("scope", scope)));
                let mut request = self.agent.get(uri.clone()).query_pairs(fields);
                if let Some(Credentials::Password { user, password }) = &credentials {
                    let value = STANDARD.encode(format!("{user}:{password}"));
                    request = request.header(header::AUTHORIZATION, format!("Basic {value}"));
                }
                request.call()
            }
        };
        let failed = |failure: Failure| match failure {
            Failure::Passing(error, _) | Failure::Final(error) => error,
        };
        let answer = answer.map_err(|error| failed(unreachable_host(&uri, error, super::CHECK)))?;
        let (status, _, bytes) = read_whole(answer).map_err(failed)?;
        if status != 200 {
            let error = match credentials.is_some() {
                true => Error::input(format!("{} does not accept the credentials", self.name()))
                    .help("log in again: `docker login`, `podman login` or `skopeo login`"),
                false => self.needs_login(),
            };
            return Err(error.cause(format!("{} answers {status} {}", narthex_remote::place(&uri), words(&bytes))));
        }
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let token = answer["token"].as_str().or(answer["access_token"].as_str());
        token.map(str::to_string).ok_or_else(|| wrong("the answer holds no token".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        let challenge =
            Challenge::read(r#"Bearer realm="https://a/t?x=y",service="reg, istry" , scope="repository:a:pull,push""#);
        assert_eq!(challenge.scheme, "Bearer");
        assert_eq!(challenge.get("realm"), Some("https://a/t?x=y"));
        assert_eq!(challenge.get("service"), Some("reg, istry"));
        assert_eq!(challenge.get("scope"), Some("repository:a:pull,push"));
        let challenge = Challenge::read("Basic realm=Registry, charset=UTF-8");
        assert_eq!(
            (challenge.scheme, challenge.get("realm"), challenge.get("charset")),
            ("Basic", Some("Registry"), Some("UTF-8"))
        );
        assert_eq!(Challenge::read("Negotiate").get("realm"), None);
    }
}
