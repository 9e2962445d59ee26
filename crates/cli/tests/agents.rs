//! Agents as a user meets them: run in the terminal over a model behind an API, approved, forked, and offered to others.

use crate::program::{Desk, calls, chat_server, fail, post, succeed};
use serde_json::{Value, json};
use std::{fs, path::Path};

/// A model that asks for a search, then for a file to be written, then says what it found.
fn model() -> String {
    chat_server(|asked| {
        let messages = asked["messages"].as_array().unwrap();
        let results: Vec<&Value> = messages.iter().filter(|message| message["role"] == "tool").collect();
        match results.len() {
            0 => calls("notes_search", json!({"pattern": "fennel"})),
            1 => calls("notes_write", json!({"path": "out.md", "content": "written\n"})),
            _ => json!({"content": format!("Done: {}", results[1]["content"].as_str().unwrap())}),
        }
    })
}

/// A project with an agent that may read notes, and write them if somebody says so.
fn project(folder: &Path) {
    fs::create_dir_all(folder.join("notes")).unwrap();
    fs::write(folder.join("notes/name.md"), "The narthex is the fennel stalk.\n").unwrap();
    let text = format!(
        "[project]\nname = \"desk\"\n[models.far]\nurl = \"{}\"\n[tools.notes]\nkind = \"files\"\nfolder = \"notes\"\n\
         write = true\n[agents.clerk]\ndescription = \"Keeps notes.\"\nmodel = \"far\"\ntools = [\"notes.*\"]\n\
         [agents.clerk.policy]\nrules = [{{ tool = \"notes.write\", then = \"ask\" }}]\n",
        model()
    );
    fs::write(folder.join("narthex.toml"), text).unwrap();
}

fn runs(folder: &Path) -> Vec<Value> {
    let listed: Value = serde_json::from_str(&succeed(folder, &["agent", "ls", "--json"])).unwrap();
    listed["runs"].as_array().unwrap().clone()
}

#[test]
fn what_writes_waits_for_a_person() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    project(folder);
    let waits = fail(folder, &["agent", "run", "clerk", "Where does the name come from?"], 1);
    assert!(waits.contains("waits") && waits.contains("narthex agent approve"), "{waits}");
    let [run] = &runs(folder)[..] else { panic!("one run") };
    let id = run["id"].as_str().unwrap();
    assert_eq!((&run["status"], run["interrupts"][0]["call"][0].as_str()), (&json!("waiting"), Some("notes.write")));
    assert!(!folder.join("notes/out.md").exists());
    // Other arguments are judged anew, and they are what is done.
    let edit = json!({"path": "other.md", "content": "edited\n"}).to_string();
    let answer = succeed(folder, &["agent", "approve", id, "--edit", &edit]);
    assert!(answer.starts_with("Done: "), "{answer}");
    assert_eq!(fs::read_to_string(folder.join("notes/other.md")).unwrap(), "edited\n");
    assert!(!folder.join("notes/out.md").exists());
    let shown = succeed(folder, &["agent", "show", id]);
    assert!(shown.contains("notes.search {\"pattern\":\"fennel\"} (allowed)"), "{shown}");
    assert!(shown.contains("notes.write {\"path\":\"out.md\",\"content\":\"written\\n\"} (to be approved)"), "{shown}");
    let error = fail(folder, &["agent", "approve", id], 1);
    assert!(error.contains("waits for nothing"), "{error}");
    // A copy up to the search asks again: no approval comes along.
    let fork = fail(folder, &["agent", "fork", id, "--at", "3"], 1);
    assert!(fork.contains("waits"), "{fork}");
    let all = runs(folder);
    assert_eq!((all.len(), all.iter().filter(|run| run["status"] == "done").count()), (2, 1));
    let copy = all.iter().find(|run| run["status"] == "waiting").unwrap()["id"].as_str().unwrap();
    let refused = succeed(folder, &["agent", "approve", copy, "--refuse", "not today"]);
    assert!(refused.contains("not today"), "{refused}");
    assert!(!folder.join("notes/out.md").exists());
}

#[test]
fn mistakes_are_told_with_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    project(folder);
    let text = fs::read_to_string(folder.join("narthex.toml")).unwrap();
    for (from, to, expected) in [
        ("agents.clerk", "agents.other", "agents: other"),
        ("tools = [\"notes.*\"]", "tools = [\"note.*\"]", "there is no tool `note.*`"),
        ("then = \"ask\"", "then = \"perhaps\"", "narthex.toml:"),
        ("kind = \"files\"", "kind = \"file\"", "did you mean `files`?"),
        ("description", "descripton", "did you mean `description`?"),
    ] {
        fs::write(folder.join("narthex.toml"), text.replace(from, to)).unwrap();
        let error = fail(folder, &["agent", "run", "clerk", "x"], 1);
        assert!(error.contains(expected), "{to}: {error}");
    }
    fs::write(folder.join("narthex.toml"), text).unwrap();
    let error = fail(folder, &["agent", "show", "nothing"], 1);
    assert!(error.contains("nothing"), "{error}");
}

#[test]
fn a_model_of_ours_answers_in_this_process() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    let gguf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/golden/gguf/llama.gguf");
    fs::copy(gguf, folder.join("llama.gguf")).unwrap();
    succeed(folder, &["import", "llama.gguf", "--name", "tiny"]);
    succeed(folder, &["export", "tiny", "whole"]);
    let path = folder.join("whole/tokenizer_config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    config["chat_template"] = json!("{% for m in messages %}{{ m.content }} {% endfor %}");
    fs::write(&path, config.to_string()).unwrap();
    succeed(folder, &["import", "whole", "--name", "speaker"]);
    let text = "[project]\nname = \"p\"\n[agents.a]\nmodel = \"speaker\"\nsampling = { temperature = 0.0, tokens_max = 4 }\n\
                [agents.b]\nmodel = \"nobody\"\n";
    fs::write(folder.join("narthex.toml"), text).unwrap();
    let answers = [(); 2].map(|()| succeed(folder, &["agent", "run", "a", "a"]));
    assert_eq!(answers[0], answers[1]);
    assert!(!answers[0].trim().is_empty());
    let error = fail(folder, &["agent", "run", "b", "a"], 1);
    assert!(error.contains("nobody"), "{error}");
}

#[test]
fn agents_are_offered_over_every_protocol() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    project(folder);
    let desk = Desk::open(folder, &[]);
    let page = &desk.address;
    let get =
        |path: &str| -> Value { ureq::get(format!("{page}{path}")).call().unwrap().body_mut().read_json().unwrap() };
    assert_eq!(get("/v1/models")["data"][0]["id"], "clerk");
    assert_eq!(get("/.well-known/agent-card.json")["name"], "clerk");
    let asked = json!({"model": "clerk", "messages": [{"role": "user", "content": "Where from?"}]});
    let answer = post(format!("{page}/v1/chat/completions"), &asked);
    let run = answer["narthex"]["run"].as_str().unwrap().to_string();
    let interrupt = answer["narthex"]["interrupts"][0]["id"].as_str().unwrap().to_string();
    let approve = json!({"interrupt": interrupt, "approve": true, "by": "a test"});
    let answered = ureq::post(format!("{page}/agents/runs/{run}/answers")).send_json(&approve);
    assert!(answered.is_ok(), "{answered:?}");
    for _ in 0..600 {
        if get(&format!("/agents/runs/{run}"))["status"] == "done" {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(fs::read_to_string(folder.join("notes/out.md")).unwrap(), "written\n");
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}});
    let hello =
        ureq::post(format!("{page}/mcp")).header("accept", "application/json, text/event-stream").send_json(&ping);
    assert_eq!(hello.unwrap().status(), 200);
    // The terminal sees what came over HTTP.
    assert!(succeed(folder, &["agent", "show", &run]).contains("a test (local) approved"));
}
