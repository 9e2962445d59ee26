//! `narthex mcp` as a host starts it: a child process that speaks JSON-RPC on standard input and output, and over HTTP.

use crate::program::{fail, narthex, succeed, sums, tiny_encoder};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    time::{Duration, Instant},
};

const PROJECT: &str = r#"[project]
name = "tiny"
seed = 3

[sources.lines]
path = "lines.txt"
rows = "line"
license = "CC0-1.0"
origin = "made for this test"

[steps.documents]
kind = "data"
from = "lines"
validation = 0.2

[steps.tokens]
kind = "tokenize"
from = "documents"
vocab_size = 280

[steps.base]
kind = "train"
data = "tokens"
model = { hidden_size = 32, intermediate_size = 48, layers = 1, heads = 2, kv_heads = 1 }
schedule = { steps = 200, batch_size = 4, context = 48, lr = 1e-2, warmup = 5, checkpoint_every = 10 }
"#;

fn project(folder: &Path) -> PathBuf {
    sums(folder);
    fs::write(folder.join("narthex.toml"), PROJECT).unwrap();
    folder.to_path_buf()
}

/// A host with a server as its child.
struct Host {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    asked: u64,
    /// Notices that came while an answer was waited for.
    notices: Vec<Value>,
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Host {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let mut command = narthex(folder, &[&["mcp"], arguments].concat());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut host = Self { child, input, output, asked: 0, notices: vec![] };
        let hello =
            json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
        let hello = host.ask("initialize", hello).unwrap();
        assert_eq!(
            (&hello["protocolVersion"], &hello["serverInfo"]["name"]),
            (&json!("2025-11-25"), &json!("narthex"))
        );
        assert!(hello["instructions"].as_str().unwrap().contains("list_artifacts"), "{hello}");
        host.send(json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        host
    }

    fn send(&mut self, message: Value) {
        let input = self.input.as_mut().unwrap();
        writeln!(input, "{message}").unwrap();
        input.flush().unwrap();
    }

    /// The next message. Whatever stands on standard output has to be one.
    fn next(&mut self) -> Value {
        let mut line = String::new();
        assert!(self.output.read_line(&mut line).unwrap() > 0, "the server has gone");
        let message: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(message["jsonrpc"], "2.0", "{message}");
        message
    }

    fn begin(&mut self, method: &str, params: Value) -> u64 {
        self.asked += 1;
        self.send(json!({"jsonrpc": "2.0", "id": self.asked, "method": method, "params": params}));
        self.asked
    }

    fn end(&mut self, id: u64) -> Result<Value, Value> {
        loop {
            let message = self.next();
            if message["id"] == id {
                return match message.get("error") {
                    Some(error) => Err(error.clone()),
                    None => Ok(message["result"].clone()),
                };
            }
            self.notices.push(message);
        }
    }

    fn ask(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        let id = self.begin(method, params);
        self.end(id)
    }

    /// A call's result as data. Its text has to be the same.
    fn call(&mut self, tool: &str, arguments: Value) -> Value {
        let result = self.ask("tools/call", json!({"name": tool, "arguments": arguments})).unwrap();
        assert_ne!(result["isError"], true, "{tool}: {result}");
        let text: Value = serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap();
        assert_eq!(text, result["structuredContent"]);
        text
    }

    /// What a call says that fails.
    fn error(&mut self, tool: &str, arguments: Value) -> String {
        let result = self.ask("tools/call", json!({"name": tool, "arguments": arguments})).unwrap();
        assert_eq!(result["isError"], true, "{tool}: {result}");
        result["content"][0]["text"].as_str().unwrap().to_string()
    }

    fn tools(&mut self) -> Vec<Value> {
        self.ask("tools/list", json!({})).unwrap()["tools"].as_array().unwrap().clone()
    }

    fn read(&mut self, uri: &str) -> Result<String, Value> {
        let read = self.ask("resources/read", json!({"uri": uri}))?;
        assert_eq!(read["contents"][0]["uri"], uri);
        Ok(read["contents"][0]["text"].as_str().unwrap().to_string())
    }

    /// Goes away, and waits until the server has ended by itself.
    fn leave(&mut self) {
        self.input = None;
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                return;
            }
            assert!(Instant::now() < deadline, "the server does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// What `--json` of a verb prints.
fn printed(folder: &Path, arguments: &[&str]) -> Value {
    serde_json::from_str(&succeed(folder, &[arguments, &["--json"]].concat())).unwrap()
}

#[test]
fn what_a_project_holds_is_told_as_the_verbs_tell_it() {
    let home = tempfile::tempdir().unwrap();
    let folder = &project(home.path());
    succeed(folder, &["run", "--to", "tokens"]);
    let mut host = Host::start(folder, &[]);
    let tools = host.tools();
    let names: Vec<&str> = tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert_eq!(names[0], "list_artifacts");
    assert!(!names.contains(&"run") && !names.contains(&"export"), "{names:?}");
    for tool in &tools {
        assert_eq!(tool["annotations"]["readOnlyHint"], true, "{tool}");
        assert_eq!(
            (&tool["inputSchema"]["type"], &tool["inputSchema"]["additionalProperties"]),
            (&json!("object"), &json!(false))
        );
        let text = tool["inputSchema"].to_string();
        assert!(!text.contains("$ref") && !text.contains("\"null\""), "{text}");
    }
    for (tool, arguments, key, verb) in [
        ("list_artifacts", json!({}), Some("artifacts"), &["ls"][..]),
        ("list_artifacts", json!({"kind": "tokens"}), Some("artifacts"), &["ls", "--kind", "tokens"]),
        ("show_artifact", json!({"reference": "tokens"}), None, &["show", "tokens"]),
        ("trace_lineage", json!({"reference": "tokens"}), None, &["trace", "tokens"]),
        ("show_config", json!({}), Some("values"), &["config", "show"]),
        ("plan_memory", json!({"step": "base", "ranks": 2}), None, &["plan", "memory", "base", "--ranks", "2"]),
        ("show_data", json!({"reference": "lines"}), None, &["data", "show", "lines", "--count", "5"]),
        (
            "show_data",
            json!({"reference": "documents", "first": 2, "count": 1}),
            Some("rows"),
            &["data", "show", "documents", "--first", "2", "--count", "1"],
        ),
        (
            "show_data",
            json!({"reference": "tokens", "tokens": true, "count": 1}),
            Some("documents"),
            &["data", "show", "tokens", "--tokens", "--count", "1"],
        ),
    ] {
        let told = host.call(tool, arguments);
        assert_eq!(key.map_or(&told, |key| &told[key]), &printed(folder, verb), "{tool}");
    }
    let mut report = host.call("license_report", json!({"reference": "tokens"}));
    let policy = report.as_object_mut().unwrap().remove("policy").unwrap();
    assert_eq!(report, printed(folder, &["license", "tokens"]));
    assert_eq!(
        policy.as_array().unwrap().iter().filter(|finding| finding["use"] == "redistribute").count(),
        2,
        "{policy}"
    );
    let spdx = host.call("license_report", json!({"reference": "tokens", "format": "spdx"}));
    assert!(spdx["document"]["@graph"].is_array(), "{spdx}");
    let card = host.call("license_report", json!({"reference": "tokens", "format": "dataset_card"}));
    assert!(card["text"].as_str().unwrap().starts_with("---\n"), "{card}");
    let ahead = host.call("what_would_run", json!({"set": ["base.steps=7"]}));
    let states: Vec<&str> =
        ahead["rows"].as_array().unwrap().iter().map(|row| row["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["unchanged", "unchanged", "planned"]);
    let cut = host.call("list_artifacts", json!({"count": 1}));
    assert_eq!((cut["artifacts"].as_array().unwrap().len(), &cut["left_out"]), (1, &json!(2)));
    host.leave();
}

#[test]
fn mistakes_are_told_to_the_model_and_places_on_disk_are_not_reached() {
    let home = tempfile::tempdir().unwrap();
    let folder = &project(home.path());
    succeed(folder, &["run", "--to", "documents"]);
    tiny_encoder(&folder.join("encoder"));
    let mut host = Host::start(folder, &["--allow-writes"]);
    for (tool, arguments, expected) in [
        ("show_artifact", json!({"reference": "document"}), "did you mean `documents`?"),
        ("show_artifact", json!({}), "do not fit its schema"),
        ("show_artifact", json!({"reference": "documents", "more": 1}), "more"),
        ("license_report", json!({"reference": "./encoder"}), "is a place on disk"),
        ("embed", json!({"model": "./encoder", "texts": ["a"]}), "is a place on disk"),
        ("embed", json!({"model": "documents", "texts": ["a"]}), "documents"),
        ("generate", json!({"model": "base", "prompt": "a"}), "the step `base` has not run"),
        ("verify", json!({"reference": "documents"}), "no training is recorded"),
        ("plan_memory", json!({"step": "nothing"}), "there is no step `nothing`"),
        ("what_would_run", json!({"set": ["base.stepz=7"]}), "stepz"),
        ("what_would_run", json!({"set": ["sources.lines.path=/etc/passwd"]}), "only those can be set"),
        ("run", json!({"set": ["policy.open_source=false"]}), "only those can be set"),
        ("export", json!({"reference": "documents", "folder": "../out"}), "nothing is written"),
        ("quantize", json!({"reference": "/etc", "to": "int8"}), "is a place on disk"),
        ("reproduce", json!({"reference": "."}), "is a place on disk"),
    ] {
        let error = host.error(tool, arguments);
        assert!(error.contains(expected), "{tool}: {error}");
    }
    let unknown = host.ask("tools/call", json!({"name": "nothing", "arguments": {}})).unwrap_err();
    assert!(unknown["message"].as_str().unwrap().contains("there is no tool `nothing`"), "{unknown}");
    // What is no message is passed over, and the server goes on.
    let input = host.input.as_mut().unwrap();
    writeln!(input, "this is no JSON\n").unwrap();
    fs::write(folder.join("narthex.toml"), PROJECT.replace("vocab_size", "vocabsize")).unwrap();
    let error = host.error("show_config", json!({}));
    assert!(error.contains("narthex.toml:19") && error.contains("vocab_size"), "{error}");
    host.leave();
    let nowhere = tempfile::tempdir().unwrap();
    assert!(fail(nowhere.path(), &["mcp"], 1).contains("there is no project"));
    assert!(fail(folder, &["mcp", "--allowed-host", "x"], 2).contains("--port"));
    assert!(fail(folder, &["mcp", "--port", "0", "--host", "0.0.0.0", "--allow-writes"], 2).contains("--api-key"));
}

#[test]
fn resources_and_prompts_bring_what_is_recorded() {
    let home = tempfile::tempdir().unwrap();
    let folder = &project(home.path());
    let mut host = Host::start(folder, &[]);
    let uris = |host: &mut Host| -> Vec<String> {
        let listed = host.ask("resources/list", json!({})).unwrap();
        listed["resources"].as_array().unwrap().iter().map(|one| one["uri"].as_str().unwrap().to_string()).collect()
    };
    // Before anything has been made, too.
    assert_eq!(uris(&mut host), ["narthex://project", "narthex://schema"]);
    succeed(folder, &["run", "--to", "tokens"]);
    let all = uris(&mut host);
    assert!(
        all.contains(&"narthex://artifact/tokens".into()) && all.contains(&"narthex://artifact/lines".into()),
        "{all:?}"
    );
    let templates = host.ask("resources/templates/list", json!({})).unwrap();
    let templates: Vec<&str> = templates["resourceTemplates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["uriTemplate"].as_str().unwrap())
        .collect();
    assert_eq!(templates, ["artifact", "lineage", "licence"].map(|kind| format!("narthex://{kind}/{{reference}}")));
    assert_eq!(host.read("narthex://project").unwrap(), PROJECT);
    let schema: Value = serde_json::from_str(&host.read("narthex://schema").unwrap()).unwrap();
    assert!(schema["properties"]["steps"].is_object() && schema["properties"]["agents"].is_object());
    for (uri, verb) in
        [("narthex://artifact/tokens", &["show", "tokens"]), ("narthex://lineage/tokens", &["trace", "tokens"])]
    {
        let read: Value = serde_json::from_str(&host.read(uri).unwrap()).unwrap();
        assert_eq!(read, printed(folder, verb), "{uri}");
    }
    assert!(host.read("narthex://licence/tokens").unwrap().contains("\"policy\""));
    for uri in [
        "narthex://artifact/nothing",
        "narthex://artifact/..%2F..%2Fetc",
        "narthex://other/tokens",
        "file:///etc/passwd",
    ] {
        let error = host.read(uri).unwrap_err();
        assert_eq!(error["data"]["uri"], uri, "{error}");
    }
    let complete = |host: &mut Host, reference: Value, beginning: &str| {
        let asked = json!({"ref": reference, "argument": {"name": "reference", "value": beginning}});
        host.ask("completion/complete", asked).unwrap()["completion"]["values"].clone()
    };
    let template = json!({"type": "ref/resource", "uri": "narthex://lineage/{reference}"});
    assert_eq!(complete(&mut host, template.clone(), "to"), json!(["tokens"]));
    let versions = complete(&mut host, template, "tokens@");
    assert!(versions[0].as_str().unwrap().starts_with("tokens@"), "{versions}");
    assert_eq!(
        complete(&mut host, json!({"type": "ref/prompt", "name": "explain_origin"}), "do"),
        json!(["documents"])
    );
    let prompt =
        host.ask("prompts/get", json!({"name": "explain_origin", "arguments": {"reference": "tokens"}})).unwrap();
    let messages = prompt["messages"].as_array().unwrap();
    assert!(messages[0]["content"]["text"].as_str().unwrap().contains("`tokens`"));
    assert_eq!(messages[1]["content"]["resource"]["uri"], "narthex://lineage/tokens");
    assert!(messages[2]["content"]["resource"]["text"].as_str().unwrap().contains("CC0-1.0"));
    let review = host.ask("prompts/get", json!({"name": "review_project"})).unwrap().to_string();
    assert!(review.contains("vocab_size = 280") && review.contains("What would run now"), "{review}");
    let error = host.ask("prompts/get", json!({"name": "explain_origin"})).unwrap_err();
    assert!(error["message"].as_str().unwrap().contains("reference"), "{error}");
    host.leave();
}

#[test]
fn models_of_the_project_answer() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    let gguf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/golden/gguf/llama.gguf");
    fs::copy(gguf, folder.join("llama.gguf")).unwrap();
    succeed(folder, &["import", "llama.gguf", "--name", "tiny"]);
    tiny_encoder(&folder.join("encoder"));
    succeed(folder, &["import", "encoder", "--name", "encoder"]);
    let mut host = Host::start(folder, &[]);
    let sampling = json!({"model": "tiny", "prompt": "a", "max_tokens": 5, "temperature": 0.0});
    let mut told = host.call("generate", sampling.clone());
    let mut again = host.call("generate", sampling);
    let mut said = printed(folder, &["generate", "tiny", "--prompt", "a", "--max-tokens", "5", "--temperature", "0"]);
    for value in [&mut told, &mut again, &mut said] {
        assert!(value.as_object_mut().unwrap().remove("seconds").unwrap().is_f64());
    }
    assert_eq!((&told, &again), (&said, &said));
    let vectors = host.call("embed", json!({"model": "encoder", "texts": ["the cat sat", "-"]}));
    let lines = succeed(folder, &["embed", "encoder", "the cat sat", "--json"]);
    let line: Value = serde_json::from_str(&lines).unwrap();
    assert_eq!(
        (vectors["data"][0]["text"].as_str(), &vectors["data"][0]["embedding"]),
        (Some("the cat sat"), &line["embedding"])
    );
    assert_eq!(vectors["data"].as_array().unwrap().len(), 2);
    let error = host.error("classify", json!({"model": "encoder", "texts": ["a"]}));
    assert!(error.contains("gives vectors"), "{error}");
    let error = host.error("chat", json!({"model": "encoder", "messages": [{"role": "user", "content": "a"}]}));
    assert!(error.contains("writes none"), "{error}");
    host.leave();
}

#[test]
fn a_run_tells_how_far_it_is_stops_when_it_is_cancelled_and_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let folder = &project(home.path());
    let mut host = Host::start(folder, &["--allow-writes"]);
    let writes: Vec<Value> =
        host.tools().into_iter().filter(|tool| tool["annotations"]["readOnlyHint"] == false).collect();
    assert_eq!(
        writes.iter().map(|tool| tool["name"].as_str().unwrap()).collect::<Vec<_>>(),
        ["run", "reproduce", "quantize", "export"]
    );
    let call = |steps: &str| json!({"name": "run", "arguments": {"set": [steps]}, "_meta": {"progressToken": "p"}});
    let running = host.begin("tools/call", call("base.steps=100000"));
    // Until it trains; the server answers others meanwhile.
    let mut trains = false;
    while !trains {
        let notice = host.next();
        trains = notice["params"]["message"].as_str().is_some_and(|word| word.starts_with("base:"));
        host.notices.push(notice);
    }
    let busy = host.error("run", json!({}));
    assert!(busy.contains("another narthex run is active"), "{busy}");
    let ahead = host.call("what_would_run", json!({}));
    assert_eq!(ahead["rows"][0]["state"], "unchanged");
    host.send(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": running, "reason": "enough"}}));
    let mut report = Err(Value::Null);
    for _ in 0..600 {
        let id = host.begin("tools/call", call("base.steps=40"));
        let result = host.end(id).unwrap();
        if result["isError"] != true {
            report = Ok(result["structuredContent"].clone());
            break;
        }
        // The one before saves and stops at its next safe point.
        assert!(result.to_string().contains("another narthex run is active"), "{result}");
        std::thread::sleep(Duration::from_millis(50));
    }
    let report = report.unwrap();
    assert_eq!(report["rows"][2]["step"], "base");
    assert_eq!(report["rows"][2]["state"], "made");
    let progress: Vec<f64> = host
        .notices
        .iter()
        .filter(|notice| notice["method"] == "notifications/progress")
        .map(|notice| notice["params"]["progress"].as_f64().unwrap())
        .collect();
    assert!(progress.len() > 3 && progress.contains(&3.0), "{progress:?}");
    assert!(host.notices.iter().any(|notice| notice["method"] == "notifications/resources/list_changed"));
    let out = host.call("export", json!({"reference": "base", "folder": "exports/base"}));
    assert!(folder.join("exports/base/model.safetensors").is_file(), "{out}");
    let small = host.call("quantize", json!({"reference": "base", "to": "int8", "name": "small"}));
    assert_eq!((&small["name"], &small["rows"][0]["step"]), (&json!("small"), &json!("small")));
    // It has computed already, with the instructions that this machine has; the recipe wants single precision.
    let made = host.call("reproduce", json!({"reference": "base", "ignore_project_file": true}));
    assert_eq!(Some(&made["digest"]), made["steps"].as_array().unwrap().last().map(|step| &step["digest"]));
    // A host that goes away leaves nothing half done: what it had begun is saved and goes on.
    let running = host.begin("tools/call", call("base.steps=100001"));
    loop {
        let notice = host.next();
        assert_ne!(notice["id"], running, "{notice}");
        if notice["params"]["message"].as_str().is_some_and(|word| word.starts_with("base:")) {
            break;
        }
    }
    host.leave();
    let rows = printed(folder, &["run", "--dry-run", "--set", "base.steps=100001"]);
    assert_eq!(rows["rows"][2]["reason"], "goes on from its checkpoint", "{rows}");
}

#[test]
fn over_http_behind_a_key_with_agents() {
    let home = tempfile::tempdir().unwrap();
    let folder = &project(home.path());
    let agent = "\n[models.far]\nurl = \"http://127.0.0.1:9/v1\"\n[agents.clerk]\ndescription = \"Keeps notes.\"\nmodel = \"far\"\n";
    fs::write(folder.join("narthex.toml"), format!("{PROJECT}{agent}")).unwrap();
    let mut child = narthex(folder, &["mcp", "--port", "0", "--api-key", "secret", "--agents"]);
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let address = lines.find_map(|line| Some(line.split_once("MCP")?.1.trim().to_string())).unwrap();
    std::thread::spawn(move || lines.count());
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let ask = |key: &str, method: &str| {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": {"_meta": meta}});
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut answer = agent
            .post(&address)
            .header("authorization", format!("Bearer {key}"))
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", method)
            .send_json(&body)
            .unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    };
    assert_eq!(ask("wrong", "tools/list").0, 401);
    let (status, tools) = ask("secret", "tools/list");
    let (_, found) = ask("secret", "server/discover");
    let _ = child.kill();
    let _ = child.wait();
    assert_eq!(status, 200, "{tools}");
    assert!(
        tools.contains("\"list_artifacts\"") && tools.contains("\"clerk\"") && !tools.contains("\"export\""),
        "{tools}"
    );
    assert!(found.contains("2026-07-28") && found.contains("narthex"), "{found}");
}
