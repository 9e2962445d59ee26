//! The format of torch before 1.6: five pickles (a magic number, a version, the machine, the object, the keys of the
//! storages), then each storage with its length in front. Knows no tensors.

use super::machine::{Heap, Value, unpickle};
use crate::bytes::{Cursor, shown};
use narthex_base::{Error, Result};
use std::{collections::BTreeMap, ops::Range};

/// The number that the first pickle holds, 0x1950a86a20f9469cfc6c, as a pickle stores it.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const VERSION: i64 = 1001;
/// What a pickle of protocol 2 or later begins with.
const PROTOCOL_OPCODE: u8 = 0x80;

/// What the object's pickle built, and where each storage lies by key.
pub(super) type Legacy<'a> = (Value, Heap<'a>, BTreeMap<String, Range<usize>>);

/// Reads all but the numbers.
pub(super) fn read(file: &[u8]) -> Result<Legacy<'_>> {
    let other = || {
        Error::input("this is neither a zip file nor a checkpoint of torch")
            .help("expected what torch.save writes; plain pickles are not read")
    };
    if file.first() != Some(&PROTOCOL_OPCODE) {
        return Err(other());
    }
    let (magic, heap, at) = unpickle(file, 0)?;
    if !matches!(magic, Value::Long(bytes) if heap.bytes[bytes] == MAGIC) {
        return Err(other());
    }
    let (version, _, at) = unpickle(file, at)?;
    if version != Value::Int(VERSION) {
        return Err(
            Error::input(format!("this checkpoint has the version {version:?}")).help(format!("supported: {VERSION}"))
        );
    }
    let (machine, machine_heap, at) = unpickle(file, at)?;
    if let Value::Dict(dict) = machine
        && machine_heap.dicts[dict]
            .iter()
            .any(|(key, value)| machine_heap.text(*key) == Some("little_endian") && *value == Value::Bool(false))
    {
        return Err(Error::input("a big-endian checkpoint is not supported"));
    }
    let (object, heap, at) = unpickle(file, at)?;
    let (keys, keys_heap, at) = unpickle(file, at)?;
    let Value::List(keys) = keys else {
        return Err(Error::input("the keys of the storages are no list").cause(format!("before byte {at}")));
    };
    let mut widths: BTreeMap<&str, usize> = BTreeMap::new();
    for storage in &heap.storages {
        widths.insert(&storage.key, storage.scalar.map_or(1, |scalar| scalar.width()));
    }
    let mut cursor = Cursor::new(file, at);
    let mut storages = BTreeMap::new();
    for key in &keys_heap.lists[keys] {
        let key = keys_heap.text(*key).ok_or_else(|| Error::input("the key of a storage is no text"))?;
        let what = format!("the storage `{}`", shown(key));
        let width = *widths.get(key).ok_or_else(|| Error::input(format!("no tensor uses {what}")))?;
        let len = cursor.u64(&what)?;
        let bytes = len.checked_mul(width as u64).ok_or_else(|| Error::input(format!("{what} has {len} elements")))?;
        cursor.take(bytes, &what)?;
        if storages.insert(key.to_string(), cursor.at() - bytes as usize..cursor.at()).is_some() {
            return Err(Error::input(format!("{what} is there twice")));
        }
    }
    Ok((object, heap, storages))
}
