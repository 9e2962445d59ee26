//! Where the Hub is, who asks, and where things are kept: read from the environment once, under the names that Hugging
//! Face's own tools have.

use narthex_base::{Error, Result};
use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// Where the Hub is.
const ENDPOINT: &str = "https://huggingface.co";

/// The largest token file that is read.
const TOKEN_BYTES_MAX: u64 = 4096;

/// What a connection needs to know.
#[derive(Clone)]
pub struct HubSettings {
    /// The Hub's address without a slash at the end.
    pub endpoint: String,
    /// Who asks; sent to the Hub's own host alone.
    pub token: Option<String>,
    /// Whether nothing may be asked of the network.
    pub offline: bool,
    /// Hugging Face's cache: read, never written.
    pub hub_cache: Option<PathBuf>,
    /// Our own folder of downloads.
    pub downloads: PathBuf,
    /// Certificates to trust instead of Mozilla's, as PEM.
    pub certificates: Option<PathBuf>,
    /// How long to wait before a second try; each further one waits twice as long.
    pub backoff: Duration,
}

impl HubSettings {
    /// As the process's environment says.
    ///
    /// # Errors
    /// If the token file cannot be read, or there is no folder for downloads.
    pub fn from_environment() -> Result<Self> {
        Self::from_variables(|name| env::var(name).ok())
    }

    /// As these variables say; an empty one counts as absent.
    ///
    /// # Errors
    /// As [`HubSettings::from_environment`].
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let path = |name: &str| variable(name).map(PathBuf::from);
        let is_on = |name: &str| {
            variable(name)
                .is_some_and(|value| ["1", "ON", "YES", "TRUE"].contains(&value.trim().to_uppercase().as_str()))
        };
        let home = path("HOME");
        let cache = path("XDG_CACHE_HOME").or_else(|| home.as_ref().map(|home| home.join(".cache")));
        let hf_home = path("HF_HOME").or_else(|| cache.as_ref().map(|cache| cache.join("huggingface")));
        let downloads = cache.map(|cache| cache.join("narthex/hub")).ok_or_else(|| {
            Error::input("there is no folder for downloads").help("set HOME, or name one: `export XDG_CACHE_HOME=DIR`")
        })?;
        let token = match variable("HF_TOKEN") {
            Some(token) => Some(token),
            None => path("HF_TOKEN_PATH")
                .or_else(|| hf_home.as_ref().map(|home| home.join("token")))
                .filter(|path| path.is_file())
                .map(|path| read_token(&path))
                .transpose()?,
        };
        let token = token.map(|token| token.trim().to_string()).filter(|token| !token.is_empty());
        let implicit = !is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN");
        Ok(Self {
            endpoint: variable("HF_ENDPOINT")
                .unwrap_or_else(|| ENDPOINT.into())
                .trim()
                .trim_end_matches('/')
                .to_string(),
            token: token.filter(|_| implicit),
            offline: is_on("HF_HUB_OFFLINE"),
            hub_cache: path("HF_HUB_CACHE").or_else(|| hf_home.map(|home| home.join("hub"))),
            downloads,
            certificates: path("SSL_CERT_FILE"),
            backoff: Duration::from_secs(1),
        })
    }

    /// Whether the endpoint is not Hugging Face's own.
    pub fn is_mirror(&self) -> bool {
        self.endpoint != ENDPOINT
    }
}

fn read_token(path: &Path) -> Result<String> {
    let fail = |error| Error::io("cannot read the token in", path, error);
    if fs::metadata(path).map_err(fail)?.len() > TOKEN_BYTES_MAX {
        return Err(Error::input("this is too long for a token").at(path.display(), None));
    }
    fs::read_to_string(path).map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().display().to_string();
        fs::create_dir_all(folder.path().join(".cache/huggingface")).unwrap();
        fs::write(folder.path().join(".cache/huggingface/token"), "hf_file\n").unwrap();
        let read = |given: &[(&str, &str)]| {
            HubSettings::from_variables(|name| {
                let found = given.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string());
                found.or_else(|| (name == "HOME").then(|| home.clone()))
            })
        };
        let plain = read(&[]).unwrap();
        assert_eq!((plain.endpoint.as_str(), plain.token.as_deref()), (ENDPOINT, Some("hf_file")));
        assert_eq!(plain.hub_cache.unwrap(), folder.path().join(".cache/huggingface/hub"));
        assert_eq!(plain.downloads, folder.path().join(".cache/narthex/hub"));
        assert!(!plain.offline);
        let set = read(&[
            ("HF_ENDPOINT", "http://mirror/"),
            ("HF_TOKEN", " hf_own "),
            ("HF_HUB_OFFLINE", "true"),
            ("HF_HOME", "/h"),
            ("XDG_CACHE_HOME", "/x"),
        ])
        .unwrap();
        assert_eq!((set.endpoint.as_str(), set.token.as_deref(), set.offline), ("http://mirror", Some("hf_own"), true));
        assert_eq!((set.hub_cache.unwrap(), set.downloads), (PathBuf::from("/h/hub"), PathBuf::from("/x/narthex/hub")));
        assert_eq!(read(&[("HF_HUB_CACHE", "/c")]).unwrap().hub_cache.unwrap(), PathBuf::from("/c"));
        assert_eq!(read(&[("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]).unwrap().token, None);
        assert!(read(&[("HOME", "")]).is_err());
    }
}
