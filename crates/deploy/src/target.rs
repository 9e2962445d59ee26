//! Where a model can run; each target in a file of its own.

mod compose;
mod kserve;
mod kubernetes;
mod mpijob;
mod slurm;
mod systemd;

use crate::{
    Rendered,
    options::{Bundle, DeployOptions},
};
use narthex_base::Result;

/// Where a model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A unit of systemd.
    Systemd,
    /// Docker's or Podman's Compose.
    Compose,
    /// Plain manifests with a kustomization.
    Kubernetes,
    /// KServe's InferenceService over a ServingRuntime.
    Kserve,
    /// Training over ranks by Kubeflow's MPI operator.
    Mpijob,
    /// Batch scripts of Slurm.
    Slurm,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Systemd, Self::Compose, Self::Kubernetes, Self::Kserve, Self::Mpijob, Self::Slurm];

    /// What it is called on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Systemd => "systemd",
            Self::Compose => "compose",
            Self::Kubernetes => "kubernetes",
            Self::Kserve => "kserve",
            Self::Mpijob => "mpijob",
            Self::Slurm => "slurm",
        }
    }

    /// The target of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|target| target.name() == name)
    }

    /// What is done with the files, as a command: `DIR` stands for their folder.
    pub fn next(self, options: &DeployOptions) -> String {
        let name = &options.name;
        match self {
            Self::Systemd => {
                format!("sudo cp DIR/{name}.service /etc/systemd/system/ && sudo systemctl enable --now {name}")
            }
            Self::Compose => "docker compose --file DIR/compose.yaml up --detach".into(),
            Self::Kubernetes => "kubectl diff -k DIR; kubectl apply -k DIR".into(),
            Self::Kserve => "kubectl apply -f DIR".into(),
            Self::Mpijob => "kubectl apply -f DIR/mpijob.yaml".into(),
            Self::Slurm => "sbatch DIR/serve.sbatch".into(),
        }
    }

    pub(crate) fn render(self, bundle: &Bundle, options: &DeployOptions) -> Result<Vec<Rendered>> {
        match self {
            Self::Systemd => systemd::render(bundle, options),
            Self::Compose => compose::render(bundle, options),
            Self::Kubernetes => kubernetes::render(bundle, options),
            Self::Kserve => kserve::render(bundle, options),
            Self::Mpijob => mpijob::render(bundle, options),
            Self::Slurm => slurm::render(bundle, options),
        }
    }
}
