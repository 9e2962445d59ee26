//! OpenTelemetry spans of generations, with the attributes of the GenAI conventions
//! (<https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/>), sent by OTLP over HTTP. What was said is never
//! in them.

use crate::exchange::{Exchange, GenerationRecord, Outcome};
use axum::{body::Bytes, http};
use narthex_base::{Error, Result};
use opentelemetry::{
    Array, Context, KeyValue, StringValue, Value,
    propagation::{Extractor, TextMapPropagator},
    trace::{Span, SpanKind, Status, Tracer, TracerProvider},
};
use opentelemetry_otlp::{Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{SdkTracer, SdkTracerProvider},
};
use std::time::Duration;

/// Seconds that a collector has to take spans.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// The path of traces behind a collector's address.
const PATH: &str = "/v1/traces";

/// Makes spans of exchanges.
pub(crate) struct Traces {
    tracer: SdkTracer,
    provider: SdkTracerProvider,
}

impl Traces {
    /// Sends spans to a collector, such as `http://localhost:4318`, in batches from a thread of its own.
    ///
    /// # Errors
    /// If the address is none.
    pub fn start(endpoint: &str) -> Result<Self> {
        let wrong = |what: String| {
            Error::usage(what).help("name the OTLP/HTTP address of a collector, such as `http://localhost:4318`")
        };
        let uri: http::Uri =
            endpoint.parse().map_err(|_| wrong(format!("`{endpoint}` is not an address for traces")))?;
        if uri.scheme_str() != Some("http") || uri.host().is_none() {
            return Err(wrong(format!("traces cannot go to `{endpoint}`")));
        }
        let url = if uri.path() == "/" { format!("{}{PATH}", endpoint.trim_end_matches('/')) } else { endpoint.into() };
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(Client(ureq::Agent::new_with_config(
                ureq::Agent::config_builder().timeout_global(Some(EXPORT_TIMEOUT)).http_status_as_error(false).build(),
            )))
            .with_protocol(Protocol::HttpJson)
            .with_endpoint(url)
            .build()
            .map_err(|error| wrong(format!("traces cannot go to `{endpoint}`")).cause(error))?;
        let resource = Resource::builder()
            .with_attribute(KeyValue::new("service.name", "narthex"))
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
        Ok(Self { tracer: provider.tracer("narthex"), provider })
    }

    /// Records an exchange that has ended, if a model was asked.
    pub fn end(&self, exchange: &Exchange, outcome: Outcome) {
        let Some(record) = exchange.generation() else { return };
        let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(&exchange.headers));
        let builder = self
            .tracer
            .span_builder(format!("{} {}", record.operation, record.model))
            .with_kind(SpanKind::Server)
            .with_start_time(exchange.time)
            .with_attributes(attributes(exchange, record, outcome));
        let mut span = builder.start_with_context(&self.tracer, &parent);
        if outcome.status.is_server_error() {
            span.set_status(Status::error(outcome.status.to_string()));
        }
        span.end_with_timestamp(exchange.time + exchange.begun.elapsed());
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        // What is left goes out; a collector that does not answer is not waited for any longer.
        _ = self.provider.shutdown_with_timeout(EXPORT_TIMEOUT);
    }
}

fn attributes(exchange: &Exchange, record: GenerationRecord, outcome: Outcome) -> Vec<KeyValue> {
    let words = |words: Vec<StringValue>| Value::Array(Array::String(words));
    let mut attributes = vec![
        KeyValue::new("gen_ai.operation.name", record.operation),
        KeyValue::new("gen_ai.provider.name", "narthex"),
        KeyValue::new("gen_ai.request.model", record.model.clone()),
        KeyValue::new("gen_ai.response.model", record.model),
        KeyValue::new("gen_ai.response.id", record.response_id),
        KeyValue::new("gen_ai.request.temperature", f64::from(record.temperature)),
        KeyValue::new("gen_ai.request.top_p", f64::from(record.top_p)),
        KeyValue::new("gen_ai.request.top_k", record.top_k as f64),
        KeyValue::new("gen_ai.request.frequency_penalty", f64::from(record.frequency_penalty)),
        KeyValue::new("gen_ai.request.presence_penalty", f64::from(record.presence_penalty)),
        KeyValue::new("gen_ai.request.seed", record.seed as i64),
        KeyValue::new("gen_ai.request.max_tokens", record.max_tokens as i64),
        KeyValue::new("gen_ai.request.choice.count", record.choices as i64),
        KeyValue::new("gen_ai.usage.input_tokens", record.prompt_tokens as i64),
        KeyValue::new("gen_ai.usage.output_tokens", record.completion_tokens as i64),
        KeyValue::new(
            "gen_ai.response.finish_reasons",
            words(record.finish_reasons.into_iter().map(StringValue::from).collect()),
        ),
        KeyValue::new("http.response.status_code", i64::from(outcome.status.as_u16())),
        KeyValue::new("narthex.request.id", exchange.id.clone()),
        KeyValue::new("narthex.request.stream", record.stream),
    ];
    if let Some(seconds) = record.first_token_s {
        attributes.push(KeyValue::new("gen_ai.response.time_to_first_chunk", seconds));
    }
    if !outcome.complete {
        attributes.push(KeyValue::new("error.type", "client_closed_request"));
    } else if !outcome.status.is_success() {
        attributes.push(KeyValue::new("error.type", outcome.status.as_str().to_string()));
    }
    attributes
}

/// Where the caller's trace stands.
struct Headers<'a>(&'a http::HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|name| name.as_str()).collect()
    }
}

/// What the exporter posts with. It runs in the exporter's own thread, so that it may block.
#[derive(Debug)]
struct Client(ureq::Agent);

#[async_trait::async_trait]
impl opentelemetry_http::HttpClient for Client {
    async fn send_bytes(
        &self,
        request: http::Request<Bytes>,
    ) -> std::result::Result<http::Response<Bytes>, opentelemetry_http::HttpError> {
        let (parts, body) = request.into_parts();
        let reply = self.0.run(http::Request::from_parts(parts, body.to_vec()))?;
        let (parts, mut body) = reply.into_parts();
        Ok(http::Response::from_parts(parts, body.read_to_vec()?.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_addresses_are_refused() {
        for endpoint in ["", "localhost", "ftp://x", "https://collector.example", "http://"] {
            let error = Traces::start(endpoint).err().unwrap();
            assert!(error.help_text().unwrap().contains("http://localhost:4318"), "{endpoint}: {error}");
        }
    }
}
