//! Weights in a Hugging Face folder: safetensors files, one or several, read where they lie and written tensor by
//! tensor. Knows names, shapes and bytes.

use crate::bytes::{map, shown};
use half::{bf16, f16};
use memmap2::Mmap;
use narthex_base::{Error, Result};
use safetensors::{Dtype, SafeTensors, View};
use serde_json::{Map, Value};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
    path::{Path, PathBuf},
};

/// The largest `config.json`, `tokenizer.json` or index that is read.
const JSON_BYTES_MAX: u64 = 1 << 28;

/// The number formats that weights are kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// Single precision, 32 bits a value.
    F32,
    /// 16 bits, IEEE.
    F16,
    /// The upper 16 of 32 bits.
    BF16,
}

impl Element {
    /// Bytes of one value.
    pub fn width(self) -> usize {
        match self {
            Element::F32 => 4,
            Element::F16 | Element::BF16 => 2,
        }
    }

    /// The name that transformers gives the type.
    pub fn name(self) -> &'static str {
        match self {
            Element::F32 => "float32",
            Element::F16 => "float16",
            Element::BF16 => "bfloat16",
        }
    }

    fn dtype(self) -> Dtype {
        match self {
            Element::F32 => Dtype::F32,
            Element::F16 => Dtype::F16,
            Element::BF16 => Dtype::BF16,
        }
    }

    /// The values in little-endian bytes.
    pub(crate) fn widen(self, bytes: &[u8]) -> Vec<f32> {
        let pairs = || bytes.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
        match self {
            Element::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            Element::F16 => pairs().map(|pair| f16::from_le_bytes(pair).to_f32()).collect(),
            Element::BF16 => pairs().map(|pair| bf16::from_le_bytes(pair).to_f32()).collect(),
        }
    }

    /// Little-endian bytes of values, rounded to nearest even.
    pub(crate) fn narrow(self, values: &[f32]) -> Vec<u8> {
        match self {
            Element::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Element::F16 => values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
            Element::BF16 => values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect(),
        }
    }
}

/// A tensor to be written; its bytes are made when it is its turn.
pub(crate) struct Entry<'a> {
    pub element: Element,
    pub shape: Vec<usize>,
    pub bytes: Box<dyn Fn() -> Cow<'a, [u8]> + 'a>,
}

impl View for Entry<'_> {
    fn dtype(&self) -> Dtype {
        self.element.dtype()
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        (self.bytes)()
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.element.width()
    }
}

/// Writes one safetensors file.
pub(crate) fn write(path: &Path, entries: BTreeMap<String, Entry>) -> Result<()> {
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::serialize_to_file(entries, Some(metadata), path).map_err(|error| match error {
        safetensors::SafeTensorError::IoError(error) => Error::io("cannot write", path, error),
        other => Error::internal(format!("cannot encode {}: {other}", path.display())),
    })
}

/// Writes a text file.
pub(crate) fn write_text(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|error| Error::io("cannot write", path, error))
}

/// Writes JSON for people to read.
pub(crate) fn write_json(path: &Path, value: &Value) -> Result<()> {
    write_text(path, &(serde_json::to_string_pretty(value).expect("JSON serializes") + "\n"))
}

/// Reads a JSON object; none if there is no such file.
pub(crate) fn read_json(path: &Path) -> Result<Option<Map<String, Value>>> {
    let len = match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("cannot read", path, error)),
        Ok(metadata) => metadata.len(),
    };
    if len > JSON_BYTES_MAX {
        return Err(Error::input(format!("this has {len} bytes, more than {JSON_BYTES_MAX}")).at(path.display(), None));
    }
    let bytes = map(path)?;
    let broken = |line, cause: String| Error::input("this is not a JSON object").at(path.display(), line).cause(cause);
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(object)) => Ok(Some(object)),
        Ok(_) => Err(broken(None, "it begins otherwise".into())),
        Err(error) => Err(broken(Some(error.line()), error.to_string())),
    }
}

/// The shards that an index names, each once, in order.
pub(crate) fn shards(index: &Path) -> Result<Vec<PathBuf>> {
    let fail = |what: &str| Error::input(what).at(index.display(), None);
    let object = read_json(index)?.ok_or_else(|| fail("there is no such file"))?;
    let weight_map = object.get("weight_map").and_then(Value::as_object);
    let weight_map = weight_map.ok_or_else(|| fail("the index has no `weight_map`"))?;
    let folder = index.parent().unwrap_or(Path::new("."));
    let mut names = BTreeSet::new();
    for name in weight_map.values() {
        let name = name.as_str().ok_or_else(|| fail("a shard is not named by a text"))?;
        if name.is_empty() || name.contains(['/', '\\', '\0']) || name.contains("..") {
            return Err(fail(&format!("the shard `{}` leaves the folder", shown(name))));
        }
        names.insert(folder.join(name));
    }
    Ok(names.into_iter().collect())
}

/// The weights of a folder.
pub(crate) struct Weights {
    maps: Vec<Mmap>,
    tensors: BTreeMap<String, (usize, Element, Vec<usize>, Range<usize>)>,
}

impl Weights {
    /// Opens `model.safetensors`, or what `model.safetensors.index.json` names.
    pub fn open(folder: &Path) -> Result<Self> {
        let (single, index) = (folder.join("model.safetensors"), folder.join("model.safetensors.index.json"));
        let paths = match (single.is_file(), index.is_file()) {
            (true, _) => vec![single],
            (false, true) => shards(&index)?,
            (false, false) => {
                return Err(Error::input("there are no weights in this folder")
                    .at(folder.display(), None)
                    .help("expected model.safetensors or model.safetensors.index.json"));
            }
        };
        let mut all = Self { maps: vec![], tensors: BTreeMap::new() };
        for path in paths {
            all.add(&path)?;
        }
        Ok(all)
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let map = map(path)?;
        let broken = |cause: String| {
            Error::input("not a whole safetensors file")
                .at(path.display(), None)
                .cause(cause)
                .help(format!("it has {} bytes; fetch or copy it again", map.len()))
        };
        let file = SafeTensors::deserialize(&map).map_err(|error| broken(error.to_string()))?;
        for (name, view) in file.iter() {
            let element = match view.dtype() {
                Dtype::F32 => Element::F32,
                Dtype::F16 => Element::F16,
                Dtype::BF16 => Element::BF16,
                other => {
                    return Err(Error::input(format!("tensor `{}` has the type {other:?}", shown(name)))
                        .at(path.display(), None)
                        .help("supported: F32, F16, BF16"));
                }
            };
            let start = view.data().as_ptr() as usize - map.as_ptr() as usize;
            let tensor = (self.maps.len(), element, view.shape().to_vec(), start..start + view.data().len());
            if self.tensors.insert(name.to_string(), tensor).is_some() {
                return Err(broken(format!("tensor `{}` is in another shard too", shown(name))));
            }
        }
        self.maps.push(map);
        Ok(())
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor: its format, its shape, its bytes.
    pub fn get(&self, name: &str) -> Option<(Element, &[usize], &[u8])> {
        let (file, element, shape, bytes) = self.tensors.get(name)?;
        Some((*element, shape, &self.maps[*file][bytes.clone()]))
    }
}
