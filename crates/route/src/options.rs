//! What a router is told. Plain data: nothing here listens or asks.

use narthex_http::HttpOptions;
use std::{fmt, path::PathBuf, time::Duration};

/// Where to listen, whom to ask, and when to leave a replica that knows the prompt.
#[derive(Clone)]
pub struct RouteOptions {
    /// The front: address, TLS, keys, limits.
    pub http: HttpOptions,
    /// Addresses of replicas, such as `http://10.0.0.1:8000`.
    pub replicas: Vec<String>,
    /// A file with further ones, one a line, that is read again when it changes.
    pub replicas_file: Option<PathBuf>,
    /// The key that replicas ask for, instead of the client's own.
    pub replica_key: Option<String>,
    /// Time between two looks at whether a replica is ready.
    pub check_interval: Duration,
    /// By how many requests under way a replica that knows all of a prompt may exceed the least busy one. One that
    /// knows a part of the prompt may exceed it by that part of the number.
    pub margin: f64,
    /// Blocks of prompts, of 64 bytes each, of which the router knows where they were read: up to 40 bytes of memory a
    /// block.
    pub blocks_max: usize,
    /// Bytes of an upload to `/v1/files`; other bodies have the limit of [`HttpOptions`].
    pub upload_bytes_max: usize,
}

impl Default for RouteOptions {
    fn default() -> Self {
        Self {
            http: HttpOptions::default(),
            replicas: vec![],
            replicas_file: None,
            replica_key: None,
            check_interval: Duration::from_millis(500),
            margin: 8.0,
            blocks_max: 1 << 18,
            upload_bytes_max: 512 << 20,
        }
    }
}

/// Without the key.
impl fmt::Debug for RouteOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteOptions")
            .field("http", &self.http)
            .field("replicas", &self.replicas)
            .field("replicas_file", &self.replicas_file)
            .field("replica_key", &self.replica_key.as_ref().map(|_| "set"))
            .field("check_interval", &self.check_interval)
            .field("margin", &self.margin)
            .field("blocks_max", &self.blocks_max)
            .field("upload_bytes_max", &self.upload_bytes_max)
            .finish()
    }
}
