//! A run's log as spans, in the words of OpenTelemetry's conventions for generative AI: `invoke_agent` for a run, and
//! below it `chat` for each request to a model and `execute_tool` for each call. A view: whoever makes it twice gets
//! the same ids. Knows no exporter.

mod otlp;
mod said;
mod walk;

pub use otlp::{SERVICE, otlp};
pub use walk::{RunLog, Span, SpanEvent, SpanKind, spans};
