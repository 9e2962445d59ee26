//! A server as a configuration names it, and how it is shown before anything of it runs. Plain data: nothing here
//! connects or starts anything.

use super::oauth::OAuth;
use narthex_agent::Effect;
use narthex_base::{Error, Result};
use std::{collections::BTreeMap, fmt, path::PathBuf};

/// Bytes of a server's name.
const NAME_BYTES_MAX: usize = 32;

/// A server of somebody's.
#[derive(Clone)]
pub struct ServerSpec {
    /// What its tools' names begin with: 1 to 32 of `a–z A–Z 0–9 _ -`.
    pub name: String,
    /// How it is reached.
    pub reach: Reach,
    /// What calls of its tools do, by the tools' own names. [`Effect::Reaches`] for one that is not named here; what
    /// the server says of itself does not count.
    pub effects: BTreeMap<String, Effect>,
    /// Which revisions may be spoken.
    pub revision: Revision,
}

/// How a server is reached.
#[derive(Clone)]
pub enum Reach {
    /// A program of this machine, on its standard input and output.
    Stdio {
        /// The program: a path, or a name that is looked for in our own `PATH`.
        program: String,
        /// Its arguments, which no shell sees.
        arguments: Vec<String>,
        /// All its environment: nothing is passed on but this.
        environment: BTreeMap<String, String>,
        /// Where it runs; where we do without.
        folder: Option<PathBuf>,
    },
    /// An address.
    Http {
        /// `https://…`, or `http://` on this machine.
        url: String,
        /// What opens it.
        credentials: Credentials,
    },
}

/// What opens a server. It is sent to that server's own address and nowhere else.
#[derive(Clone, Default)]
pub enum Credentials {
    /// Nothing.
    #[default]
    None,
    /// This token.
    Bearer(String),
    /// A token that a person gets at an authorization server.
    OAuth(OAuth),
}

/// Which revisions may be spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Revision {
    /// The newest that the server knows.
    #[default]
    Auto,
    /// 2026-07-28 and nothing before it.
    Newest,
    /// 2025-11-25 or what the server offers instead: by handshake.
    Older,
}

impl ServerSpec {
    /// One that is reached so, with all else as it is best.
    pub fn new(name: impl Into<String>, reach: Reach) -> Self {
        Self { name: name.into(), reach, effects: BTreeMap::new(), revision: Revision::Auto }
    }

    /// Exactly what will be run or asked, for a person to look at first. Values of the environment and tokens are not
    /// shown.
    pub fn describe(&self) -> String {
        match &self.reach {
            Reach::Stdio { program, arguments, environment, folder } => {
                let words = std::iter::once(program).chain(arguments).map(|word| quoted(word)).collect::<Vec<_>>();
                let mut shown = format!("runs {}", words.join(" "));
                if let Some(folder) = folder {
                    shown.push_str(&format!(", in {}", folder.display()));
                }
                match environment.is_empty() {
                    true => shown.push_str(", with an empty environment"),
                    false => {
                        let names: Vec<&str> = environment.keys().map(String::as_str).collect();
                        shown.push_str(&format!(", with {} in its environment and nothing else", names.join(", ")));
                    }
                }
                shown
            }
            Reach::Http { url, credentials } => {
                let with = match credentials {
                    Credentials::None => "without a token",
                    Credentials::Bearer(_) => "with a token",
                    Credentials::OAuth(_) => "with a token that you get by logging in",
                };
                format!("asks {url} {with}")
            }
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX || !self.name.bytes().all(known) {
            let what = format!("`{}` is no name for an MCP server", self.name);
            return Err(Error::input(what).help(format!("use 1 to {NAME_BYTES_MAX} of a–z, A–Z, 0–9, _ and -")));
        }
        if let Reach::Http { url, credentials } = &self.reach {
            let parsed = reqwest::Url::parse(url);
            let parsed = parsed.map_err(|error| Error::input(format!("`{url}` is no address")).cause(error))?;
            if !parsed.username().is_empty() || parsed.password().is_some() {
                return Err(Error::input(format!("the address of `{}` has a password in it", self.name))
                    .help("put it into the token instead"));
            }
            let has_token = !matches!(credentials, Credentials::None);
            match parsed.scheme() {
                "https" => {}
                "http" if !has_token || is_here(&parsed) => {}
                "http" => {
                    return Err(Error::input(format!("a token for `{}` would travel in the open", self.name))
                        .help("use https://"));
                }
                scheme => {
                    let what = format!("`{scheme}:` is no way to reach an MCP server");
                    return Err(Error::input(what).help("use https:// or http://"));
                }
            }
        }
        Ok(())
    }
}

/// Whether an address is of this machine.
fn is_here(url: &reqwest::Url) -> bool {
    url.host_str().is_some_and(|host| {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let address = bare.parse::<std::net::IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback())
    })
}

/// A word as a shell would have to be given it. Control characters are shown, not sent to the terminal.
fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:=@%+,".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.into();
    }
    let shown: String =
        word.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect();
    format!("'{}'", shown.replace('\'', r"'\''"))
}

/// Without tokens and values.
impl fmt::Debug for ServerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.describe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stdio(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> ServerSpec {
        let reach = Reach::Stdio {
            program: program.into(),
            arguments: arguments.iter().map(|word| word.to_string()).collect(),
            environment: environment.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            folder: None,
        };
        ServerSpec::new("files", reach)
    }

    #[test]
    fn what_runs_is_shown() {
        for (spec, expected) in [
            (stdio("npx", &["-y", "a b"], &[]), "runs npx -y 'a b', with an empty environment"),
            (
                stdio("sh", &["-c", "rm -rf ~; echo 'x'\n"], &[("TOKEN", "secret"), ("PATH", "/bin")]),
                r"runs sh -c 'rm -rf ~; echo '\''x'\''\n', with PATH, TOKEN in its environment and nothing else",
            ),
            (stdio("", &["\u{1b}[2J"], &[]), r"runs '' '\u{1b}[2J', with an empty environment"),
        ] {
            assert_eq!(spec.describe(), expected);
        }
        let credentials = Credentials::Bearer("secret".into());
        let spec = ServerSpec::new("a", Reach::Http { url: "https://mcp.example/".into(), credentials });
        assert_eq!(format!("{spec:?}"), "a (asks https://mcp.example/ with a token)");
    }

    #[test]
    fn only_what_can_be_reached_safely() {
        for (name, url, token, expected) in [
            ("files", "https://mcp.example/mcp", true, true),
            ("files", "http://127.0.0.1:8000/mcp", true, true),
            ("files", "http://[::1]:8000/mcp", true, true),
            ("files", "http://localhost/mcp", true, true),
            ("files", "http://mcp.example/mcp", false, true),
            ("files", "http://mcp.example/mcp", true, false),
            ("files", "https://ann:secret@mcp.example/mcp", false, false),
            ("files", "file:///etc/passwd", false, false),
            ("files", "mcp.example", false, false),
            ("", "https://mcp.example", false, false),
            ("a.b", "https://mcp.example", false, false),
            ("a b", "https://mcp.example", false, false),
            (&*"a".repeat(33), "https://mcp.example", false, false),
        ] {
            let credentials = if token { Credentials::Bearer("t".into()) } else { Credentials::None };
            let spec = ServerSpec::new(name, Reach::Http { url: url.into(), credentials });
            assert_eq!(spec.check().is_ok(), expected, "{name} {url} {token}: {:?}", spec.check());
        }
    }
}
