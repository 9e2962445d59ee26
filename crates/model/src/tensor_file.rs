//! A safetensors file of f32 values that is written and read in ranges: by several processes together, or where the
//! whole would not fit into memory. Knows no models.

use narthex_base::{Error, Result};
use safetensors::{
    Dtype,
    tensor::{Metadata, TensorInfo},
};
use std::{
    collections::{BTreeMap, HashMap},
    fs::{File, OpenOptions},
    io::Read,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Bytes of the number that says how long the header is.
const LENGTH_BYTES: usize = 8;

/// The longest header, as the format has it.
const HEADER_BYTES_MAX: u64 = 100_000_000;

/// Values that are made bytes at once.
const VALUES_AT_ONCE: usize = 1 << 18;

/// The file, open.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    file: File,
    tensors: BTreeMap<String, Place>,
}

#[derive(Debug)]
struct Place {
    shape: Vec<usize>,
    /// Where its bytes begin in the file.
    at: u64,
}

impl TensorFile {
    /// Makes the file as long as it will be, with tensors of these names and shapes whose values are still to come. The
    /// same names and shapes always give the same bytes, in the order of names.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn create(path: &Path, shapes: &BTreeMap<String, Vec<usize>>) -> Result<Self> {
        let fail = |error| Error::io("cannot write", path, error);
        let mut end = 0;
        let infos = shapes.iter().map(|(name, shape)| {
            let start = end;
            end += 4 * shape.iter().product::<usize>();
            (name.clone(), TensorInfo { dtype: Dtype::F32, shape: shape.clone(), data_offsets: (start, end) })
        });
        let format = HashMap::from([("format".to_string(), "pt".to_string())]);
        let metadata = Metadata::new(Some(format), infos.collect())
            .map_err(|error| Error::internal(format!("cannot describe {}", path.display())).cause(error))?;
        let mut header = serde_json::to_vec(&metadata).expect("names and shapes serialize");
        header.resize(header.len().next_multiple_of(LENGTH_BYTES), b' ');
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header);
        let file = File::create(path).map_err(fail)?;
        file.write_all_at(&bytes, 0).and_then(|()| file.set_len((bytes.len() + end) as u64)).map_err(fail)?;
        Ok(Self { path: path.into(), file, tensors: places(&metadata, bytes.len()) })
    }

    /// Opens a file that is there, to write too where that is asked for.
    ///
    /// # Errors
    /// If it cannot be read, or is no such file of f32.
    pub fn open(path: &Path, to_write: bool) -> Result<Self> {
        let fail = |error| Error::io("cannot read", path, error);
        let broken = |cause: String| {
            Error::input("the file is no safetensors file of f32, or is cut").at(path.display(), None).cause(cause)
        };
        let mut file = OpenOptions::new().read(true).write(to_write).open(path).map_err(fail)?;
        let mut bytes = vec![0; LENGTH_BYTES];
        file.read_exact(&mut bytes).map_err(fail)?;
        let length = u64::from_le_bytes(std::array::from_fn(|i| bytes[i]));
        let there = file.metadata().map_err(fail)?.len();
        if length > HEADER_BYTES_MAX.min(there) {
            return Err(broken(format!("its header would have {length} bytes")));
        }
        bytes.resize(LENGTH_BYTES + length as usize, 0);
        file.read_exact(&mut bytes[LENGTH_BYTES..]).map_err(fail)?;
        let metadata: Metadata =
            serde_json::from_slice(&bytes[LENGTH_BYTES..]).map_err(|error| broken(error.to_string()))?;
        if metadata.tensors().values().any(|info| info.dtype != Dtype::F32) {
            return Err(broken("a tensor is not f32".into()));
        }
        let end = metadata.tensors().values().map(|info| info.data_offsets.1).max().unwrap_or(0);
        if (bytes.len() + end) as u64 != there {
            return Err(broken(format!("{there} bytes, not {}", bytes.len() + end)));
        }
        Ok(Self { path: path.into(), file, tensors: places(&metadata, bytes.len()) })
    }

    /// Writes values of a tensor, from the one of number `start` on.
    ///
    /// # Errors
    /// If they cannot be written, or the tensor has no such values.
    pub fn write(&self, name: &str, start: usize, values: &[f32]) -> Result<()> {
        let at = self.place(name, &(start..start + values.len()))?;
        let mut at = at + 4 * start as u64;
        for values in values.chunks(VALUES_AT_ONCE) {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            let written = self.file.write_all_at(&bytes, at);
            written.map_err(|error| Error::io("cannot write", &self.path, error))?;
            at += bytes.len() as u64;
        }
        Ok(())
    }

    /// The values of a range of a tensor, which must have this shape.
    ///
    /// # Errors
    /// If the file has no such tensor, or cannot be read.
    pub fn read(&self, name: &str, shape: &[usize], range: Range<usize>) -> Result<Vec<f32>> {
        let at = self.place(name, &range)?;
        if self.tensors[name].shape != shape {
            return Err(Error::input(format!("`{name}` has another shape")).at(self.path.display(), None));
        }
        let mut values = Vec::with_capacity(range.len());
        for start in range.clone().step_by(VALUES_AT_ONCE) {
            let mut bytes = vec![0; 4 * VALUES_AT_ONCE.min(range.end - start)];
            let read = self.file.read_exact_at(&mut bytes, at + 4 * start as u64);
            read.map_err(|error| Error::io("cannot read", &self.path, error))?;
            values.extend(bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(std::array::from_fn(|i| bytes[i]))));
        }
        Ok(values)
    }

    /// Waits until what was written is on the disk.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|error| Error::io("cannot write", &self.path, error))
    }

    fn place(&self, name: &str, range: &Range<usize>) -> Result<u64> {
        let place = self.tensors.get(name);
        let place = place.filter(|place| range.end <= place.shape.iter().product());
        let missing = || Error::input(format!("`{name}` is missing or has another shape"));
        Ok(place.ok_or_else(|| missing().at(self.path.display(), None))?.at)
    }
}

fn places(metadata: &Metadata, data: usize) -> BTreeMap<String, Place> {
    let place = |info: &TensorInfo| Place { shape: info.shape.clone(), at: (data + info.data_offsets.0) as u64 };
    metadata.tensors().into_iter().map(|(name, info)| (name, place(info))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::read_safetensors;

    #[test]
    fn ranges_make_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let shapes = BTreeMap::from([("a".to_string(), vec![2, 3]), ("long name".into(), vec![1])]);
        let written = TensorFile::create(&path, &shapes).unwrap();
        written.write("a", 4, &[4.0, 5.0]).unwrap();
        TensorFile::open(&path, true).unwrap().write("a", 0, &[0.0, 1.0, 2.0, 3.0]).unwrap();
        written.write("long name", 0, &[7.0]).unwrap();
        assert!(written.write("a", 5, &[1.0, 2.0]).is_err() && written.write("b", 0, &[1.0]).is_err());
        let all = read_safetensors(&path).unwrap();
        assert_eq!(all["a"], (vec![2, 3], vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]));
        assert_eq!(all["long name"], (vec![1], vec![7.0]));
        let file = TensorFile::open(&path, false).unwrap();
        assert_eq!(file.read("a", &[2, 3], 1..5).unwrap(), [1.0, 2.0, 3.0, 4.0]);
        assert!(file.read("a", &[3, 2], 1..5).is_err());
        // As the reference implementation writes it.
        let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let (a, b) = (bytes(&all["a"].1), bytes(&all["long name"].1));
        let view = |shape: &[usize], data| safetensors::tensor::TensorView::new(Dtype::F32, shape.to_vec(), data);
        let views = [("long name", view(&[1], &b).unwrap()), ("a", view(&[2, 3], &a).unwrap())];
        let format = HashMap::from([("format".to_string(), "pt".to_string())]);
        assert_eq!(std::fs::read(&path).unwrap(), safetensors::serialize(views, Some(format)).unwrap());
    }

    #[test]
    fn every_truncation_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        TensorFile::create(&path, &BTreeMap::from([("a".to_string(), vec![9])])).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for len in 0..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            assert!(TensorFile::open(&path, false).is_err(), "{len} of {} bytes", whole.len());
        }
    }
}
