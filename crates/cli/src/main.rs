//! The one binary. It reads flags and the environment, calls the crates, and renders what they
//! say; it holds no logic that another front end would need.

#[macro_use]
mod output;

mod arguments;
mod commands;
mod flags;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod hypot;
mod render;
#[cfg(feature = "serve")]
mod service;
mod signals;
mod style;

use arguments::{Arguments, Command};
use clap::{CommandFactory, Parser};
use commands::step_verb::Task;
use narthex_base::Result;
use std::process::ExitCode;

/// Training allocates the same large buffers at every step; this keeps them.
#[global_allocator]
static ALLOCATOR: narthex_kernels::alloc::Retaining = narthex_kernels::alloc::Retaining;

/// What is said where the system has no more memory.
static EXHAUSTED: &str = "error: there is not enough memory
 help: for training, a smaller `batch_size` (with more `gradient_accumulation`) or `activation_checkpointing = true`; for serving,
       `--kv-cache-memory-bytes` and `--dtype bfloat16`. Finished steps and checkpoints are kept
";

fn main() -> ExitCode {
    narthex_kernels::alloc::explain_exhaustion(&EXHAUSTED);
    let arguments = Arguments::parse();
    let style = style::Style::detect();
    let outcome = commands::choose_isa_of_environment().and_then(|()| run(arguments.command, style));
    match output::finish(outcome) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            style.print_error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(command: Option<Command>, style: style::Style) -> Result<()> {
    match command {
        None => welcome(),
        Some(Command::New(args)) => commands::new::run(&args),
        Some(Command::Run(args)) => commands::run::run(&args, style),
        Some(Command::Step(verb)) => match &verb.task {
            Task::Run(step) => commands::run::run_kind(verb.kind, step, style),
            Task::Inspect(inspect) => commands::data_inspect::run(inspect, style),
            Task::Show(show) => commands::data_show::run(show, style),
        },
        Some(Command::Generate(args)) => commands::generate::run(&args),
        Some(Command::Chat(args)) => commands::chat::run(&args, style),
        Some(Command::Embed(args)) => commands::embed::run(&args),
        Some(Command::Classify(args)) => commands::classify::run(&args),
        Some(Command::Search(args)) => commands::search::run(&args),
        Some(Command::Serve(args)) => commands::serve::run(&args),
        Some(Command::Route(args)) => commands::route::run(&args),
        #[cfg(feature = "agents")]
        Some(Command::Agent(args)) => commands::agent::run(args),
        #[cfg(all(feature = "agents", feature = "run"))]
        Some(Command::Mcp(args)) => commands::mcp::run(&args),
        Some(Command::Batch(args)) => commands::serve::batch(&args, style),
        Some(Command::Ls(args)) => commands::look::ls(&args),
        Some(Command::Show(args)) => commands::look::show(&args),
        Some(Command::Trace(args)) => commands::look::trace(&args),
        Some(Command::License(args)) => commands::openness::license(&args),
        Some(Command::Reproduce(args)) => commands::recheck::reproduce(&args, style),
        Some(Command::Verify(args)) => commands::recheck::verify(&args, style),
        Some(Command::Sign(args)) => commands::signing::sign(&args),
        Some(Command::VerifySignature(args)) => commands::signing::verify(&args),
        Some(Command::Pull(args)) if commands::pull_oci::is_meant(&args) => commands::pull_oci::run(&args, style),
        Some(Command::Pull(args)) => commands::pull::run(&args, style),
        Some(Command::Deploy(args)) => commands::deploy::run(&args, style),
        Some(Command::Push(args)) => commands::push::run(&args, style),
        Some(Command::Export(args)) => commands::transfer::export(&args, style),
        Some(Command::Import(args)) => commands::transfer::import(&args, style),
        Some(Command::Quantize(args)) => commands::quantize::run(&args, style),
        Some(Command::Gc(args)) => commands::transfer::gc(&args),
        Some(Command::Bench(args)) => commands::bench::run(&args.command),
        Some(Command::Plan(args)) => commands::plan::run(&args),
        Some(Command::Config(args)) => commands::config::run(&args),
        Some(Command::Doctor(args)) => commands::doctor::run(&args),
        Some(Command::Completions(args)) => {
            out!("{}", commands::completions::script(Arguments::command(), args.shell));
            Ok(())
        }
        Some(Command::Myself(args)) => commands::self_version::run(&args),
        Some(Command::Manual(args)) => commands::completions::write_manual(Arguments::command(), &args.out),
        Some(Command::LoadDocument { kind, limits }) => {
            narthex_knowledge::load_here(&kind, &limits, std::io::stdin().lock(), std::io::stdout().lock())
        }
    }
}

/// Bare `narthex`: short help and the next command to type.
fn welcome() -> Result<()> {
    output::attempt(|| Arguments::command().print_help());
    let program = commands::program();
    outln!("\nstart here:\n  {program} new hello && {program} run hello");
    Ok(())
}
