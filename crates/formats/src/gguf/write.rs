//! Writes the container, version 3. Knows nothing of what keys mean, but for the alignment.

use super::TensorType;
use narthex_base::{Error, Result};
use std::{
    borrow::Cow,
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

const ALIGNMENT: u64 = 32;

/// A file in the making. Tensors are made when it is their turn, so none is held beside another.
#[derive(Default)]
pub(super) struct Writer<'a> {
    entries: u64,
    metadata: Vec<u8>,
    tensors: Vec<Pending<'a>>,
}

struct Pending<'a> {
    name: String,
    kind: TensorType,
    shape: Vec<usize>,
    bytes: Box<dyn Fn() -> Cow<'a, [u8]> + 'a>,
}

impl<'a> Writer<'a> {
    fn key(&mut self, key: &str, kind: u32) {
        self.entries += 1;
        put_text(&mut self.metadata, key);
        self.metadata.extend(kind.to_le_bytes());
    }

    pub fn count(&mut self, key: &str, value: u32) {
        self.key(key, 4);
        self.metadata.extend(value.to_le_bytes());
    }

    pub fn number(&mut self, key: &str, value: f32) {
        self.key(key, 6);
        self.metadata.extend(value.to_le_bytes());
    }

    pub fn flag(&mut self, key: &str, value: bool) {
        self.key(key, 7);
        self.metadata.push(value.into());
    }

    pub fn text(&mut self, key: &str, value: &str) {
        self.key(key, 8);
        put_text(&mut self.metadata, value);
    }

    fn array(&mut self, key: &str, kind: u32, len: usize) {
        self.key(key, 9);
        self.metadata.extend(kind.to_le_bytes());
        self.metadata.extend((len as u64).to_le_bytes());
    }

    pub fn texts(&mut self, key: &str, values: &[String]) {
        self.array(key, 8, values.len());
        values.iter().for_each(|value| put_text(&mut self.metadata, value));
    }

    pub fn integers(&mut self, key: &str, values: &[i32]) {
        self.array(key, 5, values.len());
        values.iter().for_each(|value| self.metadata.extend(value.to_le_bytes()));
    }

    pub fn numbers(&mut self, key: &str, values: &[f32]) {
        self.array(key, 6, values.len());
        values.iter().for_each(|value| self.metadata.extend(value.to_le_bytes()));
    }

    /// A tensor; the shape's rows must be whole blocks of the type.
    pub fn tensor(
        &mut self,
        name: String,
        kind: TensorType,
        shape: Vec<usize>,
        bytes: impl Fn() -> Cow<'a, [u8]> + 'a,
    ) {
        self.tensors.push(Pending { name, kind, shape, bytes: Box::new(bytes) });
    }

    /// Writes the file under a temporary name beside it, and renames it when it is whole.
    pub fn write(self, path: &Path) -> Result<()> {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(".part");
        let temporary = path.with_file_name(name);
        let written = self.stream(&temporary).and_then(|()| std::fs::rename(&temporary, path));
        written.map_err(|error| {
            // The reason is in the first error; a leftover is only untidy.
            let _ = std::fs::remove_file(&temporary);
            Error::io("cannot write", path, error)
        })
    }

    fn stream(&self, path: &Path) -> std::io::Result<()> {
        let mut header = b"GGUF".to_vec();
        header.extend(3u32.to_le_bytes());
        header.extend((self.tensors.len() as u64).to_le_bytes());
        header.extend(self.entries.to_le_bytes());
        header.extend(&self.metadata);
        let mut offset = 0u64;
        for tensor in &self.tensors {
            put_text(&mut header, &tensor.name);
            header.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().rev().for_each(|size| header.extend((*size as u64).to_le_bytes()));
            header.extend(tensor.kind.id().to_le_bytes());
            header.extend(offset.to_le_bytes());
            let elements = tensor.shape.iter().product::<usize>() as u64;
            offset = (offset + elements / tensor.kind.block() * tensor.kind.block_len()).next_multiple_of(ALIGNMENT);
        }
        let mut out = BufWriter::new(File::create(path)?);
        put_aligned(&mut out, &header)?;
        for tensor in &self.tensors {
            put_aligned(&mut out, &(tensor.bytes)())?;
        }
        out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
    }
}

fn put_aligned(out: &mut impl Write, bytes: &[u8]) -> std::io::Result<()> {
    let filling = (bytes.len() as u64).next_multiple_of(ALIGNMENT) as usize - bytes.len();
    out.write_all(bytes)?;
    out.write_all(&[0; ALIGNMENT as usize][..filling])
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
