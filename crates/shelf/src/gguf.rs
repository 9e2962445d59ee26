//! A GGUF file that is used as it is: its weights stay in the file's own blocks, and what else a folder in Hugging Face
//! layout holds lies in a temporary one meanwhile. Knows no policy.

use narthex_base::{Error, Result};
use narthex_formats::{
    Element,
    gguf::{Imported, TensorType, Weights},
};
use narthex_model::{BlockKind, BlockMatrix, Precision, WeightSource, WeightValues};
use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

/// The ending of such files, whatever its case.
const ENDING: &str = "gguf";

/// Whether a path is one of a GGUF file, by its name.
pub(crate) fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case(ENDING))
}

/// A file, opened.
pub(crate) struct GgufModel {
    path: PathBuf,
    weights: Weights,
    settings: tempfile::TempDir,
    notes: Vec<String>,
}

impl GgufModel {
    /// Opens a file.
    ///
    /// # Errors
    /// If it is no such file, is damaged, or its architecture or tokenizer is not supported.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let temporary = std::env::temp_dir();
        let settings = tempfile::Builder::new()
            .prefix("narthex-gguf-")
            .tempdir()
            .map_err(|error| Error::io("cannot write into", &temporary, error))?;
        let (weights, imported) = Weights::open(path, settings.path())?;
        let card = settings.path().join("README.md");
        std::fs::write(&card, card_of(&imported)).map_err(|error| Error::io("cannot write", &card, error))?;
        Ok(Self { path: path.into(), weights, settings, notes: imported.notes })
    }

    /// Where its config, its tokenizer and a card with what it says of its licence lie, as long as this value lives.
    pub(crate) fn settings(&self) -> &Path {
        self.settings.path()
    }

    /// What a user should know of how it was read.
    pub(crate) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What does justice to most of its numbers: single precision only for such.
    pub(crate) fn precision(&self) -> Precision {
        match self.weights.largest() {
            Some(TensorType::F32) | None => Precision::F32,
            Some(_) => Precision::Bf16,
        }
    }

    fn checked(&self, name: &str, shape: &[usize]) -> Result<()> {
        match self.weights.shape(name) {
            Some(found) if found == shape => Ok(()),
            Some(found) => {
                Err(Error::input(format!("`{name}` has the shape {found:?}, but its config asks for {shape:?}"))
                    .at(self.path.display(), None)
                    .help("the file's weights and metadata do not belong together: fetch or convert the model again"))
            }
            None => Err(Error::input(format!("the weight `{name}` is missing"))
                .at(self.path.display(), None)
                .help("fetch or convert the model again")),
        }
    }
}

impl WeightSource for GgufModel {
    fn values(&self, name: &str, shape: &[usize]) -> Result<WeightValues<'_>> {
        self.checked(name, shape)?;
        let (element, bytes) = self.weights.numbers(name).expect("its shape was found");
        Ok(match (element, bytes) {
            (Element::F32, Cow::Borrowed(bytes)) => WeightValues::F32Bytes(bytes),
            (Element::F16, Cow::Borrowed(bytes)) => WeightValues::F16Bytes(bytes),
            (Element::BF16, Cow::Borrowed(bytes)) => WeightValues::Bf16Bytes(bytes),
            (element, Cow::Owned(bytes)) => {
                let from = match element {
                    Element::F32 => WeightValues::F32Bytes(&bytes),
                    Element::F16 => WeightValues::F16Bytes(&bytes),
                    Element::BF16 => WeightValues::Bf16Bytes(&bytes),
                };
                let mut values = vec![0f32; from.len()];
                from.read(0, &mut values);
                WeightValues::Owned(values)
            }
        })
    }

    fn contains(&self, name: &str) -> bool {
        self.weights.shape(name).is_some()
    }

    fn blocks(&self, name: &str, shape: [usize; 2]) -> Result<Option<BlockMatrix<'_>>> {
        self.checked(name, &shape)?;
        let Some((kind, rows)) = self.weights.rows(name) else { return Ok(None) };
        Ok(kind_of(kind).map(|kind| BlockMatrix { kind, rows }))
    }
}

/// The blocks that products read as they are; none if the numbers are plain.
fn kind_of(kind: TensorType) -> Option<BlockKind> {
    match kind {
        TensorType::F32 | TensorType::F16 | TensorType::BF16 => None,
        TensorType::Q4_0 => Some(BlockKind::Q4_0),
        TensorType::Q4_1 => Some(BlockKind::Q4_1),
        TensorType::Q5_0 => Some(BlockKind::Q5_0),
        TensorType::Q5_1 => Some(BlockKind::Q5_1),
        TensorType::Q8_0 => Some(BlockKind::Q8_0),
        TensorType::Q4_K => Some(BlockKind::Q4_K),
        TensorType::Q5_K => Some(BlockKind::Q5_K),
        TensorType::Q6_K => Some(BlockKind::Q6_K),
    }
}

/// A model card that says what the file says of its licence.
fn card_of(imported: &Imported) -> String {
    let quoted = |text: &String| serde_json::to_string(text).expect("text serializes");
    let line = |key: &str, value: &Option<String>| {
        value.as_ref().map_or_else(String::new, |value| format!("{key}: {}\n", quoted(value)))
    };
    let license = line("license", &imported.license.clone().or(imported.license_name.as_ref().map(|_| "other".into())));
    let (name, link) = (line("license_name", &imported.license_name), line("license_link", &imported.license_link));
    format!("---\n{license}{name}{link}---\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use narthex_formats::gguf::{File, dequantize};
    use narthex_kernels::{BlockValues, PackedWeight};

    /// The file is made by ggml's own Python package (`xtask/goldens`), with every kind of block.
    #[test]
    fn packed_blocks_have_the_values_of_the_file() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/golden/gguf/quants.gguf");
        let file = File::open(&golden).unwrap();
        let mut kinds = 0;
        for (name, tensor) in file.tensors() {
            let Some(kind) = kind_of(tensor.kind) else { continue };
            kinds += 1;
            let inputs = *tensor.shape.last().unwrap();
            let bytes = file.bytes(tensor);
            let rows: Vec<&[u8]> = bytes.chunks_exact(kind.row_bytes(inputs).unwrap()).collect();
            assert_eq!(rows.len() * inputs, tensor.elements(), "{name}");
            let packed = PackedWeight::from_blocks(&[BlockValues { kind, rows: &rows }], inputs);
            let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<u32>>();
            assert_eq!(bits(packed.dequantized()), bits(dequantize(tensor.kind, bytes)), "{name}");
        }
        assert_eq!(kinds, 8, "every kind");
    }

    #[test]
    fn the_card_says_what_the_file_says() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/golden/gguf/llama.gguf");
        let gguf = GgufModel::open(&file).unwrap();
        let card = std::fs::read_to_string(gguf.settings().join("README.md")).unwrap();
        assert_eq!(card, "---\nlicense: \"apache-2.0\"\n---\n");
        let settings = gguf.settings().to_path_buf();
        drop(gguf);
        assert!(!settings.exists(), "nothing is left behind");
    }
}
