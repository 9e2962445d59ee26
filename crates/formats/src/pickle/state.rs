//! A state dict: tensors by name, each held against the bytes that are there for it. Knows nothing of models.

use super::{
    archive, legacy,
    machine::{self, Heap, Scalar, Value, unpickle},
};
use crate::{
    bytes::{map, shown},
    weights::Element,
};
use memmap2::Mmap;
use narthex_base::{Error, Result};
use std::{
    borrow::Cow,
    collections::{BTreeMap, btree_map::Entry},
    ops::Range,
    path::Path,
};

/// How often an element of a storage may be in a tensor that repeats elements (stride 0).
const REPEATS_MAX: u64 = 16;
/// The bytes of all tensors together, in bytes of the file. More than 1 only where tensors share storages.
const COPIES_MAX: u64 = 8;
/// Where training scripts put the model's part of what they save, in the order of preference.
const WRAPPERS: [&str; 4] = ["state_dict", "model_state_dict", "model", "module"];

/// A tensor in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateTensor {
    /// How its values are stored.
    pub element: Element,
    /// The sizes of the dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Distances between neighbours of each dimension, in elements.
    strides: Vec<usize>,
    /// From its first element to the end of its storage.
    bytes: Range<usize>,
}

impl StateTensor {
    /// Whether its elements lie in the file as they are written out. A dimension of 1 may have any stride.
    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(size, stride)| {
            let fits = *size == 1 || *stride == expected;
            expected *= size;
            fits
        })
    }
}

/// The tensors of a checkpoint; their bytes stay in the file, which is mapped into memory.
#[derive(Debug)]
pub struct StateDict {
    map: Mmap,
    tensors: BTreeMap<String, StateTensor>,
    passed_over: Vec<String>,
}

impl StateDict {
    /// All tensors of floating-point numbers by name.
    pub fn tensors(&self) -> &BTreeMap<String, StateTensor> {
        &self.tensors
    }

    /// The names of what else is there: whole numbers, truth values, counters, texts.
    pub fn passed_over(&self) -> &[String] {
        &self.passed_over
    }

    /// The elements of one of its tensors, outermost dimension first, little-endian.
    pub fn bytes(&self, tensor: &StateTensor) -> Cow<'_, [u8]> {
        let stored = &self.map[tensor.bytes.clone()];
        let width = tensor.element.width();
        // Held against its storage on reading, as are the sums below.
        let elements: usize = tensor.shape.iter().product();
        if elements == 0 || tensor.is_contiguous() {
            return Cow::Borrowed(&stored[..elements * width]);
        }
        let mut bytes = Vec::with_capacity(elements * width);
        let mut place = vec![0; tensor.shape.len()];
        for _ in 0..elements {
            let at = place.iter().zip(&tensor.strides).map(|(index, stride)| index * stride).sum::<usize>() * width;
            bytes.extend_from_slice(&stored[at..at + width]);
            for dimension in (0..place.len()).rev() {
                place[dimension] += 1;
                if place[dimension] < tensor.shape[dimension] {
                    break;
                }
                place[dimension] = 0;
            }
        }
        Cow::Owned(bytes)
    }
}

/// Reads what `torch.save` wrote: a state dict, or a dictionary that holds one as `state_dict`, `model_state_dict`,
/// `model` or `module`. Nothing in the file is executed.
///
/// # Errors
/// If the file cannot be read, is cut off, lies about places or sizes, or its pickle asks for anything that is not a
/// part of a state dict: that is named. Also if a tensor is of `float64`.
pub fn read_state_dict(path: &Path) -> Result<StateDict> {
    let map = map(path)?;
    let read = parse(&map).map_err(|error| error.at(path.display(), None));
    let (tensors, passed_over) = read?;
    Ok(StateDict { map, tensors, passed_over })
}

/// Tensors by name, and the names of the rest.
type Parsed = (BTreeMap<String, StateTensor>, Vec<String>);

/// Reads a whole file.
pub(super) fn parse(file: &[u8]) -> Result<Parsed> {
    if !archive::is_zip(file) {
        let (object, heap, storages) = legacy::read(file)?;
        return collect(object, &heap, &storages, file.len());
    }
    let entries = archive::entries(file)?;
    let mut pickles = entries.keys().filter_map(|name| match name.as_str() {
        "data.pkl" => Some(""),
        name => name.strip_suffix("data.pkl").filter(|root| root.ends_with('/') && root.matches('/').count() == 1),
    });
    let (root, None) = (pickles.next(), pickles.next()) else {
        return Err(Error::input("the zip file has more than one `data.pkl`"));
    };
    let root = root.ok_or_else(|| {
        Error::input("the zip file has no `data.pkl`, so it is no checkpoint of torch")
            .help("TorchScript archives and other zip files are not read: save the state dict with torch.save")
    })?;
    if entries.contains_key(&format!("{root}constants.pkl")) {
        return Err(Error::input("this is a TorchScript archive, which holds code")
            .help("write its weights alone, in Python: torch.save(model.state_dict(), \"weights.pt\")"));
    }
    if let Some(order) = entries.get(&format!("{root}byteorder"))
        && &file[order.clone()] != b"little"
    {
        return Err(Error::input("a big-endian checkpoint is not supported"));
    }
    let pickle = &file[entries[&format!("{root}data.pkl")].clone()];
    let (object, heap, _) = unpickle(pickle, 0)?;
    let data = format!("{root}data/");
    let storages =
        entries.iter().filter_map(|(name, place)| Some((name.strip_prefix(&data)?.to_string(), place.clone())));
    collect(object, &heap, &storages.collect(), file.len())
}

fn collect(object: Value, heap: &Heap, storages: &BTreeMap<String, Range<usize>>, file_len: usize) -> Result<Parsed> {
    let dict = unwrapped(object, heap)?;
    let (mut tensors, mut passed_over, mut total) = (BTreeMap::new(), Vec::new(), 0u64);
    for (key, value) in &heap.dicts[dict] {
        let Some(name) = heap.text(*key) else {
            passed_over.push(format!("{key:?}"));
            continue;
        };
        let Value::Tensor(tensor) = value else {
            passed_over.push(name.into());
            continue;
        };
        let found = located(&heap.tensors[*tensor], heap, storages);
        let found = found.map_err(|error| error.context(format!("tensor `{}` cannot be read", shown(name))))?;
        let Some((tensor, len)) = found else {
            passed_over.push(name.into());
            continue;
        };
        total = total.saturating_add(len);
        match tensors.entry(name.to_string()) {
            Entry::Vacant(entry) => _ = entry.insert(tensor),
            Entry::Occupied(_) => return Err(Error::input(format!("tensor `{}` is there twice", shown(name)))),
        }
    }
    if total > (file_len as u64).saturating_mul(COPIES_MAX) {
        return Err(Error::input(format!("its tensors have {total} bytes, more than {COPIES_MAX} times the file"))
            .help("the file is damaged, or made to do harm"));
    }
    passed_over.sort();
    Ok((tensors, passed_over))
}

/// The dictionary that holds the tensors.
fn unwrapped(object: Value, heap: &Heap) -> Result<usize> {
    let holds_tensors = |dict: &usize| heap.dicts[*dict].iter().any(|(_, value)| matches!(value, Value::Tensor(_)));
    let none = || {
        Error::input("this holds no tensors by name").help(
            "expected a state dict, or a dictionary with one as `state_dict`: torch.save(model.state_dict(), \"weights.pt\")",
        )
    };
    let Value::Dict(outer) = object else { return Err(none()) };
    if holds_tensors(&outer) {
        return Ok(outer);
    }
    let inner = WRAPPERS.iter().find_map(|wrapper| {
        heap.dicts[outer].iter().find_map(|(key, value)| match value {
            Value::Dict(dict) if heap.text(*key) == Some(wrapper) => Some(*dict),
            _ => None,
        })
    });
    inner.filter(holds_tensors).ok_or_else(none)
}

/// Where a tensor lies, and how many bytes it has when it is written out; none if it is not of floating-point numbers.
fn located(
    tensor: &machine::Tensor,
    heap: &Heap,
    storages: &BTreeMap<String, Range<usize>>,
) -> Result<Option<(StateTensor, u64)>> {
    let storage = &heap.storages[tensor.storage];
    let key = shown(&storage.key);
    let place = storages.get(&storage.key).ok_or_else(|| {
        Error::input(format!("its storage `{key}` is not in the file")).help("the file is cut off or damaged")
    })?;
    let announced = storage.len.checked_mul(storage.scalar.map_or(1, Scalar::width) as u64);
    if announced != Some(place.len() as u64) {
        return Err(Error::input(format!("its storage `{key}` has {} bytes", place.len()))
            .cause(format!("{} elements are announced", storage.len)));
    }
    let width = tensor.scalar.width() as u64;
    let available = place.len() as u64 / width;
    let elements = tensor.shape.iter().try_fold(1u64, |product, size| product.checked_mul(*size));
    let sized =
        || format!("its sizes are {:?}, its strides {:?}, its offset {}", tensor.shape, tensor.strides, tensor.offset);
    let beyond =
        || Error::input(format!("it goes beyond the {available} elements of its storage `{key}`")).cause(sized());
    let elements = elements.ok_or_else(beyond)?;
    // The last element, counted from the first.
    let last = tensor
        .shape
        .iter()
        .zip(&tensor.strides)
        .try_fold(0u64, |sum, (size, stride)| sum.checked_add(size.saturating_sub(1).checked_mul(*stride)?));
    let end = if elements == 0 {
        Some(tensor.offset)
    } else {
        last.and_then(|last| last.checked_add(tensor.offset)?.checked_add(1))
    };
    if end.is_none_or(|end| end > available) {
        return Err(beyond());
    }
    if elements > available.saturating_mul(REPEATS_MAX) {
        return Err(Error::input(format!(
            "it repeats the elements of its storage `{key}` more than {REPEATS_MAX} times"
        ))
        .cause(sized()));
    }
    let element = match tensor.scalar {
        Scalar::F32 => Element::F32,
        Scalar::F16 => Element::F16,
        Scalar::BF16 => Element::BF16,
        Scalar::F64 => {
            return Err(Error::input("it is of float64, which would lose digits")
                .help("supported: float32, float16, bfloat16; convert it in Python with model.float()"));
        }
        _ => return Ok(None),
    };
    // All of these are at most the file's length, or bounded by the limit on repeats.
    let narrow = |sizes: &[u64]| sizes.iter().map(|size| *size as usize).collect::<Vec<_>>();
    let start = place.start + (tensor.offset * width) as usize;
    let located = StateTensor {
        element,
        shape: narrow(&tensor.shape),
        strides: narrow(&tensor.strides),
        bytes: start..place.end,
    };
    Ok(Some((located, elements * width)))
}

/// The type's name, for messages.
impl std::fmt::Display for Scalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
