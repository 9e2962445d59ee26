//! Model files of other ecosystems, as a user meets them: GGUF and PyTorch checkpoints in, GGUF out.

use crate::program::{digest, fail, succeed};
use serde_json::Value;
use std::{fs, path::Path};

fn golden(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/golden").join(name)
}

fn generated(folder: &Path, model: &str) -> String {
    succeed(folder, &["generate", model, "--prompt", "the cat", "--max-tokens", "12", "--temperature", "0"])
}

#[test]
fn a_gguf_file_becomes_a_model_and_goes_back() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::copy(golden("gguf/llama.gguf"), folder.join("tiny.gguf")).unwrap();
    let printed = succeed(folder, &["import", "tiny.gguf"]);
    assert_eq!(printed, format!("tiny = {}\n", digest(folder, "tiny")));
    let shown: Value = serde_json::from_str(&succeed(folder, &["show", "tiny", "--json"])).unwrap();
    let component = &shown["manifest"]["components"][0];
    assert_eq!(component["license"], "Apache-2.0", "{shown:#}");
    assert_eq!(component["origin"], "GGUF file tiny.gguf; based on Larger by Somebody (https://example.org/larger)");
    let text = generated(folder, "tiny");
    // The file that is written is the model again, bit for bit in f32, and says the same.
    succeed(folder, &["export", "tiny", "again.gguf", "--format", "gguf", "--weights", "f32"]);
    succeed(folder, &["import", "again.gguf", "--name", "second"]);
    assert_eq!(generated(folder, "second"), text);
    let again: Value = serde_json::from_str(&succeed(folder, &["show", "second", "--json"])).unwrap();
    assert_eq!(again["manifest"]["components"][0]["license"], "Apache-2.0");
    let left: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with(".narthex-import")), "{left:?}");

    let stderr = fail(folder, &["export", "tiny", "again.gguf", "--format", "gguf"], 1);
    assert!(stderr.contains("this is there already"), "{stderr}");
    let stderr = fail(folder, &["import", "tiny.gguf", "--license", "MIT"], 1);
    assert!(stderr.contains("the file puts itself under Apache-2.0, not under MIT"), "{stderr}");
    let whole = fs::read(folder.join("tiny.gguf")).unwrap();
    fs::write(folder.join("short.gguf"), &whole[..whole.len() / 2]).unwrap();
    let stderr = fail(folder, &["import", "short.gguf"], 1);
    assert!(stderr.contains("short.gguf") && stderr.contains("the file is cut off"), "{stderr}");
}

#[test]
fn a_gguf_file_answers_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for name in ["llama", "llama3", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "gpt2", "starcoder2"] {
        fs::copy(golden(&format!("gguf/{name}.gguf")), folder.join(format!("{name}.gguf"))).unwrap();
        succeed(folder, &["import", &format!("{name}.gguf")]);
        assert_eq!(generated(folder, &format!("{name}.gguf")), generated(folder, name), "{name}");
    }
    // In blocks, which are not read as numbers first: the same words, if not to the last bit.
    succeed(folder, &["export", "llama", "blocks.gguf", "--format", "gguf", "--weights", "q8_0"]);
    assert!(!generated(folder, "./blocks.gguf").is_empty());
    let whole = fs::read(folder.join("llama.gguf")).unwrap();
    fs::write(folder.join("short.gguf"), &whole[..whole.len() / 2]).unwrap();
    let ask = ["--prompt", "the cat"];
    let stderr = fail(folder, &[&["generate", "short.gguf"], &ask[..]].concat(), 1);
    assert!(stderr.contains("short.gguf") && stderr.contains("the file is cut off"), "{stderr}");
    let stderr = fail(folder, &[&["generate", "none.gguf"], &ask[..]].concat(), 1);
    assert!(stderr.contains("none.gguf") && stderr.contains("cannot read"), "{stderr}");
    fs::copy(golden("gguf/bert.gguf"), folder.join("bert.gguf")).unwrap();
    let stderr = fail(folder, &["embed", "bert.gguf", "the cat"], 1);
    assert!(stderr.contains("narthex import bert.gguf"), "{stderr}");
}

#[test]
fn a_checkpoint_becomes_a_model_but_never_runs() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // torch wrote these weights: those of the model beside them.
    let model = folder.join("model");
    fs::create_dir(&model).unwrap();
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json", "pytorch_model.bin", "LICENSE"] {
        fs::copy(golden("pickle/model").join(file), model.join(file)).unwrap();
    }
    succeed(folder, &["import", "model", "--name", "first"]);
    let text = generated(folder, "first");
    fs::rename(model.join("pytorch_model.bin"), model.join("weights.pt")).unwrap();
    succeed(folder, &["import", "model/weights.pt", "--name", "second"]);
    assert_eq!(generated(folder, "second"), text);
    let shown: Value = serde_json::from_str(&succeed(folder, &["show", "second", "--json"])).unwrap();
    assert_eq!(shown["manifest"]["components"][0]["license"], "MIT");

    fs::copy(golden("pickle/code.pt"), model.join("weights.pt")).unwrap();
    let stderr = fail(folder, &["import", "model/weights.pt"], 1);
    assert!(stderr.contains("asks for torch.nn.modules.container.Sequential"), "{stderr}");
    assert!(stderr.contains("nothing was run"), "{stderr}");
    let stderr = fail(folder, &["import", "model/LICENSE"], 1);
    assert!(stderr.contains("not a kind of model file"), "{stderr}");
    fs::remove_file(model.join("config.json")).unwrap();
    let stderr = fail(folder, &["import", "model/weights.pt"], 1);
    assert!(stderr.contains("no config.json beside it"), "{stderr}");
}

#[cfg(unix)]
#[test]
fn links_out_of_a_folder_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::create_dir(folder.join("model")).unwrap();
    fs::write(folder.join("secret"), "{}").unwrap();
    std::os::unix::fs::symlink("../secret", folder.join("model/config.json")).unwrap();
    let stderr = fail(folder, &["import", "model"], 1);
    assert!(stderr.contains("the link `config.json` leads out of the folder"), "{stderr}");
}
