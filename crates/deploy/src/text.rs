//! What several targets write: a head, flags of the server, words that YAML takes for text. Pure.

use crate::{
    memory::Memory,
    options::{Bundle, DeployOptions},
};
use narthex_base::Error;

/// A word in quotes, as JSON and YAML both read it.
pub(crate) fn quoted(word: &str) -> String {
    let mut text = String::from("\"");
    for letter in word.chars() {
        match letter {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            c if c.is_control() => text.push(' '),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

/// What is deployed, as comments at the top of a file.
pub(crate) fn head(bundle: &Bundle, options: &DeployOptions, what: &str) -> String {
    let plain = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
    let licenses = if bundle.licenses.is_empty() { "not declared".into() } else { bundle.licenses.join(", ") };
    let memory = Memory::of(bundle, options);
    format!(
        "# {what}, written by `narthex deploy`. Change it as you like: the next `narthex deploy` shows what you changed.\n\
         # model {} ({}), licence: {}\n\
         # memory {} MiB: weights {}, keys and values {}, the rest to work with\n",
        plain(&bundle.name),
        &bundle.digest[..bundle.digest.len().min(12)],
        plain(&licenses),
        memory.mebibytes(),
        bundle.weights_bytes.div_ceil(1 << 20),
        memory.kv_bytes >> 20,
    )
}

/// Flags of `narthex serve` but for the model, its address and its keys.
pub(crate) fn serve_flags(bundle: &Bundle, options: &DeployOptions) -> Vec<String> {
    let mut flags: Vec<String> = vec!["--served-model-name".into(), bundle.name.clone()];
    let memory = Memory::of(bundle, options);
    if memory.kv_bytes > 0 {
        flags.extend(["--max-num-seqs".into(), options.sequences.to_string()]);
        flags.extend(["--kv-cache-memory-bytes".into(), memory.kv_bytes.to_string()]);
        if let Some(context) = options.context {
            flags.extend(["--max-model-len".into(), context.to_string()]);
        }
    }
    flags
}

/// A target that cannot do what is wished for.
pub(crate) fn unfit(what: &str, help: &str) -> Error {
    Error::usage(what).help(help)
}
