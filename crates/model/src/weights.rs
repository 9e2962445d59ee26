//! safetensors files: f32, bf16 and f16 on reading, whole or sharded; f32 on writing.

use half::{bf16, f16};
use narthex_base::{Error, Result};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::File,
    path::{Path, PathBuf},
};

/// Name -> (shape, values), all in single precision.
pub type TensorMap = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Reads `model.safetensors`, or the shards that `model.safetensors.index.json` names, from a folder.
///
/// # Errors
/// If there are no weights, a file is broken or truncated, or a dtype is not supported.
pub fn read_model_weights(folder: &Path) -> Result<TensorMap> {
    let single = folder.join("model.safetensors");
    if single.is_file() {
        return read_safetensors(&single);
    }
    let index = folder.join("model.safetensors.index.json");
    if !index.is_file() {
        return Err(Error::input("there are no weights in this folder").at(folder.display(), None).help(
            "expected model.safetensors or model.safetensors.index.json; a .bin checkpoint can be converted with `save_pretrained(…, safe_serialization=True)`",
        ));
    }
    let mut all = TensorMap::new();
    for path in shard_paths(folder, &index)? {
        all.extend(read_safetensors(&path)?);
    }
    Ok(all)
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
    let file = File::open(path).map_err(|error| Error::io("cannot read", path, error))?;
    // SAFETY: the map is read-only and lives in this function; a file that another process truncates meanwhile
    // can end the process with SIGBUS, but cannot be written through or read out of bounds.
    let bytes = unsafe { memmap2::Mmap::map(&file) }.map_err(|error| Error::io("cannot read", path, error))?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|error| {
        Error::input("not a whole safetensors file")
            .at(path.display(), None)
            .cause(error)
            .help(format!("it has {} bytes; fetch or copy it again", bytes.len()))
    })?;
    let mut map = TensorMap::new();
    for (name, view) in tensors.iter() {
        let values = to_f32(&view).ok_or_else(|| {
            Error::input(format!("tensor `{name}` has dtype {:?}, which is not supported", view.dtype()))
                .at(path.display(), None)
                .help("supported: F32, BF16, F16")
        })?;
        map.insert(name.to_string(), (view.shape().to_vec(), values));
    }
    Ok(map)
}

fn to_f32(view: &TensorView) -> Option<Vec<f32>> {
    let data = view.data();
    let pairs = || data.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
    match view.dtype() {
        Dtype::F32 => {
            Some(data.chunks_exact(4).map(|quad| f32::from_le_bytes([quad[0], quad[1], quad[2], quad[3]])).collect())
        }
        Dtype::BF16 => Some(pairs().map(|pair| bf16::from_le_bytes(pair).to_f32()).collect()),
        Dtype::F16 => Some(pairs().map(|pair| f16::from_le_bytes(pair).to_f32()).collect()),
        _ => None,
    }
}

/// Writes one safetensors file in f32; the same tensors always give the same bytes.
///
/// # Errors
/// If the file cannot be written whole.
pub fn write_safetensors(path: &Path, tensors: &TensorMap) -> Result<()> {
    let bytes: Vec<(&String, &Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, values))| (name, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect()))
        .collect();
    let views = bytes.iter().map(|(name, shape, data)| {
        let view = TensorView::new(Dtype::F32, shape.to_vec(), data).expect("the values fill the shape");
        (name.as_str(), view)
    });
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let encoded = safetensors::serialize(views, Some(metadata))
        .map_err(|error| Error::internal(format!("cannot encode {}: {error}", path.display())))?;
    std::fs::write(path, encoded).map_err(|error| Error::io("cannot write", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let error = read_model_weights(folder.path()).unwrap_err();
        assert!(error.to_string().contains("leaves the folder"), "{error}");
        std::fs::remove_file(index).unwrap();
        assert!(read_model_weights(folder.path()).unwrap_err().to_string().contains("no weights"));
    }
}
