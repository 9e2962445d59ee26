//! The weights of a GGUF file where they lie, by Hugging Face's names: a model that is used without being converted.

use super::{
    File, Imported, TensorType,
    architecture::{Change, turned_rows},
    import::{Place, Source},
};
use crate::weights::Element;
use narthex_base::{Error, Result};
use std::{borrow::Cow, collections::BTreeMap, path::Path};

/// A file whose weights have names and shapes of Hugging Face's.
#[derive(Debug)]
pub struct Weights {
    file: File,
    places: BTreeMap<String, Place>,
}

impl Weights {
    /// Opens a file, and writes all that a folder in Hugging Face layout holds besides weights into one that is there.
    ///
    /// # Errors
    /// As [`super::to_hugging_face`].
    pub fn open(path: &Path, folder: &Path) -> Result<(Self, Imported)> {
        let file = File::open(path)?;
        let at = |error: Error| if error.place().is_none() { error.at(path.display(), None) } else { error };
        let source = Source::new(&file).map_err(at)?;
        let places = source.places().map_err(at)?;
        let imported = source.write_settings(folder, Element::F32).map_err(at)?;
        Ok((Self { file, places }, imported))
    }

    /// The shape of a weight, outermost first; none if there is none of this name.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let place = self.places.get(name)?;
        Some(place.shape(&self.file.tensors()[&place.tensor]))
    }

    /// How most bytes of the weights are stored; none if there are none.
    pub fn largest(&self) -> Option<TensorType> {
        let mut bytes: Vec<(TensorType, usize)> = vec![];
        for tensor in self.places.values().map(|place| &self.file.tensors()[&place.tensor]) {
            match bytes.iter_mut().find(|(kind, _)| *kind == tensor.kind) {
                Some((_, sum)) => *sum += tensor.bytes.len(),
                None => bytes.push((tensor.kind, tensor.bytes.len())),
            }
        }
        bytes.into_iter().max_by_key(|(_, bytes)| *bytes).map(|(kind, _)| kind)
    }

    /// A weight as numbers: their format, and their little-endian bytes.
    pub fn numbers(&self, name: &str) -> Option<(Element, Cow<'_, [u8]>)> {
        let place = self.places.get(name)?;
        let tensor = &self.file.tensors()[&place.tensor];
        Some((place.element(tensor), place.bytes(&self.file, tensor)))
    }

    /// The rows of a matrix as they lie there, in Hugging Face's order; none if it is not stored in blocks, or not by
    /// rows.
    pub fn rows(&self, name: &str) -> Option<(TensorType, Vec<&[u8]>)> {
        let place = self.places.get(name)?;
        let tensor = &self.file.tensors()[&place.tensor];
        let &[rows, _] = tensor.shape.as_slice() else { return None };
        if !tensor.kind.is_quantized() || rows == 0 {
            return None;
        }
        let bytes = self.file.bytes(tensor);
        let mut found: Vec<&[u8]> = bytes.chunks_exact(bytes.len() / rows).collect();
        match place.change {
            Change::Plain => {}
            Change::QueryHeads | Change::KeyHeads => {
                let stored = found.clone();
                for (row, to) in turned_rows(rows, place.heads).into_iter().flatten().enumerate() {
                    found[to] = stored[row];
                }
            }
            Change::PlusOne | Change::Transposed => return None,
        }
        Some((tensor.kind, found))
    }
}
