//! GGUF against files that ggml's Python package wrote, and texts that sentencepiece and tokenizers cut.

mod made;

use made::{Gguf, array, entry, golden, info, text};
use narthex_formats::gguf::{About, File, Stored, TensorType, Value, dequantize, from_hugging_face, to_hugging_face};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value as Json;
use std::{collections::BTreeMap, fs, path::Path};

fn json(path: &Path) -> Json {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn golden_json() -> Json {
    json(&golden("gguf/golden.json"))
}

/// Name -> shape and values, widened.
fn weights(path: &Path) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let widen = |dtype: Dtype, data: &[u8]| match dtype {
        Dtype::F32 => dequantize(TensorType::F32, data),
        Dtype::F16 => dequantize(TensorType::F16, data),
        Dtype::BF16 => dequantize(TensorType::BF16, data),
        other => panic!("{other:?}"),
    };
    let tensors = file.iter();
    tensors.map(|(name, view)| (name.into(), (view.shape().to_vec(), widen(view.dtype(), view.data())))).collect()
}

#[test]
fn blocks_have_the_values_of_the_reference() {
    let file = File::open(&golden("gguf/quants.gguf")).unwrap();
    let expected = weights(&golden("gguf/quants.safetensors"));
    assert_eq!(file.tensors().len(), 11);
    for (name, tensor) in file.tensors() {
        assert_eq!(tensor.kind.to_string(), *name);
        let (shape, values) = &expected[name];
        assert_eq!(tensor.shape, *shape, "{name}");
        let found = dequantize(tensor.kind, file.bytes(tensor));
        let same = found.iter().zip(values).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same && found.len() == values.len(), "{name}");
    }
}

/// The formula of xtask/goldens/gguf_files.py.
fn formula(name: &str, count: usize) -> Vec<f32> {
    let start: usize = name.bytes().map(usize::from).sum();
    (0..count).map(|i| (((i * 7 + start) % 251) as f32 - 125.0) / 64.0).collect()
}

const MODELS: [(&str, &str, &str); 9] = [
    ("llama", "llama", "spm"),
    ("llama3", "llama", "llama-bpe"),
    ("qwen2", "qwen2", "qwen2"),
    ("qwen3", "qwen3", "qwen2"),
    ("gemma2", "gemma2", "spm"),
    ("gemma3", "gemma3_text", "spm"),
    ("phi3", "phi3", "gpt-2"),
    ("gpt2", "gpt2", "gpt-2"),
    ("starcoder2", "starcoder2", "smollm"),
];

#[test]
fn models_become_folders() {
    let golden_values = golden_json();
    for (name, model_type, tokenizer) in MODELS {
        let folder = tempfile::tempdir().unwrap();
        let imported = to_hugging_face(&golden(&format!("gguf/{name}.gguf")), folder.path()).unwrap();
        assert_eq!(imported.name.as_deref(), Some(format!("tiny {name}").as_str()));
        assert_eq!(imported.license.as_deref(), Some("apache-2.0"));
        let base = &imported.base_models[0];
        assert_eq!((base.name.as_deref(), base.url.as_deref()), (Some("Larger"), Some("https://example.org/larger")));
        assert!(imported.notes.is_empty(), "{:?}", imported.notes);
        let found = weights(&folder.path().join("model.safetensors"));
        let expected = golden_values["tensors"][name].as_object().unwrap();
        assert_eq!(found.len(), expected.len(), "{name}");
        for (tensor, shape) in expected {
            let (found_shape, values) = &found[tensor];
            assert_eq!(serde_json::json!(found_shape), *shape, "{name} {tensor}");
            assert!(*values == formula(tensor, values.len()), "{name} {tensor}");
        }
        let config = json(&folder.path().join("config.json"));
        assert_eq!(config["model_type"], model_type);
        assert_eq!(config["tie_word_embeddings"], !expected.contains_key("lm_head.weight"), "{name}");
        check_tokenizer(folder.path(), tokenizer, &golden_values);
        let settings = json(&folder.path().join("tokenizer_config.json"));
        assert_eq!(settings["chat_template"], "{{ messages[0].content }}");
        assert_eq!(config["eos_token_id"], if tokenizer == "spm" { 2 } else { 0 }, "{name}");
    }
}

/// Names by ggml's table, ids by transformers' `BertTokenizerFast`.
#[test]
fn encoders_become_folders() {
    let golden_values = golden_json();
    let folder = tempfile::tempdir().unwrap();
    let imported = to_hugging_face(&golden("gguf/bert.gguf"), folder.path()).unwrap();
    assert!(imported.notes.is_empty(), "{:?}", imported.notes);
    let found = weights(&folder.path().join("model.safetensors"));
    let expected = golden_values["tensors"]["bert"].as_object().unwrap();
    assert_eq!(found.len(), expected.len());
    for (tensor, shape) in expected {
        let (found_shape, values) = &found[tensor];
        assert_eq!(
            (serde_json::json!(found_shape), values),
            (shape.clone(), &formula(tensor, values.len())),
            "{tensor}"
        );
    }
    let config = json(&folder.path().join("config.json"));
    let of_config = ["model_type", "layer_norm_eps", "type_vocab_size", "pad_token_id"].map(|key| config[key].clone());
    assert_eq!(serde_json::json!(of_config), serde_json::json!(["bert", 1e-12, 2, 0]));
    assert_eq!(json(&folder.path().join("1_Pooling/config.json"))["pooling_mode_cls_token"], true);
    assert_eq!(json(&folder.path().join("modules.json"))[2]["type"], "sentence_transformers.models.Normalize");
    assert!(!folder.path().join("generation_config.json").exists(), "it generates nothing");
    let tokenizer = tokenizers::Tokenizer::from_file(folder.path().join("tokenizer.json")).unwrap();
    let texts = golden_values["texts"].as_array().unwrap();
    for (text, expected) in texts.iter().zip(golden_values["ids"]["wordpiece"].as_array().unwrap()) {
        let ids = tokenizer.encode(text.as_str().unwrap(), true).unwrap();
        assert_eq!(serde_json::json!(ids.get_ids()), *expected, "{text}: {:?}", ids.get_tokens());
    }
}

fn check_tokenizer(folder: &Path, name: &str, golden_values: &Json) {
    let tokenizer = tokenizers::Tokenizer::from_file(folder.join("tokenizer.json")).unwrap();
    let texts = golden_values["texts"].as_array().unwrap();
    for (text, expected) in texts.iter().zip(golden_values["ids"][name].as_array().unwrap()) {
        let text = text.as_str().unwrap();
        let ids = tokenizer.encode(text, true).unwrap();
        assert_eq!(serde_json::json!(ids.get_ids()), *expected, "{name} {text:?}: {:?}", ids.get_tokens());
        // A special token is left out, as decoding is asked to.
        assert_eq!(
            tokenizer.decode(ids.get_ids(), true).unwrap(),
            text.replace("<|end|>", if name == "spm" { "<|end|>" } else { "" })
        );
    }
}

#[test]
fn configs_say_what_the_file_says() {
    let config = |name: &str| {
        let folder = tempfile::tempdir().unwrap();
        to_hugging_face(&golden(&format!("gguf/{name}.gguf")), folder.path()).unwrap();
        json(&folder.path().join("config.json"))
    };
    let llama3 = config("llama3");
    assert_eq!(
        llama3["rope_scaling"],
        serde_json::json!({
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192
        })
    );
    for (key, expected) in [
        ("hidden_size", serde_json::json!(16)),
        ("num_key_value_heads", serde_json::json!(2)),
        ("head_dim", serde_json::json!(8)),
        ("rope_theta", serde_json::json!(500000.0)),
        ("rms_norm_eps", serde_json::json!(1e-6)),
        ("torch_dtype", serde_json::json!("float16")),
    ] {
        assert_eq!(llama3[key], expected, "{key}");
    }
    assert_eq!(config("gemma2")["final_logit_softcapping"], 30.0);
    assert_eq!(config("phi3")["partial_rotary_factor"], 1.0);
    assert_eq!(config("gpt2")["n_inner"], 64);
}

#[test]
fn written_and_read_back() {
    for (name, _, tokenizer) in &MODELS[..4] {
        for stored in [Stored::F32, Stored::F16, Stored::BF16, Stored::Q8_0] {
            let (folder, again) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            to_hugging_face(&golden(&format!("gguf/{name}.gguf")), folder.path()).unwrap();
            let file = folder.path().join("model.gguf");
            let about = About { name: Some("tiny".into()), license: Some("mit".into()), license_link: None };
            from_hugging_face(folder.path(), &file, stored, &about).unwrap();
            let imported = to_hugging_face(&file, again.path()).unwrap();
            assert_eq!((imported.name, imported.license), (about.name, about.license));
            let [first, second] = [&folder, &again].map(|folder| weights(&folder.path().join("model.safetensors")));
            // Rows that are no whole number of blocks of 32 are stored in F16 instead of Q8_0, which holds them.
            for (tensor, (shape, values)) in &first {
                let (found_shape, found) = &second[tensor];
                assert_eq!(shape, found_shape, "{name} {tensor} {stored:?}");
                let is_rounded = stored == Stored::Q8_0 && shape.len() == 2 && shape[1].is_multiple_of(32);
                let worst = values.iter().zip(found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                // Half a step of 2 / 127.
                assert!(worst <= if is_rounded { 0.008 } else { 0.0 }, "{name} {tensor} {stored:?}: {worst}");
            }
            for json_file in ["config.json", "tokenizer_config.json"] {
                let (mut one, mut two) = (json(&folder.path().join(json_file)), json(&again.path().join(json_file)));
                // What is stored otherwise is named otherwise.
                one["torch_dtype"] = Json::Null;
                two["torch_dtype"] = Json::Null;
                assert_eq!(one, two, "{name} {stored:?} {json_file}");
            }
            check_tokenizer(again.path(), tokenizer, &golden_json());
            assert!(!file.with_file_name("model.gguf.part").exists());
        }
    }
}

#[test]
fn what_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    to_hugging_face(&golden("gguf/qwen2.gguf"), folder.path()).unwrap();
    let check = |file: &str, change: &dyn Fn(&mut Json), expected: &str| {
        let path = folder.path().join(file);
        let whole = fs::read(&path).unwrap();
        let mut changed: Json = serde_json::from_slice(&whole).unwrap();
        change(&mut changed);
        fs::write(&path, changed.to_string()).unwrap();
        let made = folder.path().join("x.gguf");
        let error = from_hugging_face(folder.path(), &made, Stored::F32, &About::default()).unwrap_err();
        assert!(error.to_string().contains(expected), "{expected}: {error}");
        assert!(error.place().unwrap().contains(folder.path().to_str().unwrap()), "{error}");
        assert!(!made.exists());
        fs::write(&path, whole).unwrap();
    };
    check("config.json", &|config| config["model_type"] = "mamba".into(), "type `mamba`");
    check("config.json", &|config| config["hidden_act"] = "relu".into(), "hidden_act = relu");
    check(
        "config.json",
        &|config| config["rope_scaling"] = serde_json::json!({"type": "dynamic"}),
        "rope_type = dynamic",
    );
    check("config.json", &|config| config["use_sliding_window"] = true.into(), "sliding window");
    check("config.json", &|config| config["hidden_size"] = (-1).into(), "`hidden_size` is -1");
    check(
        "config.json",
        &|config| config["num_attention_heads"] = Json::Null,
        "lacks the number `num_attention_heads`",
    );
    check("config.json", &|config| config["vocab_size"] = 10.into(), "the embedding has 10 rows");
    check("tokenizer.json", &|tokenizer| tokenizer["model"]["type"] = "Unigram".into(), "Unigram");
    check("tokenizer.json", &|tokenizer| tokenizer["pre_tokenizer"] = Json::Null, "no name in GGUF");
    check("tokenizer.json", &|tokenizer| tokenizer["model"]["merges"] = serde_json::json!([3]), "no pair");
}

#[test]
fn q8_0_has_the_bytes_of_the_reference() {
    let q8_0 = &golden_json()["q8_0"];
    let numbers =
        |key: &str| q8_0[key].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect::<Vec<_>>();
    let folder = tempfile::tempdir().unwrap();
    to_hugging_face(&golden("gguf/qwen2.gguf"), folder.path()).unwrap();
    // The row takes the place of a weight: down_proj of two rows of 32.
    let values: Vec<u8> = numbers("values").iter().flat_map(|value| (*value as f32).to_le_bytes()).collect();
    let tensor = safetensors::tensor::TensorView::new(Dtype::F32, vec![1, 64], &values).unwrap();
    let path = folder.path().join("model.safetensors");
    fs::write(&path, safetensors::serialize([("model.layers.0.mlp.down_proj.weight", tensor)], None).unwrap()).unwrap();
    let file = folder.path().join("x.gguf");
    from_hugging_face(folder.path(), &file, Stored::Q8_0, &About::default()).unwrap();
    let file = File::open(&file).unwrap();
    let found = file.bytes(&file.tensors()["blk.0.ffn_down.weight"]);
    assert_eq!(found, numbers("bytes").iter().map(|value| *value as u8).collect::<Vec<_>>());
}

fn open(bytes: &[u8]) -> Result<File, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    fs::write(&path, bytes).unwrap();
    File::open(&path).map_err(|error| {
        assert!(error.place().unwrap().ends_with("x.gguf"), "{error}");
        error.to_string()
    })
}

#[test]
fn every_kind_of_value_is_read() {
    let file = open(&Gguf::small().bytes()).unwrap();
    let metadata = file.metadata();
    for (key, expected) in [
        ("u8", Value::Unsigned(1)),
        ("i8", Value::Signed(-1)),
        ("i16", Value::Signed(-2)),
        ("u32", Value::Unsigned(3)),
        ("f32", Value::Float(1e-5)),
        ("bool", Value::Bool(true)),
        ("text", Value::Text("Grüße".into())),
        ("u64", Value::Unsigned(u64::MAX)),
        ("i64", Value::Signed(i64::MIN)),
        ("f64", Value::Float(0.1)),
        ("texts", Value::Texts(vec!["a".into(), "bc".into()])),
    ] {
        assert_eq!(metadata[key], expected, "{key}");
    }
    assert_eq!(file.numbers("numbers").unwrap().unwrap().to_f64(), [1.0, -1.0]);
    assert!(matches!(&metadata["arrays"], Value::Arrays(arrays) if arrays.len() == 1));
    assert_eq!(file.tensors()["a"].shape, [3, 2]);
    assert!(file.count("text").unwrap_err().to_string().contains("`text` must be one whole number"));
}

#[test]
fn lies_are_named() {
    let check = |change: &dyn Fn(&mut Gguf), expected: &str| {
        let mut gguf = Gguf::small();
        change(&mut gguf);
        let error = open(&gguf.bytes()).unwrap_err();
        assert!(error.contains(expected), "{expected}: {error}");
    };
    check(&|gguf| gguf.version = 1, "version 1 is not supported");
    check(&|gguf| gguf.version = 3 << 24, "big-endian");
    check(&|gguf| gguf.tensors = Some(u64::MAX), "the number of tensors is 18446744073709551615, more than");
    check(&|gguf| gguf.entries = Some(1 << 40), "the number of metadata entries is 1099511627776");
    check(&|gguf| gguf.metadata[0][..8].copy_from_slice(&u64::MAX.to_le_bytes()), "the length of a metadata key");
    check(
        &|gguf| gguf.metadata[0][..8].copy_from_slice(&60_000u64.to_le_bytes()),
        "the file ends within a metadata key",
    );
    check(&|gguf| gguf.metadata[0] = entry("u8", 99, &[1]), "the value of `u8` has the type 99");
    check(&|gguf| gguf.metadata[0] = entry("a", 8, &u64::MAX.to_le_bytes()), "the length of the value of `a`");
    check(&|gguf| gguf.metadata[0] = entry("a", 8, &[text("x"), vec![]].concat().map_utf8()), "is not UTF-8");
    check(
        &|gguf| gguf.metadata[0] = entry("a", 9, &array(0, u64::MAX, &[])),
        "the number of elements in the value of `a`",
    );
    check(&|gguf| gguf.metadata[0] = entry("a", 9, &array(10, 1 << 23, &[])), "the file ends within the value of `a`");
    check(
        &|gguf| gguf.metadata[0] = entry("a", 9, &array(8, 1 << 20, &[])),
        "the number of elements in the value of `a`",
    );
    check(
        &|gguf| gguf.metadata[0] = entry("a", 9, &array(9, 1 << 20, &[])),
        "the number of elements in the value of `a`",
    );
    let nested = |depth| (0..depth).fold(array(0, 0, &[]), |inner, _| array(9, 1, &inner));
    check(&|gguf| gguf.metadata[0] = entry("a", 9, &nested(5)), "the nesting of the value of `a` is 5, more than 4");
    check(&|gguf| gguf.metadata[1] = gguf.metadata[0].clone(), "the metadata key `u8` is there twice");
    check(&|gguf| gguf.metadata[0] = entry("general.alignment", 4, &3u32.to_le_bytes()), "`general.alignment` is");
    check(
        &|gguf| gguf.metadata[0] = entry("general.alignment", 10, &(1u64 << 40).to_le_bytes()),
        "a power of two, at most",
    );
    check(&|gguf| gguf.infos[0] = info("a", &[1; 9], 0, 0), "the number of dimensions of tensor `a` is 9");
    check(&|gguf| gguf.infos[0] = info("a", &[1 << 40, 1 << 40], 0, 0), "tensor `a` cannot have the dimensions");
    check(&|gguf| gguf.infos[0] = info("a", &[1 << 62, 2], 0, 0), "tensor `a` cannot have the dimensions");
    check(&|gguf| gguf.infos[0] = info("a", &[0, 2], 0, 0), "none may be 0");
    check(&|gguf| gguf.infos[0] = info("a", &[31], 8, 0), "the first must be a multiple of 32");
    check(&|gguf| gguf.infos[0] = info("a", &[1 << 40], 0, 0), "tensor `a` lies beyond the end of the file");
    check(&|gguf| gguf.infos[0] = info("a", &[1], 0, u64::MAX - 31), "tensor `a` lies beyond the end of the file");
    check(&|gguf| gguf.infos[0] = info("a", &[256], 16, 0), "its type 16 (IQ2_XXS) is not supported");
    check(&|gguf| gguf.infos[0] = info("a", &[256], 77, 0), "its type 77 (unknown to this version)");
    check(&|gguf| gguf.infos[0] = info("a", &[1], 0, 7), "no multiple of 32");
    check(&|gguf| gguf.infos[0] = info("a", &[2], 0, 32), "overlap");
    check(&|gguf| gguf.infos[1] = gguf.infos[0].clone(), "the tensor `a` is there twice");
    assert!(open(b"PK\x03\x04 and more").unwrap_err().contains("does not begin with `GGUF`"));
    assert!(File::open(Path::new("/dev/zero")).unwrap_err().to_string().contains("not a regular file"));
}

trait MapUtf8 {
    fn map_utf8(self) -> Vec<u8>;
}

impl MapUtf8 for Vec<u8> {
    /// The last byte made one that no text has.
    fn map_utf8(mut self) -> Vec<u8> {
        *self.last_mut().unwrap() = 0xff;
        self
    }
}
