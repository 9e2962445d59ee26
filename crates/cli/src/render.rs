//! Events as people or programs want to see them: bars on a terminal, plain lines elsewhere, JSON
//! lines on request. Everything but JSON goes to stderr.

use crate::style::{Style, seconds};
use indicatif::{ProgressBar, ProgressStyle};
use narthex_base::Event;
use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

/// Plain progress lines are at least this far apart.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Renders events. Safe to call from any thread.
pub struct Renderer {
    style: Style,
    json: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Whether the step at hand gets a bar with its first progress.
    wants_bar: bool,
    bar: Option<ProgressBar>,
    last_line: Option<Instant>,
    /// When progress was first seen in this step, and how far it was then: a resumed step does not start at 0.
    first_progress: Option<(Instant, u64)>,
}

impl Renderer {
    pub fn new(style: Style, json: bool) -> Self {
        Self { style, json, state: Mutex::new(State::default()) }
    }

    pub fn event(&self, event: Event) {
        if self.json {
            outln!("{}", serde_json::to_string(&event).expect("events serialize"));
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match event {
            Event::StepStarted { step, kind, reason } => {
                state.first_progress = None;
                state.last_line = Some(Instant::now());
                noteln!(
                    "{} {} {}",
                    self.style.bold(&step),
                    self.style.dim(&format!("({kind})")),
                    self.style.dim(&reason)
                );
                state.wants_bar = self.style.terminal;
            }
            Event::StepUnchanged { step, digest } => {
                noteln!("{} {}", self.style.bold(&step), self.style.dim(&format!("unchanged, {}", digest.short())));
            }
            Event::StepFinished { step, digest, seconds: took } => {
                if let Some(bar) = state.bar.take() {
                    bar.finish_and_clear();
                }
                noteln!("  {step} = {} in {}", digest.short(), seconds(took));
            }
            Event::Progress { done, total, unit, detail, .. } => state.progress(done, total, &unit, &detail),
            Event::Metric { .. } => {}
            Event::Sample { at, text, .. } => {
                let quoted: Vec<String> = text.lines().map(|line| format!("  | {line}")).collect();
                state.print(&self.style.dim(&format!("  sample at step {at}:\n{}", quoted.join("\n"))));
            }
            Event::Warning { step, message } => {
                let step = if step.is_empty() { String::new() } else { format!("{step}: ") };
                match &state.bar {
                    Some(bar) => bar.suspend(|| self.style.warning(&format!("{step}{message}"))),
                    None => self.style.warning(&format!("{step}{message}")),
                }
            }
        }
    }
}

impl State {
    fn progress(&mut self, done: u64, total: u64, unit: &str, detail: &str) {
        let (start, first) = *self.first_progress.get_or_insert_with(|| (Instant::now(), done));
        if self.bar.is_none() && self.wants_bar {
            self.bar = Some(bar());
        }
        // From where this run began: one that goes on has done nothing yet of what was done before.
        let left = if done > first && total > done {
            let per_unit = start.elapsed().as_secs_f64() / (done - first) as f64;
            format!(", {} left", seconds(per_unit * (total - done) as f64))
        } else {
            String::new()
        };
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(format!("{unit}  {detail}"));
            bar.set_prefix(left);
            return;
        }
        let due = self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY);
        if !due {
            return;
        }
        self.last_line = Some(Instant::now());
        let detail = if detail.is_empty() { String::new() } else { format!(", {detail}") };
        noteln!("  {done}/{total} {unit}{detail}{left}");
    }

    fn print(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| noteln!("{text}")),
            None => noteln!("{text}"),
        }
    }
}

fn bar() -> ProgressBar {
    // The message is cut where the line ends.
    let template = match crate::style::terminal_width() {
        Some(width) if width < 100 => "  {bar:10} {pos}/{len} {wide_msg} [{elapsed}{prefix}]",
        _ => "  {bar:28} {pos}/{len} {wide_msg} [{elapsed}{prefix}]",
    };
    let style = ProgressStyle::with_template(template).expect("the template is valid");
    let bar = ProgressBar::new(0).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}
