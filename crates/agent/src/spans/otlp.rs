//! Spans as OTLP's JSON: what is sent to `/v1/traces`. Knows the form of the protocol; sends nothing.

use super::walk::{Span, SpanEvent, SpanKind};
use serde_json::{Value, json};

/// The name of the service that the spans are told of as.
pub const SERVICE: &str = "narthex";

/// The name that the spans are made under.
const SCOPE: &str = "narthex.agent";

/// `STATUS_CODE_OK` is for people to set: what did not fail has no status.
const STATUS_ERROR: u32 = 2;

/// An `ExportTraceServiceRequest` of these spans, from a service of this name.
pub fn otlp(spans: &[Span], service: &str) -> Value {
    let version = env!("CARGO_PKG_VERSION");
    let resource = [("service.name", Value::from(service)), ("service.version", version.into())];
    json!({"resourceSpans": [{
        "resource": {"attributes": attributes(&resource)},
        "scopeSpans": [{
            "scope": {"name": SCOPE, "version": version},
            "spans": spans.iter().map(span).collect::<Vec<_>>(),
        }],
    }]})
}

fn span(span: &Span) -> Value {
    let kind = match span.kind {
        SpanKind::Internal => 1,
        SpanKind::Client => 3,
    };
    let mut written = json!({
        "traceId": span.trace,
        "spanId": span.id,
        "name": span.name,
        "kind": kind,
        "startTimeUnixNano": nanoseconds(span.start_ms),
        "endTimeUnixNano": nanoseconds(span.end_ms),
        "attributes": attributes(&span.attributes),
    });
    if let Some(parent) = &span.parent {
        written["parentSpanId"] = parent.as_str().into();
    }
    if !span.events.is_empty() {
        written["events"] = span.events.iter().map(event).collect();
    }
    if let Some((trace, id)) = &span.link {
        written["links"] = json!([{"traceId": trace, "spanId": id}]);
    }
    if let Some(error) = &span.error {
        written["status"] = json!({"code": STATUS_ERROR, "message": error});
    }
    written
}

fn event(event: &SpanEvent) -> Value {
    json!({"timeUnixNano": nanoseconds(event.at_ms), "name": event.name, "attributes": attributes(&event.attributes)})
}

/// 64-bit numbers are texts in the JSON of protocol buffers.
fn nanoseconds(ms: u64) -> String {
    (u128::from(ms) * 1_000_000).to_string()
}

fn attributes(attributes: &[(&str, Value)]) -> Vec<Value> {
    attributes.iter().map(|(key, value)| json!({"key": key, "value": any(value)})).collect()
}

fn any(value: &Value) -> Value {
    match value {
        Value::Bool(value) => json!({"boolValue": value}),
        Value::Number(number) if number.is_f64() => json!({"doubleValue": number}),
        Value::Number(number) => json!({"intValue": number.to_string()}),
        Value::Array(items) => json!({"arrayValue": {"values": items.iter().map(any).collect::<Vec<_>>()}}),
        Value::String(text) => json!({"stringValue": text}),
        other => json!({"stringValue": other.to_string()}),
    }
}
