//! The product is one chain of fused multiply-adds over k in ascending order, bit for bit.

use crate::{
    Isa, Precision, isa,
    product::{Along, Finish, Operand, Stack, Start, product},
    testing::{any_isa, flush, normal, on_every_machine, round_to_bf16, tile_chain},
};
use narthex_base::random::Stream;

/// The sum for one element, given its row of A and its column of B.
fn chain(precision: Precision, start: f32, a: &[f32], b: &[f32]) -> f32 {
    match precision {
        Precision::F32 => a.iter().zip(b).fold(start, |sum, (a, b)| a.mul_add(*b, sum)),
        Precision::Bf16 => {
            let value = |x: &[f32], i: usize| x.get(i).map_or(0.0, |x| round_to_bf16(flush(*x)));
            if isa() == Isa::Amx {
                return tile_chain(start, a, b);
            }
            (0..a.len().div_ceil(2)).map(|pair| 2 * pair).fold(start, |sum, i| {
                let sum = flush(value(a, i + 1).mul_add(value(b, i + 1), flush(sum)));
                flush(value(a, i).mul_add(value(b, i), sum))
            })
        }
    }
}

/// A matrix `[width, depth]` in either order, with `gap` values between its rows.
struct Stored {
    width: usize,
    depth: usize,
    along: Along,
    gap: usize,
    values: Vec<f32>,
}

impl Stored {
    fn new(stream: Stream, width: usize, depth: usize, along: Along, gap: usize) -> Self {
        let (rows, columns) = if along == Along::Depth { (width, depth) } else { (depth, width) };
        let mut values = normal(stream, rows * (columns + gap));
        // Nobody may look between the rows.
        for row in values.chunks_mut((columns + gap).max(1)) {
            row[columns..].fill(f32::NAN);
        }
        Self { width, depth, along, gap, values }
    }

    fn operand(&self) -> Operand {
        let (rows, columns) =
            if self.along == Along::Depth { (self.width, self.depth) } else { (self.depth, self.width) };
        Operand::new(Stack::strided(&self.values, rows, columns, columns + self.gap), self.along)
    }

    /// Index `i` of the width over the whole depth.
    fn line(&self, i: usize) -> Vec<f32> {
        let at = |k: usize| match self.along {
            Along::Depth => i * (self.depth + self.gap) + k,
            Along::Width => k * (self.width + self.gap) + i,
        };
        (0..self.depth).map(|k| self.values[at(k)]).collect()
    }
}

/// Sizes on both sides of every block: a vector, a tile, a panel, few rows (42), a slab (384 words), two slabs.
#[cfg(not(miri))]
const SIZES: [[usize; 3]; 16] = [
    [1, 1, 1],
    [1, 900, 33],
    [2, 31, 32],
    [3, 32, 31],
    [13, 383, 64],
    [14, 384, 65],
    [15, 385, 1],
    [42, 769, 70],
    [43, 769, 70],
    [57, 17, 100],
    [64, 1, 96],
    [100, 770, 31],
    [113, 400, 97],
    [128, 33, 15],
    [200, 129, 48],
    [5, 1601, 40],
];
#[cfg(miri)]
const SIZES: [[usize; 3]; 3] = [[3, 18, 33], [43, 3, 5], [1, 401, 2]];

#[test]
fn every_element_is_one_chain_in_order() {
    let _isa = any_isa();
    let stream = Stream::new(3, "product");
    for (case, [m, k, n]) in SIZES.into_iter().enumerate() {
        let stream = stream.at(case as u64);
        for precision in [Precision::F32, Precision::Bf16] {
            for (a_along, b_along, gap) in [
                (Along::Depth, Along::Depth, 0),
                (Along::Depth, Along::Width, 3),
                (Along::Width, Along::Width, 0),
                (Along::Width, Along::Depth, 1),
            ] {
                let a = Stored::new(stream.at(1), m, k, a_along, gap);
                let b = Stored::new(stream.at(2), n, k, b_along, gap);
                let (bias, residual) = (normal(stream.at(3), n), normal(stream.at(4), m * n));
                let before = normal(stream.at(5), m * n);
                let go_on = case % 2 == 1;
                let finish = Finish {
                    bias: (case % 3 != 1).then_some(&bias[..]),
                    residual: (case % 4 != 2).then_some(&residual[..]),
                };
                let mut c = if go_on { before.clone() } else { vec![f32::NAN; m * n] };
                let start = if go_on { Start::Continue } else { Start::Zero };
                product(precision, a.operand(), b.operand(), &mut c, start, finish);
                let (a, b): (Vec<_>, Vec<_>) =
                    ((0..m).map(|i| a.line(i)).collect(), (0..n).map(|j| b.line(j)).collect());
                for i in 0..m {
                    for j in 0..n {
                        let mut sum = chain(precision, if go_on { before[i * n + j] } else { 0.0 }, &a[i], &b[j]);
                        sum += finish.bias.map_or(0.0, |bias| bias[j]);
                        sum += finish.residual.map_or(0.0, |residual| residual[i * n + j]);
                        let found = c[i * n + j];
                        assert_eq!(
                            found.to_bits(),
                            sum.to_bits(),
                            "{precision:?} [{m}, {k}] [{k}, {n}] at {i}, {j}: {found} not {sum}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "too large")]
fn more_than_one_share_of_packed_panels() {
    let _isa = any_isa();
    // 800 x 5300 words are more than the 4 Mi that are packed at a time.
    let ([m, k, n], stream) = ([43, 800, 5300], Stream::new(4, "panels"));
    let a = Stored::new(stream.at(1), m, k, Along::Depth, 0);
    let b = Stored::new(stream.at(2), n, k, Along::Depth, 0);
    let mut c = vec![f32::NAN; m * n];
    product(Precision::F32, a.operand(), b.operand(), &mut c, Start::Zero, Finish::default());
    assert!(c.iter().all(|x| x.is_finite()));
    for j in (0..n).step_by(331).chain([5215, 5216, 5247, 5248, 5299]) {
        let column = b.line(j);
        for i in (0..m).step_by(7) {
            assert_eq!(c[i * n + j].to_bits(), chain(Precision::F32, 0.0, &a.line(i), &column).to_bits(), "{i}, {j}");
        }
    }
}

#[test]
fn empty_products() {
    let _isa = any_isa();
    let bias = [1.0, 2.0, 3.0];
    let mut c = [f32::NAN; 6];
    let empty = |width: usize, along| {
        let [rows, columns] = if along == Along::Depth { [width, 0] } else { [0, width] };
        Operand::new(Stack::strided(&[], rows, columns, columns), along)
    };
    let finish = Finish { bias: Some(&bias), residual: None };
    product(Precision::F32, empty(2, Along::Width), empty(3, Along::Width), &mut c, Start::Zero, finish);
    assert_eq!(c, [1.0, 2.0, 3.0, 1.0, 2.0, 3.0], "a sum of nothing is 0");
    let (a, b) = (normal(Stream::new(5, "a"), 10), normal(Stream::new(5, "b"), 15));
    let no_rows = Operand::new(Stack::strided(&a, 0, 5, 5), Along::Depth);
    let b = Operand::new(Stack::strided(&b, 3, 5, 5), Along::Depth);
    product(Precision::F32, no_rows, b, &mut [], Start::Zero, Finish::default());
}

#[test]
fn a_stack_is_its_parts_one_below_the_other() {
    let _isa = any_isa();
    let stream = Stream::new(6, "stack");
    for precision in [Precision::F32, Precision::Bf16] {
        let cases = if cfg!(miri) {
            [(2, [2, 31, 1], 5), (43, [3, 0, 1], 2)]
        } else {
            [(5, [7, 64, 1], 70), (50, [33, 0, 95], 70)]
        };
        for (m, rows, k) in cases {
            let parts: Vec<Vec<f32>> = (0..3).map(|i| normal(stream.at(i as u64), rows[i] * k)).collect();
            let whole = parts.concat();
            let n = whole.len() / k;
            let slices: Vec<&[f32]> = parts.iter().map(Vec::as_slice).collect();
            // As columns of B (a forward pass) and as steps of k (an input gradient).
            let (x, g) = (normal(stream.at(8), m * k), normal(stream.at(9), m * n));
            for (a, along, width) in [(&x, Along::Depth, n), (&g, Along::Width, k)] {
                let a = Operand::new(Stack::strided(a, m, a.len() / m, a.len() / m), Along::Depth);
                let run = |stack: Stack| {
                    let mut c = vec![f32::NAN; m * width];
                    product(precision, a, Operand::new(stack, along), &mut c, Start::Zero, Finish::default());
                    c.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
                };
                assert_eq!(run(Stack::new(&slices, k)), run(Stack::strided(&whole, n, k, k)));
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "one instruction set, and too large")]
fn the_same_bytes_on_every_machine() {
    let stream = Stream::new(7, "machines");
    for (case, [m, k, n]) in [[1, 801, 95], [14, 385, 64], [42, 33, 131], [61, 769, 67]].into_iter().enumerate() {
        for precision in [Precision::F32, Precision::Bf16] {
            for (a_along, b_along) in
                [(Along::Depth, Along::Depth), (Along::Depth, Along::Width), (Along::Width, Along::Width)]
            {
                let a = Stored::new(stream.at(case as u64).at(1), m, k, a_along, 2);
                let b = Stored::new(stream.at(case as u64).at(2), n, k, b_along, 0);
                let results = on_every_machine(|| {
                    let mut c = vec![f32::NAN; m * n];
                    product(precision, a.operand(), b.operand(), &mut c, Start::Zero, Finish::default());
                    c.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
                });
                for (machine, found) in &results {
                    assert!(
                        *found == results[0].1,
                        "{precision:?} [{m}, {k}] [{k}, {n}]: {machine} not as {}",
                        results[0].0
                    );
                }
            }
        }
    }
}
