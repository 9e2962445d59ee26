//! Knowledge as a user meets it: made of files, made again when some change, searched, and asked by agents; and the other
//! things that agents reach: tables, agents of others.

use crate::program;
use crate::program::{Desk, calls, chat_server, digest, fail, succeed, tiny_encoder};
use serde_json::{Value, json};
use std::{fs, path::Path};

const OVENS: &str = "# Ovens\n\n## Cleaning\n\nLet the oven cool for an hour.\n\n## Warranty\n\nIt lasts five years.\n";

fn project(folder: &Path, more: &str) {
    fs::create_dir_all(folder.join("handbook")).unwrap();
    fs::write(folder.join("handbook/ovens.md"), OVENS).unwrap();
    fs::write(folder.join("handbook/kettles.txt"), "Kettles are descaled once a month.\n").unwrap();
    fs::write(folder.join("handbook/photo.jpg"), [0xff, 0xd8]).unwrap();
    let text = format!(
        "[project]\nname = \"shop\"\n[sources.manuals]\npath = \"handbook\"\nlicense = \"CC-BY-4.0\"\n\
         [steps.handbook]\nkind = \"knowledge\"\nfrom = \"manuals\"\n{more}"
    );
    fs::write(folder.join("narthex.toml"), text).unwrap();
}

fn search(folder: &Path, question: &str, more: &[&str]) -> Vec<Value> {
    let args = [&["search", "handbook", question, "--json"], more].concat();
    serde_json::from_str::<Value>(&succeed(folder, &args)).unwrap().as_array().unwrap().clone()
}

#[test]
fn passages_are_found_with_file_place_and_licence() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    project(folder, "");
    succeed(folder, &["run"]);
    let found = search(folder, "How long is the warranty?", &["--limit", "1"]);
    assert_eq!(found[0]["source"], "handbook/ovens.md:9");
    assert_eq!((&found[0]["passage"]["license"], found.len()), (&json!("CC-BY-4.0"), 1));
    let shown = succeed(folder, &["search", "handbook", "descaled"]);
    assert!(shown.starts_with("[1] handbook/kettles.txt:1 (CC-BY-4.0)\n"), "{shown}");
    assert!(search(folder, "warranty", &["--files", "handbook/*.txt"]).is_empty());
    for (args, expected) in [
        (vec!["search", "manuals", "x"], "is no knowledge but of kind source"),
        (vec!["search", "handbok", "x"], "handbok"),
        (vec!["search", "handbook", "x", "--mode", "vectors"], "no vectors"),
        (vec!["search", "handbook", "x", "--files", "["], "is not a glob"),
    ] {
        let error = fail(folder, &args, 1);
        assert!(error.contains(expected), "{args:?}: {error}");
    }
    let trace = succeed(folder, &["trace", "handbook"]);
    assert!(trace.contains("manuals (source") && trace.contains("CC-BY-4.0"), "{trace}");
    // The picture is no part of it: only what is read counts.
    assert!(!trace.contains("photo.jpg"), "{trace}");
    // What has not changed gives the same bytes, taken over or not.
    let first = digest(folder, "handbook");
    fs::write(folder.join("handbook/ovens.md"), OVENS.replace("five", "six")).unwrap();
    succeed(folder, &["run"]);
    assert_ne!(digest(folder, "handbook"), first);
    assert!(search(folder, "warranty", &[])[0]["passage"]["text"].as_str().unwrap().contains("six"));
    fs::write(folder.join("handbook/ovens.md"), OVENS).unwrap();
    succeed(folder, &["run"]);
    assert_eq!(digest(folder, "handbook"), first);
    succeed(folder, &["reproduce", "handbook"]);
}

#[test]
fn an_encoder_finds_by_meaning_and_is_held_to() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    project(
        folder,
        "model = \"mini\"\n[sources.mini]\npath = \"mini\"\nformat = \"huggingface\"\nlicense = \"Apache-2.0\"\n",
    );
    tiny_encoder(&folder.join("mini"));
    succeed(folder, &["run"]);
    let found = search(folder, "the cat sat", &["--mode", "vectors"]);
    assert!(!found.is_empty() && found.iter().all(|found| found["vectors_rank"].is_u64()), "{found:?}");
    assert!(search(folder, "warranty", &[])[0]["words_rank"].is_u64());
    let config = folder.join("mini/config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text + "\n").unwrap();
    let error = fail(folder, &["search", "handbook", "x"], 1);
    assert!(error.contains("has changed since") && error.contains("narthex run"), "{error}");
    // Words need no encoder.
    succeed(folder, &["search", "handbook", "warranty", "--mode", "words"]);
}

#[test]
fn answers_of_agents_rest_on_what_was_looked_up() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    let url = chat_server(|asked| {
        assert!(asked.get("tools").is_none(), "{asked}");
        json!({"content": format!("It said: {}", asked["messages"][0]["content"].as_str().unwrap())})
    });
    let agent = format!("[models.far]\nurl = \"{url}\"\n[agents.clerk]\nmodel = \"far\"\nknowledge = [\"handbook\"]\n");
    project(folder, &agent);
    let error = fail(folder, &["agent", "run", "clerk", "x"], 1);
    assert!(error.contains("handbook"), "what is not made cannot be asked: {error}");
    succeed(folder, &["run"]);
    let answer = succeed(folder, &["agent", "run", "clerk", "How long is the warranty?"]);
    let seen = "It said: [1] handbook/ovens.md:9 (CC-BY-4.0)\n    Ovens > Warranty\n    It lasts five years.\n";
    assert!(answer.starts_with(seen) && answer.trim_end().ends_with("How long is the warranty?"), "{answer}");
}

#[test]
fn tables_are_asked_in_sql_that_reads() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    let url = chat_server(|asked| {
        let messages = asked["messages"].as_array().unwrap();
        let results = messages.iter().filter(|message| message["role"] == "tool").collect::<Vec<_>>();
        match results.len() {
            0 => calls("ask", json!({"sql": "drop table orders"})),
            1 => calls(
                "ask",
                json!({"sql": "select customer, count(*) as n from orders group by customer order by n desc"}),
            ),
            _ => json!({"content": format!("{} | {}", results[0]["content"], results[1]["content"])}),
        }
    });
    fs::write(folder.join("orders.csv"), "id,customer\n1,ann\n2,ben\n3,ann\n").unwrap();
    let text = format!(
        "[project]\nname = \"p\"\n[sources.orders]\npath = \"orders.csv\"\nlicense = \"CC0-1.0\"\n[models.far]\nurl = \"{url}\"\n\
         [tools.ask]\nkind = \"sql\"\ntables = [\"orders\"]\n[agents.clerk]\nmodel = \"far\"\ntools = [\"ask\"]\n"
    );
    fs::write(folder.join("narthex.toml"), &text).unwrap();
    let answer = succeed(folder, &["agent", "run", "clerk", "Who buys most?"]);
    assert!(answer.contains("may only be a SELECT"), "{answer}");
    assert!(answer.replace('\\', "").contains(r#"{"customer":"ann","n":2}"#), "{answer}");
    fs::write(folder.join("narthex.toml"), text.replace("tables = [\"orders\"]", "tables = [\"order\"]")).unwrap();
    let error = fail(folder, &["agent", "run", "clerk", "x"], 1);
    assert!(error.contains("there is no source `order`"), "{error}");
}

#[test]
fn agents_of_others_are_tools_and_callers_are_told_apart() {
    let theirs = tempfile::tempdir().unwrap();
    let url = chat_server(|asked| {
        let said = asked["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap().to_string();
        json!({"content": format!("They say: {said}")})
    });
    let agent = format!("[project]\nname = \"t\"\n[models.far]\nurl = \"{url}\"\n[agents.expert]\nmodel = \"far\"\n");
    fs::write(theirs.path().join("narthex.toml"), agent).unwrap();
    fs::write(theirs.path().join("keys"), "key-a ann\nkey-b ben\n").unwrap();
    let desk = Desk::open(theirs.path(), &["--api-key-file", "keys"]);
    let ours = tempfile::tempdir().unwrap();
    let folder = ours.path();
    let url = chat_server(|asked| {
        let messages = asked["messages"].as_array().unwrap();
        match messages.iter().find(|message| message["role"] == "tool") {
            None => calls("expert", json!({"message": "What now?"})),
            Some(result) => json!({"content": format!("Heard: {}", result["content"].as_str().unwrap())}),
        }
    });
    let text = format!(
        "[project]\nname = \"o\"\n[models.far]\nurl = \"{url}\"\n[remotes.expert]\nurl = \"{}\"\ntoken_env = \"EXPERT\"\n\
         [agents.clerk]\nmodel = \"far\"\ntools = [\"expert\"]\npolicy = {{ rules = [{{ tool = \"expert\", then = \"allow\" }}] }}\n",
        desk.address
    );
    fs::write(folder.join("narthex.toml"), &text).unwrap();
    let output = program::narthex(folder, &["agent", "run", "clerk", "x"]).env("EXPERT", "key-a").output().unwrap();
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("Heard: ") && said.contains("They say: What now?"), "{said}\n{told}");
    // Its run belongs to whoever has the first key.
    let runs = |key: &str| -> Value {
        let get = ureq::get(format!("{}/agents/runs", desk.address)).header("authorization", format!("Bearer {key}"));
        get.call().unwrap().body_mut().read_json().unwrap()
    };
    assert_eq!(
        (runs("key-a").to_string().contains("expert"), runs("key-b").to_string().contains("expert")),
        (true, false)
    );
    // Without leave, what reaches out is not asked.
    fs::write(folder.join("narthex.toml"), text.replace("then = \"allow\"", "then = \"deny\"")).unwrap();
    let output = program::narthex(folder, &["agent", "run", "clerk", "x"]).env("EXPERT", "key-a").output().unwrap();
    assert!(!String::from_utf8_lossy(&output.stdout).contains("They say"), "{output:?}");
}
