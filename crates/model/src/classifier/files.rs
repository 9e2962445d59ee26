//! Classifiers read from folders and written to them, as transformers' `AutoModelForSequenceClassification` has them.

use super::{Classifier, Form, Network, tensors};
use crate::{
    config::ModelConfig,
    decoder::Decoder,
    device::cpu,
    encoder::{self, Encoder, Head, HeadShape, Json},
    integer_folder::ModelWeights,
    maker::{Fresh, Maker, Packing, Stored},
    mapped::{Mapped, to_theirs},
    weights::{StoredWeights, TensorMap, WeightSource, write_safetensors},
};
use burn::tensor::Device;
use narthex_base::{Error, Result};
use narthex_kernels::Precision;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Labels that a classifier may have.
const LABELS_MAX: usize = 1 << 16;

impl Classifier {
    /// Reads a folder in Hugging Face layout, of an encoder or a decoder, with the classifier that it holds. With other
    /// `labels` than the folder's, or where it holds no classifier, what the head lacks is drawn by counter from the
    /// seed.
    ///
    /// # Errors
    /// If files are missing or broken, the config asks for something that is not supported, labels are none or
    /// named twice, or there are none given and none in the folder.
    pub fn read(folder: &Path, labels: Option<&[String]>, seed: u64, device: &Device) -> Result<Self> {
        read(
            folder,
            labels,
            |weights| Box::new(Stored { weights, device: device.clone(), frozen: None }),
            &Fresh { seed, device },
        )
    }

    /// Reads a folder that holds a classifier for inference on the CPU: weights are packed as they are read. Without a
    /// precision it is that of the file: bf16 for 16 bits, else f32.
    ///
    /// # Errors
    /// As [`Classifier::read`].
    pub fn read_packed(folder: &Path, precision: Option<Precision>) -> Result<Self> {
        let precision = match precision {
            Some(precision) => precision,
            None => ModelWeights::open(folder)?.precision(),
        };
        let fresh = Fresh { seed: 0, device: &cpu() };
        Ok(read(folder, None, |weights| Box::new(Packing { weights, precision }), &fresh)?.with_precision(precision))
    }

    /// Writes `config.json` and `model.safetensors`, with the names of its family and adapters merged, as
    /// `AutoModelForSequenceClassification` reads them. The tokenizer's files are the caller's.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let merged = self.clone().merged();
        let (mut weights, config): (TensorMap, &ModelConfig) = match &merged.network {
            Network::Encoder(encoder) => (tensors(encoder), &encoder.config().shape),
            Network::Decoder(decoder) => (tensors(decoder), decoder.config()),
        };
        weights = to_theirs(config, weights);
        let prefix = config.design.family.weights.prefix;
        // The pooler is a part of BERT's own, with what stands before its names.
        let head = merged.head_tensors();
        let is_own = |name: &str| name.starts_with("pooler.");
        let longer = |name: String| if name.starts_with(prefix) { name } else { format!("{prefix}{name}") };
        weights = weights.into_iter().map(|(name, tensor)| (longer(name), tensor)).collect();
        weights
            .extend(head.into_iter().map(|(name, tensor)| (if is_own(&name) { longer(name) } else { name }, tensor)));
        let path = folder.join("config.json");
        let text = serde_json::to_string_pretty(&self.config_json()).expect("JSON serializes");
        std::fs::write(&path, text + "\n").map_err(|error| Error::io("cannot write", &path, error))?;
        write_safetensors(&folder.join("model.safetensors"), &weights)
    }

    /// `config.json` as it was read, as that of a classifier with these labels.
    fn config_json(&self) -> Value {
        let Form { labels, source, .. } = &self.form;
        let mut config = source.clone();
        let named = labels.iter().enumerate();
        config["id2label"] =
            named.clone().map(|(i, label)| (i.to_string(), json!(label))).collect::<Map<_, _>>().into();
        config["label2id"] = named.map(|(i, label)| (label.clone(), json!(i))).collect::<Map<_, _>>().into();
        config["architectures"] = json!([class(source)]);
        config["problem_type"] = json!("single_label_classification");
        let dtype = if source.get("torch_dtype").is_some() { "torch_dtype" } else { "dtype" };
        config[dtype] = json!("float32");
        if let Some(config) = config.as_object_mut() {
            // It must not say another number than the labels do.
            config.remove("num_labels");
        }
        config
    }
}

/// Transformers' class for classifying with the model of a config.
fn class(config: &Value) -> String {
    let stem = match config["model_type"].as_str().unwrap_or_default() {
        "bert" => "Bert",
        "roberta" => "Roberta",
        "xlm-roberta" => "XLMRoberta",
        "modernbert" => "ModernBert",
        _ => {
            let class = config["architectures"][0].as_str().unwrap_or("LlamaForCausalLM");
            let ends = ["ForSequenceClassification", "ForCausalLM", "LMHeadModel", "Model"];
            ends.iter().find_map(|end| class.strip_suffix(end)).unwrap_or(class)
        }
    };
    format!("{stem}ForSequenceClassification")
}

/// Reads a folder, `maker` making what it holds.
fn read(
    folder: &Path,
    asked: Option<&[String]>,
    maker: impl for<'a> Fn(&'a dyn WeightSource) -> Box<dyn Maker + 'a>,
    fresh: &Fresh,
) -> Result<Classifier> {
    let path = folder.join("config.json");
    let config = Json::read(&path)?;
    let read = || {
        let own = own_labels(&config);
        let labels = match (asked, &own) {
            (Some(labels), _) => labels.to_vec(),
            (None, Some(own)) => own.clone(),
            (None, None) => {
                return Err(Error::input("this model is no classifier").help(
                    "fine-tune it with labels, or choose one whose architecture ends in ForSequenceClassification",
                ));
            }
        };
        check(&labels)?;
        // Without labels asked for it is the folder's own head, and that must be whole.
        let same = own.is_some_and(|own| own == labels);
        let whole = asked.is_none();
        if encoder::is_family(&config) {
            let shape = encoder::config_of(&config)?;
            let head = HeadShape::of_encoder(&config, shape.shape.rms_norm_eps)?;
            let stored = StoredWeights::open(folder)?;
            let named = Mapped::new(&shape.shape, &stored);
            let maker = maker(&named);
            let network = Network::Encoder(Encoder::made(shape.clone(), &*maker, Precision::default())?);
            let form = Form { head, labels, source: config.0.clone() };
            let classifier =
                classifier(network, form, &Parts { whole, same, weights: &named, stored: &*maker, fresh })?;
            stored.refuse_unused(encoder::ignored)?;
            return Ok(classifier);
        }
        // The output projection is of no use here.
        let shape = ModelConfig { tied_embeddings: true, ..ModelConfig::read(&path)? };
        let stored = ModelWeights::open(folder)?;
        let named = Mapped::new(&shape, &stored);
        let maker = maker(&named);
        let network = Network::Decoder(Decoder::made(&shape, &*maker)?);
        let form = Form { head: HeadShape::of_decoder(), labels, source: config.0.clone() };
        let classifier = classifier(network, form, &Parts { whole, same, weights: &named, stored: &*maker, fresh })?;
        // That of other labels.
        stored.ignore("score.weight");
        stored.all_used(&shape)?;
        Ok(classifier)
    };
    read().map_err(|error| if error.place().is_some() { error } else { error.at(path.display(), None) })
}

/// Where the parts of a head come from.
struct Parts<'a> {
    /// Whether all must be in the folder.
    whole: bool,
    /// Whether the folder's last part is meant for the same labels.
    same: bool,
    weights: &'a dyn WeightSource,
    stored: &'a dyn Maker,
    fresh: &'a Fresh<'a>,
}

/// With the head's parts from the folder, as far as they are there and, of the last, meant for the same labels.
fn classifier(network: Network, form: Form, parts: &Parts) -> Result<Classifier> {
    let width = match &network {
        Network::Encoder(encoder) => encoder.config().shape.hidden_size,
        Network::Decoder(decoder) => decoder.config().hidden_size,
    };
    let out = form.head.out;
    let part = |name: &str| {
        let found = parts.weights.contains(&format!("{name}.weight")) && (name != out || parts.same);
        if parts.whole || found { parts.stored } else { parts.fresh as &dyn Maker }
    };
    let head = Head::made(&form.head, width, form.labels.len(), &part)?;
    Ok(Classifier { network, head, form })
}

/// The labels of the classifier in a folder, if it holds one.
fn own_labels(config: &Json) -> Option<Vec<String>> {
    if !config.is_classifier() {
        return None;
    }
    let count = config.labels();
    let label = |i: usize| config.0["id2label"][i.to_string()].as_str().map_or(format!("LABEL_{i}"), str::to_string);
    Some((0..count.min(LABELS_MAX + 1)).map(label).collect())
}

fn check(labels: &[String]) -> Result<()> {
    if labels.is_empty() || labels.len() > LABELS_MAX {
        return Err(Error::input(format!("a classifier of {} labels", labels.len()))
            .help(format!("give it between 1 and {LABELS_MAX}")));
    }
    let mut sorted: Vec<&String> = labels.iter().collect();
    sorted.sort();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Error::input(format!("the label `{}` is there twice", pair[0])).help("name each label once")),
        None => Ok(()),
    }
}
