//! The media types of the OCI image specification (1.1), of the CNCF's ModelPack (model-spec), of Sigstore, and of
//! Ollama.

pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// What registries had before OCI, and what Ollama's still has.
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const IMAGE_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// ModelPack: what a manifest is, its configuration, and how the types of its layers begin.
pub(crate) const MODEL: &str = "application/vnd.cncf.model.manifest.v1+json";
pub(crate) const MODEL_CONFIG: &str = "application/vnd.cncf.model.config.v1+json";
pub(crate) const MODEL_LAYER: &str = "application/vnd.cncf.model.";

/// A Sigstore bundle, as cosign attaches it to what it signs.
pub const SIGNATURE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// A bill of materials in SPDX's form.
pub const SPDX: &str = "application/spdx+json";
/// A bill of materials in CycloneDX's form.
pub const CYCLONEDX: &str = "application/vnd.cyclonedx+json";
/// The manifests of an artifact and of all it was made from.
pub const LINEAGE: &str = "application/vnd.narthex.lineage.v1+json";

/// How the types of Ollama's layers begin.
pub(crate) const OLLAMA_LAYER: &str = "application/vnd.ollama.image.";

/// Annotations.
pub(crate) const TITLE: &str = "org.opencontainers.image.title";
pub(crate) const LICENSES: &str = "org.opencontainers.image.licenses";
pub(crate) const CREATED: &str = "org.opencontainers.image.created";
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
pub(crate) const FILE_PATH: &str = "org.cncf.model.filepath";
pub(crate) const FILE_METADATA: &str = "org.cncf.model.file.metadata+json";
