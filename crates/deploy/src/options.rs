//! What is known of the model and what is wished for. Plain data, and what must hold of it.

use narthex_base::{Error, Result};

/// What is known of what is deployed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// The name that clients ask for.
    pub name: String,
    /// The artifact's digest, 64 hexadecimal digits.
    pub digest: String,
    /// Its licences, as SPDX expressions; empty if none is declared.
    pub licenses: Vec<String>,
    /// Bytes that its weights take in memory.
    pub weights_bytes: u64,
    /// Bytes that keys and values of one token take; 0 for what writes no text.
    pub kv_bytes_per_token: u64,
    /// Tokens of its context.
    pub context: u64,
}

/// Where the model is to be found on the machine that serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A folder of that machine, from its root on.
    Folder(String),
    /// In a registry: `HOST/REPOSITORY@sha256:DIGEST`, without `oci://`.
    Registry(String),
}

/// What is wished for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeployOptions {
    /// What it is called there: a DNS label.
    pub name: String,
    /// Where the model is.
    pub place: Place,
    /// The image that has `narthex` in it, by digest or by a tag that is not `latest`.
    pub image: Option<String>,
    /// The `narthex` program of the machine, from its root on: for targets without images.
    pub binary: String,
    /// How many servers.
    pub replicas: u32,
    /// The port to listen on.
    pub port: u16,
    /// Processor cores of each.
    pub cores: u32,
    /// Sequences that are computed at once.
    pub sequences: u32,
    /// Tokens of context that each may take; the model's own if none is given.
    pub context: Option<u64>,
    /// Whether clients must show a key.
    pub keys: bool,
    /// Seconds that answers under way get when a server stops.
    pub shutdown_s: u32,
    /// Seconds in which a server that will stop still takes requests.
    pub drain_s: u32,
    /// Kubernetes' minor version: 33 for 1.33.
    pub kubernetes_minor: u32,
    /// Kubernetes: the secret with credentials for the registry, of the type `kubernetes.io/dockerconfigjson`.
    pub registry_secret: Option<String>,
    /// Kubernetes: the Service, and perhaps its port, of an endpoint picker; then there is an InferencePool.
    pub endpoint_picker: Option<String>,
    /// Kubernetes: where Prometheus answers, for KEDA; then the number of servers follows the requests that wait.
    pub autoscale_prometheus: Option<String>,
    /// Kubernetes: whether Prometheus' operator is told to ask for metrics.
    pub service_monitor: bool,
    /// A project's folder on the machines that train: for targets that train.
    pub project: Option<String>,
}

impl DeployOptions {
    /// With what nearly everybody wants.
    pub fn new(name: &str, place: Place) -> Self {
        Self {
            name: name.into(),
            place,
            image: None,
            binary: "/usr/bin/narthex".into(),
            replicas: 1,
            port: 8000,
            cores: 2,
            sequences: 8,
            context: None,
            keys: true,
            shutdown_s: 30,
            drain_s: 5,
            kubernetes_minor: 33,
            registry_secret: None,
            endpoint_picker: None,
            autoscale_prometheus: None,
            service_monitor: false,
            project: None,
        }
    }

    /// Seconds between the signal to stop and the end, at most, with some to spare.
    pub(crate) fn stop_s(&self) -> u32 {
        self.drain_s + self.shutdown_s + 15
    }

    /// The image with `narthex`.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn image(&self) -> Result<&str> {
        self.image.as_deref().ok_or_else(|| {
            Error::usage("this target needs an image with `narthex` in it").help(
                "name one: `--image REGISTRY/narthex:VERSION`; `narthex push REF oci://… --image --image-binary FILE` makes one",
            )
        })
    }

    pub(crate) fn check(&self, bundle: &Bundle) -> Result<()> {
        if !is_label(&self.name) {
            return Err(Error::usage(format!("`{}` is no name of a deployment", self.name))
                .help("take 1 to 50 of a-z, 0-9 and `-`, a letter first: `--name NAME`"));
        }
        // It stands in scripts and units as it is.
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-:/".contains(c);
        if bundle.name.is_empty() || !bundle.name.chars().all(is_plain) {
            return Err(Error::usage(format!("`{}` is no name that clients can ask for everywhere", bundle.name))
                .help("take letters, digits, `.`, `_`, `-`, `:` and `/`: `--name NAME`"));
        }
        if let Some(image) = &self.image
            && !is_pinned(image)
        {
            return Err(Error::usage(format!("`{image}` may be another image tomorrow"))
                .help("name it by digest (`…@sha256:…`) or by a tag that is not `latest`"));
        }
        if let Place::Registry(reference) = &self.place
            && !reference.contains("@sha256:")
        {
            return Err(Error::usage(format!("`oci://{reference}` may be another model tomorrow"))
                .help("name it by digest, as `narthex push` prints it: `oci://…@sha256:…`"));
        }
        let rooted = [("--binary", Some(&self.binary)), ("--project-dir", self.project.as_ref())];
        let folder = if let Place::Folder(folder) = &self.place { Some(folder) } else { None };
        for (flag, path) in rooted.into_iter().chain([("the model's folder", folder)]) {
            if let Some(path) = path
                && (!path.starts_with('/') || path.chars().any(|c| c.is_control() || "\"'\\%$ ".contains(c)))
            {
                return Err(Error::usage(format!("{flag}: `{path}` is no path that a deployment can name"))
                    .help("write it from the root on, without spaces and quotes"));
            }
        }
        if self.replicas == 0 || self.cores == 0 || self.sequences == 0 {
            return Err(Error::usage("`--replicas`, `--cores` and `--max-num-seqs` are at least 1"));
        }
        if self.context.is_some_and(|context| context > bundle.context && bundle.context > 0) {
            return Err(Error::usage(format!("the model holds {} tokens of context at most", bundle.context)));
        }
        Ok(())
    }
}

/// Whether a name can stand wherever these systems want one.
fn is_label(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=50).contains(&name.len())
        && name.chars().all(fits)
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
}

/// Whether an image is the same one tomorrow.
fn is_pinned(image: &str) -> bool {
    let tag = image.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(_, tag)| tag);
    let fits = !image.is_empty() && image.chars().all(|c| c.is_ascii_alphanumeric() || "./:@_-[]".contains(c));
    fits && (image.contains("@sha256:") || tag.is_some_and(|tag| !tag.is_empty() && tag != "latest"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_change_overnight_is_refused() {
        let bundle = Bundle {
            name: "m".into(),
            digest: "0".repeat(64),
            licenses: vec![],
            weights_bytes: 1,
            kv_bytes_per_token: 1,
            context: 100,
        };
        let plain = DeployOptions::new("m", Place::Folder("/srv/m".into()));
        plain.check(&bundle).unwrap();
        let image = |image: &str| DeployOptions { image: Some(image.into()), ..plain.clone() };
        for (options, fits) in [
            (image("h:5000/narthex:0.1"), true),
            (image("h/narthex@sha256:00"), true),
            (image("h:5000/narthex"), false),
            (image("narthex:latest"), false),
            (image("narthex:1 && rm"), false),
            (DeployOptions { name: "A".into(), ..plain.clone() }, false),
            (DeployOptions { name: "a-".into(), ..plain.clone() }, false),
            (DeployOptions { place: Place::Registry("h/m:v1".into()), ..plain.clone() }, false),
            (DeployOptions { place: Place::Registry("h/m@sha256:00".into()), ..plain.clone() }, true),
            (DeployOptions { place: Place::Folder("srv/m".into()), ..plain.clone() }, false),
            (DeployOptions { place: Place::Folder("/srv/m n".into()), ..plain.clone() }, false),
            (DeployOptions { replicas: 0, ..plain.clone() }, false),
            (DeployOptions { context: Some(101), ..plain.clone() }, false),
        ] {
            assert_eq!(options.check(&bundle).is_ok(), fits, "{options:?}");
        }
        for name in ["", "a b", "a; rm -r x", "$(x)", "%h", "a\nb"] {
            assert!(plain.check(&Bundle { name: name.into(), ..bundle.clone() }).is_err(), "{name}");
        }
    }
}
