//! `narthex route`: one address before several servers.

use crate::{
    commands::{
        engine::memory_bytes,
        serve::{api_keys, warn_if_open},
    },
    service,
};
use clap::Args;
use narthex_base::{Error, Result};
use narthex_http::{HttpOptions, TlsFiles, bind};
use narthex_route::{RouteOptions, serve};
use std::{path::PathBuf, time::Duration};

/// The arguments of `narthex route`.
#[derive(Args)]
pub struct Route {
    /// A server of the OpenAI API, as `http://10.0.0.1:8000`; once for each
    #[arg(long, value_name = "URL", required_unless_present = "replicas")]
    pub replica: Vec<String>,
    /// A file with further ones, one a line; it is read again when it changes
    #[arg(long, value_name = "FILE")]
    pub replicas: Option<PathBuf>,
    /// The key that the servers ask for; by default each request carries that of its client
    #[arg(long, env = "NARTHEX_REPLICA_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub replica_api_key: Option<String>,
    /// Milliseconds between two looks at whether a server is ready
    #[arg(long, default_value_t = 500, value_name = "MILLISECONDS", value_parser = clap::value_parser!(u64).range(10..))]
    pub check_interval: u64,
    /// Leave the server that knows a prompt when it has more than so many requests more than the least busy one
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub margin: u32,
    /// Remember where so many blocks of prompts, of 64 bytes each, were read
    #[arg(long, default_value_t = 262_144, value_name = "N", value_parser = prefix_blocks)]
    pub prefix_blocks: usize,
    /// The address to listen on
    #[arg(long, default_value = "127.0.0.1", help_heading = "HTTP")]
    pub host: String,
    /// The port to listen on; 0 takes any free one
    #[arg(long, default_value_t = 8080, help_heading = "HTTP")]
    pub port: u16,
    /// Ask clients for this key; may be given several times
    #[arg(long, env = "NARTHEX_API_KEY", hide_env_values = true, value_name = "KEY", help_heading = "HTTP")]
    pub api_key: Vec<String>,
    /// Ask clients for one of the keys in this file, one a line; `sha256:` begins a key's digest, `#` a comment
    #[arg(long, value_name = "FILE", help_heading = "HTTP")]
    pub api_key_file: Option<PathBuf>,
    /// Speak TLS with this certificate, followed by those that vouch for it, as PEM
    #[arg(long, value_name = "FILE", requires = "ssl_keyfile", help_heading = "HTTP")]
    pub ssl_certfile: Option<PathBuf>,
    /// The certificate's private key as PEM
    #[arg(long, value_name = "FILE", requires = "ssl_certfile", help_heading = "HTTP")]
    pub ssl_keyfile: Option<PathBuf>,
    /// Bytes of a request at most, uploads of files aside. A number, or one with K, M or G
    #[arg(long, default_value = "8M", value_name = "BYTES", value_parser = memory_bytes, help_heading = "HTTP")]
    pub body_bytes: usize,
    /// Bytes of a file that is uploaded at most
    #[arg(long, default_value = "512M", value_name = "BYTES", value_parser = memory_bytes, help_heading = "HTTP")]
    pub upload_bytes: usize,
    /// Add a line of JSON for each request to this file, without its content; `-` is standard error
    #[arg(long, value_name = "FILE", help_heading = "Observation")]
    pub access_log: Option<PathBuf>,
    /// Seconds after SIGTERM in which requests are still taken while `/ready` says 503, so that whoever sends them here
    /// finds out; a second signal ends it, and Ctrl-C does not begin it
    #[arg(long, default_value_t = 5, value_name = "SECONDS", help_heading = "HTTP")]
    pub drain_time: u64,
    /// Seconds that answers under way get after that
    #[arg(long, default_value_t = 30, value_name = "SECONDS", help_heading = "HTTP")]
    pub shutdown_timeout: u64,
    /// A further host name under which the router may be addressed, as by a reverse proxy
    #[arg(long, value_name = "NAME", help_heading = "HTTP")]
    pub allowed_host: Vec<String>,
    /// Another site whose pages may use the router, as `https://chat.example`; `*` is any
    #[arg(long, value_name = "ORIGIN", help_heading = "HTTP")]
    pub allowed_origin: Vec<String>,
}

/// Some blocks, and not more than memory has room for: up to 40 bytes each.
fn prefix_blocks(text: &str) -> Result<usize, String> {
    let blocks = text.parse::<usize>().ok().filter(|blocks| (2..=1 << 26).contains(blocks));
    blocks.ok_or_else(|| "a whole number from 2 to 67108864".to_string())
}

/// `narthex route`
pub fn run(args: &Route) -> Result<()> {
    if args.replica_api_key.as_ref().is_some_and(|key| key.trim().is_empty()) {
        return Err(Error::usage("the key of the servers is empty")
            .help("give a key, or leave `--replica-api-key` and NARTHEX_REPLICA_API_KEY out"));
    }
    let tls = args.ssl_certfile.clone().zip(args.ssl_keyfile.clone());
    let mut http = HttpOptions {
        host: args.host.clone(),
        port: args.port,
        api_keys: api_keys(&args.api_key, args.api_key_file.as_deref())?,
        allowed_hosts: args.allowed_host.clone(),
        allowed_origins: args.allowed_origin.clone(),
        tls: tls.map(|(certificates, key)| TlsFiles { certificates, key }),
        access_log: args.access_log.clone(),
        ..HttpOptions::default()
    };
    (http.limits.shutdown_s, http.limits.body_bytes_max) = (args.shutdown_timeout, args.body_bytes);
    warn_if_open(&http);
    let options = RouteOptions {
        http,
        replicas: args.replica.clone(),
        replicas_file: args.replicas.clone(),
        replica_key: args.replica_api_key.clone(),
        check_interval: Duration::from_millis(args.check_interval),
        margin: f64::from(args.margin),
        blocks_max: args.prefix_blocks,
        upload_bytes_max: args.upload_bytes,
    };
    let bound = bind(&options.http)?;
    let address = format!("{}://{}", if options.http.tls.is_some() { "https" } else { "http" }, bound.address());
    noteln!("  OpenAI API  {address}/v1");
    noteln!("  Ctrl-C ends");
    let stop = service::stop_drained(bound.stopping(), Duration::from_secs(args.drain_time));
    service::ready();
    serve(bound, &options, stop)
}
