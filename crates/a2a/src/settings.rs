//! `[remotes.NAME]` of a project file: an agent of somebody else, reached over A2A. Knows its form and what it means as
//! [`ClientOptions`]; connects to nothing.

use crate::{client_options::ClientOptions, screen::Screen, signature::CardKey};
use narthex_base::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{env, path::Path};

/// Bytes of a file with a key.
const KEY_BYTES_MAX: u64 = 64 << 10;

/// `[remotes.NAME]`: an agent of somebody else, reached over A2A. It is a tool of this name, which takes a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoteSettings {
    /// Where it is: its base, as `https://agent.example.com`, or its card. The operator names it, so it may be
    /// anywhere; what its card names must be on the same host, or public.
    pub url: String,
    /// The environment variable that holds the token it asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_env: Option<String>,
    /// Files with public keys (PEM), one of which must have signed the card. Without any, no signature is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signed_by: Vec<String>,
    /// What the model reads of it; what the card says by default, which is somebody else's text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Milliseconds that a call may take.
    #[serde(default = "wall_ms")]
    #[schemars(range(min = 1, max = 86_400_000))]
    pub wall_ms: u64,
}

fn wall_ms() -> u64 {
    600_000
}

impl RemoteSettings {
    /// How it is called; files of keys lie below `folder`.
    ///
    /// # Errors
    /// If the URL is none, a variable is not set, or a key cannot be read.
    pub fn options(&self, name: &str, folder: &Path) -> Result<ClientOptions> {
        let wrong = |what: String| Error::input(format!("`[remotes.{name}]`: {what}"));
        let url = url::Url::parse(&self.url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let host = url.as_ref().and_then(|url| Some((url.host_str()?, url.port_or_known_default()?)));
        let Some((host, port)) = host else {
            return Err(wrong(format!("`{}` is no URL", self.url)).help("write it as `https://agent.example.com`"));
        };
        let token = self.token_env.as_ref().map(|variable| {
            env::var(variable).map_err(|_| {
                wrong(format!("the environment variable {variable} is not set"))
                    .help(format!("export {variable}=TOKEN"))
            })
        });
        Ok(ClientOptions {
            screen: Screen::new([format!("{host}:{port}").as_str()]),
            keys: self.signed_by.iter().map(|file| read_key(&folder.join(file))).collect::<Result<_>>()?,
            token: token.transpose()?.map(|token| token.trim().to_string()),
            name: Some(name.into()),
            description: self.description.clone(),
            call_ms: self.wall_ms,
            ..ClientOptions::default()
        })
    }
}

fn read_key(path: &Path) -> Result<CardKey> {
    let fail = |error| Error::io("cannot read the key", path, error);
    let bytes = std::fs::metadata(path).map_err(fail)?.len();
    if bytes > KEY_BYTES_MAX {
        return Err(
            Error::input(format!("the key has {bytes} bytes, {KEY_BYTES_MAX} at most")).at(path.display(), None)
        );
    }
    CardKey::from_pem(&std::fs::read_to_string(path).map_err(fail)?, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> RemoteSettings {
        RemoteSettings { url: url.into(), token_env: None, signed_by: vec![], description: None, wall_ms: 1 }
    }

    #[test]
    fn the_named_host_alone_may_be_private() {
        let options = settings("http://127.0.0.1:9000").options("near", Path::new(".")).unwrap();
        assert_eq!(options.name.as_deref(), Some("near"));
        assert!(options.screen.check_form("http://127.0.0.1:9000/card").is_ok());
        assert!(options.screen.check_form("http://127.0.0.1:9001/card").is_err());
        assert!(options.screen.check_form("http://10.0.0.1/card").is_err());
    }

    #[test]
    fn what_is_no_remote_is_told() {
        let unset = Some("NARTHEX_TEST_NO_SUCH_TOKEN".to_string());
        for (settings, expected) in [
            (settings("nowhere"), "`nowhere` is no URL"),
            (settings("ftp://example.org"), "is no URL"),
            (RemoteSettings { token_env: unset, ..settings("https://example.org") }, "is not set"),
            (RemoteSettings { signed_by: vec!["no.pem".into()], ..settings("https://example.org") }, "no.pem"),
        ] {
            let error = settings.options("far", Path::new("/nowhere")).map(|_| ()).unwrap_err();
            let place = error.place().map(|place| place.to_string()).unwrap_or_default();
            assert!(format!("{error} {place}").contains(expected), "{error} {place}");
        }
    }
}
