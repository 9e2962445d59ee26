//! The container: metadata and where each tensor lies. Knows nothing of what keys mean, but for the alignment.

use super::TensorType;
use crate::bytes::{Cursor, beyond, map, shown};
use memmap2::Mmap;
use narthex_base::{Error, Result};
use std::{
    collections::{BTreeMap, btree_map::Entry},
    ops::Range,
    path::{Path, PathBuf},
};

/// Metadata entries; real files have some dozens.
const ENTRIES_MAX: u64 = 1 << 16;
/// Tensors; the largest models have some thousands.
const TENSORS_MAX: u64 = 1 << 18;
/// Bytes of a key. The specification's own limit.
const KEY_BYTES_MAX: u64 = (1 << 16) - 1;
/// Bytes of a tensor's name. The specification says 64.
const NAME_BYTES_MAX: u64 = 256;
/// Bytes of a text value; chat templates have some thousands.
const TEXT_BYTES_MAX: u64 = 1 << 26;
/// Elements of an array; the largest are vocabularies.
const ELEMENTS_MAX: u64 = 1 << 24;
/// Arrays in arrays.
const NESTING_MAX: usize = 4;
/// Dimensions of a tensor. The specification's own limit.
const DIMENSIONS_MAX: u32 = 4;
/// Where tensors begin is a multiple of this, unless the file says otherwise.
const ALIGNMENT: u64 = 32;
/// Nobody aligns to more.
const ALIGNMENT_MAX: u64 = 1 << 20;

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of 8 to 64 bits.
    Unsigned(u64),
    /// Of 8 to 64 bits.
    Signed(i64),
    /// One that is stored in 32 bits has become the shortest decimal that stands for it: `1e-5`, not `9.99999974e-6`.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// Text in UTF-8.
    Text(String),
    /// An array of texts.
    Texts(Vec<String>),
    /// An array of numbers or truth values.
    Numbers(Numbers),
    /// An array of arrays.
    Arrays(Vec<Value>),
}

/// An array of numbers, kept as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbers {
    kind: Kind,
    bytes: Vec<u8>,
}

impl Numbers {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.kind.width()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// All of them in double precision, in which integers beyond 2^53 are rounded.
    pub fn to_f64(&self) -> Vec<f64> {
        let scalars = self.bytes.chunks_exact(self.kind.width()).map(|bytes| self.kind.decode(bytes));
        scalars
            .map(|value| match value {
                Value::Unsigned(value) => value as f64,
                Value::Signed(value) => value as f64,
                Value::Float(value) => value,
                other => f64::from(u8::from(other == Value::Bool(true))),
            })
            .collect()
    }
}

/// The types of values of fixed width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    U64,
    I64,
    F64,
}

impl Kind {
    fn of_id(id: u32) -> Option<Self> {
        use Kind::*;
        Some(match id {
            0 => U8,
            1 => I8,
            2 => U16,
            3 => I16,
            4 => U32,
            5 => I32,
            6 => F32,
            7 => Bool,
            10 => U64,
            11 => I64,
            12 => F64,
            _ => return None,
        })
    }

    fn width(self) -> usize {
        match self {
            Kind::U8 | Kind::I8 | Kind::Bool => 1,
            Kind::U16 | Kind::I16 => 2,
            Kind::U32 | Kind::I32 | Kind::F32 => 4,
            Kind::U64 | Kind::I64 | Kind::F64 => 8,
        }
    }

    /// The value in exactly [`Kind::width`] bytes.
    fn decode(self, bytes: &[u8]) -> Value {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        let bits = u64::from_le_bytes(word);
        // Integers are shifted up and down again, to extend their sign.
        let unused_bits = 64 - 8 * bytes.len() as u32;
        match self {
            Kind::U8 | Kind::U16 | Kind::U32 | Kind::U64 => Value::Unsigned(bits),
            Kind::I8 | Kind::I16 | Kind::I32 | Kind::I64 => Value::Signed((bits << unused_bits) as i64 >> unused_bits),
            Kind::Bool => Value::Bool(bits != 0),
            Kind::F32 => {
                let value = f32::from_bits(bits as u32);
                Value::Float(value.to_string().parse().unwrap_or(f64::from(value)))
            }
            Kind::F64 => Value::Float(f64::from_bits(bits)),
        }
    }
}

const TEXT_ID: u32 = 8;
const ARRAY_ID: u32 = 9;

/// A tensor, as the file describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// How its values are stored.
    pub kind: TensorType,
    /// Outermost first, as everywhere but in GGUF itself.
    pub shape: Vec<usize>,
    /// Where it lies in the file.
    pub bytes: Range<usize>,
}

impl Tensor {
    /// Values in all. It cannot overflow: the file has been checked to hold them.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// What stands in a file before its tensors.
#[derive(Debug, PartialEq)]
pub(super) struct Header {
    pub metadata: BTreeMap<String, Value>,
    pub tensors: BTreeMap<String, Tensor>,
}

/// A GGUF file, mapped into memory.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    map: Mmap,
    header: Header,
}

impl File {
    /// Opens a file and checks all that its header says against its size.
    ///
    /// # Errors
    /// If it cannot be read, is not GGUF 2 or 3, is cut off, holds a type of tensor that is not supported, or its
    /// header lies: field and byte are named.
    pub fn open(path: &Path) -> Result<Self> {
        let map = map(path)?;
        let header = Header::parse(&map).map_err(|error| error.at(path.display(), None))?;
        Ok(Self { path: path.into(), map, header })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All metadata by key.
    pub fn metadata(&self) -> &BTreeMap<String, Value> {
        &self.header.metadata
    }

    /// All tensors by name.
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.header.tensors
    }

    /// The bytes of one of its tensors.
    pub fn bytes(&self, tensor: &Tensor) -> &[u8] {
        &self.map[tensor.bytes.clone()]
    }

    /// The text under a key, if there is one.
    ///
    /// # Errors
    /// If there is something else.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        match self.header.metadata.get(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(key, "a text")),
        }
    }

    /// The count under a key, if there is one.
    ///
    /// # Errors
    /// If there is something else, or a number below 0.
    pub fn count(&self, key: &str) -> Result<Option<u64>> {
        match self.header.metadata.get(key) {
            None => Ok(None),
            Some(Value::Unsigned(count)) => Ok(Some(*count)),
            Some(Value::Signed(count)) if *count >= 0 => Ok(Some(*count as u64)),
            Some(_) => Err(self.wrong(key, "one whole number that is not below 0")),
        }
    }

    /// The number under a key, if there is one.
    ///
    /// # Errors
    /// If there is something else, or no finite number.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.header.metadata.get(key) {
            Some(Value::Float(number)) if number.is_finite() => Ok(Some(*number)),
            Some(Value::Float(_)) => Err(self.wrong(key, "a finite number")),
            _ => Ok(self.count(key)?.map(|count| count as f64)),
        }
    }

    /// The truth value under a key, if there is one.
    ///
    /// # Errors
    /// If there is something else.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.header.metadata.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    /// The texts under a key, if there are any.
    ///
    /// # Errors
    /// If there is something else.
    pub fn texts(&self, key: &str) -> Result<Option<&[String]>> {
        match self.header.metadata.get(key) {
            None => Ok(None),
            Some(Value::Texts(texts)) => Ok(Some(texts)),
            Some(_) => Err(self.wrong(key, "an array of texts")),
        }
    }

    /// The numbers under a key, if there are any.
    ///
    /// # Errors
    /// If there is something else.
    pub fn numbers(&self, key: &str) -> Result<Option<&Numbers>> {
        match self.header.metadata.get(key) {
            None => Ok(None),
            Some(Value::Numbers(numbers)) => Ok(Some(numbers)),
            Some(_) => Err(self.wrong(key, "an array of numbers")),
        }
    }

    /// An error about the value of a key.
    pub(super) fn wrong(&self, key: &str, wanted: &str) -> Error {
        Error::input(format!("`{}` must be {wanted}", shown(key))).at(self.path.display(), None)
    }
}

impl Header {
    /// Reads the header of a whole file.
    pub fn parse(file: &[u8]) -> Result<Self> {
        let mut cursor = Cursor::new(file, 0);
        if cursor.array("the magic number").is_ok_and(|magic: [u8; 4]| &magic != b"GGUF") {
            return Err(Error::input("this is not a GGUF file: it does not begin with `GGUF`"));
        }
        match cursor.u32("the version")? {
            2 | 3 => {}
            version if (2..=3).contains(&version.swap_bytes()) => {
                return Err(
                    Error::input("a big-endian GGUF file is not supported").help("convert it on its own machine")
                );
            }
            version => {
                return Err(Error::input(format!("GGUF version {version} is not supported"))
                    .help("supported: 2 and 3; write the file again with a newer llama.cpp"));
            }
        }
        let counts_at = cursor.at();
        let tensor_count = cursor.u64("the number of tensors")?;
        let entry_count = cursor.u64("the number of metadata entries")?;
        for (what, count, limit) in [
            ("the number of tensors", tensor_count, TENSORS_MAX),
            ("the number of metadata entries", entry_count, ENTRIES_MAX),
        ] {
            if count > limit {
                return Err(beyond(what, count, limit, counts_at));
            }
        }
        let mut metadata = BTreeMap::new();
        for _ in 0..entry_count {
            let at = cursor.at();
            let key = text(&mut cursor, KEY_BYTES_MAX, "a metadata key")?;
            let what = format!("the value of `{}`", shown(&key));
            let kind = cursor.u32(&what)?;
            let value = value(&mut cursor, kind, &what, 0)?;
            match metadata.entry(key) {
                Entry::Vacant(entry) => _ = entry.insert(value),
                Entry::Occupied(entry) => return Err(twice("metadata key", entry.key(), at)),
            }
        }
        let alignment = match metadata.get("general.alignment") {
            None => ALIGNMENT,
            Some(Value::Unsigned(value)) if value.is_power_of_two() && *value <= ALIGNMENT_MAX => *value,
            Some(other) => {
                return Err(Error::input(format!("`general.alignment` is {other:?}"))
                    .help(format!("it must be a power of two, at most {ALIGNMENT_MAX}")));
            }
        };
        let mut announced = BTreeMap::new();
        for _ in 0..tensor_count {
            let at = cursor.at();
            let name = text(&mut cursor, NAME_BYTES_MAX, "a tensor's name")?;
            let tensor = announce(&mut cursor, &name, alignment)?;
            match announced.entry(name) {
                Entry::Vacant(entry) => _ = entry.insert(tensor),
                Entry::Occupied(entry) => return Err(twice("tensor", entry.key(), at)),
            }
        }
        let data_start = (cursor.at() as u64).next_multiple_of(alignment);
        let mut tensors = BTreeMap::new();
        for (name, Announced { kind, shape, offset, len, at }) in announced {
            let start = data_start.checked_add(offset);
            let end = start.and_then(|start| start.checked_add(len)).filter(|end| *end <= file.len() as u64);
            let (Some(start), Some(end)) = (start, end) else {
                return Err(Error::input(format!("tensor `{}` lies beyond the end of the file", shown(&name)))
                    .cause(format!(
                        "byte {at}: {len} bytes at {data_start} + {offset} are announced, the file has {}",
                        file.len()
                    ))
                    .help("the file is cut off or damaged: fetch or copy it again"));
            };
            tensors.insert(name, Tensor { kind, shape, bytes: start as usize..end as usize });
        }
        no_overlap(&tensors)?;
        Ok(Self { metadata, tensors })
    }
}

/// A tensor before it is known where the tensors begin.
struct Announced {
    kind: TensorType,
    shape: Vec<usize>,
    offset: u64,
    len: u64,
    at: usize,
}

fn announce(cursor: &mut Cursor, name: &str, alignment: u64) -> Result<Announced> {
    let what = format!("the description of tensor `{}`", shown(name));
    let at = cursor.at();
    let dimensions = cursor.u32(&what)?;
    if dimensions > DIMENSIONS_MAX {
        let what = format!("the number of dimensions of tensor `{}`", shown(name));
        return Err(beyond(&what, dimensions, DIMENSIONS_MAX.into(), at));
    }
    let mut shape = Vec::new();
    for _ in 0..dimensions {
        shape.push(cursor.u64(&what)?);
    }
    let kind_at = cursor.at();
    let kind = TensorType::of_id(cursor.u32(&what)?).map_err(|error| {
        error.context(format!("tensor `{}` cannot be read", shown(name))).cause(format!("byte {kind_at}"))
    })?;
    let offset_at = cursor.at();
    let offset = cursor.u64(&what)?;
    if !offset.is_multiple_of(alignment) {
        return Err(Error::input(format!(
            "the offset of tensor `{}` is {offset}, no multiple of {alignment}",
            shown(name)
        ))
        .cause(format!("byte {offset_at}")));
    }
    let elements = shape.iter().try_fold(1u64, |product, size| product.checked_mul(*size));
    let row = shape.first().copied().unwrap_or(1);
    let len = elements.filter(|elements| *elements > 0).and_then(|elements| kind.stored_len(elements, row));
    let Some(len) = len else {
        return Err(Error::input(format!("tensor `{}` cannot have the dimensions {shape:?} in {kind}", shown(name)))
            .cause(format!("byte {at}"))
            .help(format!(
                "none may be 0, the first must be a multiple of {}, and their product must fit 64 bits",
                kind.block()
            )));
    };
    // Dimensions that pass here are held against the file's size next, so they fit a usize.
    let shape = shape.into_iter().rev().map(|size| usize::try_from(size).unwrap_or(usize::MAX)).collect();
    Ok(Announced { kind, shape, offset, len, at })
}

fn no_overlap(tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let mut by_place: Vec<(&String, &Range<usize>)> =
        tensors.iter().map(|(name, tensor)| (name, &tensor.bytes)).collect();
    by_place.sort_by_key(|(_, bytes)| bytes.start);
    for pair in by_place.windows(2) {
        let [(first, one), (second, two)] = pair else { continue };
        if two.start < one.end {
            return Err(Error::input(format!("tensors `{}` and `{}` overlap", shown(first), shown(second)))
                .cause(format!("bytes {} to {} and {} to {}", one.start, one.end, two.start, two.end)));
        }
    }
    Ok(())
}

fn text(cursor: &mut Cursor, limit: u64, what: &str) -> Result<String> {
    let at = cursor.at();
    let len = cursor.u64(what)?;
    if len > limit {
        return Err(beyond(&format!("the length of {what}"), len, limit, at));
    }
    let bytes = cursor.take(len, what)?;
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Error::input(format!("{what} is not UTF-8")).cause(format!("byte {at}: {error}")))?;
    Ok(text.into())
}

fn value(cursor: &mut Cursor, kind: u32, what: &str, nesting: usize) -> Result<Value> {
    if let Some(kind) = Kind::of_id(kind) {
        return Ok(kind.decode(cursor.take(kind.width() as u64, what)?));
    }
    let at = cursor.at();
    match kind {
        TEXT_ID => Ok(Value::Text(text(cursor, TEXT_BYTES_MAX, what)?)),
        ARRAY_ID => {
            if nesting == NESTING_MAX {
                return Err(beyond(&format!("the nesting of {what}"), nesting + 1, NESTING_MAX as u64, at));
            }
            let element = cursor.u32(what)?;
            let count = cursor.u64(what)?;
            if count > ELEMENTS_MAX {
                return Err(beyond(&format!("the number of elements in {what}"), count, ELEMENTS_MAX, at));
            }
            if let Some(kind) = Kind::of_id(element) {
                let bytes = cursor.take(count * kind.width() as u64, what)?.to_vec();
                return Ok(Value::Numbers(Numbers { kind, bytes }));
            }
            // A text has a length, an array a type and a length.
            let least = match element {
                TEXT_ID => 8,
                ARRAY_ID => 12,
                other => return Err(unknown_kind(other, what, at)),
            };
            if count * least > cursor.left() as u64 {
                let most = cursor.left() as u64 / least;
                return Err(beyond(&format!("the number of elements in {what}"), count, most, at));
            }
            if element == TEXT_ID {
                let texts = (0..count).map(|_| text(cursor, TEXT_BYTES_MAX, what));
                return Ok(Value::Texts(texts.collect::<Result<_>>()?));
            }
            let arrays = (0..count).map(|_| value(cursor, ARRAY_ID, what, nesting + 1));
            Ok(Value::Arrays(arrays.collect::<Result<_>>()?))
        }
        other => Err(unknown_kind(other, what, at)),
    }
}

fn unknown_kind(kind: u32, what: &str, at: usize) -> Error {
    Error::input(format!("{what} has the type {kind}, which GGUF does not have")).cause(format!("byte {at}"))
}

fn twice(what: &str, name: &str, at: usize) -> Error {
    Error::input(format!("the {what} `{}` is there twice", shown(name))).cause(format!("byte {at}"))
}
