//! The binary as a user meets it: a whole project, interruptions, mistakes, and a server.

use crate::program::{digest, fail, narthex, output, succeed, sums, until_checkpoint};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// A whole chain on a text of its own: pretrain, tune into a chat model, evaluate, bundle.
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
schedule = { steps = 30, batch_size = 4, context = 48, lr = 1e-2, warmup = 5, dropout = 0.1, eval_every = 10, checkpoint_every = 10 }

[steps.pairs]
kind = "data"
from = "lines"
output = "chat"
transform = "select text as user, lead(text) over (order by row) as assistant from source"
validation = 0.2

[steps.pair-tokens]
kind = "tokenize"
from = "pairs"
tokenizer = "tokens"

[steps.talker]
kind = "tune"
model = "base"
data = "pair-tokens"
lora = { rank = 2, dropout = 0.1 }
schedule = { steps = 8, batch_size = 2, context = 48, lr = 1e-2, warmup = 2, eval_every = 4, checkpoint_every = 4 }

[steps.score]
kind = "eval"
model = "talker"
baseline = "base"
data = "pair-tokens"

[sources.quiz]
path = "quiz.jsonl"
license = "CC0-1.0"

[steps.answers]
kind = "eval"
model = "base"
task = "quiz"
max_answer_tokens = 6

[steps.release]
kind = "bundle"
model = "talker"
evaluations = ["score", "answers"]
"#;

/// The second row cannot be right by chance of its form: the wrong choice is no text of the kind that was trained on.
const QUIZ: &str = r#"{"prompt": "3 and 4 make ", "answer": "seven"}
{"prompt": "3 and 4 make", "choices": ["\u0007\u0007", " 7"], "answer": 1}
"#;

fn project(folder: &Path) -> PathBuf {
    sums(folder);
    fs::write(folder.join("quiz.jsonl"), QUIZ).unwrap();
    fs::write(folder.join("narthex.toml"), PROJECT).unwrap();
    folder.to_path_buf()
}

const STEPS: [&str; 9] =
    ["documents", "tokens", "base", "pairs", "pair-tokens", "talker", "score", "answers", "release"];

fn digests(folder: &Path) -> Vec<String> {
    STEPS.iter().map(|step| digest(folder, step)).collect()
}

#[test]
fn a_chain_from_text_to_bundle() {
    let home = tempfile::tempdir().unwrap();
    let folder = project(&home.path().join("one"));
    let report = succeed(&folder, &["run"]);
    for step in STEPS {
        assert!(report.contains(step), "{report}");
    }
    let made = digests(&folder);

    // Again: nothing runs. In another folder: the same bytes.
    let report = succeed(&folder, &["run"]);
    assert_eq!(report.matches("unchanged").count(), STEPS.len(), "{report}");
    let other = project(&home.path().join("two"));
    succeed(&other, &["run"]);
    assert_eq!(digests(&other), made);

    // A changed value reruns from its step on, and says why.
    let planned = succeed(&folder, &["run", "--dry-run", "--set", "talker.lr=5e-3"]);
    assert!(planned.contains("changed: schedule.lr 0.01 -> 0.005"), "{planned}");
    assert_eq!(planned.matches("would run").count(), 3, "{planned}");
    assert_eq!(digests(&folder), made, "a dry run changes nothing");
    succeed(&folder, &["tune", "--set", "tune.lr=5e-3"]);
    assert_eq!(digests(&folder)[..5], made[..5]);
    assert_ne!(digest(&folder, "talker"), made[5]);
    let before = format!("talker@{}", &made[5][..8]);
    assert_eq!(digest(&folder, &before), made[5], "the earlier one can still be named");
    succeed(&folder, &["run"]);
    assert_eq!(digests(&folder), made, "and it is still known");

    // Forcing gives the same bytes.
    succeed(&folder, &["run", "--force", "base"]);
    assert_eq!(digests(&folder), made);

    let answers: serde_json::Value = serde_json::from_str(&succeed(&folder, &["show", "answers", "--json"])).unwrap();
    let figures = &answers["manifest"]["figures"];
    assert_eq!((&figures["exact_match"], &figures["exact_match_rows"]), (&0.0.into(), &1.0.into()));
    assert_eq!((&figures["acc_norm"], &figures["choice_rows"]), (&1.0.into(), &1.0.into()));

    lineage_and_transfer(&folder, home.path());
    generated_text(&folder);
}

fn lineage_and_transfer(folder: &Path, home: &Path) {
    let trace = succeed(folder, &["trace", "release"]);
    for expected in [
        "model: talker",
        "model: base",
        "tokens",
        "lines.txt",
        "CC0-1.0",
        "LicenseRef-OpenMDW-1.1",
        "made for this test",
    ] {
        assert!(trace.contains(expected), "{expected} is missing in\n{trace}");
    }
    let exported = home.join("exported");
    succeed(folder, &["export", "release", exported.to_str().unwrap()]);
    for file in [
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "README.md",
        "LICENSE",
        "NOTICE",
        "narthex.json",
        "LICENSES/CC0-1.0.txt",
    ] {
        assert!(exported.join(file).is_file(), "{file}");
    }
    assert!(fs::read_to_string(exported.join("LICENSE")).unwrap().contains("OpenMDW"));
    assert!(fs::read_to_string(exported.join("README.md")).unwrap().contains("nats per byte"));
    let again = fail(folder, &["export", "release", exported.to_str().unwrap()], 1);
    assert!(again.contains("not empty"), "{again}");
    // An exported bundle comes in as the very artifact that it was, lineage included.
    let elsewhere = home.join("elsewhere");
    fs::create_dir_all(&elsewhere).unwrap();
    succeed(&elsewhere, &["import", exported.to_str().unwrap(), "--name", "received"]);
    assert_eq!(digest(&elsewhere, "received"), digest(folder, "release"));
    assert!(succeed(&elsewhere, &["trace", "received"]).contains("lines.txt"));
    let listed = succeed(folder, &["ls", "--kind", "model"]);
    assert!(listed.contains("talker") && listed.contains("base") && !listed.contains("pairs"), "{listed}");
    let removed = succeed(folder, &["gc", "--json"]);
    let removed: serde_json::Value = serde_json::from_str(&removed).unwrap();
    assert!(removed["items"].as_array().is_some_and(|items| !items.is_empty()), "the earlier tuning can go: {removed}");
    succeed(folder, &["gc", "--apply"]);
    assert_eq!(succeed(folder, &["run"]).matches("unchanged").count(), STEPS.len());
}

fn generated_text(folder: &Path) {
    let generate = |seed: &str| {
        let text = succeed(
            folder,
            &["generate", "base", "--prompt", "3 and ", "--max-tokens", "12", "--seed", seed, "--json"],
        );
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["text"].clone()
    };
    assert_eq!(generate("1"), generate("1"));
    assert_ne!(generate("1"), generate("2"));
    let mut chat = narthex(folder, &["chat", "talker", "--temperature", "0", "--max-tokens", "8"]);
    let mut chat = chat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    chat.stdin.take().unwrap().write_all(b"1 and 1 make 2\n/new\n1 and 1 make 2\n/quit\n").unwrap();
    let answers = String::from_utf8(chat.wait_with_output().unwrap().stdout).unwrap();
    let answers: Vec<&str> = answers.lines().collect();
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert_eq!(answers[0], answers[1], "greedy answers to a new conversation are the same");
}

/// Starts `run` and waits for the first checkpoint.
fn run_until_checkpoint(folder: &Path) -> Child {
    let child = narthex(folder, &["run", "--to", "base"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until_checkpoint(child, folder, 10)
}

#[test]
fn a_killed_run_ends_with_the_same_bytes() {
    let home = tempfile::tempdir().unwrap();
    let whole = project(&home.path().join("whole"));
    succeed(&whole, &["run", "--to", "base", "--set", "train.steps=200"]);
    let expected = digest(&whole, "base");
    for (name, signal, code) in [("killed", "KILL", None), ("interrupted", "INT", Some(130))] {
        let folder = project(&home.path().join(name));
        fs::write(folder.join("narthex.toml"), PROJECT.replace("steps = 30", "steps = 200")).unwrap();
        let mut child = run_until_checkpoint(&folder);
        let killed = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        assert_eq!(child.wait().unwrap().code(), code, "{name}");
        succeed(&folder, &["run", "--to", "base"]);
        assert_eq!(digest(&folder, "base"), expected, "{name}");
    }
}

/// A byte that changed since the artifact was made is seen by whoever opens it.
#[test]
fn a_flipped_byte_is_not_used() {
    let home = tempfile::tempdir().unwrap();
    let folder = project(&home.path().join("p"));
    succeed(&folder, &["run", "--to", "base"]);
    let whole = digest(&folder, "base");
    let weights = folder.join(".narthex/artifacts").join(&whole).join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&weights, &bytes).unwrap();
    let generate = ["generate", "base", "--prompt", "a", "--max-tokens", "2"];
    for args in [&generate[..], &["run"]] {
        let stderr = fail(&folder, args, 1);
        assert!(
            stderr.contains("model.safetensors of `base`") && stderr.contains("differs from what was stored"),
            "{stderr}"
        );
        assert!(stderr.contains("narthex run --force base"), "{stderr}");
    }
    succeed(&folder, &[&generate[..], &["--skip-digest-check"]].concat());
    succeed(&folder, &["run", "--to", "base", "--force", "base"]);
    assert_eq!(digest(&folder, "base"), whole);
    succeed(&folder, &generate);
}

#[test]
fn mistakes_are_named_with_their_place_and_a_fix() {
    let home = tempfile::tempdir().unwrap();
    let folder = project(&home.path().join("p"));
    let good = PROJECT.to_string();
    let with = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        fs::write(folder.join("narthex.toml"), good.replacen(from, to, 1)).unwrap();
    };
    let check = |args: &[&str], code: i32, expected: &[&str]| {
        let stderr = fail(&folder, args, code);
        for expected in expected {
            assert!(stderr.contains(expected), "`{expected}` is missing in\n{stderr}");
        }
        assert!(stderr.contains("error:") && stderr.contains("help:"), "{stderr}");
    };
    with("vocab_size = 280", "vocab_sise = 280");
    check(&["run"], 1, &["unknown key `vocab_sise`", "narthex.toml:19", "did you mean `vocab_size`"]);
    with("lines.txt", "missing.txt");
    check(&["run"], 1, &["missing.txt"]);
    with("license = \"CC0-1.0\"\n", "");
    check(&["run"], 1, &["`lines`, which has no declared licence", "narthex.toml:6", "[sources.lines]"]);
    succeed(&folder, &["run", "--to", "talker"]);
    with("tokenizer = \"tokens\"", "vocab_size = 300");
    check(&["run"], 1, &["different tokenizers", "tokenizer = \"base\""]);
    with("rows = \"line\"", "format = \"jsonl\"");
    check(&["run"], 1, &["lines.txt", ":1", "max_bad_rows"]);
    with("rows = \"line\"", "rows = \"line\"\nformat = \"jsonl\"");
    check(&["run", "--dry-run"], 1, &["source `lines`: `rows` means nothing for its files"]);
    // What cannot be is said before the first step runs.
    with("rows", "rows");
    for dry in [&["--dry-run"][..], &[]] {
        check(&[&["run", "--device", "cuda"], dry].concat(), 1, &["step `base` cannot run here", "has no cuda"]);
        let args = [&["run", "--force", "documents", "--set", "base.batch_size=1000000000"], dry].concat();
        check(&args, 1, &["step `base` needs", "of memory at least", "`batch_size`"]);
        assert!(!fail(&folder, &args, 1).contains("documents (data)"), "nothing has begun");
    }
    fs::write(folder.join("narthex.toml"), &good).unwrap();
    check(&["run", "--to", "bass"], 1, &["no step `bass`", "did you mean `base`"]);
    check(&["run", "nowhere"], 1, &["narthex new"]);
    check(&["serve", "talkr", "--port", "0"], 1, &["talkr", "narthex ls"]);
    check(&["generate", "documents", "--prompt", "x"], 1, &["is not a model"]);
    check(&["serve", "./nothing/here", "--port", "0"], 1, &["there is no model in"]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    check(&["serve", "talker", "--port", &port], 1, &["already in use", "--port"]);
    let usage = output(&folder, &["run", "--no-such-flag"]);
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn a_truncated_model_is_refused_and_nothing_is_taken_in() {
    let home = tempfile::tempdir().unwrap();
    let folder = project(&home.path().join("p"));
    succeed(&folder, &["run", "--to", "base", "--set", "train.steps=2", "--set", "train.warmup=1"]);
    let model = home.path().join("model");
    succeed(&folder, &["export", "base", model.to_str().unwrap()]);
    let weights = model.join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::remove_file(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    let listed = succeed(&folder, &["ls", "--all", "--json"]);
    let stderr = fail(&folder, &["import", model.to_str().unwrap(), "--name", "broken"], 1);
    assert!(stderr.contains("not a whole safetensors file") && stderr.contains("model.safetensors"), "{stderr}");
    assert_eq!(succeed(&folder, &["ls", "--all", "--json"]), listed);
    fail(&folder, &["generate", model.to_str().unwrap(), "--prompt", "x"], 1);
}

#[test]
fn a_server_answers_and_ends_on_sigterm() {
    let home = tempfile::tempdir().unwrap();
    let folder = project(&home.path().join("p"));
    succeed(&folder, &["run"]);
    let mut server = narthex(&folder, &["serve", "release", "--port", "0", "--api-key", "secret"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
    let address = lines
        .by_ref()
        .map(|line| line.unwrap())
        .find_map(|line| Some(line.split_once("OpenAI API")?.1.trim().to_string()))
        .unwrap();
    let get = |path: &str, key: &str| {
        let request = ureq::get(format!("{address}{path}")).header("authorization", format!("Bearer {key}"));
        request.config().http_status_as_error(false).build().call().unwrap()
    };
    assert_eq!(get("/models", "wrong").status(), 401);
    let models: serde_json::Value = get("/models", "secret").body_mut().read_json().unwrap();
    assert_eq!(models["data"][0]["id"], "release");
    let provenance: serde_json::Value = get("/provenance", "secret").body_mut().read_json().unwrap();
    assert_eq!(provenance["license"], "LicenseRef-OpenMDW-1.1");
    assert_eq!(provenance["digest"], digest(&folder, "release"));
    let question = serde_json::json!({
        "model": "release", "messages": [{"role": "user", "content": "1 and 2 make 3"}], "max_tokens": 6, "temperature": 0,
    });
    let answer: serde_json::Value = ureq::post(format!("{address}/chat/completions"))
        .header("authorization", "Bearer secret")
        .send_json(&question)
        .unwrap()
        .body_mut()
        .read_json()
        .unwrap();
    assert!(answer["usage"]["completion_tokens"].as_u64().unwrap() <= 6);
    assert!(answer["choices"][0]["message"]["content"].is_string(), "{answer}");
    assert!(Command::new("kill").args(["-s", "TERM", &server.id().to_string()]).status().unwrap().success());
    assert!(server.wait().unwrap().success());
}

#[test]
fn served_adapters_bring_their_terms_and_ancestors() {
    let home = tempfile::tempdir().unwrap();
    let folder = project(&home.path().join("p"));
    succeed(&folder, &["run", "--to", "talker"]);
    let exported = home.path().join("exported");
    succeed(&folder, &["export", "talker", exported.to_str().unwrap()]);
    for (name, license) in [("open", "mit"), ("closed", "cc-by-nc-4.0")] {
        let adapter = folder.join("adapters").join(name);
        fs::create_dir_all(&adapter).unwrap();
        for file in ["adapter_config.json", "adapter_model.safetensors"] {
            fs::copy(exported.join("adapter").join(file), adapter.join(file)).unwrap();
        }
        fs::write(adapter.join("README.md"), format!("---\nlicense: {license}\n---\n# An adapter\n")).unwrap();
    }
    let rule = "[policy]\ncommercial = true\n[policy.rules.sold]\nlicenses = [\"non-commercial\"]\n";
    fs::write(folder.join("narthex.toml"), format!("{PROJECT}\n{rule}")).unwrap();
    let error = fail(&folder, &["serve", "base", "--port", "0", "--lora-modules", "fr=adapters/closed"], 1);
    for part in ["the adapter `fr` is not served", "fr (adapter_config.json and 1 more): CC-BY-NC-4.0", "rule sold"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(!error.contains("serving base"), "nothing is loaded: {error}");

    let arguments =
        ["serve", "base", "--port", "0", "--lora-modules", "fr=talker", "--lora-dir", "adapters", "--max-loras", "1"];
    let mut server = narthex(&folder, &arguments).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(server.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut said = Vec::new();
    let address = lines
        .inspect(|line| said.push(line.clone()))
        .find_map(|line| Some(line.split_once("OpenAI API")?.1.trim().to_string()));
    let address = address.unwrap();
    assert!(said.iter().any(|line| line.starts_with("  adapter fr (LicenseRef-OpenMDW-1.1) from ")), "{said:?}");
    assert!(!said.iter().any(|line| line.contains("warning")), "it is of this very model: {said:?}");
    let get = |path: &str| -> serde_json::Value {
        ureq::get(format!("{address}{path}")).call().unwrap().body_mut().read_json().unwrap()
    };
    let load = |name: &str| {
        let request = ureq::post(format!("{address}/load_lora_adapter"));
        let request = request.config().http_status_as_error(false).build();
        let mut reply = request.send_json(serde_json::json!({"lora_name": name, "lora_path": name})).unwrap();
        (reply.status().as_u16(), reply.body_mut().read_to_string().unwrap())
    };
    let (status, text) = load("closed");
    assert!(status == 403 && text.contains("rule sold") && text.contains("adapter_refused"), "{status} {text}");
    assert_eq!(load("open").0, 200);
    let models = get("/models");
    let found = models["data"].as_array().unwrap().iter().map(|model| [&model["id"], &model["license"]]);
    let found: Vec<_> = found.map(|pair| pair.map(|value| value.as_str().unwrap())).collect();
    let made_here = "LicenseRef-OpenMDW-1.1";
    assert_eq!(found, [["base", made_here], ["fr", made_here], ["open", "MIT"]]);
    let shown = get("/models/fr");
    let parents = shown["lineage"]["parents"].as_array().unwrap();
    let (from, under) = (&parents[0], parents.last().unwrap());
    assert_eq!((&from["role"], &from["digest"]), (&"model".into(), &digest(&folder, "base").into()));
    assert_eq!((&under["role"], &under["digest"], &under["repeated"]), (&"base".into(), &from["digest"], &true.into()));
    let papers = get(shown["manifest"].as_str().unwrap().strip_prefix("/v1").unwrap());
    assert_eq!(papers["manifest"]["recipe"]["kind"], "tune");
    assert_eq!(get("/models/open")["lineage"]["files"][1]["path"], "adapter_model.safetensors");
    let ask = |name: &str| {
        let request = ureq::post(format!("{address}/completions")).config().http_status_as_error(false).build();
        let question = serde_json::json!({"model": name, "prompt": "1 and", "max_tokens": 2});
        let mut reply = request.send_json(question).unwrap();
        (reply.status().as_u16(), reply.body_mut().read_to_string().unwrap())
    };
    assert_eq!([ask("open").0, ask("fr").0, ask("open").0, ask("fr").0], [200; 4], "each makes room for the other");
    // Another adapter lies there by the time it is read again: its terms are others.
    let open = folder.join("adapters/open");
    let config = fs::read_to_string(open.join("adapter_config.json")).unwrap();
    fs::write(open.join("adapter_config.json"), format!("{config}\n")).unwrap();
    fs::copy(folder.join("adapters/closed/README.md"), open.join("README.md")).unwrap();
    let (status, text) = ask("open");
    assert!(
        status == 404 && text.contains("cannot be loaded any more") && text.contains("rule sold"),
        "{status} {text}"
    );
    assert!(Command::new("kill").args(["-s", "TERM", &server.id().to_string()]).status().unwrap().success());
    assert!(server.wait().unwrap().success());

    // Over another base it is served, and that is said.
    let first = digest(&folder, "base");
    succeed(&folder, &["run", "--to", "base", "--set", "base.steps=2", "--set", "base.warmup=1"]);
    let mut server = narthex(&folder, &arguments).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(server.stderr.take().unwrap()).lines().map(Result::unwrap);
    let said: Vec<String> = lines.take_while(|line| !line.contains("OpenAI API")).collect();
    server.kill().unwrap();
    server.wait().unwrap();
    let warning = format!("warning: the adapter `fr`: it was tuned from `base` ({})", &first[..12]);
    assert!(said.iter().any(|line| line.starts_with(&warning)), "{said:?}");
}

#[test]
fn a_server_goes_over_to_the_newest_version() {
    let home = tempfile::tempdir().unwrap();
    let folder = project(&home.path().join("p"));
    let train = |steps: &str| {
        succeed(&folder, &["run", "--to", "base", "--set", &format!("train.steps={steps}"), "--set", "train.warmup=1"]);
        digest(&folder, "base")
    };
    let first = train("2");
    let mut server =
        narthex(&folder, &["serve", "base", "--port", "0", "--follow"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines().map(Result::unwrap);
    let address = lines.find_map(|line| Some(line.split_once("OpenAI API")?.1.trim().to_string())).unwrap();
    let fingerprint = || {
        let question = serde_json::json!({"model": "base", "prompt": "1 and", "max_tokens": 2});
        let reply = ureq::post(format!("{address}/completions")).send_json(&question).unwrap().body_mut().read_json();
        reply.map(|answer: serde_json::Value| answer["system_fingerprint"].as_str().unwrap().to_string()).unwrap()
    };
    assert_eq!(fingerprint(), format!("fp_{}", &first[..12]));
    let hang_up = || Command::new("kill").args(["-s", "HUP", &server.id().to_string()]).status().unwrap();
    assert!(hang_up().success());
    assert!(lines.any(|line| line == "base has no other version: nothing changes"));
    let second = train("3");
    assert_ne!(first, second);
    assert!(lines.any(|line| line.starts_with(&format!("new requests go to base from {}", &second[..12]))));
    assert_eq!(fingerprint(), format!("fp_{}", &second[..12]));
    assert!(Command::new("kill").args(["-s", "TERM", &server.id().to_string()]).status().unwrap().success());
    assert!(server.wait().unwrap().success());

    let model = home.path().join("model");
    succeed(&folder, &["export", "base", model.to_str().unwrap()]);
    let stderr = fail(&folder, &["serve", model.to_str().unwrap(), "--port", "0", "--follow"], 2);
    assert!(stderr.contains("cannot watch the folder") && stderr.contains("SIGHUP"), "{stderr}");

    // What cannot be loaded is said, and the server goes on.
    let mut server =
        narthex(&folder, &["serve", model.to_str().unwrap(), "--port", "0"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines().map(Result::unwrap);
    let address = lines.find_map(|line| Some(line.split_once("OpenAI API")?.1.trim().to_string())).unwrap();
    fs::write(model.join("model.safetensors"), "broken").unwrap();
    // The signal is listened for a moment after the address is shown.
    ureq::get(format!("{address}/models")).call().unwrap();
    assert!(Command::new("kill").args(["-s", "HUP", &server.id().to_string()]).status().unwrap().success());
    assert!(lines.any(|line| line.starts_with("warning: the model stays as it is")));
    assert_eq!(ureq::get(format!("{address}/models")).call().unwrap().status(), 200);
    assert!(Command::new("kill").args(["-s", "TERM", &server.id().to_string()]).status().unwrap().success());
    assert!(server.wait().unwrap().success());
}

#[test]
fn a_scaffolded_project_runs_as_it_is() {
    let home = tempfile::tempdir().unwrap();
    succeed(home.path(), &["new", "hello"]);
    let stderr = fail(home.path(), &["new", "hello"], 1);
    assert!(stderr.contains("exists already"), "{stderr}");
    let folder = home.path().join("hello");
    succeed(&folder, &["run", "--set", "train.steps=3", "--set", "train.warmup=1"]);
    let shown = succeed(&folder, &["config", "show"]);
    assert!(shown.contains("steps.base.schedule.lr") && shown.contains("narthex.toml:"), "{shown}");
    let schema: serde_json::Value = serde_json::from_str(&succeed(&folder, &["config", "schema"])).unwrap();
    assert_eq!(schema["title"], "ProjectFile");
}

#[test]
fn what_was_made_elsewhere_keeps_its_licence() {
    let home = tempfile::tempdir().unwrap();
    let maker = project(&home.path().join("maker"));
    succeed(&maker, &["run", "--to", "base", "--set", "train.steps=2", "--set", "train.warmup=1"]);
    let model = home.path().join("model");
    succeed(&maker, &["export", "base", model.to_str().unwrap()]);
    // Without its papers it is a stranger's model, under the terms that the user states.
    for paper in ["narthex.json", "LICENSE", "NOTICE"] {
        fs::remove_file(model.join(paper)).unwrap();
    }
    let folder = project(&home.path().join("taker"));
    succeed(&folder, &["import", model.to_str().unwrap(), "--name", "foreign", "--license", "MIT"]);
    let steps = PROJECT.split_once("[steps.pairs]").unwrap().1.split_once("[sources.quiz]").unwrap().0;
    let steps =
        format!("[steps.pairs]{steps}").replace("\"base\"", "\"ref:foreign\"").replace("\"tokens\"", "\"ref:foreign\"");
    // The project that takes it has the same name as the one that made it.
    let head = PROJECT.split_once("[steps.documents]").unwrap().0;
    let release = "[steps.release]\nkind = \"bundle\"\nmodel = \"talker\"\nlicense = \"Apache-2.0\"\n";
    fs::write(folder.join("narthex.toml"), format!("{head}{steps}{release}")).unwrap();
    // The weights are somebody else's: no licence of ours can be asked for them.
    let refused = fail(&folder, &["run"], 1);
    assert!(refused.contains("would put `weights` under Apache-2.0, but it is under MIT"), "{refused}");
    let head = head.replace("seed = 3", "seed = 3\nlicense = \"Apache-2.0\"");
    let release = release.replace("license = \"Apache-2.0\"\n", "");
    fs::write(folder.join("narthex.toml"), format!("{head}{steps}{release}")).unwrap();
    succeed(&folder, &["run"]);
    let shown: serde_json::Value = serde_json::from_str(&succeed(&folder, &["show", "release", "--json"])).unwrap();
    let components = shown["manifest"]["components"].as_array().unwrap();
    for (name, license) in
        [("weights", "MIT"), ("tokenizer", "MIT"), ("adapter", "Apache-2.0"), ("model card", "Apache-2.0")]
    {
        let own = components.iter().find(|c| c["name"] == name && !c["paths"].as_array().unwrap().is_empty());
        assert_eq!(own.unwrap()["license"], license, "{name}");
    }
}

#[test]
fn the_environment_chooses_the_instruction_set() {
    let home = tempfile::tempdir().unwrap();
    let with =
        |set: &str| narthex(home.path(), &["bench", "train", "--steps", "1"]).env("NARTHEX_ISA", set).output().unwrap();
    let refused = with("sse9");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("NARTHEX_ISA cannot be followed") && said.contains("no instruction set `sse9`"), "{said}");
    let mut listed = narthex(home.path(), &["bench", "train", "--isa", "portable", "--shape", "none"]);
    let said = String::from_utf8(listed.env("NARTHEX_ISA", "portable").output().unwrap().stderr).unwrap();
    assert!(said.contains("there is no shape"), "the same twice is fine: {said}");
}

#[test]
fn benchmarks_report_and_name_what_they_do_not_know() {
    let folder = tempfile::tempdir().unwrap();
    let train = ["bench", "train", "--steps", "1", "--precision", "bf16", "--threads", "2", "--json"];
    let timing: serde_json::Value = serde_json::from_str(&succeed(folder.path(), &train)).unwrap();
    assert_eq!(timing["shape"], "llama-10m");
    assert_eq!(timing["threads"], 2);
    assert!(timing["tokens_per_second"].as_f64().unwrap() > 0.0);
    // Random weights guess among 256 tokens.
    assert!((timing["loss"].as_f64().unwrap() - 256f64.ln()).abs() < 1.5, "{timing}");
    let operators = timing["operators"].as_array().unwrap();
    for name in ["linear forward", "linear dX", "linear dW", "attention backward", "AdamW"] {
        assert!(operators.iter().any(|operator| operator["operator"] == name), "{name} is missing");
    }
    for (args, wanted) in [
        (["bench", "train", "--shape", "llama-9t"], "llama-10m, llama-100m"),
        (["bench", "train", "--precision", "f16"], "f32, bf16"),
        (["bench", "train", "--isa", "mmx"], "portable"),
        (["bench", "kernels", "--threads", "0"], "use 1 or more"),
    ] {
        let message = fail(folder.path(), &args, 2);
        assert!(message.contains(wanted), "{message}");
    }
    let message = fail(folder.path(), &["bench", "train", "--device", "tpu"], 1);
    assert!(message.contains("cpu, cuda, rocm, vulkan, metal"), "{message}");
}

/// What a conversation says beside its texts is not lost without a word, and what is learnt can be looked at.
#[test]
fn data_and_what_is_learnt_of_it_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let messages = r#"[{"role": "user", "content": "when"}, {"role": "assistant", "content": "I look.", "tool_calls": [{"function": {"name": "clock", "arguments": {}}}]},
        {"role": "tool", "content": "noon"}, {"role": "assistant", "content": "It is noon."}, {"role": "assistant", "content": "quiet", "train": false}]"#;
    let line = format!("{{\"messages\": {}}}\n", messages.replace('\n', ""));
    fs::write(path.join("chats.jsonl"), line.repeat(2) + "broken\n").unwrap();
    fs::write(
        path.join("narthex.toml"),
        "[project]\nname = \"talk\"\n[sources.chats]\npath = \"chats.jsonl\"\nlicense = \"CC0-1.0\"\n\
        [steps.talks]\nkind = \"data\"\nfrom = \"chats\"\noutput = \"chat\"\nmax_bad_rows = 1\n\
        [steps.tokens]\nkind = \"tokenize\"\nfrom = \"talks\"\nvocab_size = 300\n",
    )
    .unwrap();
    let shown = succeed(path, &["data", "show", "chats"]);
    assert!(shown.contains("messages  text") && shown.contains("2 rows, 1 broken"), "{shown}");
    let ran = output(path, &["run"]);
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success() && said.contains("does not write `tool_calls`, which 1 of 1 conversations"), "{said}");
    let shown = succeed(path, &["data", "show", "tokens", "--tokens"]);
    assert!(shown.contains("document 1 of 1"), "{shown}");
    assert!(shown.contains("<|im_start|>assistant\n⟦It is noon.<|im_end|>⟧\n"), "{shown}");
    assert!(!shown.contains("⟦quiet"), "{shown}");
    assert!(succeed(path, &["data", "show", "talks"]).contains("\"tool_calls\""));
    assert!(fail(path, &["data", "show", "talks", "--tokens"], 1).contains("holds no tokens"));
    assert!(fail(path, &["data", "show", "tokens"], 1).contains("holds no rows"));
}
