//! Encoders against what transformers and sentence-transformers give for tiny random checkpoints.

use narthex_model::{
    EncoderInput, EncoderModel, EncoderTask, Precision,
    encoder::{PoolingMode, is_encoder, pool},
};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

fn golden(name: &str) -> (PathBuf, Value) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let text = fs::read_to_string(folder.join("golden.json")).unwrap();
    (folder, serde_json::from_str(&text).unwrap())
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect()
}

fn inputs(golden: &Value) -> Vec<EncoderInput> {
    let all = golden["ids"].as_array().unwrap().iter().enumerate();
    let types = |i: usize| if golden["types"].is_null() { vec![] } else { ids(&golden["types"][i]) };
    all.map(|(i, sequence)| EncoderInput { ids: ids(sequence), types: types(i) }).collect()
}

fn distance(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn hidden(model: &EncoderModel, inputs: &[EncoderInput]) -> Vec<f32> {
    let hidden = model.hidden(&inputs.iter().collect::<Vec<_>>()).unwrap();
    hidden.into_data().try_to_vec::<f32>().unwrap()
}

#[test]
fn hidden_states_are_those_of_transformers() {
    for name in ["bert", "bert-prefix", "roberta", "xlm-roberta", "modernbert"] {
        let (folder, golden) = golden(&format!("encoder-{name}"));
        assert!(is_encoder(&folder), "{name}");
        let model = EncoderModel::read(&folder, None).unwrap();
        assert_eq!((model.task(), model.dimension(), model.precision()), (EncoderTask::Embedding, 16, Precision::F32));
        let inputs = inputs(&golden);
        let together = hidden(&model, &inputs);
        let expected: Vec<f32> = golden["outputs"].as_array().unwrap().iter().flat_map(floats).collect();
        let error = distance(&together, &expected);
        assert!(error < 1e-4, "{name}: {error}");
        let alone = inputs.iter().flat_map(|input| hidden(&model, std::slice::from_ref(input)));
        assert_eq!(alone.collect::<Vec<f32>>(), together, "{name}: what else is in the batch must not matter");
        // The head's own default: the mean of the tokens.
        let pooled = model.run(&[&inputs[1]]);
        let at = inputs[0].ids.len() * 16;
        assert_eq!(pooled, [pool(&together[at..at + 5 * 16], 16, &[PoolingMode::Mean])], "{name}");
        let rough = EncoderModel::read(&folder, Some(Precision::Bf16)).unwrap();
        let rough = hidden(&rough, &inputs);
        let error = distance(&rough, &expected);
        // The weights are large, so that what is left out shows; roundings show too.
        assert!(error > 1e-5 && error < 0.5, "{name} in bf16: {error}");
    }
}

#[test]
fn scores_are_those_of_transformers() {
    for (name, labels) in [("bert", 1), ("roberta", 3), ("modernbert", 1)] {
        let (folder, golden) = golden(&format!("encoder-{name}-score"));
        let model = EncoderModel::read(&folder, None).unwrap();
        assert_eq!((model.task(), model.dimension()), (EncoderTask::Score, labels), "{name}");
        let inputs = inputs(&golden);
        let found = model.run(&inputs.iter().collect::<Vec<_>>());
        for (found, logits) in found.iter().zip(golden["outputs"].as_array().unwrap()) {
            // As sentence-transformers' CrossEncoder: a sigmoid for one label, nothing for several.
            let activated = |x: f32| if labels == 1 { 1.0 / (1.0 + (-x).exp()) } else { x };
            let expected: Vec<f32> = floats(logits).into_iter().map(activated).collect();
            let error = distance(found, &expected);
            assert!(error < 1e-4, "{name}: {error}");
        }
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().flatten() {
        if entry.path().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn pooling_is_that_of_sentence_transformers() {
    let (_, golden) = golden("encoder-pooling");
    let hidden: Vec<Vec<f32>> = golden["hidden"]
        .as_array()
        .unwrap()
        .iter()
        .map(|h| h.as_array().unwrap().iter().flat_map(floats).collect())
        .collect();
    for (name, modes) in [
        ("mean", vec![PoolingMode::Mean]),
        ("cls", vec![PoolingMode::Cls]),
        ("max", vec![PoolingMode::Max]),
        ("lasttoken", vec![PoolingMode::LastToken]),
        ("mean_sqrt_len_tokens", vec![PoolingMode::MeanSqrtLen]),
        ("weightedmean", vec![PoolingMode::WeightedMean]),
        ("cls+mean", vec![PoolingMode::Cls, PoolingMode::Mean]),
    ] {
        for (hidden, expected) in hidden.iter().zip(golden["pooled"][name].as_array().unwrap()) {
            let error = distance(&pool(hidden, 6, &modes), &floats(expected));
            assert!(error < 1e-6, "{name}: {error}");
        }
    }
}

/// A folder in sentence-transformers' layout around the tiny BERT.
fn sentence_folder(modules: Value, pooling: Value) -> tempfile::TempDir {
    let made = tempfile::tempdir().unwrap();
    copy(&golden("encoder-bert").0, made.path());
    fs::write(made.path().join("modules.json"), modules.to_string()).unwrap();
    fs::create_dir(made.path().join("1_Pooling")).unwrap();
    fs::write(made.path().join("1_Pooling/config.json"), pooling.to_string()).unwrap();
    made
}

fn modules(stages: &[(&str, &str)]) -> Value {
    let module =
        |(kind, path): &(&str, &str)| json!({"type": format!("sentence_transformers.models.{kind}"), "path": path});
    stages.iter().map(module).collect()
}

#[test]
fn the_layout_of_sentence_transformers_is_read() {
    let stages = modules(&[("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]);
    let old = json!({"word_embedding_dimension": 16, "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true});
    let new = json!({"embedding_dimension": 16, "pooling_mode": ["cls", "mean"], "include_prompt": true});
    let input = EncoderInput { ids: vec![5, 6, 7], types: vec![] };
    let mut found = Vec::new();
    for pooling in [old, new] {
        let folder = sentence_folder(stages.clone(), pooling);
        let sentence = json!({"max_seq_length": 12, "do_lower_case": true});
        fs::write(folder.path().join("sentence_bert_config.json"), sentence.to_string()).unwrap();
        let prompts = json!({"prompts": {"query": "q: ", "document": ""}, "default_prompt_name": "query"});
        fs::write(folder.path().join("config_sentence_transformers.json"), prompts.to_string()).unwrap();
        let model = EncoderModel::read(folder.path(), None).unwrap();
        assert_eq!((model.dimension(), model.context(), model.sentence().lower_case), (32, 12, true));
        assert_eq!(model.sentence().prompts[model.sentence().default_prompt.as_ref().unwrap()], "q: ");
        let vector = model.run(&[&input]).remove(0);
        let length: f32 = vector.iter().map(|x| x * x).sum();
        assert!((length - 1.0).abs() < 1e-5, "{length}");
        found.push(vector);
    }
    assert_eq!(found[0], found[1]);
}

#[test]
fn a_dense_layer_is_that_of_sentence_transformers() {
    let (dense, golden) = golden("encoder-pooling");
    let stages = modules(&[("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense"), ("Normalize", "")]);
    let folder = sentence_folder(stages, json!({"pooling_mode": "mean"}));
    fs::create_dir(folder.path().join("2_Dense")).unwrap();
    copy(&dense.join("2_Dense"), &folder.path().join("2_Dense"));
    let model = EncoderModel::read(folder.path(), None).unwrap();
    assert_eq!(model.dimension(), 4);
    let (_, bert) = self::golden("encoder-bert");
    let inputs = inputs(&bert);
    let found = model.run(&inputs.iter().collect::<Vec<_>>());
    for (found, expected) in found.iter().zip(golden["dense"].as_array().unwrap()) {
        let error = distance(found, &floats(expected));
        assert!(error < 1e-5, "{error}");
    }
}

#[test]
fn what_cannot_be_done_is_named() {
    let pooled = || modules(&[("Transformer", ""), ("Pooling", "1_Pooling")]);
    let mean = || json!({"pooling_mode": "mean"});
    for (stages, pooling, change, expected) in [
        (
            modules(&[("Transformer", ""), ("WordWeights", "1_Pooling")]),
            mean(),
            json!({}),
            "module 1 = sentence_transformers.models.WordWeights",
        ),
        (modules(&[("Transformer", "0_T"), ("Pooling", "1_Pooling")]), mean(), json!({}), "a Transformer in = 0_T"),
        (modules(&[("Transformer", ""), ("Pooling", "../x")]), mean(), json!({}), "`../x` leaves the folder"),
        (modules(&[("Transformer", "")]), mean(), json!({}), "no Pooling"),
        (json!([]), mean(), json!({}), "must list up to 16 modules"),
        (pooled(), json!({"pooling_mode": "median"}), json!({}), "pooling_mode = median"),
        (pooled(), json!({"pooling_mode_median": true}), json!({}), "pooling_mode_median = true"),
        (pooled(), json!({}), json!({}), "names no mode"),
        (pooled(), json!({"pooling_mode": "mean", "include_prompt": false}), json!({}), "include_prompt = false"),
        (pooled(), json!({"pooling_mode": "mean", "embedding_dimension": 4}), json!({}), "vectors of 4"),
        (pooled(), mean(), json!({"model_type": "deberta-v2"}), "model_type = deberta-v2"),
        (
            pooled(),
            mean(),
            json!({"position_embedding_type": "relative_key"}),
            "position_embedding_type = relative_key",
        ),
        (pooled(), mean(), json!({"is_decoder": true}), "is_decoder = true"),
        (pooled(), mean(), json!({"hidden_act": "relu"}), "hidden_act = relu"),
        (pooled(), mean(), json!({"num_attention_heads": 3}), "3 heads do not divide"),
        (pooled(), mean(), json!({"vocab_size": 49}), "has shape [48, 16], but the config asks for [49, 16]"),
        (pooled(), mean(), json!({"num_hidden_layers": 1}), "is not part of this architecture"),
        (pooled(), mean(), json!({"hidden_size": null}), "lacks the number `hidden_size`"),
    ] {
        let folder = sentence_folder(stages, pooling);
        let path = folder.path().join("config.json");
        let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        config.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        fs::write(&path, config.to_string()).unwrap();
        let error = EncoderModel::read(folder.path(), None).err().unwrap_or_else(|| panic!("{expected}: accepted"));
        assert!(error.what().contains(expected), "{expected}: {error}");
        assert!(error.place().is_some(), "{expected}: {error}");
    }
    let (folder, _) = golden("encoder-modernbert");
    let text = fs::read_to_string(folder.join("config.json")).unwrap();
    for (from, to, expected) in [
        ("\"norm_bias\": false", "\"norm_bias\": true", "norm_bias = true"),
        ("\"rope_type\": \"default\"", "\"rope_type\": \"yarn\"", "rope_type = yarn"),
        ("\"sliding_attention\",", "\"chunked\",", "layer_types = chunked"),
    ] {
        let made = tempfile::tempdir().unwrap();
        copy(&folder, made.path());
        fs::write(made.path().join("config.json"), text.replacen(from, to, 1)).unwrap();
        let error = EncoderModel::read(made.path(), None).err().unwrap();
        assert!(error.what().contains(expected), "{error}");
    }
}

/// Keys of `config.json` that nobody reads: one that transformers acts on is refused, one that it does not know is
/// named.
#[test]
fn keys_that_nobody_reads_are_named() {
    let (golden, _) = golden("encoder-bert");
    let made = tempfile::tempdir().unwrap();
    fs::copy(golden.join("model.safetensors"), made.path().join("model.safetensors")).unwrap();
    let plain: Value = serde_json::from_str(&fs::read_to_string(golden.join("config.json")).unwrap()).unwrap();
    let read = |key: &str, value: Value| {
        let mut config = plain.clone();
        config[key] = value;
        fs::write(made.path().join("config.json"), config.to_string()).unwrap();
        EncoderModel::read(made.path(), None).map(|model| model.notes().to_vec())
    };
    assert_eq!(read("hidden_dropout_prob", json!(0.3)).unwrap(), [""; 0]);
    let notes = read("brand_new", json!({"a": 1})).unwrap();
    assert!(notes.len() == 1 && notes[0].contains("`brand_new` in config.json is not known"), "{notes:?}");
    for (key, value, expected) in [
        ("position_embedding_type", json!("relative_key"), "position_embedding_type = relative_key"),
        ("layer_norm_eps", json!("1e-12"), "`layer_norm_eps` in the config is \"1e-12\", not a number"),
    ] {
        let error = read(key, value).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

/// BERT's first checkpoints call the parameters of a norm `gamma` and `beta`; transformers 5.24 reads both.
#[test]
fn the_old_names_of_norms_are_read() {
    let (folder, golden) = golden("encoder-bert");
    let made = tempfile::tempdir().unwrap();
    fs::copy(folder.join("config.json"), made.path().join("config.json")).unwrap();
    let bytes = fs::read(folder.join("model.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let text = std::str::from_utf8(&bytes[8..header]).unwrap();
    let old =
        text.replace("LayerNorm.weight\":", "LayerNorm.gamma\" :").replace("LayerNorm.bias\"", "LayerNorm.beta\"");
    assert!(old.len() == text.len() && old.matches("gamma").count() > 2, "{old}");
    fs::write(made.path().join("model.safetensors"), [&bytes[..8], old.as_bytes(), &bytes[header..]].concat()).unwrap();
    let inputs = inputs(&golden);
    let [plain, renamed] = [folder.as_path(), made.path()].map(|at| EncoderModel::read(at, None).unwrap());
    assert_eq!(hidden(&renamed, &inputs), hidden(&plain, &inputs));
}
