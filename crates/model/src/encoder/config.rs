//! Reading a JSON config with complaints that name the key. Knows no architecture.

use narthex_base::{Error, Result};
use narthex_kernels::Activation;
use serde_json::Value;
use std::path::Path;

/// The largest config that is read.
const CONFIG_BYTES_MAX: u64 = 16 << 20;

/// A JSON file.
pub(crate) struct Json(pub(crate) Value);

impl Json {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, is too large, or is not JSON.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let fail = |error| Error::io("cannot read", path, error);
        if std::fs::metadata(path).map_err(fail)?.len() > CONFIG_BYTES_MAX {
            return Err(Error::input("this is too long for a config").at(path.display(), None));
        }
        let bytes = std::fs::read(path).map_err(fail)?;
        Ok(Self(narthex_base::text_file::json_of(bytes, path)?))
    }

    /// The same, or `null` where there is no such file.
    ///
    /// # Errors
    /// As [`Json::read`].
    pub(crate) fn read_optional(path: &Path) -> Result<Self> {
        if path.is_file() { Self::read(path) } else { Ok(Self(Value::Null)) }
    }

    /// `model_type`
    pub(crate) fn family(&self) -> &str {
        self.text("model_type").unwrap_or("(none)")
    }

    /// The first of `architectures`.
    pub(crate) fn architecture(&self) -> &str {
        self.0["architectures"][0].as_str().unwrap_or("")
    }

    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.0[key].as_str()
    }

    /// A whole number above 0 that must be there.
    pub(crate) fn size(&self, key: &str) -> Result<usize> {
        self.optional_size(key).filter(|size| *size > 0).ok_or_else(|| {
            Error::input(format!("the config lacks the number `{key}`")).help("is this a Hugging Face model folder?")
        })
    }

    pub(crate) fn optional_size(&self, key: &str) -> Option<usize> {
        self.0[key].as_u64().and_then(|size| usize::try_from(size).ok())
    }

    /// A number, or what is meant where none is given.
    pub(crate) fn number(&self, key: &str, default: f64) -> Result<f64> {
        match &self.0[key] {
            Value::Null => Ok(default),
            value => {
                value.as_f64().ok_or_else(|| Error::input(format!("`{key}` in the config is {value}, not a number")))
            }
        }
    }

    pub(crate) fn flag(&self, key: &str) -> bool {
        self.0[key].as_bool() == Some(true)
    }

    /// Refuses a key that is there and true.
    pub(crate) fn refuse_true(&self, key: &str) -> Result<()> {
        if self.flag(key) { Err(unsupported(key, "true", "false")) } else { Ok(()) }
    }

    /// Refuses a text other than those known; absent is fine.
    pub(crate) fn refuse_unless(&self, key: &str, known: &[&str]) -> Result<()> {
        match self.text(key) {
            Some(wanted) if !known.contains(&wanted) => Err(unsupported(key, wanted, &known.join(", "))),
            _ => Ok(()),
        }
    }

    /// Width of a head.
    pub(crate) fn head_width(&self, hidden_size: usize, heads: usize) -> Result<usize> {
        if !hidden_size.is_multiple_of(2 * heads) {
            return Err(Error::input(format!("{heads} heads do not divide a width of {hidden_size} into even parts")));
        }
        Ok(hidden_size / heads)
    }

    /// An activation function by Hugging Face's name.
    pub(crate) fn activation(&self, key: &str) -> Result<Activation> {
        match self.text(key).unwrap_or("gelu") {
            "gelu" | "gelu_python" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Activation::GeluTanh),
            "silu" | "swish" => Ok(Activation::Silu),
            other => Err(unsupported(key, other, "gelu, gelu_new, gelu_pytorch_tanh, silu")),
        }
    }

    /// Whether it is that of a classifier of sequences.
    pub(crate) fn is_classifier(&self) -> bool {
        self.architecture().ends_with("ForSequenceClassification")
    }

    /// How many labels a classifier has.
    pub(crate) fn labels(&self) -> usize {
        let named = self.0["id2label"].as_object().map(|labels| labels.len());
        named.or(self.optional_size("num_labels")).unwrap_or(2)
    }
}

/// An error that names what a config asks for, and what there is.
pub(crate) fn unsupported(key: &str, wanted: &str, known: &str) -> Error {
    Error::input(format!("config asks for {key} = {wanted}, which is not supported"))
        .help(format!("supported: {known}"))
}
