//! What all replicas have, as one answer: models, files and batches as one list, metrics as one page with a label that
//! names the replica.

use crate::{
    client::{fetch, own_headers},
    headers::onward,
    message::Message,
    replica::Replica,
    shared::Shared,
};
use axum::{
    Json,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, Response, StatusCode, header},
    response::IntoResponse,
};
use futures::future::join_all;
use narthex_http::{ApiError, Exchange};
use serde_json::{Map, Value, json};
use std::{
    cmp::Reverse,
    collections::BTreeMap,
    fmt::Write,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

/// How long a replica may take to list what it has, and how long the list may be.
const TIMEOUT: Duration = Duration::from_secs(5);
const BYTES_MAX: usize = 16 << 20;

/// The same of metrics: who scrapes does not wait for long.
const METRICS_TIMEOUT: Duration = Duration::from_secs(1);

/// Pages of a list that are asked for.
const PAGES_MAX: usize = 100;

/// Entries of a page: as many as replicas give at once.
const PAGE: usize = 100;

/// Entries that a client gets where it does not say how many.
const LIMIT: usize = 20;
const FILES_LIMIT: usize = 10_000;

/// `GET /v1/models`: those of all that are ready, each name once.
pub(crate) async fn models(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response<Body>, ApiError> {
    let exchange = request.extensions().get::<Arc<Exchange>>().cloned();
    let headers = onward(request.headers().clone(), exchange.as_deref(), shared.replica_key.as_ref());
    let lists = each(&shared.fleet.ready(), "/v1/models", &headers).await;
    let mut merged: Option<Map<String, Value>> = None;
    let mut entries: Vec<Value> = vec![];
    let mut refusal = None;
    for (status, bytes) in lists.into_iter().flatten() {
        match serde_json::from_slice::<Map<String, Value>>(&bytes) {
            Ok(mut list) if status.is_success() => {
                if let Some(Value::Array(more)) = list.remove("data") {
                    for entry in more {
                        if !entries.iter().any(|known| known.get("id") == entry.get("id")) {
                            entries.push(entry);
                        }
                    }
                }
                merged.get_or_insert(list);
            }
            _ => refusal = Some((status, bytes)),
        }
    }
    match (merged, refusal) {
        (Some(mut list), _) => {
            list.insert("data".into(), entries.into());
            Ok(Json(list).into_response())
        }
        (None, Some(refusal)) => Ok(refused(refusal)),
        (None, None) => Err(shared.nobody()),
    }
}

fn refused((status, bytes): (StatusCode, Bytes)) -> Response<Body> {
    (status, [(header::CONTENT_TYPE, "application/json")], bytes).into_response()
}

/// What each of some replicas answers to a path, in their order; nothing of those that do not answer.
async fn each(replicas: &[Arc<Replica>], path: &str, headers: &HeaderMap) -> Vec<Option<(StatusCode, Bytes)>> {
    // Answers are read here: they must come as they are.
    let mut headers = headers.clone();
    headers.remove(header::ACCEPT_ENCODING);
    let headers = &headers;
    let ask = async |replica: &Arc<Replica>| {
        fetch(&replica.client(), &replica.address, path, headers.clone(), BYTES_MAX, TIMEOUT).await.ok()
    };
    join_all(replicas.iter().map(ask)).await
}

/// `GET /v1/files` and `/v1/batches`: what all that are ready keep, the newest first unless `order=asc` asks otherwise.
///
/// # Errors
/// If nobody is ready, a replica refuses, `limit` is no number or `after` names nothing.
pub(crate) async fn collection(shared: &Shared, message: &Message) -> Result<Response<Body>, ApiError> {
    let query = message.path_and_query.split_once('?').map_or("", |(_, query)| query);
    let mut query: BTreeMap<&str, &str> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
    let limit = match query.remove("limit") {
        None if message.path == "/v1/files" => FILES_LIMIT,
        None => LIMIT,
        Some(text) => text.parse().ok().filter(|limit| (1..=FILES_LIMIT).contains(limit)).ok_or_else(|| {
            ApiError::field("limit", format!("`limit` must be a whole number from 1 to {FILES_LIMIT}"))
        })?,
    };
    let (after, order) = (query.remove("after"), query.remove("order"));
    let rest: String = query.iter().map(|(name, value)| format!("&{name}={value}")).collect();
    let ready = shared.fleet.ready();
    let all = |replica: Arc<Replica>| {
        let rest = rest.clone();
        async move { pages(&replica, message, &rest).await }
    };
    let mut entries: Vec<Value> = vec![];
    let lists = join_all(ready.into_iter().map(all)).await;
    if lists.is_empty() {
        return Err(shared.nobody());
    }
    for list in lists {
        match list {
            Ok(list) => entries.extend(list),
            Err(Some(refusal)) => return Ok(refused(refusal)),
            Err(None) => {
                let what = "not all servers could be asked: try again";
                return Err(ApiError::server(StatusCode::BAD_GATEWAY, what, Some("replica_failed")));
            }
        }
    }
    let made = |entry: &Value| entry.get("created_at").and_then(Value::as_i64).unwrap_or(0);
    match order {
        Some("asc") => entries.sort_by_key(made),
        _ => entries.sort_by_key(|entry| Reverse(made(entry))),
    }
    let is = |entry: &Value, id: &str| entry.get("id").and_then(Value::as_str) == Some(id);
    let from = match after {
        None => 0,
        Some(id) => {
            entries
                .iter()
                .position(|entry| is(entry, id))
                .ok_or_else(|| ApiError::field("after", "`after` names nothing that is kept here"))?
                + 1
        }
    };
    let page: Vec<&Value> = entries.iter().skip(from).take(limit).collect();
    let id = |entry: Option<&&Value>| entry.and_then(|entry| entry.get("id")).cloned().unwrap_or_default();
    Ok(Json(json!({
        "object": "list",
        "data": page,
        "first_id": id(page.first()),
        "last_id": id(page.last()),
        "has_more": from + page.len() < entries.len(),
    }))
    .into_response())
}

/// All entries of a replica's list, page by page; else its refusal, if it answers.
async fn pages(
    replica: &Arc<Replica>,
    message: &Message,
    rest: &str,
) -> Result<Vec<Value>, Option<(StatusCode, Bytes)>> {
    let mut entries: Vec<Value> = vec![];
    for _ in 0..PAGES_MAX {
        let after = entries.last().and_then(|entry| entry.get("id")).and_then(Value::as_str);
        let after = after.map(|id| format!("&after={id}")).unwrap_or_default();
        let path = format!("{}?limit={PAGE}{after}{rest}", message.path);
        let answer = each(std::slice::from_ref(replica), &path, &message.headers).await.pop().flatten();
        let (status, bytes) = answer.ok_or(None)?;
        let list = serde_json::from_slice::<Value>(&bytes).ok().filter(|_| status.is_success());
        let Some(list) = list else { return Err(Some((status, bytes))) };
        let more = list.get("data").and_then(Value::as_array).cloned().unwrap_or_default();
        let is_last = more.is_empty() || list.get("has_more") != Some(&Value::Bool(true));
        entries.extend(more);
        if is_last {
            break;
        }
    }
    Ok(entries)
}

/// `GET /metrics`: the router's own figures, and those of all replicas that answer.
pub(crate) async fn metrics(State(shared): State<Arc<Shared>>) -> Response<Body> {
    let replicas = shared.fleet.all();
    let headers = own_headers(shared.replica_key.as_ref());
    let ask = async |replica: &Arc<Replica>| {
        let page =
            fetch(&replica.client(), &replica.address, "/metrics", headers.clone(), BYTES_MAX, METRICS_TIMEOUT).await;
        page.ok().filter(|(status, _)| status.is_success())
    };
    let pages = join_all(replicas.iter().map(ask)).await;
    let mut page = Page::default();
    own(&mut page, &shared, &replicas);
    for (replica, answer) in replicas.iter().zip(pages) {
        if let Some((_, bytes)) = answer {
            page.add(replica.address.as_str(), &String::from_utf8_lossy(&bytes));
        }
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page.text()).into_response()
}

fn own(page: &mut Page, shared: &Shared, replicas: &[Arc<Replica>]) {
    type Figure = fn(&Replica) -> f64;
    let figures: [(&str, &str, &str, Figure); 4] = [
        ("ready", "gauge", "1 while a replica takes requests.", |replica| f64::from(u8::from(replica.is_ready()))),
        ("requests_in_flight", "gauge", "Requests whose answers have not ended.", |replica| replica.in_flight() as f64),
        ("requests_total", "counter", "Requests sent to a replica.", |replica| replica.sent.load(Relaxed) as f64),
        ("failures_total", "counter", "Requests and answers of a replica that broke.", |replica| {
            replica.broken.load(Relaxed) as f64
        }),
    ];
    for (name, kind, help, figure) in figures {
        let lines = replicas.iter().fold(String::new(), |mut lines, replica| {
            _ = writeln!(lines, "narthex_route_{name}{{replica=\"{}\"}} {}", replica.address.as_str(), figure(replica));
            lines
        });
        page.family(&format!("narthex_route_{name}"), kind, help, &lines);
    }
    let (blocks, known, remembered) = {
        let affinity = shared.affinity();
        (affinity.blocks, affinity.known, affinity.len() as u64)
    };
    for (name, kind, help, value) in [
        ("repeated_total", "counter", "Requests sent once more, to another replica.", shared.sent_again.load(Relaxed)),
        ("refused_total", "counter", "Requests for which there was no replica.", shared.refused.load(Relaxed)),
        ("prefix_blocks_total", "counter", "Blocks of 64 bytes of prompts.", blocks),
        ("prefix_blocks_known_total", "counter", "Those that the chosen replica had read.", known),
        ("prefix_blocks_remembered", "gauge", "Blocks of which it is known where they were read.", remembered),
    ] {
        page.family(&format!("narthex_route_{name}"), kind, help, &format!("narthex_route_{name} {value}\n"));
    }
}

/// A page of metrics under way: what belongs to one name stands together.
#[derive(Default)]
struct Page(BTreeMap<String, Family>);

#[derive(Default)]
struct Family {
    head: String,
    lines: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str, lines: &str) {
        let head = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
        self.0.insert(name.into(), Family { head, lines: lines.into() });
    }

    /// Adds the page of a replica: each line gets the label `replica`, unless it has one.
    fn add(&mut self, replica: &str, page: &str) {
        // The family whose head came last, and whether this page gives its head for the first time.
        let (mut at, mut is_first) = (String::new(), false);
        for line in page.lines() {
            let mut words = line.split_ascii_whitespace();
            if let ("#", Some(word @ ("HELP" | "TYPE"))) = (words.next().unwrap_or_default(), words.next()) {
                let Some(name) = words.next() else { continue };
                if at != name {
                    at = name.to_string();
                    is_first = !self.0.contains_key(name);
                }
                let family = self.0.entry(at.clone()).or_default();
                if is_first && !family.head.contains(&format!("# {word} ")) {
                    family.head.push_str(line);
                    family.head.push('\n');
                }
                continue;
            }
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            let end = line.find(['{', ' ', '\t']).unwrap_or(line.len());
            let (name, rest) = line.split_at(end);
            let is_of = |family: &str| {
                let suffix = name.strip_prefix(family);
                matches!(suffix, Some("" | "_bucket" | "_sum" | "_count" | "_total" | "_created" | "_info"))
            };
            let family = if is_of(&at) { &at } else { name };
            let lines = &mut self.0.entry(family.into()).or_default().lines;
            _ = match rest.strip_prefix('{') {
                Some(labels) if labels.starts_with("replica=\"") || labels.contains(",replica=\"") => {
                    writeln!(lines, "{line}")
                }
                Some(labels) if labels.trim_start().starts_with('}') => {
                    writeln!(lines, "{name}{{replica=\"{replica}\"{}", labels.trim_start())
                }
                Some(labels) => writeln!(lines, "{name}{{replica=\"{replica}\",{labels}"),
                None => writeln!(lines, "{name}{{replica=\"{replica}\"}}{rest}"),
            };
        }
    }

    fn text(self) -> String {
        self.0.into_values().map(|Family { head, lines }| head + &lines).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_become_one() {
        let mut page = Page::default();
        let text = |count: u32| {
            format!(
                "# HELP b_seconds Time.\n# TYPE b_seconds histogram\nb_seconds_bucket{{m=\"x\",le=\"1\"}} {count}\n\
                 b_seconds_sum{{m=\"x\"}} 0.5\nb_seconds_count{{m=\"x\"}} {count}\n\n# HELP a_total A.\n\
                 # TYPE a_total counter\na_total {count}\nalone{{}} 7\nothers{{replica=\"z\"}} 1\n# EOF\n"
            )
        };
        page.add("http://r:1", &text(1));
        page.add("http://r:2", &text(2));
        let expected = "\
# HELP a_total A.
# TYPE a_total counter
a_total{replica=\"http://r:1\"} 1
a_total{replica=\"http://r:2\"} 2
alone{replica=\"http://r:1\"} 7
alone{replica=\"http://r:2\"} 7
# HELP b_seconds Time.
# TYPE b_seconds histogram
b_seconds_bucket{replica=\"http://r:1\",m=\"x\",le=\"1\"} 1
b_seconds_sum{replica=\"http://r:1\",m=\"x\"} 0.5
b_seconds_count{replica=\"http://r:1\",m=\"x\"} 1
b_seconds_bucket{replica=\"http://r:2\",m=\"x\",le=\"1\"} 2
b_seconds_sum{replica=\"http://r:2\",m=\"x\"} 0.5
b_seconds_count{replica=\"http://r:2\",m=\"x\"} 2
others{replica=\"z\"} 1
others{replica=\"z\"} 1
";
        assert_eq!(page.text(), expected);
    }
}
