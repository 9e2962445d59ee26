//! Addresses of replicas, from flags or a file. Knows text: reaches nobody.

use axum::http::{Uri, uri::Scheme};
use narthex_base::{Error, Result};
use std::path::Path;

/// Replicas at most: as many as a word has bits.
pub(crate) const REPLICAS_MAX: usize = 64;

/// Bytes of a file of addresses.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Scheme, host and port of a replica, such as `http://10.0.0.1:8000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address(String);

impl Address {
    /// Reads an address; a path of `/` or `/v1` is left out.
    pub fn parse(text: &str) -> Result<Self, String> {
        let uri: Uri = text.trim().parse().map_err(|_| format!("`{text}` is not an address"))?;
        let scheme = uri.scheme().filter(|scheme| **scheme == Scheme::HTTP || **scheme == Scheme::HTTPS);
        let (Some(scheme), Some(authority)) = (scheme, uri.authority()) else {
            return Err(format!("`{text}` is not an address with `http://` or `https://`"));
        };
        if authority.as_str().contains('@') {
            return Err("an address holds no user and no password: the key goes into `--replica-api-key`".into());
        }
        if !matches!(uri.path().trim_end_matches('/'), "" | "/v1") || uri.query().is_some() {
            return Err(format!("`{text}` has a path: leave it out"));
        }
        let behind_host = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
        if !behind_host.is_empty() && authority.port_u16().is_none_or(|port| port == 0) {
            return Err(format!("`{text}` has no port from 1 to 65535"));
        }
        Ok(Self(format!("{scheme}://{}", authority.as_str().to_ascii_lowercase())))
    }

    /// `http://HOST:PORT`, without a slash behind it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address of a path and query on this replica.
    pub fn uri(&self, path_and_query: &str) -> Result<Uri, String> {
        format!("{}{path_and_query}", self.0).parse().map_err(|_| format!("`{path_and_query}` is not a path"))
    }
}

/// All addresses of flags, and of a file if there is one; each once.
///
/// # Errors
/// If there is none, one is wrong, there are more than [`REPLICAS_MAX`], or the file cannot be read.
pub(crate) fn all(flags: &[String], file: Option<&Path>) -> Result<Vec<Address>> {
    let mut found: Vec<Address> = vec![];
    let mut add = |address: Address| {
        if !found.contains(&address) {
            found.push(address);
        }
    };
    let fix = "name a replica as `http://10.0.0.1:8000`";
    for text in flags {
        add(Address::parse(text).map_err(|what| Error::usage(what).help(fix))?);
    }
    if let Some(path) = file {
        let cannot = |error| Error::io("cannot read", path, error);
        if std::fs::metadata(path).map_err(cannot)?.len() > FILE_BYTES_MAX {
            return Err(Error::input("this is no list of replicas: it is too long").at(path.display(), None));
        }
        let text = std::fs::read_to_string(path).map_err(cannot)?;
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                add(Address::parse(line).map_err(|what| Error::input(what).at(path.display(), index + 1).help(fix))?);
            }
        }
    }
    match found.len() {
        0 => Err(Error::usage("there are no replicas")
            .help("name them with `--replica http://10.0.0.1:8000`, once each, or in the file of `--replicas`")),
        count if count > REPLICAS_MAX => {
            Err(Error::usage(format!("{count} replicas are more than the {REPLICAS_MAX} that a router has room for"))
                .help("start several routers, each with some of them"))
        }
        _ => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, expected) in [
            ("http://10.0.0.1:8000", Some("http://10.0.0.1:8000")),
            (" http://A.example/ ", Some("http://a.example")),
            ("https://a.example:444/v1", Some("https://a.example:444")),
            ("http://[::1]:8000/v1/", Some("http://[::1]:8000")),
            ("10.0.0.1:8000", None),
            ("ftp://a", None),
            ("http://", None),
            ("http://u:p@a", None),
            ("http://a/b", None),
            ("http://a?x=y", None),
            ("http://a:99999", None),
            ("", None),
        ] {
            assert_eq!(Address::parse(text).ok().map(|address| address.0).as_deref(), expected, "{text}");
        }
        let address = Address::parse("http://a:1").unwrap();
        assert_eq!(address.uri("/v1/models?x=1").unwrap().to_string(), "http://a:1/v1/models?x=1");
    }

    #[test]
    fn a_file_is_read_with_its_lines_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("replicas.txt");
        std::fs::write(&path, "# two\nhttp://a:1\n\nhttp://b:2 # the second\nhttp://A:1\n").unwrap();
        let known: Vec<_> = all(&["http://c:3".into()], Some(&path)).unwrap();
        assert_eq!(known.iter().map(Address::as_str).collect::<Vec<_>>(), ["http://c:3", "http://a:1", "http://b:2"]);
        std::fs::write(&path, "http://a:1\nb:2\n").unwrap();
        let error = all(&[], Some(&path)).unwrap_err();
        assert_eq!(error.place(), Some(format!("{}:2", path.display())));
        std::fs::write(&path, "").unwrap();
        assert_eq!(all(&[], Some(&path)).unwrap_err().what(), "there are no replicas");
        let many: Vec<String> = (0..65).map(|i| format!("http://a:{}", i + 1)).collect();
        assert!(all(&many, None).is_err() && all(&many[..64], None).is_ok());
    }
}
