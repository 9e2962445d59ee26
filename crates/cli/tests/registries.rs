//! An artifact through an image layout and back, with signatures and under a policy; and its deployment.

use crate::program::{Server, digest, fail, get, narthex, succeed};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/golden").join(name)
}

fn key(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../openness/tests/fixtures/signing").join(name);
    path.display().to_string()
}

/// Runs a command with a cache of its own; gives its exit code, stdout and stderr.
fn run(folder: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let output = narthex(folder, args).env("XDG_CACHE_HOME", folder.join("cache")).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// A tiny model in a ledger, under this name.
fn tiny(folder: &Path) {
    fs::copy(golden("gguf/llama.gguf"), folder.join("tiny.gguf")).unwrap();
    succeed(folder, &["import", "tiny.gguf"]);
}

#[test]
fn what_is_pushed_comes_back_as_what_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let (maker, taker) = (folder.path().join("maker"), folder.path().join("taker"));
    fs::create_dir(&maker).unwrap();
    fs::create_dir(&taker).unwrap();
    tiny(&maker);
    let pushed = succeed(&maker, &["push", "tiny", "oci:../layout:v1", "--private-key", &key("key.pem")]);
    assert!(pushed.starts_with("../layout:v1@sha256:"), "{pushed}");
    // The same artifact is the same manifest.
    let again = succeed(&maker, &["push", "tiny", "oci:../other:v1"]);
    assert_eq!(pushed.rsplit('@').next(), again.rsplit('@').next());
    let (code, printed, stderr) =
        run(&taker, &["pull", "oci:../layout:v1", "--as", "got", "--public-key", &key("public.pem"), "--json"]);
    assert_eq!(code, Some(0), "{stderr}");
    let told: Value = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
    assert_eq!((told["type"].as_str(), told["license"].as_str()), (Some("pulled"), Some("Apache-2.0")));
    assert_eq!(digest(&taker, "got"), digest(&maker, "tiny"));
    // The files alone.
    let (code, _, stderr) = run(&taker, &["pull", "oci:../layout:v1", "--to", "files"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(taker.join("files/model.safetensors").is_file() && taker.join("files/narthex.json").is_file());
    let (code, _, stderr) = run(&taker, &["pull", "oci:../layout:v1", "--to", "files"]);
    assert!(code == Some(1) && stderr.contains("is not empty"), "{stderr}");
    // Another's key, and no signature at all.
    let (code, _, stderr) = run(&taker, &["pull", "oci:../layout:v1", "--public-key", &key("public-p384.pem")]);
    assert!(code == Some(1) && stderr.contains("is not signed with the key"), "{stderr}");
    let (code, _, stderr) = run(&taker, &["pull", "oci:../other:v1", "--public-key", &key("public.pem")]);
    assert!(code == Some(1) && stderr.contains("no signature refers to it"), "{stderr}");
    // A blob that somebody changed.
    let blobs = folder.path().join("other/blobs/sha256");
    let largest =
        fs::read_dir(&blobs).unwrap().map(|entry| entry.unwrap()).max_by_key(|entry| entry.metadata().unwrap().len());
    let largest = largest.unwrap().path();
    let mut bytes = fs::read(&largest).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&largest, bytes).unwrap();
    let cache = taker.join("cache");
    fs::remove_dir_all(&cache).unwrap();
    let (code, _, stderr) = run(&taker, &["pull", "oci:../other:v1"]);
    assert!(code == Some(1) && stderr.contains("is not what its name says"), "{stderr}");
    let (code, _, stderr) = run(&taker, &["pull", "oci:../layout:v2"]);
    assert!(code == Some(1) && stderr.contains("it has `v1`"), "{stderr}");
    assert_eq!(run(&taker, &["pull", "oci:../layout:v1", "--include", "*.json"]).0, Some(2));
    assert_eq!(run(&taker, &["pull", "oci://nowhere"]).0, Some(2));
}

#[test]
fn a_policy_stands_at_every_door() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    tiny(folder);
    succeed(folder, &["push", "tiny", "oci:layout:v1", "--image"]);
    succeed(folder, &["export", "tiny", "model"]);
    fs::write(
        folder.join("narthex.toml"),
        "[project]\nname = \"p\"\n[policy]\ncommercial = true\n[policy.rules.none]\nlicenses = [\"Apache-2.0\"]\n\
         use = [\"redistribute\", \"serve-commercially\"]\nverdict = \"deny\"\n",
    )
    .unwrap();
    let config = succeed_or_say(folder, &["config"]);
    let layout = folder.join("layout");
    for args in [
        &["push", "tiny", "oci:second:v1"][..],
        &["push", "./model", "oci:second:v1"],
        &["serve", "oci:layout:v1", "--port", "0"],
        &["deploy", "tiny", "--to", "slurm", "--model", "/m", "--out", "d"],
        &["deploy", "./model", "--to", "slurm", "--out", "d"],
    ] {
        let (code, _, stderr) = run(folder, args);
        assert!(code == Some(1) && stderr.contains("the policy does not allow"), "{args:?}: {stderr}\n{config}");
    }
    assert!(!folder.join("second").exists() && !folder.join("d").exists() && layout.is_dir());
    // What may not be served was not fetched either: papers came, weights did not.
    let pulls = folder.join("cache/narthex/oci/pulls");
    let files = fs::read_dir(&pulls).unwrap().next().unwrap().unwrap().path().join("files");
    assert!(files.join("narthex.json").is_file() && !files.join("model.safetensors").exists());
}

fn succeed_or_say(folder: &Path, args: &[&str]) -> String {
    let (_, stdout, stderr) = run(folder, args);
    format!("{stdout}{stderr}")
}

#[test]
fn a_model_in_a_layout_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    tiny(folder);
    succeed(folder, &["push", "tiny", "oci:layout:v1", "--private-key", &key("key.pem")]);
    // The cache of this machine's user is not touched.
    let mut command = narthex(folder, &["serve", "oci:layout:v1", "--port", "0", "--public-key", &key("public.pem")]);
    command.env("XDG_CACHE_HOME", folder.join("cache"));
    let (_server, address) = Server::of(command);
    let models = get(&address, "/v1/models");
    assert!(models.contains("\"id\":\"v1\"") && models.contains("Apache-2.0"), "{models}");
}

#[test]
fn deployments_are_written_compared_and_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    tiny(folder);
    succeed(folder, &["export", "tiny", "model"]);
    let deploy = |more: &[&str]| {
        let args =
            [&["deploy", "./model", "--to", "systemd", "--out", "unit", "--binary", "/usr/bin/narthex"], more].concat();
        run(folder, &args)
    };
    let (code, written, stderr) = deploy(&[]);
    assert_eq!((code, written.as_str()), (Some(0), "unit/tiny.service\n"), "{stderr}");
    let unit = fs::read_to_string(folder.join("unit/tiny.service")).unwrap();
    let model = fs::canonicalize(folder.join("model")).unwrap();
    assert!(unit.contains(&format!("ExecStart=/usr/bin/narthex serve {} ", model.display())), "{unit}");
    assert!(unit.contains("licence: Apache-2.0"), "{unit}");
    let (code, diff, stderr) = deploy(&["--port", "9000", "--diff"]);
    assert!(code == Some(0) && diff.contains("+ExecStart=") && diff.contains("--port 9000"), "{diff}{stderr}");
    let (code, _, stderr) = deploy(&["--port", "9000"]);
    assert!(code == Some(1) && stderr.contains("tiny.service in unit differ"), "{stderr}");
    assert_eq!(deploy(&["--port", "9000", "--force"]).0, Some(0));
    assert!(deploy(&["--port", "9000", "--diff"]).2.contains("nothing would change"));
    fail(folder, &["deploy", "tiny", "--to", "systemd", "--out", "unit"], 2);
    let stderr = fail(folder, &["deploy", "./model", "--to", "kubernetes", "--out", "k8s"], 2);
    assert!(stderr.contains("--image"), "{stderr}");
}
