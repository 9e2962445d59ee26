//! `narthex quantize`

use super::{base_options, program, project_flag, run::go};
use crate::{
    arguments::{Quantize, QuantizeKind},
    style::{Style, bytes},
};
use narthex_base::{Result, config::IntegerKind};
use narthex_run::{QuantizeOptions, RunOptions, quantizing};

pub fn run(args: &Quantize, style: Style) -> Result<()> {
    let to = match args.to {
        QuantizeKind::Int8 => IntegerKind::Int8,
        QuantizeKind::Int4 => IntegerKind::Int4,
    };
    let options = QuantizeOptions { to, group: args.group, calibrate: args.calibrate.clone(), name: args.name.clone() };
    let (project, name) = quantizing(&args.project, &args.reference, &options, &base_options(&[]))?;
    let force = if args.force { vec![name.clone()] } else { vec![] };
    let run = RunOptions { to: Some(name.clone()), force, dry_run: false };
    let report = go(&project, &run, style, args.json, None)?;
    if args.json {
        outln!("{}", serde_json::json!({ "type": "report", "rows": report.rows, "seconds": report.seconds }));
        return Ok(());
    }
    outln!("{name}");
    let Some(row) = report.rows.last() else { return Ok(()) };
    let figure = |name: &str| row.figures.get(name).copied().unwrap_or_default();
    noteln!(
        "{} matrices, {} -> {}, weights off by {:.2} % of their size",
        figure("matrices"),
        bytes(figure("baseline_bytes") as u64),
        bytes(figure("bytes") as u64),
        100.0 * figure("relative_weight_error")
    );
    match row.figures.contains_key("nats_per_byte") {
        true => {
            let (before, after) = (figure("baseline_nats_per_byte"), figure("nats_per_byte"));
            noteln!(
                "{before:.4} -> {after:.4} nats per byte ({:+.2} %), the same likeliest token {:.1} % of the time",
                100.0 * (after / before - 1.0),
                100.0 * figure("same_likeliest_token")
            );
        }
        false => noteln!("give some text with `--calibrate FILE` to round better and to see what it costs"),
    }
    let (program, flag) = (program(), project_flag(&args.project));
    noteln!("next:\n  {program} serve {name}{flag}\n  {program} trace {name}{flag}");
    Ok(())
}
