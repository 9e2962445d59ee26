//! safetensors files: f32, bf16 and f16 on reading, whole or sharded; f32 on writing.

use crate::{block_matrix::BlockMatrix, config::ModelConfig, quantize::QuantizedMatrix, tensor_file::TensorFile};
use memmap2::Mmap;
use narthex_base::{Error, Result};
use narthex_kernels::{PackedWeight, Precision, Quantization, WeightValues};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs::File,
    ops::Range,
    path::{Path, PathBuf},
};

/// Name -> (shape, values), all in single precision.
pub type TensorMap = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Where a model's weights come from.
pub trait WeightSource {
    /// The values of a tensor of this name and shape.
    ///
    /// # Errors
    /// If there is none, or it has another shape.
    fn values(&self, name: &str, shape: &[usize]) -> Result<WeightValues<'_>>;

    /// Whether there is one of this name.
    fn contains(&self, name: &str) -> bool;

    /// The matrix of this name and shape `[O, I]`, if it is kept as integers.
    ///
    /// # Errors
    /// If what belongs to it is missing, or has the wrong size.
    fn matrix(&self, _name: &str, _shape: [usize; 2]) -> Result<Option<QuantizedMatrix>> {
        Ok(None)
    }

    /// The matrix of this name and shape `[O, I]`, if it is kept in the blocks of a GGUF file.
    ///
    /// # Errors
    /// If it has another shape.
    fn blocks(&self, _name: &str, _shape: [usize; 2]) -> Result<Option<BlockMatrix<'_>>> {
        Ok(None)
    }

    /// What a matrix that is kept as numbers becomes when it is packed; numbers, if none.
    fn rounding(&self, _name: &str, _shape: [usize; 2]) -> Option<Quantization> {
        None
    }

    /// Matrices that share their input, by name and shape, packed one below the other for inference.
    ///
    /// # Errors
    /// As [`WeightSource::values`].
    fn packed(&self, names: &[(String, [usize; 2])], precision: Precision) -> Result<PackedWeight> {
        let inputs = names[0].1[1];
        let parts = names.iter().map(|(name, shape)| self.matrix(name, *shape)).collect::<Result<Vec<_>>>()?;
        if parts.iter().all(Option::is_some) {
            return QuantizedMatrix::pack(parts.into_iter().flatten().collect(), inputs);
        }
        let parts = names.iter().map(|(name, shape)| self.blocks(name, *shape)).collect::<Result<Vec<_>>>()?;
        if parts.iter().all(Option::is_some) {
            return BlockMatrix::pack(&parts.into_iter().flatten().collect::<Vec<_>>(), inputs);
        }
        let parts = names.iter().map(|(name, shape)| self.values(name, shape)).collect::<Result<Vec<_>>>()?;
        Ok(match self.rounding(&names[0].0, names[0].1) {
            Some(kind) => PackedWeight::quantized(&parts, inputs, kind),
            None => PackedWeight::new(&parts, inputs, precision),
        })
    }
}

/// An error that says that weights and config do not fit.
pub(crate) fn mismatch(what: String) -> Error {
    Error::input(what).help("the weights and config.json do not belong together: fetch or export the model again")
}

fn missing(name: &str) -> Error {
    mismatch(format!("tensor `{name}` is missing"))
}

fn check_shape(name: &str, found: &[usize], wanted: &[usize]) -> Result<()> {
    if found == wanted {
        return Ok(());
    }
    Err(mismatch(format!("tensor `{name}` has shape {found:?}, but the config asks for {wanted:?}")))
}

/// What files may hold besides: constants that old exporters wrote and that are recomputed here.
const COMPUTED: [&str; 5] =
    ["rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias"];

/// What is wrong with tensors that no part of the model asked for; the first by name counts.
pub(crate) fn unknown_tensor<'a>(names: impl Iterator<Item = &'a String>, config: &ModelConfig) -> Option<String> {
    // The tied matrix may be written twice.
    let known_extra = |name: &str| {
        let head = config.design.family.weights.module("lm_head") + ".weight";
        COMPUTED.iter().any(|end| name.ends_with(end)) || (name == head && config.tied_embeddings)
    };
    let name = names.filter(|name| !known_extra(name)).min()?;
    Some(format!("tensor `{name}` is not part of this architecture"))
}

impl WeightSource for TensorMap {
    fn values(&self, name: &str, shape: &[usize]) -> Result<WeightValues<'_>> {
        let (found, values) = self.get(name).ok_or_else(|| missing(name))?;
        check_shape(name, found, shape)?;
        Ok(WeightValues::F32(values))
    }

    fn contains(&self, name: &str) -> bool {
        self.contains_key(name)
    }
}

/// safetensors files as they lie on the disk.
pub struct StoredWeights {
    files: Vec<(PathBuf, Mmap)>,
    tensors: BTreeMap<String, Stored>,
    used: RefCell<BTreeSet<String>>,
}

/// A tensor as it is stored.
pub(crate) struct RawTensor<'a> {
    pub(crate) dtype: Dtype,
    pub(crate) shape: &'a [usize],
    pub(crate) bytes: &'a [u8],
}

struct Stored {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

impl StoredWeights {
    /// Opens `model.safetensors`, or the shards that `model.safetensors.index.json` names, in a folder.
    ///
    /// # Errors
    /// If there are no weights, or a file is broken or truncated.
    pub fn open(folder: &Path) -> Result<Self> {
        let single = folder.join("model.safetensors");
        if single.is_file() {
            return Self::of_files(vec![single]);
        }
        let index = folder.join("model.safetensors.index.json");
        if !index.is_file() {
            return Err(Error::input("there are no weights in this folder").at(folder.display(), None).help(
                "expected model.safetensors or model.safetensors.index.json; a .bin checkpoint can be converted with `save_pretrained(…, safe_serialization=True)`",
            ));
        }
        Self::of_files(shard_paths(folder, &index)?)
    }

    fn of_files(paths: Vec<PathBuf>) -> Result<Self> {
        let mut all = Self { files: vec![], tensors: BTreeMap::new(), used: RefCell::default() };
        for (number, path) in paths.into_iter().enumerate() {
            let file = File::open(&path).map_err(|error| Error::io("cannot read", &path, error))?;
            // SAFETY: the map is read-only and lives in this value; a file that another process truncates meanwhile
            // can end the process with SIGBUS, but cannot be written through or read out of bounds.
            let map = unsafe { Mmap::map(&file) }.map_err(|error| Error::io("cannot read", &path, error))?;
            let tensors = SafeTensors::deserialize(&map).map_err(|error| {
                Error::input("not a whole safetensors file")
                    .at(path.display(), None)
                    .cause(error)
                    .help(format!("it has {} bytes; fetch or copy it again", map.len()))
            })?;
            for (name, view) in tensors.iter() {
                let start = view.data().as_ptr() as usize - map.as_ptr() as usize;
                let bytes = start..start + view.data().len();
                let stored = Stored { file: number, dtype: view.dtype(), shape: view.shape().to_vec(), bytes };
                all.tensors.insert(renamed(name), stored);
            }
            all.files.push((path, map));
        }
        Ok(all)
    }

    /// The precision that does justice to the largest tensor: bf16 if it has 16 bits, else f32.
    pub fn precision(&self) -> Precision {
        match self.tensors.values().max_by_key(|stored| stored.bytes.len()).map(|stored| stored.dtype) {
            Some(Dtype::BF16 | Dtype::F16) => Precision::Bf16,
            _ => Precision::F32,
        }
    }

    /// A tensor by name, which counts as used.
    pub(crate) fn raw(&self, name: &str) -> Option<RawTensor<'_>> {
        let stored = self.tensors.get(name)?;
        self.used.borrow_mut().insert(name.into());
        let bytes = &self.files[stored.file].1[stored.bytes.clone()];
        Some(RawTensor { dtype: stored.dtype, shape: &stored.shape, bytes })
    }

    /// All tensors, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The files without their folders.
    pub(crate) fn file_names(&self) -> Vec<String> {
        let name = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
        self.files.iter().filter_map(|(path, _)| name(path)).collect()
    }

    /// The file that a tensor lies in.
    pub(crate) fn file_of(&self, name: &str) -> Option<&str> {
        self.files[self.tensors.get(name)?.file].0.file_name()?.to_str()
    }

    /// Names and shapes of all tensors.
    pub fn shapes(&self) -> impl Iterator<Item = (String, Vec<usize>)> {
        self.tensors.iter().map(|(name, stored)| (name.clone(), stored.shape.clone()))
    }

    fn stored(&self, name: &str, stored: &Stored) -> Result<WeightValues<'_>> {
        let (path, map) = &self.files[stored.file];
        let bytes = &map[stored.bytes.clone()];
        match stored.dtype {
            Dtype::F32 => Ok(WeightValues::F32Bytes(bytes)),
            Dtype::BF16 => Ok(WeightValues::Bf16Bytes(bytes)),
            Dtype::F16 => Ok(WeightValues::F16Bytes(bytes)),
            other => Err(Error::input(format!("tensor `{name}` has dtype {other:?}, which is not supported"))
                .at(path.display(), None)
                .help("supported: F32, BF16, F16")),
        }
    }

    fn to_map(&self) -> Result<TensorMap> {
        let tensors = self.tensors.iter().map(|(name, stored)| {
            let from = self.stored(name, stored)?;
            let mut values = vec![0f32; from.len()];
            from.read(0, &mut values);
            Ok((name.clone(), (stored.shape.clone(), values)))
        });
        tensors.collect()
    }

    /// Counts a tensor as used that is of no use here.
    pub(crate) fn ignore(&self, name: &str) {
        self.used.borrow_mut().insert(name.into());
    }

    /// Refuses files that hold more than was asked for, but for what is known to be of no use.
    pub(crate) fn refuse_unused(&self, ignored: impl Fn(&str) -> bool) -> Result<()> {
        let used = self.used.borrow();
        match self.names().find(|name| !used.contains(*name) && !ignored(name)) {
            Some(name) => Err(mismatch(format!("tensor `{name}` is not part of this architecture"))),
            None => Ok(()),
        }
    }

    /// Refuses files that hold more than was asked for.
    pub(crate) fn all_used(&self, config: &ModelConfig) -> Result<()> {
        let used = self.used.borrow();
        match unknown_tensor(self.tensors.keys().filter(|name| !used.contains(*name)), config) {
            Some(what) => Err(mismatch(what)),
            None => Ok(()),
        }
    }
}

impl WeightSource for StoredWeights {
    fn values(&self, name: &str, shape: &[usize]) -> Result<WeightValues<'_>> {
        let stored = self.tensors.get(name).ok_or_else(|| missing(name))?;
        check_shape(name, &stored.shape, shape)?;
        self.used.borrow_mut().insert(name.into());
        self.stored(name, stored)
    }

    fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }
}

fn shard_paths(folder: &Path, index: &Path) -> Result<Vec<PathBuf>> {
    let broken = |line: usize, cause: String| {
        Error::input("the index of the weights is not valid").at(index.display(), line).cause(cause)
    };
    let text = std::fs::read_to_string(index).map_err(|error| Error::io("cannot read", index, error))?;
    let value: Value = serde_json::from_str(&text).map_err(|error| broken(error.line(), error.to_string()))?;
    let map = value["weight_map"].as_object().ok_or_else(|| broken(1, "it has no `weight_map`".into()))?;
    let mut names = BTreeSet::new();
    for file in map.values() {
        let name = file.as_str().ok_or_else(|| broken(1, "a shard is not named by a string".into()))?;
        if name.contains(['/', '\\']) || name.contains("..") {
            return Err(broken(1, format!("`{name}` leaves the folder")));
        }
        names.insert(folder.join(name));
    }
    Ok(names.into_iter().collect())
}

/// Reads one safetensors file.
///
/// # Errors
/// If it cannot be read, is broken or truncated, or holds a dtype other than F32, BF16, F16.
pub fn read_safetensors(path: &Path) -> Result<TensorMap> {
    StoredWeights::of_files(vec![path.into()])?.to_map()
}

/// The name of a tensor today: BERT's first checkpoints, converted from TensorFlow, call a norm's parameters otherwise,
/// and transformers renames them too.
fn renamed(name: &str) -> String {
    for (old, new) in [("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")] {
        if let Some(before) = name.strip_suffix(old) {
            return format!("{before}{new}");
        }
    }
    name.into()
}

/// Writes one safetensors file in f32; the same tensors always give the same bytes.
///
/// # Errors
/// If the file cannot be written whole.
pub fn write_safetensors(path: &Path, tensors: &TensorMap) -> Result<()> {
    let shapes = tensors.iter().map(|(name, (shape, _))| (name.clone(), shape.clone())).collect();
    let file = TensorFile::create(path, &shapes)?;
    tensors.iter().try_for_each(|(name, (_, values))| file.write(name, 0, values))
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};
    use safetensors::tensor::TensorView;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn tensors() -> TensorMap {
        TensorMap::from([
            ("a".into(), (vec![2, 3], vec![0.0, 1.0, -2.5, 3.0, 4.0, 1e-20])),
            ("b".into(), (vec![1], vec![7.0])),
        ])
    }

    #[test]
    fn written_and_read_back_with_the_same_bytes() {
        let folder = folder();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        write_safetensors(&one, &tensors()).unwrap();
        write_safetensors(&two, &tensors()).unwrap();
        assert_eq!(read_safetensors(&one).unwrap(), tensors());
        assert_eq!(std::fs::read(one).unwrap(), std::fs::read(two).unwrap());
    }

    #[test]
    fn half_precision_is_widened() {
        let folder = folder();
        let path = folder.path().join("x.safetensors");
        let (b, h) = (bf16::from_f32(1.5).to_le_bytes(), f16::from_f32(-0.25).to_le_bytes());
        let views =
            [("b", Dtype::BF16, b), ("h", Dtype::F16, h)].map(|(name, dtype, data)| (name, dtype, data.to_vec()));
        let views: Vec<_> =
            views.iter().map(|(n, dtype, data)| (*n, TensorView::new(*dtype, vec![1], data).unwrap())).collect();
        std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
        let read = read_safetensors(&path).unwrap();
        assert_eq!((read["b"].1[0], read["h"].1[0]), (1.5, -0.25));
    }

    #[test]
    fn every_truncation_is_refused() {
        let folder = folder();
        let path = folder.path().join("x.safetensors");
        write_safetensors(&path, &tensors()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for len in 0..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            assert!(read_safetensors(&path).is_err(), "{len} of {} bytes were accepted", whole.len());
        }
    }

    #[test]
    fn shards_stay_in_the_folder() {
        let folder = folder();
        let index = folder.path().join("model.safetensors.index.json");
        std::fs::write(&index, r#"{"weight_map": {"a": "../outside.safetensors"}}"#).unwrap();
        let error = StoredWeights::open(folder.path()).err().unwrap();
        assert!(error.to_string().contains("leaves the folder"), "{error}");
        std::fs::remove_file(index).unwrap();
        assert!(StoredWeights::open(folder.path()).err().unwrap().to_string().contains("no weights"));
    }
}
