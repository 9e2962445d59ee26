//! The command line: every verb. What a verb takes stands beside it, in `commands/`.

#[cfg(feature = "agents")]
use crate::commands::agent::Agent;
#[cfg(all(feature = "agents", feature = "run"))]
use crate::commands::mcp::Mcp;
use crate::commands::{
    LOAD_DOCUMENT,
    bench::Bench,
    chat::Chat,
    classify::Classify,
    completions::{Completions, MAN, Manual},
    config::Config,
    deploy::Deploy,
    doctor::Doctor,
    embed::Embed,
    generate::Generate,
    look::{Look, Ls, Trace},
    new::New,
    openness::License,
    plan::PlanArguments,
    pull::Pull,
    push::Push,
    quantize::Quantize,
    recheck::{Reproduce, Verify},
    route::Route,
    run::Run,
    search::Search,
    self_version::Myself,
    serve::{Batch, Serve},
    signing::{Sign, VerifySignature},
    step_verb::StepVerb,
    transfer::{Export, Gc, Import},
};
use clap::{Parser, Subcommand};

/// From raw data to a licensed model that answers over the OpenAI API, in one binary
#[derive(Parser)]
#[command(name = "narthex", version, propagate_version = true, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The verbs.
#[derive(Subcommand)]
pub enum Command {
    /// Start a project in a new folder
    #[command(alias = "init")]
    #[command(after_help = "\
Example:
  narthex new hello && narthex run hello")]
    New(New),
    /// Make everything in a project that is not made yet
    #[command(after_help = "\
Examples:
  narthex run hello
  narthex run hello --to base --set base.lr=3e-3
  narthex run hello --dry-run")]
    Run(Run),
    #[command(flatten)]
    Step(StepVerb),
    /// Continue a prompt
    #[command(after_help = "\
Examples:
  narthex generate base --prompt \"Once upon a time\" --max-tokens 50
  narthex generate ./SmolLM2-135M --prompt - < prompt.txt")]
    Generate(Generate),
    /// Talk to a model in the terminal
    #[command(after_help = "\
Example:
  narthex chat bard-chat --system \"You speak in verse.\"")]
    Chat(Chat),
    /// Turn texts into vectors, one JSON line each
    #[command(after_help = "\
Example:
  narthex embed ./all-MiniLM-L6-v2 --file texts.txt > vectors.jsonl")]
    Embed(Embed),
    /// Sort texts into the classes of a classifier, one line each
    #[command(after_help = "\
Example:
  narthex classify spam \"You have won a prize\"")]
    Classify(Classify),
    /// Find passages of knowledge that answer a question, with file and place
    #[command(after_help = "\
Examples:
  narthex search handbook \"How do I serve two models?\"
  narthex search handbook \"--models-memory-bytes\" --mode words --limit 3
  narthex search handbook --file questions.txt > found.jsonl")]
    Search(Search),
    /// Answer over the OpenAI API, with a chat page at /
    #[command(after_help = "\
Examples:
  narthex serve base
  narthex serve ./SmolLM2-135M --port 9000 --api-key \"$KEY\"
  narthex serve base --lora-modules poet=./poet-adapter
  narthex serve chat=Qwen3-0.6B-int4 mini=./all-MiniLM-L6-v2 --models-memory-bytes 4G")]
    Serve(Box<Serve>),
    /// Spread requests over several servers, by what each has read
    #[command(after_help = "\
Examples:
  narthex route --replica http://10.0.0.1:8000 --replica http://10.0.0.2:8000
  narthex route --replicas replicas.txt --api-key \"$KEY\" --replica-api-key \"$INNER_KEY\"")]
    Route(Box<Route>),
    /// Answer a file of requests, and go on where an interruption stopped
    #[command(after_help = "\
Example:
  narthex batch base requests.jsonl answers.jsonl")]
    Batch(Batch),
    /// Run agents of a project, or offer them to others
    #[cfg(feature = "agents")]
    #[command(after_help = "\
Examples:
  narthex agent run librarian \"How do I serve two models?\"
  narthex agent serve --port 8010
  narthex agent ls")]
    Agent(Agent),
    /// Offer a project to editors and assistants over MCP: tools, resources and prompts
    #[cfg(all(feature = "agents", feature = "run"))]
    #[command(after_help = "\
Examples:
  narthex mcp --project hello
  narthex mcp --project hello --allow-writes --agents
  narthex mcp --port 8020 --api-key \"$KEY\"")]
    Mcp(Box<Mcp>),
    /// List artifacts
    #[command(after_help = "\
Example:
  narthex ls --all --kind model")]
    Ls(Ls),
    /// Show an artifact: files, licences, recipe, figures
    #[command(after_help = "\
Examples:
  narthex show base
  narthex show base@28d5 --json")]
    Show(Look),
    /// Show what an artifact was made from, down to the raw files
    #[command(after_help = "\
Example:
  narthex trace release")]
    Trace(Trace),
    /// Show components, licences and openness class, or write them in another format
    #[command(after_help = "\
Examples:
  narthex license release
  narthex license release --format spdx > release.spdx.json")]
    License(License),
    /// Make an artifact again from its recipe and compare every byte
    #[command(after_help = "\
Example:
  narthex reproduce release")]
    Reproduce(Reproduce),
    /// Compute randomly chosen parts of a model's training again and compare
    #[command(after_help = "\
Example:
  narthex verify base")]
    Verify(Verify),
    /// Sign an exported folder, and its lineage and licences
    #[command(after_help = "\
Example:
  narthex sign ./release --private-key key.pem")]
    Sign(Sign),
    /// Check the signatures of a folder
    #[command(after_help = "\
Example:
  narthex verify-signature ./release --public-key key.pub")]
    VerifySignature(VerifySignature),
    /// Fetch a model or a data set from the Hugging Face Hub, or a model from a registry
    Pull(Pull),
    /// Send an artifact to a registry, or write it as an image layout: ModelPack, and images that containers mount or run
    #[command(after_help = "\
Examples:
  narthex push release oci://ghcr.io/org/model:v1 --private-key key.pem
  narthex push release oci:images:v1 --image && skopeo copy --all oci:images:v1 docker://REGISTRY/NAME:v1

Credentials are those of Docker and Podman (`docker login`); SSL_CERT_FILE names certificates to trust.")]
    Push(Push),
    /// Write what systemd, Compose, Kubernetes, KServe, MPI's operator or Slurm need to serve a model; nothing is applied
    #[command(after_help = "\
Examples:
  narthex export release ./bard && narthex deploy ./bard --to systemd --out unit
  narthex deploy release --to kubernetes --model oci://ghcr.io/org/bard@sha256:… --image ghcr.io/org/narthex:0.1.0 --out k8s")]
    Deploy(Deploy),
    /// Copy an artifact with its papers into a folder
    #[command(after_help = "\
Examples:
  narthex export release ./release
  narthex export base base.gguf --format gguf")]
    Export(Export),
    /// Take a model folder into the ledger
    #[command(after_help = "\
Examples:
  narthex import ./SmolLM2-135M-Instruct --name smol
  narthex import model-q4.gguf --license Apache-2.0")]
    Import(Import),
    /// Make a model of another with its weights in 8 or 4 bits, and show what that costs
    #[command(after_help = "\
Examples:
  narthex quantize base --to int8
  narthex quantize base --to int4 --group 64 --calibrate tokens")]
    Quantize(Quantize),
    /// Find artifacts that nothing leads to any more, and remove them
    #[command(after_help = "\
Examples:
  narthex gc
  narthex gc --apply")]
    Gc(Gc),
    /// Measure this machine: a training step, or every operator, against its peaks
    #[command(after_help = "\
Examples:
  narthex bench train --shape llama-10m
  narthex bench kernels")]
    Bench(Bench),
    /// Say what training takes before it runs
    #[command(after_help = "\
Examples:
  narthex plan memory base
  narthex plan memory base --ranks 4")]
    Plan(PlanArguments),
    /// Show the resolved configuration, or its JSON schema
    #[command(after_help = "\
Examples:
  narthex config show hello
  narthex config schema > narthex.schema.json")]
    Config(Config),
    /// Look whether this machine and a project are fit for work, and say what to do where not
    #[command(after_help = "\
Examples:
  narthex doctor
  narthex doctor --project hello --json")]
    Doctor(Doctor),
    /// Write the script by which a shell completes verbs and flags
    #[command(after_help = "\
Examples:
  narthex completions bash > ~/.local/share/bash-completion/completions/narthex
  narthex completions zsh > ~/.zfunc/_narthex
  narthex completions fish > ~/.config/fish/completions/narthex.fish")]
    Completions(Completions),
    /// Say what this program is
    #[command(
        name = "self",
        after_help = "\
Example:
  narthex self version --json"
    )]
    Myself(Myself),
    /// Write the pages of the manual into a folder: for packages
    #[command(name = MAN, hide = true)]
    Manual(Manual),
    /// Read a document of a stranger from standard input: how Narthex calls itself
    #[command(name = LOAD_DOCUMENT, hide = true)]
    LoadDocument {
        /// What it is
        kind: String,
        /// What it may cost
        limits: String,
    },
}
