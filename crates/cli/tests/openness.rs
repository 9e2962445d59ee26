//! Openness as a user meets it: class, papers and formats of a bundle; rebuilding and spot checks; signatures; policy.

use crate::program::{digest, fail, narthex, output, succeed};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

const PROJECT: &str = r#"[project]
name = "tiny"
seed = 3
license = "OpenMDW-1.0"

[sources.lines]
path = "lines.txt"
rows = "line"
license = "CC-BY-4.0"
origin = "https://example.org/lines.txt"
notice = "Lines, 2026, somebody"

[sources.paper]
path = "paper.md"
license = "CC-BY-4.0"

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
schedule = { steps = 12, batch_size = 4, context = 32, lr = 1e-2, warmup = 2, dropout = 0.1, eval_every = 0, checkpoint_every = 3, keep_checkpoints = true }

[steps.score]
kind = "eval"
model = "base"
data = "tokens"

[steps.release]
kind = "bundle"
model = "base"
evaluations = ["score"]
code = true
data = true
checkpoints = true
research_paper = "paper"
"#;

fn project(folder: &Path, file: &str) -> PathBuf {
    let lines: Vec<String> = (0..120).map(|i| format!("{} and {} make {}", i % 12, i / 12, i % 12 + i / 12)).collect();
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("lines.txt"), lines.join("\n")).unwrap();
    fs::write(folder.join("paper.md"), "# A paper\n").unwrap();
    fs::write(folder.join("narthex.toml"), file).unwrap();
    folder.to_path_buf()
}

fn json(folder: &Path, args: &[&str]) -> Value {
    serde_json::from_str(&succeed(folder, args)).unwrap()
}

/// Replaces a file that may be read-only.
fn overwrite(path: &Path, bytes: impl AsRef<[u8]>) {
    let _ = fs::remove_file(path);
    fs::write(path, bytes).unwrap();
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    overwrite(path, bytes);
}

#[test]
fn a_bundle_with_everything_is_open_science() {
    let home = tempfile::tempdir().unwrap();
    let folder = project(&home.path().join("p"), PROJECT);
    let events = folder.join("events.jsonl");
    succeed(&folder, &["run", "--openlineage", events.to_str().unwrap()]);
    let found = json(&folder, &["license", "release", "--json"]);
    assert_eq!((&found["class"], &found["class_by_tool"]), (&1.into(), &1.into()), "{}", found["next"]);

    // Events: each step begins and ends, and knows what it read.
    let events: Vec<Value> =
        fs::read_to_string(events).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<&str> = events.iter().map(|event| event["eventType"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["START", "COMPLETE"].repeat(5));
    assert_eq!(events[0]["run"]["runId"], events[1]["run"]["runId"]);
    assert_eq!(events[5]["inputs"][0]["name"], "tokens");

    // The file for the Model Openness Tool has the class that it says, and loses it with the data card's licence.
    let file = folder.join("release.yml");
    fs::write(&file, succeed(&folder, &["license", "release", "--format", "mof"])).unwrap();
    assert_eq!(json(&folder, &["license", "--mof", "release.yml", "--json"])["class"], 1);
    let text = fs::read_to_string(&file).unwrap();
    let (before, after) = text.split_once("- name: \"Data card\"").unwrap();
    fs::write(
        &file,
        format!("{before}- name: \"Data card\"{}", after.replacen("license: \"OpenMDW-1.0\"", "license: \"\"", 1)),
    )
    .unwrap();
    let found = json(&folder, &["license", "--mof", "release.yml", "--json"]);
    assert!(found["class"].is_null());
    assert_eq!(found["reasons"], serde_json::json!(["Class III: Data card has no licence"]));

    for (format, expected) in [
        ("spdx", "\"AIPackage\"".replace('"', "")),
        ("cyclonedx", "machine-learning-model".into()),
        ("model-card", "library_name: transformers".into()),
    ] {
        let text = succeed(&folder, &["license", "release", "--format", format]);
        assert!(text.contains(&expected), "{format}: {text}");
    }
    let croissant = json(&folder, &["license", "documents", "--format", "croissant"]);
    assert_eq!(croissant["@type"], "sc:Dataset");
    let page = succeed(&folder, &["trace", "release", "--html"]);
    assert!(page.contains("<svg") && page.contains("lines.txt") && page.contains("Class I, Open Science"));

    exported_papers(&folder, home.path());
}

fn exported_papers(folder: &Path, home: &Path) {
    let exported = home.join("exported");
    succeed(folder, &["export", "release", exported.to_str().unwrap()]);
    for file in [
        "DATA.md",
        "REPORT.md",
        "evaluations/score.json",
        "recipe/narthex.toml",
        "data/lines.txt",
        "documents/paper.md",
        "checkpoints/base/step-3/weights.safetensors",
        "LICENSES/CC-BY-4.0.txt",
        "LICENSES/OpenMDW-1.0.txt",
        "LICENSES/MIT.txt",
    ] {
        assert!(exported.join(file).is_file(), "{file}");
    }
    let notice = fs::read_to_string(exported.join("NOTICE")).unwrap();
    assert!(notice.contains("Lines, 2026, somebody") && notice.contains("files: data/lines.txt"), "{notice}");
    let code = fs::read_dir(exported.join("code")).unwrap().flatten().next().unwrap();
    assert!(code.metadata().unwrap().len() > 100_000);
    // An artifact that is no bundle gets papers on export, and comes back as what it was.
    let model = home.join("model");
    succeed(folder, &["export", "base", model.to_str().unwrap()]);
    assert!(fs::read_to_string(model.join("NOTICE")).unwrap().contains("Lines, 2026, somebody"));
    let elsewhere = home.join("elsewhere");
    fs::create_dir_all(&elsewhere).unwrap();
    succeed(&elsewhere, &["import", model.to_str().unwrap(), "--name", "base"]);
    assert_eq!(digest(&elsewhere, "base"), digest(folder, "base"));
    // Others' material keeps its terms.
    let refused = fail(&elsewhere, &["import", model.to_str().unwrap(), "--name", "mine", "--license", "MIT"], 1);
    assert!(refused.contains("cannot be put under other terms"), "{refused}");
    // A bundle can be made again by itself: recipe, data and papers are in it.
    let alone = home.join("alone");
    fs::create_dir_all(&alone).unwrap();
    succeed(&alone, &["reproduce", exported.to_str().unwrap(), "--work", "work"]);
    let layout = home.join("layout");
    succeed(folder, &["push", "release", &format!("oci:{}:v1", layout.display())]);
    assert!(layout.join("index.json").is_file() && layout.join("blobs/sha256").is_dir());
}

#[test]
fn made_again_it_is_the_same_and_every_change_is_named() {
    let home = tempfile::tempdir().unwrap();
    let folder = project(&home.path().join("p"), PROJECT);
    succeed(&folder, &["run"]);
    for threads in ["1", "2"] {
        let made = json(&folder, &["reproduce", "release", "--threads", threads, "--json"]);
        let made: Vec<&str> = made.as_array().unwrap().iter().map(|step| step["digest"].as_str().unwrap()).collect();
        assert_eq!((made.len(), *made.last().unwrap()), (5, digest(&folder, "release").as_str()));
    }
    let verified = json(&folder, &["verify", "release", "--samples", "9", "--json"]);
    assert_eq!((verified["checked"].as_array().unwrap().len(), &verified["intervals"]), (4, &4.into()));
    assert_eq!(verified["finds_one"], 1.0);

    // A byte of a source, a value of the configuration, a checkpoint, a result, the papers.
    let lines = folder.join("lines.txt");
    let kept = fs::read(&lines).unwrap();
    flip(&lines);
    let error = fail(&folder, &["reproduce", "base"], 1);
    assert!(error.contains("the source `lines` is not what the recipe") && error.contains("lines.txt"), "{error}");
    overwrite(&lines, kept);
    fs::write(folder.join("narthex.toml"), PROJECT.replace("lr = 1e-2", "lr = 2e-2")).unwrap();
    let error = fail(&folder, &["reproduce", "base"], 1);
    assert!(error.contains("steps.base.schedule.lr 0.01 -> 0.02"), "{error}");
    succeed(&folder, &["reproduce", "base", "--ignore-project-file"]);
    fs::write(folder.join("narthex.toml"), PROJECT).unwrap();

    let artifact = folder.join(".narthex/artifacts").join(digest(&folder, "base"));
    let weights = artifact.join("run/checkpoints/step-6/weights.safetensors");
    let kept = fs::read(&weights).unwrap();
    flip(&weights);
    for args in [&["reproduce", "base"][..], &["verify", "base", "--samples", "4"]] {
        let error = fail(&folder, args, 1);
        assert!(error.contains("step 6") && error.contains("weights.safetensors"), "{error}");
    }
    overwrite(&weights, kept);
    let model = artifact.join("model.safetensors");
    let kept = fs::read(&model).unwrap();
    flip(&model);
    let error = fail(&folder, &["reproduce", "base"], 1);
    assert!(error.contains("model.safetensors of `base` was changed"), "{error}");
    let error = fail(&folder, &["verify", "base"], 1);
    assert!(error.contains("model.safetensors"), "{error}");
    overwrite(&model, kept);
    succeed(&folder, &["reproduce", "base"]);

    forged(&folder, &artifact);
    swapped(&folder, &artifact);
    papers_that_were_changed(&folder, home.path());
}

/// A training whose record is consistent in itself, but whose steps were not taken: only computing them again shows it.
fn forged(folder: &Path, artifact: &Path) {
    let manifest = fs::read_to_string(artifact.join("manifest.json")).unwrap();
    let mut manifest: narthex_base::Manifest = serde_json::from_str(&manifest).unwrap();
    let mut states: Vec<_> = manifest.checkpoints.iter().map(narthex_base::Checkpoint::passed).collect();
    // The state after 6 steps is said to be that after 3.
    states[1] = narthex_base::Passed { step: states[1].step, ..states[0].clone() };
    manifest.checkpoints = manifest.chain(states);
    assert_eq!(manifest.broken_link(), None);
    let place = artifact.with_file_name(manifest.digest().to_string());
    let copied = std::process::Command::new("cp").args(["-a"]).arg(artifact).arg(&place).status().unwrap();
    assert!(copied.success());
    overwrite(&place.join("manifest.json"), serde_json::to_vec_pretty(&manifest).unwrap());
    for name in ["weights", "moments"] {
        let path = |step: u64| place.join(format!("run/checkpoints/step-{step}/{name}.safetensors"));
        let bytes = fs::read(path(3)).unwrap();
        overwrite(&path(6), bytes);
    }
    let reference = manifest.digest().to_string();
    let error = fail(folder, &["verify", &reference, "--samples", "4"], 1);
    assert!(error.contains("did not come from step 3 to step 6 as its record says"), "{error}");
    // Two of four intervals touch the forgery: looked at one at a time, about half of the looks find it.
    let found = (0..40).filter(|seed| {
        let seed = seed.to_string();
        !output(folder, &["verify", &reference, "--samples", "1", "--seed", &seed]).status.success()
    });
    let found = found.count();
    assert!((10..=30).contains(&found), "{found} of 40");
    let error = fail(folder, &["reproduce", &reference], 1);
    assert!(error.contains("training first differs between its steps 3 and 6"), "{error}");
}

/// Weights that the recorded training did not end with, in a record that is consistent in itself.
fn swapped(folder: &Path, artifact: &Path) {
    let text = fs::read_to_string(artifact.join("manifest.json")).unwrap();
    let mut manifest: narthex_base::Manifest = serde_json::from_str(&text).unwrap();
    let place = artifact.with_file_name("swapped");
    assert!(std::process::Command::new("cp").arg("-a").arg(artifact).arg(&place).status().unwrap().success());
    let model = place.join("model.safetensors");
    let mut bytes = fs::read(&model).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let entry = manifest.files.iter_mut().find(|file| file.path == "model.safetensors").unwrap();
    entry.digest = narthex_base::Digest::of(&bytes);
    overwrite(&model, bytes);
    overwrite(&place.join("manifest.json"), serde_json::to_vec_pretty(&manifest).unwrap());
    let reference = manifest.digest().to_string();
    fs::rename(&place, artifact.with_file_name(&reference)).unwrap();
    let error = fail(folder, &["verify", &reference], 1);
    assert!(error.contains("is not what its training ended with"), "{error}");
}

fn papers_that_were_changed(folder: &Path, home: &Path) {
    let exported = home.join("exported");
    succeed(folder, &["export", "release", exported.to_str().unwrap()]);
    succeed(folder, &["license", exported.to_str().unwrap()]);
    fs::rename(exported.join("data/lines.txt"), exported.join("lines")).unwrap();
    let error = fail(folder, &["license", exported.to_str().unwrap()], 1);
    assert!(error.contains("data/lines.txt is missing since"), "{error}");
    fs::rename(exported.join("lines"), exported.join("data/lines.txt")).unwrap();
    let papers = exported.join("narthex.json");
    let text = fs::read_to_string(&papers).unwrap();
    overwrite(&papers, text.replacen("\"lr\": 0.01", "\"lr\": 0.02", 1));
    let error = fail(folder, &["reproduce", exported.to_str().unwrap()], 1);
    assert!(error.contains("`base`") && error.contains("it was changed"), "{error}");
}

#[test]
fn signatures_name_what_was_changed() {
    let home = tempfile::tempdir().unwrap();
    let folder = project(&home.path().join("p"), PROJECT);
    succeed(&folder, &["run"]);
    let exported = home.path().join("exported");
    let to = exported.to_str().unwrap();
    succeed(&folder, &["export", "release", to]);
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("../openness/tests/fixtures/signing");
    let key = |name: &str| keys.join(name).to_str().unwrap().to_string();
    let (private, public) = (key("key.pem"), key("public.pem"));
    succeed(&folder, &["sign", to, "--private-key", &private]);
    let verify = ["verify-signature", to, "--public-key", &public];
    let text = succeed(&folder, &verify);
    assert!(text.contains("as signed") && text.contains("lineage and licences as signed"), "{text}");
    fs::rename(exported.join("openness.sig"), folder.join("openness.sig")).unwrap();
    let unsaid = output(&folder, &verify);
    assert!(String::from_utf8_lossy(&unsaid.stderr).contains("no signed statement"));
    fs::write(exported.join("new.txt"), "new").unwrap();
    flip(&exported.join("config.json"));
    fs::remove_file(exported.join("NOTICE")).unwrap();
    let error = fail(&folder, &verify, 1);
    for expected in ["new.txt", "config.json", "NOTICE"] {
        assert!(error.contains(expected), "{error}");
    }
    let error = fail(&folder, &["verify-signature", to, "--public-key", &key("public-p384.pem")], 1);
    assert!(error.contains("key"), "{error}");
    assert!(fail(&folder, &["sign", "release", "--private-key", &private], 1).contains("narthex export release"));
}

/// What a model was measured on is no data that it was trained on.
#[test]
fn a_task_is_data_for_evaluation_alone() {
    let home = tempfile::tempdir().unwrap();
    let quiz = "[sources.quiz]\npath = \"quiz.jsonl\"\nlicense = \"CC0-1.0\"\n[steps.score]";
    let file = PROJECT
        .replace("[steps.score]", quiz)
        .replace("data = \"tokens\"\n\n[steps.release]", "task = \"quiz\"\n\n[steps.release]");
    let folder = project(&home.path().join("p"), &file);
    fs::write(folder.join("quiz.jsonl"), "{\"prompt\": \"1 and 2 make\", \"answer\": \"3\"}\n").unwrap();
    succeed(&folder, &["run"]);
    let listed = succeed(&folder, &["license", "release"]);
    let of_quiz: Vec<&str> = listed.lines().filter(|line| line.starts_with("quiz ")).collect();
    assert!(of_quiz.len() == 1 && of_quiz[0].contains("evaluation-data"), "{listed}");
    let spdx = json(&folder, &["license", "release", "--format", "spdx"]).to_string();
    assert!(spdx.contains("testedOn"), "{spdx}");
}

/// Signing a bundle, as the documentation says before it is passed on, keeps its lineage, and with it the policy.
#[test]
fn a_signed_bundle_keeps_its_lineage_and_its_terms() {
    let home = tempfile::tempdir().unwrap();
    let closed = PROJECT.replace("license = \"CC-BY-4.0\"\norigin", "license = \"CC-BY-NC-4.0\"\norigin");
    let maker = project(&home.path().join("maker"), &closed);
    succeed(&maker, &["run"]);
    let exported = home.path().join("exported");
    let to = exported.to_str().unwrap();
    succeed(&maker, &["export", "release", to]);
    let key = Path::new(env!("CARGO_MANIFEST_DIR")).join("../openness/tests/fixtures/signing/key.pem");
    succeed(&maker, &["sign", to, "--private-key", key.to_str().unwrap()]);
    assert!(exported.join("model.sig").is_file() && exported.join("openness.sig").is_file());
    let taker = home.path().join("taker");
    fs::create_dir_all(&taker).unwrap();
    let rule =
        "[policy.rules.sold]\nuse = [\"redistribute\", \"serve-commercially\"]\nlicenses = [\"non-commercial\"]\n";
    fs::write(taker.join("narthex.toml"), format!("[project]\nname = \"taker\"\n[policy]\ncommercial = true\n{rule}"))
        .unwrap();
    let imported = output(&taker, &["import", to, "--name", "r"]);
    let said = String::from_utf8_lossy(&imported.stderr).into_owned();
    assert!(imported.status.success() && !said.contains("warning"), "{said}");
    assert_eq!(digest(&taker, "r"), digest(&maker, "release"));
    let traced = succeed(&taker, &["trace", "r"]);
    assert!(traced.contains("lines (source") && traced.contains("CC-BY-NC-4.0"), "{traced}");
    for args in [&["serve", "r", "--port", "0"][..], &["push", "r", "oci:layout:v1"]] {
        let error = fail(&taker, args, 1);
        assert!(error.contains("CC-BY-NC-4.0"), "{error}");
    }
}

#[test]
fn a_policy_stops_what_it_forbids_and_nothing_is_half_written() {
    let home = tempfile::tempdir().unwrap();
    let rule = r#"
[policy]
commercial = true

[policy.rules.not-for-sale]
use = ["redistribute", "serve-commercially"]
components = ["data"]
licenses = ["non-commercial"]
reason = "we sell it"
"#;
    let closed = PROJECT.replace("license = \"CC-BY-4.0\"\norigin", "license = \"CC-BY-NC-4.0\"\norigin");
    let folder = project(&home.path().join("p"), &format!("{closed}{rule}"));
    let path = "release ← base ← trained on ← tokens ← documents ← lines (lines.txt): CC-BY-NC-4.0";
    // Nothing runs, not even what would be allowed.
    for args in [&["run"][..], &["bundle"], &["bundle", "--explain"]] {
        let error = fail(&folder, args, 1);
        assert!(error.contains(path) && error.contains("rule not-for-sale"), "{error}");
        assert!(error.contains("narthex.toml:") && error.contains("change [policy.rules.not-for-sale]"), "{error}");
        assert!(!folder.join(".narthex/refs/release").exists() && !folder.join(".narthex/refs/tokens").exists());
    }
    // Training is allowed, serving what it gave is not.
    succeed(&folder, &["run", "--to", "base"]);
    let error = fail(&folder, &["serve", "base", "--port", "0", "--explain"], 1);
    assert!(
        error.contains("base ← trained on ← tokens") && error.contains("deny non-commercial: we sell it"),
        "{error}"
    );
    let layout = home.path().join("layout");
    let error = fail(&folder, &["push", "base", &format!("oci:{}", layout.display())], 1);
    assert!(error.contains("to redistribute `lines`") && !layout.exists(), "{error}");
    // Asked first, and answered.
    let asked = format!("{closed}{}", rule.replace("reason", "verdict = \"ask\"\nreason"));
    fs::write(folder.join("narthex.toml"), &asked).unwrap();
    assert!(fail(&folder, &["run"], 1).contains("[policy.accepted] lines"));
    fs::write(
        folder.join("narthex.toml"),
        format!("{asked}\n[policy.accepted]\nlines = \"the author agreed by mail\"\n"),
    )
    .unwrap();
    succeed(&folder, &["run"]);
    let explained = narthex(&folder, &["license", "release", "--explain"]).output().unwrap();
    let explained = String::from_utf8_lossy(&explained.stderr).into_owned();
    assert!(explained.contains("the author agreed by mail"), "{explained}");
}

#[test]
fn mistakes_in_licences_are_named() {
    let home = tempfile::tempdir().unwrap();
    let last = "research_paper = \"paper\"";
    let behind = |text: &str| (last, format!("{last}\n{text}"));
    let licensed = "rows = \"line\"\nlicense = \"CC-BY-4.0\"";
    for (change, expected) in [
        ((last, "research_paper = \"papers\"".into()), "did you mean `paper`?"),
        (behind("[policy.rules.x]\ncomponents = [\"datas\"]"), "did you mean `datasets`?"),
        (behind("[policy.rules.x]\nlicenses = [\"non-comercial\"]"), "neither a licence nor a term"),
        (
            behind("[policy]\nopen_source = true\n[steps.second]\nkind = \"bundle\"\nmodel = \"base\""),
            "the bundle `second` has no code",
        ),
        ((licensed, format!("{licensed}\nlicense_file = \"MIT.txt\"")), "this is the text of MIT"),
        ((licensed, "rows = \"line\"".into()), "which has no declared licence"),
    ] {
        let file = PROJECT.replacen(change.0, &change.1, 1);
        assert_ne!(file, PROJECT);
        let folder = project(&home.path().join("p"), &file);
        fs::write(folder.join("MIT.txt"), include_str!("../../../LICENSE-MIT")).unwrap();
        let error = fail(&folder, &["run"], 1);
        assert!(error.contains(expected) && error.contains("narthex.toml") | error.contains("MIT.txt"), "{error}");
        fs::remove_dir_all(&folder).unwrap();
    }
}

#[test]
fn a_model_folder_brings_along_what_it_was_made_from() {
    let home = tempfile::tempdir().unwrap();
    let closed = PROJECT.replace("license = \"CC-BY-4.0\"\norigin", "license = \"CC-BY-NC-4.0\"\norigin");
    let maker = project(&home.path().join("maker"), &closed);
    succeed(&maker, &["run", "--to", "base"]);
    let folder = home.path().join("taker");
    fs::create_dir_all(&folder).unwrap();
    succeed(&maker, &["export", "base", folder.join("m").to_str().unwrap()]);
    let file = "[project]\nname = \"taker\"\n[sources.m]\npath = \"m\"\nformat = \"huggingface\"\n\
                [steps.release]\nkind = \"bundle\"\nmodel = \"m\"\n";
    let rule = "[policy.rules.sold]\nlicenses = [\"non-commercial\"]\n";
    fs::write(folder.join("narthex.toml"), format!("{file}{rule}")).unwrap();
    let error = fail(&folder, &["run"], 1);
    assert!(error.contains("release ← m") && error.contains("CC-BY-NC-4.0"), "{error}");
    assert!(!error.contains("release (bundle)"), "before any work: {error}");
    fs::write(folder.join("narthex.toml"), file).unwrap();
    succeed(&folder, &["run"]);
    let out = home.path().join("out");
    succeed(&folder, &["export", "release", out.to_str().unwrap()]);
    let notice = fs::read_to_string(out.join("NOTICE")).unwrap();
    assert_eq!(notice.matches("Lines, 2026, somebody").count(), 1, "{notice}");
    assert!(out.join("LICENSES/CC-BY-NC-4.0.txt").is_file());
    // A folder that was changed is another artifact, and that is said; what it was made from still counts.
    fs::write(out.join("more.txt"), "more").unwrap();
    let imported = output(&folder, &["import", out.to_str().unwrap(), "--name", "changed"]);
    let said = String::from_utf8_lossy(&imported.stderr).into_owned();
    assert!(said.contains("more.txt differs") && said.contains("whose terms still hold"), "{said}");
    let traced = succeed(&folder, &["trace", "changed"]);
    assert!(traced.contains("changed from: release"), "{traced}");
    let listed = succeed(&folder, &["license", "changed"]);
    assert!(listed.contains("CC-BY-NC-4.0"), "{listed}");
}
