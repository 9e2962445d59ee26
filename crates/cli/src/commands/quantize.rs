//! `narthex quantize`

use super::{print_json, program};
use crate::style::bytes;
use clap::{Args, ValueEnum};
use narthex_base::{Error, Result};
use narthex_kernels::{Quantization, quantize::INT4_GROUPS};
use std::path::PathBuf;

#[derive(Args)]
pub struct Quantize {
    /// A model in the ledger, or a folder in Hugging Face layout
    #[arg(value_name = "REF")]
    pub reference: String,
    /// A folder that is new or empty
    pub folder: PathBuf,
    /// What weights become: 8 bits, or 4 bits in groups
    #[arg(long, value_name = "KIND")]
    pub to: Kind,
    /// Weights that share a scale, with int4: 32, 64 or 128
    #[arg(long, default_value_t = 64)]
    pub group: usize,
    /// Text like that which the model will meet: its first three quarters show where errors count most, and the last one
    /// shows what they cost
    #[arg(long, value_name = "TEXT FILE")]
    pub calibrate: Option<PathBuf>,
    /// The project whose ledger to look into
    #[arg(long, default_value = ".")]
    pub project: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Kind {
    Int8,
    Int4,
}

pub fn run(args: &Quantize) -> Result<()> {
    let kind = match args.to {
        Kind::Int8 => Quantization::Int8,
        Kind::Int4 if INT4_GROUPS.contains(&args.group) => Quantization::Int4 { group: args.group },
        Kind::Int4 => {
            return Err(
                Error::usage(format!("there are no groups of {}", args.group)).help("use `--group 32`, 64 or 128")
            );
        }
    };
    let done = narthex_run::quantize(&args.project, &args.reference, &args.folder, kind, args.calibrate.as_deref())?;
    let written = done.written;
    let figures = done.comparison.map(|comparison| {
        let each = |nats: f64| nats / comparison.tokens as f64 / done.bytes_per_token;
        (each(comparison.nats), each(comparison.other_nats), comparison.same_top as f64 / comparison.tokens as f64)
    });
    if args.json {
        print_json(&serde_json::json!({
            "folder": args.folder, "matrices": written.matrices,
            "bytes_before": written.bytes_before, "bytes": written.bytes_after,
            "relative_weight_error": written.relative_error.sqrt(),
            "nats_per_byte_before": figures.map(|figures| figures.0), "nats_per_byte": figures.map(|figures| figures.1),
            "same_top_token": figures.map(|figures| figures.2),
        }));
        return Ok(());
    }
    println!("{}", args.folder.display());
    eprintln!(
        "{} matrices, {} -> {}, weights off by {:.2} % of their size",
        written.matrices,
        bytes(written.bytes_before as u64),
        bytes(written.bytes_after as u64),
        100.0 * written.relative_error.sqrt()
    );
    match figures {
        Some((before, after, same)) => eprintln!(
            "{before:.4} -> {after:.4} nats per byte ({:+.2} %), the same likeliest token {:.1} % of the time",
            100.0 * (after / before - 1.0),
            100.0 * same
        ),
        None => eprintln!("give some text with `--calibrate FILE` to round better and to see what it costs"),
    }
    eprintln!("next: {} serve {}", program(), args.folder.display());
    Ok(())
}
