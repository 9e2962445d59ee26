//! How much memory a server needs: weights, keys and values, and what it works with. Pure.

use crate::options::{Bundle, DeployOptions};

/// What the program, its buffers and a step of a model take besides.
const WORK_BYTES: u64 = 512 << 20;
/// Of weights once more: while they are packed, parts lie in memory twice.
const PACKING_SHARE: u64 = 4;
/// Keys and values are given out in whole mebibytes.
const MEBIBYTE: u64 = 1 << 20;

/// Bytes of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// For keys and values, a whole number of MiB; 0 for what writes no text.
    pub kv_bytes: u64,
    /// All of it, a whole number of MiB.
    pub bytes: u64,
}

impl Memory {
    /// For as many sequences as are computed at once, each with its whole context.
    pub fn of(bundle: &Bundle, options: &DeployOptions) -> Self {
        let context = options.context.unwrap_or(bundle.context);
        let kv = bundle.kv_bytes_per_token.saturating_mul(context).saturating_mul(u64::from(options.sequences));
        let kv_bytes = kv.div_ceil(MEBIBYTE) * MEBIBYTE;
        let bytes = bundle.weights_bytes + bundle.weights_bytes / PACKING_SHARE + kv_bytes + WORK_BYTES;
        Self { kv_bytes, bytes: bytes.div_ceil(MEBIBYTE) * MEBIBYTE }
    }

    /// Whole MiB of all of it.
    pub fn mebibytes(&self) -> u64 {
        self.bytes / MEBIBYTE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Place;

    #[test]
    fn weights_keys_values_and_work() {
        let bundle = Bundle {
            name: "m".into(),
            digest: String::new(),
            licenses: vec![],
            weights_bytes: 400 << 20,
            kv_bytes_per_token: 1 << 10,
            context: 2048,
        };
        let options = DeployOptions { sequences: 4, ..DeployOptions::new("m", Place::Folder("/m".into())) };
        let memory = Memory::of(&bundle, &options);
        assert_eq!((memory.kv_bytes >> 20, memory.mebibytes()), (8, 400 + 100 + 8 + 512));
        let half = DeployOptions { context: Some(1000), ..options };
        assert_eq!(Memory::of(&bundle, &half).kv_bytes >> 20, 4);
    }
}
