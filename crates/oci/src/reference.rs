//! What is named on a command line: `oci://HOST/REPOSITORY:TAG` in a registry, `oci:DIR:TAG` on disk,
//! `ollama://MODEL:TAG` in Ollama's. Knows letters, no network.

use narthex_base::{Error, Result};
use std::{fmt, path::PathBuf, str::FromStr};

/// The registry that Ollama asks when none is named.
const OLLAMA_HOST: &str = "registry.ollama.ai";
/// The longest name of a repository, as the distribution specification has it.
const REPOSITORY_BYTES_MAX: usize = 255;
/// The longest tag.
const TAG_BYTES_MAX: usize = 128;

/// A SHA-256 as registries write it: `sha256:` and 64 lower-case hexadecimal digits. Nothing else is one, so that its
/// digits can be part of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256Digest(String);

impl Sha256Digest {
    /// From 32 bytes.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        use sha2::Digest;
        Self::of_hash(&sha2::Sha256::digest(bytes))
    }

    /// From a hash that was computed on the way.
    pub(crate) fn of_hash(hash: &[u8]) -> Self {
        let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        Self(format!("sha256:{digits}"))
    }

    /// The 64 digits.
    pub fn digits(&self) -> &str {
        &self.0["sha256:".len()..]
    }

    /// With the algorithm in front.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Sha256Digest {
    type Err = Error;

    /// # Errors
    /// If it is not `sha256:` and 64 lower-case hexadecimal digits.
    fn from_str(text: &str) -> Result<Self> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        match text.strip_prefix("sha256:") {
            Some(digits) if digits.len() == 64 && digits.bytes().all(is_digit) => Ok(Self(text.into())),
            _ => {
                let shown: String = text.chars().take(80).collect();
                Err(Error::input(format!("`{shown}` is no digest"))
                    .help("a digest is `sha256:` and 64 digits of 0-9 and a-f"))
            }
        }
    }
}

/// Something in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Host, and port if it is not the usual one.
    pub host: String,
    /// The name of the repository: parts with a slash in between.
    pub repository: String,
    /// The tag; `latest` if neither tag nor digest is given.
    pub tag: Option<String>,
    /// What the manifest must be.
    pub digest: Option<Sha256Digest>,
}

impl Remote {
    /// What a registry is asked for: the digest where there is one.
    pub fn asked(&self) -> &str {
        match &self.digest {
            Some(digest) => digest.as_str(),
            None => self.tag.as_deref().unwrap_or("latest"),
        }
    }

    /// Without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci://{}", self.name())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// A tag in an OCI image layout, a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The folder.
    pub folder: PathBuf,
    /// The tag; `latest` if none is given.
    pub tag: String,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci:{}:{}", self.folder.display(), self.tag)
    }
}

/// Where something is pushed to or pulled from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OciReference {
    /// In a folder.
    Layout(Layout),
    /// In a registry.
    Registry(Remote),
    /// In a registry, with Ollama's media types.
    Ollama(Remote),
}

impl OciReference {
    /// Whether a text is meant to be one.
    pub fn is_meant(text: &str) -> bool {
        ["oci:", "ollama://"].iter().any(|prefix| text.starts_with(prefix))
    }

    /// Reads `oci://HOST[:PORT]/REPOSITORY[:TAG][@sha256:DIGITS]`, `oci:DIR[:TAG]` or
    /// `ollama://[HOST/][NAMESPACE/]MODEL[:TAG]`.
    ///
    /// # Errors
    /// If it is written otherwise, or a name, tag or digest has characters that registries do not take.
    pub fn parse(text: &str) -> Result<Self> {
        if let Some(rest) = text.strip_prefix("oci://") {
            return remote(text, rest).map(Self::Registry);
        }
        if let Some(rest) = text.strip_prefix("ollama://") {
            let slashes = rest.matches('/').count();
            let whole = match (slashes, rest.split('/').next()) {
                (0, _) => format!("{OLLAMA_HOST}/library/{rest}"),
                (1, Some(first)) if !first.contains(['.', ':']) && first != "localhost" => {
                    format!("{OLLAMA_HOST}/{rest}")
                }
                (1, Some(first)) => format!("{first}/library/{}", &rest[first.len() + 1..]),
                _ => rest.to_string(),
            };
            return remote(text, &whole).map(Self::Ollama);
        }
        match text.strip_prefix("oci:") {
            Some(rest) => layout(text, rest).map(Self::Layout),
            None => Err(wrong(text, "is neither in a registry nor an image layout")),
        }
    }
}

impl fmt::Display for OciReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layout(layout) => layout.fmt(f),
            Self::Registry(remote) => remote.fmt(f),
            Self::Ollama(remote) => write!(f, "ollama://{}:{}", remote.name(), remote.asked()),
        }
    }
}

fn wrong(text: &str, what: &str) -> Error {
    Error::usage(format!("`{text}` {what}")).help(
        "write `oci://HOST/REPOSITORY:TAG` for a registry, perhaps with `@sha256:…` behind it, or `oci:DIR:TAG` for a folder",
    )
}

fn check_tag(text: &str, tag: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if tag.is_empty() || tag.len() > TAG_BYTES_MAX || !tag.chars().all(fits) || tag.starts_with(['.', '-']) {
        return Err(wrong(text, "has no tag that registries take"));
    }
    Ok(())
}

fn layout(text: &str, rest: &str) -> Result<Layout> {
    let (folder, tag) = match rest.rsplit_once(':') {
        Some((folder, tag)) if !tag.contains('/') => (folder, tag),
        _ => (rest, "latest"),
    };
    if folder.is_empty() {
        return Err(wrong(text, "names no folder"));
    }
    check_tag(text, tag)?;
    Ok(Layout { folder: folder.into(), tag: tag.into() })
}

fn remote(text: &str, rest: &str) -> Result<Remote> {
    let (rest, digest) = match rest.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.parse()?)),
        None => (rest, None),
    };
    let Some((host, path)) = rest.split_once('/') else {
        return Err(wrong(text, "names no repository behind the host"));
    };
    let (repository, tag) = match path.rsplit_once(':') {
        Some((repository, tag)) => (repository, Some(tag)),
        None => (path, None),
    };
    let is_host = |c: char| c.is_ascii_alphanumeric() || "-.:[]".contains(c);
    if host.is_empty() || !host.chars().all(is_host) || format!("https://{host}/").parse::<ureq::http::Uri>().is_err() {
        return Err(wrong(text, "names no host"));
    }
    if let Some(tag) = tag {
        check_tag(text, tag)?;
    }
    let is_part = |part: &str| {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        part.chars().all(fits)
            && part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && !part.ends_with(['.', '_', '-'])
    };
    if repository.len() > REPOSITORY_BYTES_MAX || !repository.split('/').all(is_part) {
        return Err(wrong(
            text,
            "names no repository that registries take: lower-case letters, digits, `.`, `_`, `-`, `/`",
        ));
    }
    Ok(Remote { host: host.into(), repository: repository.into(), tag: tag.map(Into::into), digest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_tags() {
        for (text, expected) in [
            ("oci:out", Some("oci:out:latest")),
            ("oci:out/a:v1", Some("oci:out/a:v1")),
            ("oci:/x/y:1.0", Some("oci:/x/y:1.0")),
            ("docker://x", None),
            ("oci:", None),
            ("oci:x:", None),
            ("oci:x:a b", None),
        ] {
            let found = OciReference::parse(text).ok().map(|found| found.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn registries() {
        let digest = format!("sha256:{}", "0f".repeat(32));
        for (text, expected) in [
            ("oci://ghcr.io/org/model:v1", Some(("ghcr.io", "org/model", "v1"))),
            ("oci://127.0.0.1:5000/a", Some(("127.0.0.1:5000", "a", "latest"))),
            ("oci://[::1]:5000/a:x", Some(("[::1]:5000", "a", "x"))),
            (&format!("oci://h/a:v1@{digest}"), Some(("h", "a", digest.as_str()))),
            ("ollama://smollm2:135m", Some(("registry.ollama.ai", "library/smollm2", "135m"))),
            ("ollama://me/mine", Some(("registry.ollama.ai", "me/mine", "latest"))),
            ("ollama://localhost:5000/x", Some(("localhost:5000", "library/x", "latest"))),
            ("ollama://localhost:5000/a/x:1", Some(("localhost:5000", "a/x", "1"))),
            ("oci://ghcr.io", None),
            ("oci:///a", None),
            ("oci://user@host/a", None),
            ("oci://h/A", None),
            ("oci://h/a/../b", None),
            ("oci://h/a//b", None),
            ("oci://h/a:", None),
            ("oci://h/a@sha256:12", None),
            ("oci://h/a?x=y", None),
        ] {
            let found = OciReference::parse(text).ok();
            let found = found.as_ref().map(|found| match found {
                OciReference::Registry(remote) | OciReference::Ollama(remote) => {
                    (remote.host.as_str(), remote.repository.as_str(), remote.asked())
                }
                OciReference::Layout(_) => panic!("{text}"),
            });
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn digests_are_no_paths() {
        for text in ["sha256:../../../x", "sha256:", "sha512:00", "", &format!("sha256:{}", "AB".repeat(32))] {
            assert!(text.parse::<Sha256Digest>().is_err(), "{text}");
        }
        let empty = Sha256Digest::of_bytes(b"");
        assert_eq!(empty.digits(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(empty.as_str().parse::<Sha256Digest>().unwrap(), empty);
    }
}
