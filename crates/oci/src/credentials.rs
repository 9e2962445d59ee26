//! Who asks a registry: from the files and helpers that Docker and Podman share. Nothing is kept or printed.
//!
//! Source: Docker's `config.json` (`auths`, `credHelpers`, `credsStore`), `docker-credential-helpers`' protocol,
//! containers-auth.json(5).

use base64::{Engine, engine::general_purpose::STANDARD};
use narthex_base::{Error, Result};
use serde_json::Value;
use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The largest file of credentials, and the longest answer of a helper.
const BYTES_MAX: u64 = 1 << 20;
/// Under which Docker keeps what it has for Docker Hub.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// Who asks.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A name and a password, or an access token in its place.
    Password { user: String, password: String },
    /// A token that is exchanged for others (OAuth 2's refresh token).
    Identity(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// The files that may name credentials, in the order in which they are asked: those whose variables are set, then the
/// usual places.
pub fn credential_files(variable: impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let path = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let mut files = Vec::new();
    files.extend(path("REGISTRY_AUTH_FILE"));
    files.extend(path("DOCKER_CONFIG").map(|folder| folder.join("config.json")));
    files.extend(path("HOME").map(|home| home.join(".docker/config.json")));
    files.extend(path("XDG_RUNTIME_DIR").map(|folder| folder.join("containers/auth.json")));
    files.extend(path("XDG_CONFIG_HOME").map(|folder| folder.join("containers/auth.json")));
    files.extend(path("HOME").map(|home| home.join(".config/containers/auth.json")));
    files
}

/// The credentials for a repository, if a file names some: those of the repository itself, of what stands before it,
/// or of its host.
///
/// # Errors
/// If a file cannot be read or is no JSON, or a helper that it names fails.
pub(crate) fn find(files: &[PathBuf], host: &str, repository: &str) -> Result<Option<Credentials>> {
    for file in files.iter().filter(|file| file.is_file()) {
        let config = read(file)?;
        let names = names(host, repository);
        for name in &names {
            if let Some(helper) = config["credHelpers"][name.as_str()].as_str()
                && let Some(found) = ask_helper(helper, name)?
            {
                return Ok(Some(found));
            }
            let entry = &config["auths"][name.as_str()];
            if let Some(found) = entry_of(entry, file)? {
                return Ok(Some(found));
            }
        }
        if let Some(store) = config["credsStore"].as_str().filter(|store| !store.is_empty()) {
            for name in &names {
                if let Some(found) = ask_helper(store, name)? {
                    return Ok(Some(found));
                }
            }
        }
    }
    Ok(None)
}

/// Whom a file has credentials for, if environment variables name none: where `find` looks.
pub(crate) fn environment() -> Vec<PathBuf> {
    credential_files(|name| env::var(name).ok())
}

/// Under which names credentials for a repository may stand, the narrowest first.
fn names(host: &str, repository: &str) -> Vec<String> {
    let mut names = vec![];
    let mut path = format!("{host}/{repository}");
    while let Some(end) = path.rfind('/') {
        names.push(path.clone());
        path.truncate(end);
    }
    names.push(host.to_string());
    names.extend([format!("https://{host}"), format!("https://{host}/"), format!("https://{host}/v1/")]);
    if ["docker.io", "registry-1.docker.io", "index.docker.io"].contains(&host) {
        names.extend([DOCKER_HUB.to_string(), "docker.io".into()]);
    }
    names
}

fn read(path: &Path) -> Result<Value> {
    let fail = |error| Error::io("cannot read the credentials in", path, error);
    if fs::metadata(path).map_err(fail)?.len() > BYTES_MAX {
        return Err(Error::input("this is too long for a file of credentials").at(path.display(), None));
    }
    // What is wrong is not shown: it may be a password.
    serde_json::from_slice(&fs::read(path).map_err(fail)?).map_err(|error| {
        Error::input("this file of credentials is no JSON")
            .at(path.display(), error.line())
            .help("mend it, or log in again")
    })
}

fn entry_of(entry: &Value, file: &Path) -> Result<Option<Credentials>> {
    let text = |key: &str| entry[key].as_str().filter(|text| !text.is_empty());
    if let Some(token) = text("identitytoken") {
        return Ok(Some(Credentials::Identity(token.into())));
    }
    if let Some(auth) = text("auth") {
        let wrong = || Error::input("an entry `auth` is not base64 of `NAME:PASSWORD`").at(file.display(), None);
        let plain = STANDARD.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let plain = plain.ok_or_else(wrong)?;
        let (user, password) = plain.trim_end_matches('\0').split_once(':').ok_or_else(wrong)?;
        return Ok(Some(Credentials::Password { user: user.into(), password: password.into() }));
    }
    Ok(text("username")
        .zip(text("password"))
        .map(|(user, password)| Credentials::Password { user: user.into(), password: password.into() }))
}

/// Asks `docker-credential-NAME get`; none if it has nothing for this server.
fn ask_helper(name: &str, server: &str) -> Result<Option<Credentials>> {
    let program = format!("docker-credential-{name}");
    let failed = |what: String| {
        Error::input(format!("{program} gives no credentials for {server}"))
            .cause(what)
            .help("mend the helper, or take it out of Docker's config.json")
    };
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        return Err(failed("its name is none".into()));
    }
    let spawned =
        Command::new(&program).arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = spawned.map_err(|error| failed(format!("it cannot be run: {error}")))?;
    if let Some(mut input) = child.stdin.take() {
        // A helper that answers without reading has heard enough.
        _ = writeln!(input, "{server}");
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    // "credentials not found in native keychain", on standard output, is no failure.
    if !output.status.success() {
        return Ok(None);
    }
    let answer: Value = serde_json::from_slice(&output.stdout).map_err(|_| failed("its answer is no JSON".into()))?;
    let (Some(user), Some(secret)) = (answer["Username"].as_str(), answer["Secret"].as_str()) else {
        return Err(failed("its answer has neither `Username` nor `Secret`".into()));
    };
    Ok(Some(match user {
        "<token>" => Credentials::Identity(secret.into()),
        _ => Credentials::Password { user: user.into(), password: secret.into() },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(user: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Password { user: user.into(), password: password.into() })
    }

    #[test]
    fn from_files() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.json");
        let auth = STANDARD.encode("me:pa:ss");
        let config = format!(
            r#"{{"auths": {{"h:5000": {{"auth": "{auth}"}}, "h:5000/org/own": {{"username": "o", "password": "p"}},
                 "https://index.docker.io/v1/": {{"identitytoken": "t"}}, "empty": {{}} }}}}"#
        );
        fs::write(&file, config).unwrap();
        let files = [folder.path().join("absent"), file.clone()];
        let ask = |host: &str, repository: &str| find(&files, host, repository).unwrap();
        assert_eq!(ask("h:5000", "a/b"), password("me", "pa:ss"));
        assert_eq!(ask("h:5000", "org/own"), password("o", "p"));
        assert_eq!(ask("h:5000", "org/own/deeper"), password("o", "p"));
        assert_eq!(ask("registry-1.docker.io", "library/x"), Some(Credentials::Identity("t".into())));
        assert_eq!(ask("empty", "x"), None);
        assert_eq!(ask("other", "x"), None);
        fs::write(&file, "{\"auths\": secret").unwrap();
        let error = find(&files, "h", "x").unwrap_err().to_string();
        assert!(error.contains("config.json") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn where_files_lie() {
        let files = credential_files(|name| match name {
            "HOME" => Some("/home/me".into()),
            "DOCKER_CONFIG" => Some("/etc/d".into()),
            _ => None,
        });
        let expected = ["/etc/d/config.json", "/home/me/.docker/config.json", "/home/me/.config/containers/auth.json"];
        assert_eq!(files, expected.map(PathBuf::from));
    }
}
