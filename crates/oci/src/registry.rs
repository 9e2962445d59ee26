//! A repository in a registry, over HTTP: who asks, redirects, waits and further tries. Sending and fetching blobs
//! stand in files of their own.
//!
//! Source: OCI distribution specification 1.1; Docker's token authentication.

mod access;
mod fetch;
mod send;

use crate::{
    media,
    package::Document,
    reference::{Remote, Sha256Digest},
};
use access::Access;
use narthex_base::{Error, Observer, Result};
use narthex_remote::{
    AgentOptions, Failure, Tries, agent, is_loopback, place, reason, retry_after, target, unreachable_host,
};
use serde_json::{Value, json};
use std::{cell::RefCell, env, io::Read, path::PathBuf, time::Duration};
use ureq::{
    Agent, Body, SendBody,
    http::{HeaderMap, HeaderName, Method, Request, Response, Uri, header},
};

pub use send::Sent;

/// Redirects that one request may take.
const REDIRECTS_MAX: usize = 8;
/// The largest manifest that registries take.
const DOCUMENT_BYTES_MAX: u64 = 16 << 20;
/// What an error shows of a registry's own words.
const WORDS_MAX: usize = 200;
/// What to look at where nothing comes.
const CHECK: &str = "the network and the registry's name";
/// What to do after a long wait.
const LONG_WAIT: &str = "run the same command again";
/// What a manifest may be.
const ACCEPT: [&str; 4] = [media::INDEX, media::MANIFEST, media::DOCKER_LIST, media::DOCKER_MANIFEST];

/// How registries are reached, and where what is begun is kept.
#[derive(Clone, Debug)]
pub struct RegistrySettings {
    /// Certificates to trust instead of Mozilla's, as PEM.
    pub certificates: Option<PathBuf>,
    /// Whether to speak without encryption to other machines too; to this one it is always done where TLS is not
    /// spoken.
    pub plain_http: bool,
    /// Files that may name credentials.
    pub credential_files: Vec<PathBuf>,
    /// Where parts of files and the addresses of uploads are kept, so that the next try goes on.
    pub cache: PathBuf,
    /// How long to wait before a second try; each further one waits twice as long.
    pub backoff: Duration,
}

impl RegistrySettings {
    /// As the process's environment says.
    ///
    /// # Errors
    /// If there is no folder for what is begun.
    pub fn from_environment() -> Result<Self> {
        let path = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = path("XDG_CACHE_HOME").or_else(|| path("HOME").map(|home| home.join(".cache")));
        let cache = cache.map(|cache| cache.join("narthex/oci")).ok_or_else(|| {
            Error::input("there is no folder for what is pulled")
                .help("set HOME, or name one: `export XDG_CACHE_HOME=DIR`")
        })?;
        Ok(Self {
            certificates: path("SSL_CERT_FILE"),
            plain_http: false,
            credential_files: crate::credentials::environment(),
            cache,
            backoff: Duration::from_secs(1),
        })
    }
}

/// What is wanted of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Pull,
    Push,
}

/// A repository in a registry.
pub struct Registry {
    agent: Agent,
    /// Scheme and host.
    base: String,
    uri: Uri,
    repository: String,
    settings: RegistrySettings,
    access: RefCell<Access>,
}

/// A request without its content.
struct Ask {
    method: Method,
    address: String,
    headers: Vec<(HeaderName, String)>,
}

impl Ask {
    fn new(method: Method, address: String) -> Self {
        Self { method, address, headers: vec![] }
    }

    fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// Opens what a request carries, and how many bytes that is.
type Content<'a> = &'a dyn Fn() -> Result<(Box<dyn Read + 'a>, u64)>;

impl Registry {
    /// Prepares the connection. To find out whether a registry on this machine speaks TLS, it is asked.
    ///
    /// # Errors
    /// If the host is none, or certificates or credentials cannot be read.
    pub fn new(remote: &Remote, wish: Wish, settings: &RegistrySettings) -> Result<Self> {
        // Docker Hub's registry has another name than its pages, and a name of its own for what has no owner.
        let is_hub = ["docker.io", "index.docker.io"].contains(&remote.host.as_str());
        let host = if is_hub { "registry-1.docker.io" } else { remote.host.as_str() };
        let repository = match remote.repository.contains('/') || !is_hub {
            true => remote.repository.clone(),
            false => format!("library/{}", remote.repository),
        };
        let uri = |scheme: &str| -> Result<Uri> {
            let wrong = |error| Error::usage(format!("`{host}` is no host")).cause(error);
            format!("{scheme}://{host}/").parse().map_err(|error: ureq::http::uri::InvalidUri| wrong(error.to_string()))
        };
        let mut address = uri("https")?;
        let is_local = address.host().is_some_and(is_loopback);
        let agent = agent(&AgentOptions { certificates: settings.certificates.as_deref(), is_local })?;
        if settings.plain_http || (is_local && !speaks_tls(&agent, host)) {
            address = uri("http")?;
        }
        let credentials = crate::credentials::find(&settings.credential_files, &remote.host, &repository)?;
        let base = address.to_string().trim_end_matches('/').to_string();
        let access = RefCell::new(Access::new(&repository, wish, credentials));
        Ok(Self { agent, base, uri: address, repository, settings: settings.clone(), access })
    }

    /// Whether a password would go over the network for all to read.
    pub fn warnings(&self) -> Vec<String> {
        if self.access.borrow().has_credentials() && !self.is_safe(&self.uri) {
            return vec![format!("the credentials are not sent: {} is not encrypted", self.base)];
        }
        vec![]
    }

    /// A manifest or an index, by tag or digest: its bytes, their digest and their type.
    ///
    /// # Errors
    /// If there is none, or it is not what the digest says.
    pub(crate) fn document(
        &self,
        reference: &str,
        observer: Observer,
    ) -> Result<Option<(Vec<u8>, Sha256Digest, String)>> {
        let ask =
            Ask::new(Method::GET, self.path(&format!("manifests/{reference}"))).with(header::ACCEPT, ACCEPT.join(", "));
        let (headers, bytes) = match self.whole(&ask, None, observer)? {
            (200, headers, bytes) => (headers, bytes),
            (404, ..) => return Ok(None),
            (status, headers, bytes) => {
                return Err(self.refused(status, &headers, &bytes, "does not give the manifest"));
            }
        };
        let digest = Sha256Digest::of_bytes(&bytes);
        let told = headers.get("docker-content-digest").and_then(|value| value.to_str().ok());
        let wanted = if reference.starts_with("sha256:") { Some(reference) } else { told };
        if let Some(wanted) = wanted.filter(|wanted| wanted.starts_with("sha256:") && *wanted != digest.as_str()) {
            return Err(Error::input(format!(
                "the manifest of {}:{reference} did not arrive as it was pushed",
                self.name()
            ))
            .cause(format!("its digest is {digest}, not {wanted}"))
            .help("run the same command again; if it stays so, the registry was tampered with"));
        }
        let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Ok(Some((bytes, digest, kind.split(';').next().unwrap_or_default().trim().to_string())))
    }

    /// Stores a manifest under a tag or its digest. Says whether the registry keeps what refers to it by itself.
    ///
    /// # Errors
    /// If the registry refuses it.
    pub(crate) fn put_document(&self, document: &Document, reference: &str, observer: Observer) -> Result<bool> {
        let ask = Ask::new(Method::PUT, self.path(&format!("manifests/{reference}")))
            .with(header::CONTENT_TYPE, document.media_type);
        let content = || -> Result<(Box<dyn Read>, u64)> { Ok((document.blob.open(0)?, document.blob.bytes)) };
        let (status, headers, bytes) = self.whole(&ask, Some(&content), observer)?;
        if !(200..300).contains(&status) {
            return Err(self.refused(status, &headers, &bytes, "does not take the manifest"));
        }
        Ok(headers.contains_key("oci-subject"))
    }

    /// Manifests whose subject is this one: as the registry lists them, or as the tag lists them that stands in for
    /// that.
    ///
    /// # Errors
    /// If one of them cannot be fetched.
    pub(crate) fn referrers(&self, subject: &Sha256Digest, observer: Observer) -> Result<Vec<Value>> {
        let ask = Ask::new(Method::GET, self.path(&format!("referrers/{subject}"))).with(header::ACCEPT, media::INDEX);
        let listed = match self.whole(&ask, None, observer)? {
            (200, _, bytes) => serde_json::from_slice::<Value>(&bytes).unwrap_or_default(),
            _ => Value::Null,
        };
        let mut entries = listed["manifests"].as_array().cloned().unwrap_or_default();
        if entries.is_empty() {
            let index = self.fallback(subject, observer)?;
            entries = index["manifests"].as_array().cloned().unwrap_or_default();
        }
        let mut found = Vec::new();
        for entry in &entries {
            let digest = crate::pulled::Descriptor::read(entry)?.digest;
            let Some((bytes, ..)) = self.document(digest.as_str(), observer)? else { continue };
            let manifest: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            if manifest["subject"]["digest"] == subject.as_str() {
                found.push(manifest);
            }
        }
        Ok(found)
    }

    /// Adds a manifest to the tag that lists what refers to another, for registries that do not list it themselves.
    pub(crate) fn note_referrer(&self, document: &Document, subject: &Sha256Digest, observer: Observer) -> Result<()> {
        let mut index = self.fallback(subject, observer)?;
        let Some(manifests) = index["manifests"].as_array_mut() else { return Ok(()) };
        if manifests.iter().any(|known| known["digest"] == document.blob.digest.as_str()) {
            return Ok(());
        }
        manifests.push(document.descriptor());
        let index = Document {
            blob: crate::blob::Blob::of_bytes(index.to_string()),
            media_type: media::INDEX,
            artifact_type: None,
            platform: None,
        };
        self.put_document(&index, &fallback_tag(subject), observer).map(|_| ())
    }

    /// The list of what refers to a manifest, under the tag that the specification names; empty if there is none.
    fn fallback(&self, subject: &Sha256Digest, observer: Observer) -> Result<Value> {
        let empty = || json!({ "schemaVersion": 2, "mediaType": media::INDEX, "manifests": [] });
        let found = self.document(&fallback_tag(subject), observer)?;
        let read = found.and_then(|(bytes, ..)| serde_json::from_slice::<Value>(&bytes).ok());
        Ok(read.filter(|index| index["manifests"].is_array()).unwrap_or_else(empty))
    }

    /// Host and repository.
    pub fn name(&self) -> String {
        format!("{}/{}", place(&self.uri).trim_start_matches("https://"), self.repository)
    }

    fn path(&self, rest: &str) -> String {
        format!("{}/v2/{}/{rest}", self.base, self.repository)
    }

    fn tries(&self) -> Tries {
        Tries::new(self.settings.backoff, LONG_WAIT)
    }

    /// An answer with all of its content, as long as a manifest may be; tried again where that may help.
    fn whole(&self, ask: &Ask, content: Option<Content>, observer: Observer) -> Result<(u16, HeaderMap, Vec<u8>)> {
        let mut tries = self.tries();
        loop {
            observer.check()?;
            match self.once(ask, content).and_then(read_whole) {
                Ok(answer) => return Ok(answer),
                Err(failure) => tries.again(failure, observer)?,
            }
        }
    }

    /// One try. Redirects are followed where nothing is sent; credentials go to the registry's own host alone.
    fn once(&self, ask: &Ask, content: Option<Content>) -> Result<Response<Body>, Failure> {
        let mut address = ask.address.clone();
        let (mut renewed, mut redirects) = (false, 0);
        loop {
            let uri: Uri = address.parse().map_err(|error: ureq::http::uri::InvalidUri| {
                Failure::Final(Error::input("the registry names an address that is none").cause(error))
            })?;
            let is_own = self.is_own(&uri);
            let mut request = Request::builder().method(ask.method.clone()).uri(uri.clone());
            for (name, value) in &ask.headers {
                request = request.header(name, value);
            }
            if is_own
                && self.is_safe(&uri)
                && let Some(value) = self.access.borrow().header()
            {
                request = request.header(header::AUTHORIZATION, value);
            }
            let opened = content.map(|open| open()).transpose().map_err(Failure::Final)?;
            let wrong = |error: ureq::http::Error| {
                Failure::Final(Error::input("the registry names an address that is none").cause(error))
            };
            let answer = match opened {
                None => self.agent.run(request.body(()).map_err(wrong)?),
                Some((mut reader, bytes)) => {
                    let request = request.header(header::CONTENT_LENGTH, bytes);
                    self.agent.run(request.body(SendBody::from_reader(&mut reader)).map_err(wrong)?)
                }
            };
            let answer = answer.map_err(|error| unreachable_host(&uri, error, CHECK))?;
            let (status, headers) = (answer.status(), answer.headers());
            match status.as_u16() {
                401 if is_own && !renewed => {
                    self.authorize(headers).map_err(Failure::Final)?;
                    renewed = true;
                }
                301 | 302 | 303 | 307 | 308 if content.is_none() => {
                    redirects += 1;
                    if redirects > REDIRECTS_MAX {
                        return Err(Failure::Final(Error::input(format!(
                            "{} redirects more than {REDIRECTS_MAX} times",
                            self.base
                        ))));
                    }
                    let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
                    address = target(&uri, location).map_err(Failure::Final)?;
                }
                code if code == 429 || code >= 500 => {
                    let wait = retry_after(headers);
                    let words = said(answer);
                    let error = Error::input(format!("{} answers {code} {}", place(&uri), reason(status)));
                    let error = if words.is_empty() { error } else { error.cause(words) };
                    return Err(Failure::Passing(error, wait));
                }
                _ => return Ok(answer),
            }
        }
    }

    /// Whether an address is on the registry's own host.
    fn is_own(&self, uri: &Uri) -> bool {
        let port = |uri: &Uri| uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let same_host = uri.host().zip(self.uri.host()).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b));
        same_host && uri.scheme() == self.uri.scheme() && port(uri) == port(&self.uri)
    }

    /// Whether secrets may go there.
    fn is_safe(&self, uri: &Uri) -> bool {
        uri.scheme_str() == Some("https") || uri.host().is_some_and(is_loopback)
    }

    /// What a status that is no success means.
    fn refused(&self, status: u16, headers: &HeaderMap, bytes: &[u8], what: &str) -> Error {
        let words = words(bytes);
        let error = Error::input(format!("{} {what}", self.name()));
        let error = match words.is_empty() {
            true => error.cause(format!("it answers {status}")),
            false => error.cause(format!("it answers {status}: {words}")),
        };
        match status {
            401 | 403 => error.help(match self.access.borrow().has_credentials() {
                true => "the credentials in Docker's config.json do not allow it: log in as somebody who may",
                false => {
                    "log in first: `docker login`, `podman login` or `skopeo login` write the file that is read here"
                }
            }),
            404 => error.help("check the name: registries also say so to those who may not see it"),
            _ if headers.contains_key("retry-after") => error.help("try again later"),
            _ => error.help("ask who runs the registry"),
        }
    }
}

/// Whether a host speaks TLS: also where its certificate is not trusted, which is then said by the first request and
/// not taken for a reason to speak without.
fn speaks_tls(agent: &Agent, host: &str) -> bool {
    match agent.get(format!("https://{host}/v2/")).call() {
        Ok(_) => true,
        Err(error) => error.to_string().to_lowercase().contains("certificate"),
    }
}

fn fallback_tag(subject: &Sha256Digest) -> String {
    format!("sha256-{}", subject.digits())
}

fn read_whole(answer: Response<Body>) -> Result<(u16, HeaderMap, Vec<u8>), Failure> {
    let (parts, body) = answer.into_parts();
    let mut bytes = Vec::new();
    body.into_reader().take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| {
        Failure::Passing(Error::input("the connection to the registry was lost").cause(error), None)
    })?;
    if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
        return Err(Failure::Final(Error::input(format!(
            "the registry's answer is longer than the {} MB of a manifest",
            DOCUMENT_BYTES_MAX >> 20
        ))));
    }
    Ok((parts.status.as_u16(), parts.headers, bytes))
}

/// The registry's own words, on one line.
fn said(answer: Response<Body>) -> String {
    let mut bytes = Vec::new();
    _ = answer.into_body().into_reader().take(64 << 10).read_to_end(&mut bytes);
    words(&bytes)
}

fn words(bytes: &[u8]) -> String {
    let answer: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let error = &answer["errors"][0];
    let text = ["code", "message"].iter().filter_map(|key| error[*key].as_str()).collect::<Vec<_>>().join(": ");
    text.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect()
}
