//! Weights as GGUF files hold them: small integers in blocks that share a scale, and for some kinds a minimum. Says
//! what the bytes of a row mean; knows no files and no panels. (ggml's `block_q4_0` to `block_q6_K`.)

/// How a block is laid out. A weight is `d s (q - z)`, or `d s q + m`: with `d` and `m` in f16 for each block, and for
/// the kinds of 256 values a small integer `s` for each group within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub enum BlockKind {
    /// 4 bits and a scale for 32 values.
    Q4_0,
    /// 4 bits, a scale and a minimum for 32 values.
    Q4_1,
    /// 5 bits and a scale for 32 values.
    Q5_0,
    /// 5 bits, a scale and a minimum for 32 values.
    Q5_1,
    /// 8 bits and a scale for 32 values.
    Q8_0,
    /// 4 bits; 256 values, with a 6-bit scale and minimum for each 32.
    Q4_K,
    /// 5 bits; 256 values, with a 6-bit scale and minimum for each 32.
    Q5_K,
    /// 6 bits; 256 values, with an 8-bit scale for each 16.
    Q6_K,
}

/// What is the same for all blocks of a kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Values and bytes of a block.
    pub(super) values: usize,
    pub(super) bytes: usize,
    /// Bits of a code.
    pub(super) bits: u32,
    /// Values that share a scale once `s` is counted.
    pub(super) group: usize,
    /// What is taken off a code, where there is no minimum. Codes of 8 bits are signed, and stored with 128 added.
    pub(super) zero: u8,
    /// Whether there is a minimum, and its sign.
    pub(super) minimum: Option<f32>,
    /// Whether there is an `s`, and what is added to it to store it.
    pub(super) small_scales: Option<u8>,
}

impl BlockKind {
    pub(super) fn layout(self) -> Layout {
        let small = Layout { values: 32, bytes: 18, bits: 4, group: 32, zero: 8, minimum: None, small_scales: None };
        let large = Layout { values: 256, bytes: 144, zero: 0, minimum: Some(-1.0), small_scales: Some(0), ..small };
        match self {
            Self::Q4_0 => small,
            Self::Q4_1 => Layout { bytes: 20, zero: 0, minimum: Some(1.0), ..small },
            Self::Q5_0 => Layout { bytes: 22, bits: 5, zero: 16, ..small },
            Self::Q5_1 => Layout { bytes: 24, bits: 5, zero: 0, minimum: Some(1.0), ..small },
            Self::Q8_0 => Layout { bytes: 34, bits: 8, zero: 128, ..small },
            Self::Q4_K => large,
            Self::Q5_K => Layout { bytes: 176, bits: 5, ..large },
            Self::Q6_K => {
                Layout { bytes: 210, bits: 6, group: 16, zero: 32, minimum: None, small_scales: Some(128), ..large }
            }
        }
    }

    /// Bytes of a row of so many values; none if they are no whole number of blocks.
    pub fn row_bytes(self, values: usize) -> Option<usize> {
        let layout = self.layout();
        values.is_multiple_of(layout.values).then(|| values / layout.values * layout.bytes)
    }

    /// Whether every block's scale, and minimum, of these whole blocks is finite.
    pub fn is_finite(self, blocks: &[u8]) -> bool {
        let finite = |block: &[u8], at: usize| (block[at + 1] & 0x7c) != 0x7c;
        blocks.chunks_exact(self.layout().bytes).all(|block| match self {
            Self::Q4_0 | Self::Q5_0 | Self::Q8_0 => finite(block, 0),
            Self::Q4_1 | Self::Q5_1 | Self::Q4_K | Self::Q5_K => finite(block, 0) && finite(block, 2),
            Self::Q6_K => finite(block, 208),
        })
    }
}

/// One row, unpacked.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    /// One a value.
    pub(super) codes: Vec<u8>,
    /// `d`, one a block, as bits of f16.
    pub(super) scales: Vec<u16>,
    /// `m`, one a block; empty if there are none.
    pub(super) minimums: Vec<u16>,
    /// `s`, one a group; empty if there are none.
    pub(super) small_scales: Vec<u8>,
    /// What `m` is multiplied with, likewise.
    pub(super) small_minimums: Vec<u8>,
}

impl Row {
    /// Unpacks whole blocks.
    pub(super) fn unpack(&mut self, kind: BlockKind, blocks: &[u8]) {
        for part in [&mut self.codes, &mut self.small_scales, &mut self.small_minimums] {
            part.clear();
        }
        self.scales.clear();
        self.minimums.clear();
        for block in blocks.chunks_exact(kind.layout().bytes) {
            let half = |at: usize| u16::from_le_bytes([block[at], block[at + 1]]);
            match kind {
                BlockKind::Q4_0 => self.small(half(0), None, None, &block[2..]),
                BlockKind::Q4_1 => self.small(half(0), Some(half(2)), None, &block[4..]),
                BlockKind::Q5_0 => self.small(half(0), None, Some(&block[2..6]), &block[6..]),
                BlockKind::Q5_1 => self.small(half(0), Some(half(2)), Some(&block[4..8]), &block[8..]),
                BlockKind::Q8_0 => {
                    self.scales.push(half(0));
                    self.codes.extend(block[2..].iter().map(|code| code ^ 128));
                }
                BlockKind::Q4_K => self.large(block, None, &block[16..]),
                BlockKind::Q5_K => self.large(block, Some(&block[16..48]), &block[48..]),
                BlockKind::Q6_K => {
                    self.scales.push(half(208));
                    self.small_scales.extend(block[192..208].iter().map(|scale| scale ^ 128));
                    for i in 0..256 {
                        // Two halves of 128 values: lower 4 bits in 64 bytes, upper 2 bits in 32.
                        let (half, within) = (i / 128, i % 128);
                        let low = block[half * 64 + within % 64] >> (within / 64 * 4) & 15;
                        let high = block[128 + half * 32 + within % 32] >> (within / 32 * 2) & 3;
                        self.codes.push(low | high << 4);
                    }
                }
            }
        }
    }

    /// 32 values, the first half of them in the lower halves of the bytes; fifth bits lie apart.
    fn small(&mut self, scale: u16, minimum: Option<u16>, fifth: Option<&[u8]>, quants: &[u8]) {
        self.scales.push(scale);
        self.minimums.extend(minimum);
        for i in 0..32 {
            let four = quants[i % 16] >> (i / 16 * 4) & 15;
            self.codes.push(four | fifth.map_or(0, |bits| (bits[i / 8] >> (i % 8) & 1) << 4));
        }
    }

    /// 8 groups of 32 values; two groups share 32 bytes, and the group's bit of `fifth` is the fifth bit.
    fn large(&mut self, block: &[u8], fifth: Option<&[u8]>, quants: &[u8]) {
        self.scales.push(u16::from_le_bytes([block[0], block[1]]));
        self.minimums.push(u16::from_le_bytes([block[2], block[3]]));
        let packed = &block[4..16];
        for group in 0..8 {
            // 6 bits each: four groups whole in bytes 0..8, four with their upper 2 bits there and the rest behind.
            let (scale, minimum) = match group {
                0..4 => (packed[group] & 63, packed[group + 4] & 63),
                _ => (
                    packed[group + 4] & 15 | (packed[group - 4] >> 6) << 4,
                    packed[group + 4] >> 4 | (packed[group] >> 6) << 4,
                ),
            };
            self.small_scales.push(scale);
            self.small_minimums.push(minimum);
            for i in 0..32 {
                let four = quants[group / 2 * 32 + i] >> (group % 2 * 4) & 15;
                self.codes.push(four | fifth.map_or(0, |bits| (bits[i] >> group & 1) << 4));
            }
        }
    }
}
