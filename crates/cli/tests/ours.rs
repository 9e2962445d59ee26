//! Whose a part is: what a project's steps made is under its licence, what came from elsewhere stays under its own, whatever is
//! said of where it comes from.

use crate::program::{fail, succeed};
use serde_json::Value;
use std::{fs, path::Path};

const PROJECT: &str = r#"[project]
name = "mine"
license = "OpenMDW-1.1"

[sources.given]
path = "given"
format = "huggingface"
license = "CC-BY-NC-4.0"
origin = "ORIGIN"

[sources.lines]
path = "lines.txt"
rows = "line"
license = "CC0-1.0"

[steps.pairs]
kind = "data"
from = "lines"
output = "chat"
transform = "select text as user, text as assistant from source"

[steps.pair-tokens]
kind = "tokenize"
from = "pairs"
tokenizer = "given"

[steps.talker]
kind = "tune"
model = "given"
data = "pair-tokens"
lora = { rank = 2 }
schedule = { steps = 1, batch_size = 1, context = 64, warmup = 0, eval_every = 0 }

[steps.release]
kind = "bundle"
model = "talker"
"#;

fn licenses(folder: &Path, name: &str) -> Vec<(String, String)> {
    let shown: Value = serde_json::from_str(&succeed(folder, &["show", name, "--json"])).unwrap();
    let parts = shown["manifest"]["components"].as_array().unwrap().clone();
    let own = parts.iter().filter(|part| !part["paths"].as_array().unwrap().is_empty());
    own.map(|part| (part["name"].as_str().unwrap().into(), part["license"].as_str().unwrap().into())).collect()
}

#[test]
fn an_origin_makes_nothing_ours() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    let gguf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/golden/gguf/llama.gguf");
    succeed(folder, &["import", gguf.to_str().unwrap(), "--name", "given", "--project", "other"]);
    succeed(folder, &["export", "given", "given", "--project", "other"]);
    // Its own template shows no answer.
    let config = folder.join("given/tokenizer_config.json");
    let text = fs::read_to_string(&config).unwrap();
    let template = "{% for message in messages %}{{ message.content }}{% endfor %}";
    fs::write(&config, text.replace("{{ messages[0].content }}", template)).unwrap();
    for papers in ["narthex.json", "LICENSE", "NOTICE"] {
        let _ = fs::remove_file(folder.join("given").join(papers));
    }
    let lines: Vec<String> = (0..20).map(|i| format!("the cat {i}")).collect();
    fs::write(folder.join("lines.txt"), lines.join("\n")).unwrap();
    for origin in ["https://example.org/base", "step `base` of project `mine`", "step `given` of project `mine`"] {
        fs::write(folder.join("narthex.toml"), PROJECT.replace("ORIGIN", origin)).unwrap();
        succeed(folder, &["run"]);
        for name in ["talker", "release"] {
            let found = licenses(folder, name);
            let of = |part: &str| found.iter().find(|(name, _)| name == part).map(|(_, license)| license.as_str());
            assert_eq!(of("weights"), Some("CC-BY-NC-4.0"), "{name}, {origin}");
            assert_eq!(of("configuration"), Some("CC-BY-NC-4.0"), "{name}, {origin}");
            assert_eq!(of("adapter"), Some("LicenseRef-OpenMDW-1.1"), "{name}, {origin}");
        }
        let error = fail(folder, &["bundle", "--set", "release.license=MIT"], 1);
        assert!(error.contains("would put `weights` under MIT, but it is under CC-BY-NC-4.0"), "{error}");
    }
}
