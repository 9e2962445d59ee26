//! A file of the Compose specification, for Docker and Podman.

use crate::{
    Bundle, DeployOptions, Memory, Place, Rendered,
    text::{head, quoted, serve_flags},
};
use narthex_base::Result;

pub(super) fn render(bundle: &Bundle, options: &DeployOptions) -> Result<Vec<Rendered>> {
    let DeployOptions { name, port, cores, drain_s, shutdown_s, .. } = options;
    let (image, memory) = (options.image()?, Memory::of(bundle, options));
    let (reference, volumes, cache) = match &options.place {
        Place::Folder(folder) => (
            "/models".to_string(),
            format!(
                "    volumes:\n      # The model, which the server cannot change.\n      - type: bind\n        source: {}\n        \
                 target: /models\n        read_only: true\n",
                quoted(folder)
            ),
            String::new(),
        ),
        Place::Registry(reference) => (
            format!("oci://{reference}"),
            "    environment:\n      # What is pulled is kept there, so that a restart does not pull it again.\n      \
             XDG_CACHE_HOME: /cache\n    volumes:\n      - cache:/cache\n"
                .to_string(),
            "volumes:\n  cache:\n".to_string(),
        ),
    };
    let mut words =
        vec!["serve".to_string(), reference, "--host".into(), "0.0.0.0".into(), "--port".into(), "8000".into()];
    words.extend(serve_flags(bundle, options));
    words.extend(["--drain-time".into(), drain_s.to_string(), "--shutdown-timeout".into(), shutdown_s.to_string()]);
    let (mut secrets, mut top) = (String::new(), String::new());
    if options.keys {
        words.extend(["--api-key-file".into(), "/run/secrets/keys".into()]);
        secrets = "    secrets:\n      - keys\n".into();
        top = "secrets:\n  keys:\n    # Keys of clients, one a line: openssl rand -hex 24 > keys\n    file: ./keys\n"
            .into();
    }
    let command: String = words.iter().map(|word| format!("      - {}\n", quoted(word))).collect();
    let head = head(bundle, options, "A file of Compose");
    let (stop_s, mebibytes, image) = (options.stop_s(), memory.mebibytes(), quoted(image));
    let text = format!(
        "{head}\
name: {name}
services:
  {name}:
    image: {image}
    command:
{command}    # This machine alone reaches it: put a proxy with TLS in front, or write the address of a network here.
    ports:
      - \"127.0.0.1:{port}:8000\"
{volumes}{secrets}    # Nobody's user, nothing that can be written but /tmp, no right but to compute.
    user: \"65532:65532\"
    read_only: true
    tmpfs:
      - /tmp
    cap_drop:
      - ALL
    security_opt:
      - no-new-privileges:true
    # The limit of memory is that of the plan above: beyond it the server ends, and not its neighbours.
    mem_limit: {mebibytes}m
    cpus: {cores}
    pids_limit: 512
    ulimits:
      nofile: 65536
    restart: unless-stopped
    # More than the {drain_s} s in which requests are still taken and the {shutdown_s} s that answers under way get.
    stop_grace_period: {stop_s}s
    # No healthcheck: an image that holds nothing but the server has no program to ask with. Ask from outside: GET /ready.
{top}{cache}"
    );
    Ok(vec![Rendered { path: "compose.yaml".into(), text }])
}
