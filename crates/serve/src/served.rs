//! What is served and under which options. Plain data: nothing here reads files or listens.

use crate::{Adapters, Embedder, Generator, TlsFiles};
use narthex_text::{ChatTemplate, Tokenizer};
use sha2::{Digest, Sha256};
use std::{fmt, path::PathBuf, sync::Arc};

/// How tokens are chosen when a request does not say (from `generation_config.json`).
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingDefaults {
    /// 0 is greedy.
    pub temperature: f32,
    /// Keep the smallest set of tokens whose probability reaches this; 1 keeps all.
    pub top_p: f32,
    /// Keep this many of the most likely tokens; 0 keeps all.
    pub top_k: usize,
}

impl Default for SamplingDefaults {
    /// OpenAI's defaults: the model's own distribution.
    fn default() -> Self {
        Self { temperature: 1.0, top_p: 1.0, top_k: 0 }
    }
}

/// A model ready to answer.
pub struct ServedModel {
    /// The name clients ask for.
    pub id: String,
    /// Text to token ids and back.
    pub tokenizer: Tokenizer,
    /// Messages to text; without one, chat is refused and completions work.
    pub template: Option<ChatTemplate>,
    /// What continues token ids.
    pub generator: Arc<dyn Generator>,
    /// The adapters over it that clients may ask for by name.
    pub adapters: Arc<Adapters>,
    /// Ids that end an answer.
    pub stop_tokens: Vec<u32>,
    /// Used where a request is silent.
    pub defaults: SamplingDefaults,
    /// When the model was made, in seconds since 1970.
    pub created: u64,
    /// `{digest, license, openness: {class, class_name, reasons}, components: [{name, kind, license, origin}], lineage: {name, kind,
    /// digest, license, role, parents: […]}}`, shown by `/v1/provenance` and the page.
    pub provenance: serde_json::Value,
    /// The model's manifest and those of its ancestors, for download: what `narthex.json` holds.
    pub papers: Option<serde_json::Value>,
    /// What answers for vectors and scores, if the model is an encoder; it then also stands as the `generator`.
    pub embedder: Option<Arc<Embedder>>,
}

impl ServedModel {
    /// Names the weights in each answer, so that it can be traced: `fp_` and 12 digits of the digest.
    pub(crate) fn fingerprint(&self) -> Option<String> {
        let digest = self.provenance.get("digest")?.as_str()?;
        Some(format!("fp_{}", digest.chars().take(12).collect::<String>()))
    }
}

/// A key that clients show.
#[derive(Clone, PartialEq, Eq)]
pub enum ApiKey {
    /// As it is.
    Plain(String),
    /// Its SHA-256.
    Sha256([u8; 32]),
}

impl ApiKey {
    /// Reads `sha256:` and 64 hexadecimal digits, or the key itself.
    ///
    /// # Errors
    /// If the digits are not that.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(digits) = text.strip_prefix("sha256:") else { return Ok(Self::Plain(text.into())) };
        let mut digest = [0; 32];
        let wrong =
            || "`sha256:` needs 64 hexadecimal digits behind it, as `printf %s KEY | sha256sum` shows".to_string();
        if digits.len() != 2 * digest.len() || !digits.is_ascii() {
            return Err(wrong());
        }
        for (i, byte) in digest.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Self::Sha256(digest))
    }

    pub(crate) fn sha256(&self) -> [u8; 32] {
        match self {
            ApiKey::Plain(key) => Sha256::digest(key.as_bytes()).into(),
            ApiKey::Sha256(digest) => *digest,
        }
    }
}

/// Where to listen and whom to answer.
#[derive(Clone)]
pub struct ServeOptions {
    /// An address or host name; on a loopback address, requests that name another host are refused.
    pub host: String,
    /// 0 takes any free port.
    pub port: u16,
    /// Keys of which `/v1/` requests must carry one; empty asks for none.
    pub api_keys: Vec<ApiKey>,
    /// Further host names (without port) under which the server may be addressed, for instance
    /// by a reverse proxy.
    pub allowed_hosts: Vec<String>,
    /// The server's certificate and key; plain HTTP without.
    pub tls: Option<TlsFiles>,
    /// A file to which a line is added for each request, without its content; `-` is standard error.
    pub access_log: Option<PathBuf>,
    /// The OTLP/HTTP address of a collector that receives a span for each generation, without its content.
    pub otlp_traces_endpoint: Option<String>,
    /// Sizes that a request may not exceed.
    pub limits: Limits,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".into(),
            port: 8000,
            api_keys: vec![],
            allowed_hosts: vec![],
            tls: None,
            access_log: None,
            otlp_traces_endpoint: None,
            limits: Limits::default(),
        }
    }
}

/// Without the keys.
impl fmt::Debug for ServeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServeOptions")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("api_keys", &format_args!("{} keys", self.api_keys.len()))
            .field("allowed_hosts", &self.allowed_hosts)
            .field("tls", &self.tls)
            .field("access_log", &self.access_log)
            .field("otlp_traces_endpoint", &self.otlp_traces_endpoint)
            .field("limits", &self.limits)
            .finish()
    }
}

/// Sizes that a request may not exceed.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body_bytes_max: usize,
    /// Bytes of a request's line and headers: more than twice as many are never taken.
    pub header_bytes_max: usize,
    /// Headers of a request.
    pub headers_max: usize,
    /// Seconds that a client may take to send them, or to shake hands.
    pub header_s: u64,
    /// Choices per prompt (`n`).
    pub n_max: usize,
    /// Prompts times `n` in one request.
    pub sequences_max: usize,
    /// Texts in one request for embeddings, scores or a ranking.
    pub inputs_max: usize,
    /// Messages of one conversation.
    pub messages_max: usize,
    /// Strings in `stop`.
    pub stop_strings_max: usize,
    /// Bytes of one string in `stop`.
    pub stop_string_bytes_max: usize,
    /// Entries of `logit_bias`.
    pub logit_biases_max: usize,
    /// Alternatives reported per token.
    pub logprobs_max: usize,
    /// Connections served at once; further ones wait in the system's backlog.
    pub connections_max: usize,
    /// Seconds that answers under way get after the signal to stop.
    pub shutdown_s: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 8 << 20,
            header_bytes_max: 64 << 10,
            headers_max: 100,
            header_s: 30,
            n_max: 16,
            sequences_max: 128,
            inputs_max: 2048,
            messages_max: 4096,
            stop_strings_max: 16,
            stop_string_bytes_max: 1024,
            logit_biases_max: 1024,
            logprobs_max: 20,
            connections_max: 1024,
            shutdown_s: 30,
        }
    }
}
