//! The command line: every verb. What a verb takes stands beside it, in `commands/`.

use crate::commands::{
    bench::Bench,
    chat::Chat,
    classify::Classify,
    config::Config,
    embed::Embed,
    generate::Generate,
    look::{Look, Ls, Trace},
    new::New,
    openness::License,
    pull::Pull,
    quantize::Quantize,
    recheck::{Reproduce, Verify},
    run::Run,
    serve::{Batch, Serve},
    signing::{Sign, VerifySignature},
    step_verb::StepVerb,
    transfer::{Export, Gc, Import, Push},
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
    New(New),
    /// Make everything in a project that is not made yet
    Run(Run),
    #[command(flatten)]
    Step(StepVerb),
    /// Continue a prompt
    Generate(Generate),
    /// Talk to a model in the terminal
    Chat(Chat),
    /// Turn texts into vectors, one JSON line each
    Embed(Embed),
    /// Sort texts into the classes of a classifier, one line each
    Classify(Classify),
    /// Answer over the OpenAI API, with a chat page at /
    Serve(Box<Serve>),
    /// Answer a file of requests, and go on where an interruption stopped
    Batch(Batch),
    /// List artifacts
    Ls(Ls),
    /// Show an artifact: files, licences, recipe, figures
    Show(Look),
    /// Show what an artifact was made from, down to the raw files
    Trace(Trace),
    /// Show components, licences and openness class, or write them in another format
    License(License),
    /// Make an artifact again from its recipe and compare every byte
    Reproduce(Reproduce),
    /// Compute randomly chosen parts of a model's training again and compare
    Verify(Verify),
    /// Sign an exported folder, and its lineage and licences
    Sign(Sign),
    /// Check the signatures of a folder
    VerifySignature(VerifySignature),
    /// Fetch a model or a data set from the Hugging Face Hub
    Pull(Pull),
    /// Write an artifact as a container image of models (ModelPack) for registries
    Push(Push),
    /// Copy an artifact with its papers into a folder
    Export(Export),
    /// Take a model folder into the ledger
    Import(Import),
    /// Make a model of another with its weights in 8 or 4 bits, and show what that costs
    Quantize(Quantize),
    /// Find artifacts that nothing leads to any more, and remove them
    Gc(Gc),
    /// Measure this machine: a training step, or every operator, against its peaks
    Bench(Bench),
    /// Show the resolved configuration, or its JSON schema
    Config(Config),
}
