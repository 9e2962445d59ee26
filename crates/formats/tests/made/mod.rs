//! Files made by hand, byte by byte, so that tests can lie in any field.
#![allow(dead_code)]

use std::path::{Path, PathBuf};

/// The golden folder.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Builds GGUF.
#[derive(Clone)]
pub struct Gguf {
    pub version: u32,
    pub tensors: Option<u64>,
    pub entries: Option<u64>,
    pub metadata: Vec<Vec<u8>>,
    pub infos: Vec<Vec<u8>>,
    pub data: Vec<u8>,
}

pub fn text(text: &str) -> Vec<u8> {
    [(text.len() as u64).to_le_bytes().to_vec(), text.as_bytes().to_vec()].concat()
}

pub fn entry(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [text(key), kind.to_le_bytes().to_vec(), value.to_vec()].concat()
}

pub fn array(kind: u32, len: u64, elements: &[u8]) -> Vec<u8> {
    [kind.to_le_bytes().to_vec(), len.to_le_bytes().to_vec(), elements.to_vec()].concat()
}

pub fn info(name: &str, shape: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let mut bytes = text(name);
    bytes.extend((shape.len() as u32).to_le_bytes());
    shape.iter().for_each(|size| bytes.extend(size.to_le_bytes()));
    bytes.extend(kind.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes
}

impl Gguf {
    /// One of each kind of value, and three tensors.
    pub fn small() -> Self {
        let metadata = vec![
            entry("u8", 0, &[1]),
            entry("i8", 1, &[0xff]),
            entry("u16", 2, &2u16.to_le_bytes()),
            entry("i16", 3, &(-2i16).to_le_bytes()),
            entry("u32", 4, &3u32.to_le_bytes()),
            entry("i32", 5, &(-3i32).to_le_bytes()),
            entry("f32", 6, &1e-5f32.to_le_bytes()),
            entry("bool", 7, &[1]),
            entry("text", 8, &text("Grüße")),
            entry("u64", 10, &u64::MAX.to_le_bytes()),
            entry("i64", 11, &i64::MIN.to_le_bytes()),
            entry("f64", 12, &0.1f64.to_le_bytes()),
            entry("texts", 9, &array(8, 2, &[text("a"), text("bc")].concat())),
            entry("numbers", 9, &array(3, 2, &[1, 0, 0xff, 0xff])),
            entry("arrays", 9, &array(9, 1, &array(0, 2, &[7, 8]))),
        ];
        let infos = vec![info("a", &[2, 3], 0, 0), info("b", &[32], 8, 32), info("c", &[], 30, 96)];
        Self { version: 3, tensors: None, entries: None, metadata, infos, data: vec![1; 98] }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(self.tensors.unwrap_or(self.infos.len() as u64).to_le_bytes());
        bytes.extend(self.entries.unwrap_or(self.metadata.len() as u64).to_le_bytes());
        bytes.extend(self.metadata.concat());
        bytes.extend(self.infos.concat());
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(&self.data);
        bytes
    }
}

/// An entry of a zip file, and what its headers say about it.
#[derive(Clone)]
pub struct ZipEntry {
    pub name: String,
    pub content: Vec<u8>,
    pub method: u16,
    pub flags: u16,
    pub len: u32,
    /// What the directory says, where it is not true.
    pub header: Option<u32>,
    /// The name in its own header, where it is another.
    pub local_name: Option<String>,
}

impl ZipEntry {
    pub fn new(name: &str, content: &[u8]) -> Self {
        let len = content.len() as u32;
        Self { name: name.into(), content: content.to_vec(), method: 0, flags: 0, len, header: None, local_name: None }
    }
}

/// A zip file of stored entries.
pub fn zip(entries: &[ZipEntry]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        let header = entry.header.unwrap_or(bytes.len() as u32);
        let put = |out: &mut Vec<u8>, name: &str, start: &[u8], rest: &[u8]| {
            out.extend(start);
            out.extend(entry.flags.to_le_bytes());
            out.extend(entry.method.to_le_bytes());
            out.extend([0; 8]);
            out.extend(entry.len.to_le_bytes());
            out.extend(entry.len.to_le_bytes());
            out.extend((name.len() as u16).to_le_bytes());
            out.extend([0; 2]);
            out.extend(rest);
            out.extend(name.as_bytes());
        };
        put(&mut bytes, entry.local_name.as_ref().unwrap_or(&entry.name), b"PK\x03\x04\x14\x00", &[]);
        bytes.extend(&entry.content);
        let rest = [vec![0; 10], header.to_le_bytes().to_vec()].concat();
        put(&mut directory, &entry.name, b"PK\x01\x02\x14\x00\x14\x00", &rest);
    }
    let start = bytes.len() as u32;
    bytes.extend(&directory);
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    let count = (entries.len() as u16).to_le_bytes();
    bytes.extend(count);
    bytes.extend(count);
    bytes.extend((directory.len() as u32).to_le_bytes());
    bytes.extend(start.to_le_bytes());
    bytes.extend([0; 2]);
    bytes
}

/// Opcodes that leave a text on the stack.
pub fn push(text: &str) -> Vec<u8> {
    [b"X".to_vec(), (text.len() as u32).to_le_bytes().to_vec(), text.as_bytes().to_vec()].concat()
}

/// Opcodes that leave a number on the stack.
pub fn number(number: i64) -> Vec<u8> {
    [vec![0x8a, 8], number.to_le_bytes().to_vec()].concat()
}

fn tuple(numbers: &[i64]) -> Vec<u8> {
    [b"(".to_vec(), numbers.iter().flat_map(|n| number(*n)).collect(), b"t".to_vec()].concat()
}

/// Opcodes that leave a tensor of f32 on the stack.
pub fn tensor(key: &str, len: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
        push("storage"),
        b"ctorch\nFloatStorage\n".to_vec(),
        push(key),
        push("cpu"),
        number(len),
        b"tQ".to_vec(),
        number(offset),
        tuple(shape),
        tuple(strides),
        b"\x89N".to_vec(),
        b"tR".to_vec(),
    ]
    .concat()
}

/// A pickle of a dictionary with these values.
pub fn dict(items: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let items: Vec<u8> = items.iter().flat_map(|(name, value)| [push(name), value.clone()].concat()).collect();
    [b"\x80\x02}(".to_vec(), items, b"u.".to_vec()].concat()
}

/// A checkpoint with this pickle, and one storage `0` of six f32.
pub fn checkpoint(pickle: &[u8]) -> Vec<u8> {
    let storage: Vec<u8> = (0..6u8).flat_map(|value| f32::from(value).to_le_bytes()).collect();
    zip(&[ZipEntry::new("archive/data.pkl", pickle), ZipEntry::new("archive/data/0", &storage)])
}
