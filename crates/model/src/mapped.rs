//! From the names and layouts of a family's checkpoints to those of the network, and back: where a tensor lies in
//! theirs. Knows names and shapes; no files.

use crate::{
    block_matrix::BlockMatrix,
    config::{ModelConfig, NormKind},
    quantize::QuantizedMatrix,
    weights::{TensorMap, WeightSource},
};
use narthex_base::Result;
use narthex_kernels::{Quantization, WeightValues};
use std::{borrow::Cow, ops::Range};

/// The rows of ours within theirs.
#[derive(Debug, PartialEq)]
enum Rows {
    Side(Range<usize>),
    Picked(Vec<usize>),
}

/// Where a tensor of ours lies.
#[derive(Debug)]
struct Place {
    name: String,
    /// Of the whole tensor that it lies in.
    shape: Vec<usize>,
    rows: Rows,
    transposed: bool,
    /// What is added to each value.
    offset: f32,
}

/// The names of the parts that may lie in one matrix, with their outputs.
fn parts(config: &ModelConfig, part: &str) -> Vec<(&'static str, usize)> {
    let (q, kv) = (config.heads * config.head_width, config.kv_heads * config.head_width);
    let f = config.intermediate_size;
    match part.rsplit('.').next() {
        Some("q_proj" | "k_proj" | "v_proj") => vec![("q_proj", q), ("k_proj", kv), ("v_proj", kv)],
        Some("gate_proj" | "up_proj") => vec![("gate_proj", f), ("up_proj", f)],
        _ => vec![],
    }
}

/// Which of a head's values stands at each place, so that those that are rotated are pairs half a head apart.
fn rotated(config: &ModelConfig) -> Option<Vec<usize>> {
    let (width, d) = (config.design.rotary_width?, config.head_width);
    let (turning, still) = (width / 2, (d - width) / 2);
    let half = |first: usize, rest: usize| (first..first + turning).chain(rest..rest + still);
    Some(half(0, width).chain(half(turning, width + still)).collect())
}

fn place(config: &ModelConfig, ours: &str, shape: &[usize]) -> Place {
    let map = &config.design.family.weights;
    let (module, suffix) = ours.rsplit_once('.').unwrap_or((ours, ""));
    let theirs = map.module(module);
    let in_layer = module.starts_with("model.layers.");
    let mut whole = shape.to_vec();
    let mut first = 0;
    let mut of_heads = None;
    let (stem, own) = module.rsplit_once('.').unwrap_or(("", module));
    let parts = parts(config, module);
    let name_of = |part: &str| map.module(&format!("{stem}.{part}"));
    if parts.len() > 1 && parts.iter().all(|(part, _)| name_of(part) == theirs) {
        whole[0] = parts.iter().map(|(_, outputs)| outputs).sum();
        let number = parts.iter().position(|(part, _)| *part == own).unwrap_or(0);
        first = parts[..number].iter().map(|(_, outputs)| outputs).sum();
        of_heads = map.by_head.then_some(number);
    }
    let mut rows = Rows::Side(first..first + shape[0]);
    let permutation = if matches!(own, "q_proj" | "k_proj") { rotated(config) } else { None };
    if of_heads.is_some() || permutation.is_some() {
        let d = config.head_width;
        let within = |j: usize| permutation.as_ref().map_or(j, |order| order[j]);
        rows = Rows::Picked(
            (0..shape[0])
                .map(|row| match of_heads {
                    Some(part) => (row / d * 3 + part) * d + within(row % d),
                    None => first + row / d * d + within(row % d),
                })
                .collect(),
        );
    }
    let transposed = map.transposed && in_layer && shape.len() == 2;
    if transposed {
        whole.reverse();
    }
    let less_one = config.design.norm == NormKind::RmsLessOne && own.contains("norm") && suffix == "weight";
    let offset = if less_one { 1.0 } else { 0.0 };
    Place { name: format!("{theirs}.{suffix}"), shape: whole, rows, transposed, offset }
}

impl Place {
    fn row(&self, row: usize) -> usize {
        match &self.rows {
            Rows::Side(range) => range.start + row,
            Rows::Picked(rows) => rows[row],
        }
    }

    /// Where the values of row `row` of ours lie in theirs: the first, and the distance to the next.
    fn stride(&self, row: usize) -> (usize, usize) {
        let width = self.shape.get(1).copied().unwrap_or(1);
        if self.transposed { (self.row(row), width) } else { (self.row(row) * width, 1) }
    }
}

/// Weights of a family's checkpoint by the decoder's names.
pub(crate) struct Mapped<'a> {
    config: &'a ModelConfig,
    source: &'a dyn WeightSource,
}

impl<'a> Mapped<'a> {
    pub(crate) fn new(config: &'a ModelConfig, source: &'a dyn WeightSource) -> Self {
        Self { config, source }
    }

    /// The name as it is there: what stands before all names may be missing, or stand there besides.
    fn found<'b>(&self, place: &'b Place) -> Cow<'b, str> {
        let (name, prefix) = (&place.name, self.config.design.family.weights.prefix);
        if self.source.contains(name) {
            return name.into();
        }
        let bare = name.strip_prefix(prefix).filter(|bare| self.source.contains(bare)).map(Cow::from);
        let longer = || Some(format!("{prefix}{name}")).filter(|longer| self.source.contains(longer)).map(Cow::from);
        bare.or_else(longer).unwrap_or(name.into())
    }
}

impl WeightSource for Mapped<'_> {
    fn values(&self, name: &str, shape: &[usize]) -> Result<WeightValues<'_>> {
        let place = place(self.config, name, shape);
        let theirs = self.source.values(&self.found(&place), &place.shape)?;
        let width: usize = shape[1..].iter().product();
        if let (Rows::Side(rows), false, 0.0) = (&place.rows, place.transposed, place.offset) {
            return Ok(theirs.part(rows.start * width, rows.len() * width));
        }
        let mut all = vec![0f32; theirs.len()];
        theirs.read(0, &mut all);
        let mut ours = Vec::with_capacity(shape[0] * width);
        for row in 0..shape[0] {
            let (first, step) = place.stride(row);
            ours.extend((0..width).map(|i| all[first + i * step] + place.offset));
        }
        Ok(WeightValues::Owned(ours))
    }

    fn contains(&self, name: &str) -> bool {
        let prefix = self.config.design.family.weights.prefix;
        self.source.contains(name) || self.source.contains(&format!("{prefix}{name}"))
    }

    fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<Option<QuantizedMatrix>> {
        let place = place(self.config, name, &shape);
        let &[outputs, inputs] = &place.shape[..] else { return Ok(None) };
        if place.transposed {
            return Ok(None);
        }
        let matrix = self.source.matrix(&self.found(&place), [outputs, inputs])?;
        let rows: Vec<usize> = (0..shape[0]).map(|row| place.row(row)).collect();
        Ok(matrix.map(|matrix| if rows.iter().copied().eq(0..outputs) { matrix } else { matrix.rows(&rows) }))
    }

    fn blocks(&self, name: &str, shape: [usize; 2]) -> Result<Option<BlockMatrix<'_>>> {
        let place = place(self.config, name, &shape);
        let &[outputs, inputs] = &place.shape[..] else { return Ok(None) };
        if place.transposed {
            return Ok(None);
        }
        let matrix = self.source.blocks(&self.found(&place), [outputs, inputs])?;
        let rows: Vec<usize> = (0..shape[0]).map(|row| place.row(row)).collect();
        Ok(matrix.map(|matrix| matrix.picked(&rows)))
    }

    fn rounding(&self, name: &str, shape: [usize; 2]) -> Option<Quantization> {
        self.source.rounding(name, shape)
    }
}

/// Where the outputs of a module lie in the module of their checkpoints that holds it: its name, its outputs, and which
/// of them are ours, in our order. With 1 output, which is always the first, whether others lie there too.
pub(crate) fn rows_in_theirs(config: &ModelConfig, module: &str, outputs: usize) -> (String, usize, Vec<usize>) {
    let Place { name, shape, rows, .. } = place(config, &format!("{module}.bias"), &[outputs]);
    let rows = match rows {
        Rows::Side(range) => range.collect(),
        Rows::Picked(rows) => rows,
    };
    (name.trim_end_matches(".bias").into(), shape[0], rows)
}

/// The decoder's tensors as the family's checkpoints hold them.
pub(crate) fn to_theirs(config: &ModelConfig, ours: TensorMap) -> TensorMap {
    let mut theirs = TensorMap::new();
    for (name, (shape, values)) in ours {
        let place = place(config, &name, &shape);
        let size = place.shape.iter().product();
        let (_, to) = theirs.entry(place.name.clone()).or_insert_with(|| (place.shape.clone(), vec![0f32; size]));
        let width: usize = shape[1..].iter().product();
        for (row, values) in values.chunks_exact(width).enumerate() {
            let (first, step) = place.stride(row);
            for (i, value) in values.iter().enumerate() {
                to[first + i * step] = value - place.offset;
            }
        }
    }
    theirs
}
