//! Which files of a repository are fetched. Knows names alone.

use super::{RepoFile, RepoKind};
use globset::{Glob, GlobSetBuilder};
use narthex_base::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};

/// What is fetched of a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selected {
    /// Card, licence, configuration and tokenizer: fetched first.
    pub small: Vec<RepoFile>,
    /// Weights or data.
    pub large: Vec<RepoFile>,
    /// How many files stay where they are.
    pub left: usize,
}

impl Selected {
    /// All files to fetch.
    pub fn all(&self) -> impl Iterator<Item = &RepoFile> {
        self.small.iter().chain(&self.large)
    }

    /// Bytes in all, as far as the Hub names them.
    pub fn bytes(&self) -> u64 {
        self.all().filter_map(|file| file.bytes).sum()
    }
}

/// Patterns that a user may give.
const PATTERNS_MAX: usize = 100;

/// The beginnings of names of cards, licences and notices, in capitals.
const PAPERS: [&str; 7] = ["README", "LICENSE", "LICENCE", "COPYING", "NOTICE", "USE_POLICY", "COPYRIGHT"];

/// The endings of configuration and tokenizers.
const SMALL_ENDINGS: [&str; 5] = ["json", "txt", "model", "jinja", "tiktoken"];

/// The endings of data that can be read.
const DATA_ENDINGS: [&str; 8] = ["parquet", "jsonl", "json", "csv", "tsv", "txt", "md", "ndjson"];

/// Folders that hold a model in the form of another framework, or states of its training.
const OTHER_FOLDERS: [&str; 12] =
    ["onnx", "openvino", "coreml", "flax", "tf", "tflite", "original", "runs", "logs", "metal", "gguf", "checkpoints"];

/// Chooses. `include` are globs over whole paths: the weights or data that are wanted instead of the usual ones; card,
/// licence, configuration and tokenizer always come along.
///
/// # Errors
/// If a glob is wrong or finds nothing, or a model has no weights in a form that is read.
pub fn select(kind: RepoKind, files: &[RepoFile], include: &[String]) -> Result<Selected> {
    let globs = globs(include)?;
    let mut chosen = Selected::default();
    for file in files.iter().filter(|file| is_small(kind, &file.path)) {
        chosen.small.push(file.clone());
    }
    let is_chosen = |chosen: &Selected, file: &RepoFile| chosen.all().any(|known| known.path == file.path);
    if let Some((set, texts)) = &globs {
        let mut found = BTreeSet::new();
        for file in files {
            let matched = set.matches(&file.path);
            if !matched.is_empty() && !is_chosen(&chosen, file) {
                chosen.large.push(file.clone());
            }
            found.extend(matched);
        }
        if let Some(unused) = (0..texts.len()).find(|index| !found.contains(index)) {
            let near = narthex_base::error::nearest(&texts[unused], files.iter().map(|file| file.path.as_str()));
            let near = near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
            return Err(Error::input(format!("no file fits `--include {}`", texts[unused])).help(format!(
                "{near}the repository holds {} files, such as {}",
                files.len(),
                listed(files.iter().map(|file| file.path.as_str()))
            )));
        }
    } else {
        chosen.large = match kind {
            RepoKind::Dataset => data(files, &chosen),
            RepoKind::Model => weights(files)?,
        };
    }
    if kind == RepoKind::Model {
        drop_other_indexes(&mut chosen);
    }
    chosen.left = files.len() - chosen.all().count();
    Ok(chosen)
}

type Globs = Option<(globset::GlobSet, Vec<String>)>;

fn globs(include: &[String]) -> Result<Globs> {
    if include.is_empty() {
        return Ok(None);
    }
    if include.len() > PATTERNS_MAX {
        return Err(
            Error::usage(format!("more than {PATTERNS_MAX} patterns")).help("use wider ones: `--include '*.json'`")
        );
    }
    let wrong = |error: globset::Error| {
        Error::usage("a pattern is wrong").cause(error).help("as in `--include 'data/*.parquet'`")
    };
    let mut set = GlobSetBuilder::new();
    for text in include {
        set.add(Glob::new(text).map_err(wrong)?);
    }
    Ok(Some((set.build().map_err(wrong)?, include.to_vec())))
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn ending(path: &str) -> &str {
    file_name(path).rsplit_once('.').map_or("", |(_, ending)| ending)
}

fn is_elsewhere(path: &str) -> bool {
    folder(path)
        .split('/')
        .any(|part| OTHER_FOLDERS.contains(&part) || part.starts_with("checkpoint-") || part.starts_with('.'))
}

fn is_paper(path: &str) -> bool {
    let name = file_name(path).to_uppercase();
    !path.contains('/') && PAPERS.iter().any(|paper| name.starts_with(paper)) || path.starts_with("LICENSES/")
}

/// Card, licence, configuration, tokenizer.
fn is_small(kind: RepoKind, path: &str) -> bool {
    if is_paper(path) {
        return true;
    }
    // An export's own papers hold only for the folder as it was exported.
    kind == RepoKind::Model
        && !is_elsewhere(path)
        && !file_name(path).starts_with('.')
        && file_name(path) != "narthex.json"
        && SMALL_ENDINGS.contains(&ending(path))
}

fn data(files: &[RepoFile], chosen: &Selected) -> Vec<RepoFile> {
    let fits = |file: &&RepoFile| {
        let plain = file.path.strip_suffix(".gz").or(file.path.strip_suffix(".zst")).unwrap_or(&file.path);
        let is_hidden = file.path.split('/').any(|part| part.starts_with('.'));
        let is_known = chosen.all().any(|known| known.path == file.path);
        !is_hidden && !is_known && file.path != "dataset_infos.json" && DATA_ENDINGS.contains(&ending(plain))
    };
    files.iter().filter(fits).cloned().collect()
}

/// The weights of each folder in one form: safetensors where there are any, else PyTorch's.
fn weights(files: &[RepoFile]) -> Result<Vec<RepoFile>> {
    let mut folders: BTreeMap<&str, Vec<&RepoFile>> = BTreeMap::new();
    for file in files.iter().filter(|file| !is_elsewhere(&file.path)) {
        folders.entry(folder(&file.path)).or_default().push(file);
    }
    let mut found = Vec::new();
    for files in folders.values() {
        for form in [is_safetensors, is_torch_bin, is_torch_other] {
            let fitting: Vec<&RepoFile> = files.iter().copied().filter(|file| form(file_name(&file.path))).collect();
            // A second copy of the same weights: Mistral's own form, or a variant in another number type.
            let usual: Vec<&RepoFile> =
                fitting.iter().copied().filter(|file| !is_second_copy(file_name(&file.path))).collect();
            let taken = if usual.is_empty() { fitting } else { usual };
            if !taken.is_empty() {
                found.extend(taken.into_iter().cloned());
                break;
            }
        }
    }
    if found.is_empty() {
        let others = files.iter().map(|file| file.path.as_str()).filter(|path| is_other_form(path));
        let error = Error::input("the repository holds no weights that are read: safetensors, or PyTorch's .bin");
        let mut others = others.peekable();
        return Err(match others.peek() {
            Some(first) => {
                let first = first.to_string();
                error
                    .cause(format!("it holds {}", listed(others)))
                    .help(format!("name what you want: `--include '{first}'`"))
            }
            None => error.cause(format!("it holds {}", listed(files.iter().map(|file| file.path.as_str())))),
        });
    }
    found.sort();
    Ok(found)
}

fn is_safetensors(name: &str) -> bool {
    name.ends_with(".safetensors")
}

fn is_torch_bin(name: &str) -> bool {
    name.ends_with(".bin") && ["pytorch_model", "adapter_model", "model"].iter().any(|start| name.starts_with(start))
}

fn is_torch_other(name: &str) -> bool {
    let states = ["optimizer", "scheduler", "rng_state", "training_args"];
    (name.ends_with(".pt") || name.ends_with(".pth")) && !states.iter().any(|start| name.starts_with(start))
}

fn is_second_copy(name: &str) -> bool {
    let marks = [".fp16.", ".bf16.", ".fp32.", ".non_ema.", ".int8."];
    name.starts_with("consolidated") || marks.iter().any(|mark| name.contains(mark))
}

fn is_other_form(path: &str) -> bool {
    ["gguf", "onnx", "h5", "msgpack", "ot", "tflite", "mlmodel", "pb", "npz", "safetensors", "bin", "pt", "pth"]
        .contains(&ending(path))
}

/// An index of shards that are not fetched would promise files that are not there.
fn drop_other_indexes(chosen: &mut Selected) {
    let large: Vec<String> = chosen.large.iter().map(|file| file.path.clone()).collect();
    chosen.small.retain(|file| {
        let Some(of) = file.path.strip_suffix(".index.json") else { return true };
        let form = ending(of);
        large.iter().any(|path| folder(path) == folder(&file.path) && ending(path) == form)
    });
}

/// The first few names.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    let more = names.len().saturating_sub(4);
    let text = names[..names.len().min(4)].join(", ");
    if more > 0 {
        format!("{text} and {more} more")
    } else if text.is_empty() {
        "nothing".into()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: RepoKind, files: &str, include: &[&str], expected: Result<&str, &str>) {
        let files: Vec<RepoFile> = files.split(' ').map(RepoFile::new).collect();
        let include: Vec<String> = include.iter().map(|text| text.to_string()).collect();
        match (select(kind, &files, &include), expected) {
            (Ok(chosen), Ok(expected)) => {
                let names: Vec<_> = chosen.all().map(|file| file.path.as_str()).collect();
                assert_eq!(names.join(" "), expected);
                assert_eq!(chosen.left, files.len() - names.len());
            }
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn models() {
        let model = |files: &str, include: &[&str], expected| check(RepoKind::Model, files, include, expected);
        model(
            ".gitattributes README.md LICENSE.txt config.json tokenizer.json merges.txt model.safetensors pytorch_model.bin tf_model.h5 flax_model.msgpack model.onnx onnx/model.onnx onnx/config.json training_args.bin modeling.py",
            &[],
            Ok("README.md LICENSE.txt config.json tokenizer.json merges.txt model.safetensors"),
        );
        model(
            "config.json pytorch_model.bin.index.json pytorch_model-00001-of-00002.bin pytorch_model-00002-of-00002.bin tf_model.h5",
            &[],
            Ok(
                "config.json pytorch_model.bin.index.json pytorch_model-00001-of-00002.bin pytorch_model-00002-of-00002.bin",
            ),
        );
        model(
            "config.json model.safetensors.index.json pytorch_model.bin.index.json model-00001-of-00002.safetensors model-00002-of-00002.safetensors consolidated.safetensors pytorch_model.bin original/consolidated.00.pth",
            &[],
            Ok(
                "config.json model.safetensors.index.json model-00001-of-00002.safetensors model-00002-of-00002.safetensors",
            ),
        );
        // sentence-transformers
        model(
            "modules.json 1_Pooling/config.json 2_Dense/config.json 2_Dense/model.safetensors 2_Dense/pytorch_model.bin model.safetensors config.json openvino/openvino_model.bin openvino/openvino_model.xml",
            &[],
            Ok(
                "modules.json 1_Pooling/config.json 2_Dense/config.json config.json 2_Dense/model.safetensors model.safetensors",
            ),
        );
        model(
            "adapter_config.json adapter_model.safetensors adapter_model.bin",
            &[],
            Ok("adapter_config.json adapter_model.safetensors"),
        );
        model("config.json model.fp16.safetensors model.safetensors", &[], Ok("config.json model.safetensors"));
        model(
            "config.json checkpoint-10/model.safetensors model.safetensors",
            &[],
            Ok("config.json model.safetensors"),
        );
        model("config.json model.pt optimizer.pt", &[], Ok("config.json model.pt"));
        model(
            "config.json model.safetensors tf_model.h5 onnx/model.onnx",
            &["*.h5", "onnx/*"],
            Ok("config.json tf_model.h5 onnx/model.onnx"),
        );
        model("README.md a.Q4_0.gguf b.Q8_0.gguf", &[], Err("--include 'a.Q4_0.gguf'"));
        model("README.md a.Q4_0.gguf b.Q8_0.gguf", &["a*"], Ok("README.md a.Q4_0.gguf"));
        model("README.md", &[], Err("holds no weights"));
        model("config.json model.safetensors", &["mdel.safetensors"], Err("did you mean `model.safetensors`"));
        model("config.json model.safetensors", &["{a"], Err("a pattern is wrong"));
    }

    #[test]
    fn data_sets() {
        let data = |files: &str, include: &[&str], expected| check(RepoKind::Dataset, files, include, expected);
        data(
            ".gitattributes README.md LICENSE data/train-0.parquet data/test-0.parquet a.jsonl.gz script.py img.png",
            &[],
            Ok("README.md LICENSE data/train-0.parquet data/test-0.parquet a.jsonl.gz"),
        );
        data("README.md data/train-0.parquet data/test-0.parquet", &["**/test-*"], Ok("README.md data/test-0.parquet"));
    }
}
