//! What is known of the inputs of a model's layers, and what follows from it for rounding their weights: which inputs
//! errors count most at, and factors that move precision there. Knows weights; no models, no files.

use crate::weights::{TensorMap, WeightSource};
use narthex_base::Result;
use narthex_kernels::{
    InputStatistics, PackedWeight, Precision, WeightValues,
    quantize::{INT4_ZERO, int4_group},
    team,
};
use std::{cell::RefCell, collections::BTreeMap, sync::Arc};

/// What is known of the inputs of layers, by the names of their weights, and what is done about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calibration {
    /// The mean square of each input `[I]`.
    pub squares: BTreeMap<String, Vec<f32>>,
    /// The mean size of each input `[I]`.
    pub sizes: BTreeMap<String, Vec<f32>>,
    /// Factors of a weight's columns `[I]`, or of a norm's values.
    pub columns: BTreeMap<String, Vec<f32>>,
    /// Factors of a weight's rows `[O]`.
    pub rows: BTreeMap<String, Vec<f32>>,
}

/// A source whose packed weights count what they are multiplied with.
pub struct Watching<'a> {
    weights: &'a dyn WeightSource,
    seen: RefCell<BTreeMap<String, Arc<InputStatistics>>>,
}

impl<'a> Watching<'a> {
    /// Over these weights.
    pub fn new(weights: &'a dyn WeightSource) -> Self {
        Self { weights, seen: RefCell::default() }
    }

    /// What was seen so far.
    pub fn calibration(&self) -> Calibration {
        let mut calibration = Calibration::default();
        for (name, seen) in self.seen.borrow().iter() {
            let (squares, sizes) = seen.means();
            if !squares.is_empty() {
                calibration.squares.insert(name.clone(), squares);
                calibration.sizes.insert(name.clone(), sizes);
            }
        }
        calibration
    }
}

impl WeightSource for Watching<'_> {
    fn values(&self, name: &str, shape: &[usize]) -> Result<WeightValues<'_>> {
        self.weights.values(name, shape)
    }

    fn contains(&self, name: &str) -> bool {
        self.weights.contains(name)
    }

    fn packed(&self, names: &[(String, [usize; 2])], precision: Precision) -> Result<PackedWeight> {
        let seen = Arc::new(InputStatistics::default());
        for (name, _) in names {
            self.seen.borrow_mut().insert(name.clone(), seen.clone());
        }
        Ok(self.weights.packed(names, precision)?.watched(seen))
    }
}

/// Exponents of the inputs' sizes that are tried.
const EXPONENTS: usize = 10;

/// Factors for the columns of weights `[.., I]` that share their input, such that rounding `W diag(s)` to int4 and
/// dividing by s again is best: `s = size^a`, for the a of a grid with the least squared error of what the weights
/// compute, each input's error weighted by its mean square (activation-aware scaling: Lin et al., "AWQ", 2023). Ones
/// where that is best.
///
/// # Panics
/// If lengths differ.
pub fn awq_factors(weights: &[&[f32]], group: usize, squares: &[f32], sizes: &[f32]) -> Vec<f32> {
    let inputs = squares.len();
    assert!(sizes.len() == inputs && weights.iter().all(|part| part.len().is_multiple_of(inputs)), "whole rows");
    let factors = |exponent: usize| -> Vec<f32> {
        let power = exponent as f32 / EXPONENTS as f32;
        let raised: Vec<f32> = sizes.iter().map(|size| size.max(1e-4).powf(power)).collect();
        let (least, most) = raised.iter().fold((f32::INFINITY, 0f32), |(least, most), x| (least.min(*x), most.max(*x)));
        raised.into_iter().map(|factor| factor / (least * most).sqrt()).collect()
    };
    let rows: Vec<&[f32]> = weights.iter().flat_map(|part| part.chunks_exact(inputs)).collect();
    let error = |exponent: usize| -> f64 {
        let factors = factors(exponent);
        let importance: Vec<f32> = squares.iter().zip(&factors).map(|(square, s)| square / (s * s)).collect();
        let blocks = rows.len().div_ceil(ROWS);
        let errors = team::map(blocks, |block| {
            let mut total = 0f64;
            let mut codes = vec![0u8; group];
            for row in &rows[block * ROWS..rows.len().min((block + 1) * ROWS)] {
                let scaled: Vec<f32> = row.iter().zip(&factors).map(|(x, s)| x * s).collect();
                for (values, importance) in scaled.chunks(group).zip(importance.chunks(group)) {
                    let codes = &mut codes[..values.len()];
                    let scale = int4_group(values, importance, codes);
                    for ((x, code), importance) in values.iter().zip(codes).zip(importance) {
                        let found = scale.to_f32() * (f32::from(*code) - f32::from(INT4_ZERO));
                        total += f64::from(importance * (x - found).powi(2));
                    }
                }
            }
            total
        });
        errors.into_iter().sum()
    };
    let best = (0..EXPONENTS).min_by(|a, b| error(*a).total_cmp(&error(*b))).unwrap_or(0);
    factors(best)
}

/// Rows that a thread tries at a time.
const ROWS: usize = 16;

/// Layers of a block that share an input, and the norm before them.
const AFTER_NORMS: [(&str, &[&str]); 2] = [
    ("input_layernorm", &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    ("post_attention_layernorm", &["mlp.gate_proj", "mlp.up_proj"]),
];

impl Calibration {
    /// Finds [`awq_factors`] for the layers of a model whose blocks are named as Llama's, and the factors that undo
    /// them in what comes before: in a norm for the layers after it, in `up_proj` for `down_proj`. Other models are
    /// left as they are, as are norms whose weight is not what they multiply with.
    ///
    pub fn scale(&mut self, model_type: &str, weights: &TensorMap, group: usize) {
        if !["llama", "mistral", "qwen2", "qwen3", "smollm3"].contains(&model_type) {
            return;
        }
        let of = |name: &str| format!("{name}.weight");
        let blocks: Vec<String> = self
            .squares
            .keys()
            .filter_map(|name| name.strip_suffix("self_attn.q_proj.weight"))
            .map(str::to_string)
            .collect();
        let of_name = |name: &String| weights.get(name).map(|(_, values)| &values[..]);
        for block in blocks {
            for (norm, layers) in AFTER_NORMS {
                let names: Vec<String> = layers.iter().map(|layer| of(&format!("{block}{layer}"))).collect();
                let Some(squares) = self.squares.get(&names[0]) else { continue };
                let Some(parts) = names.iter().map(of_name).collect::<Option<Vec<_>>>() else { continue };
                let factors = awq_factors(&parts, group, squares, &self.sizes[&names[0]]);
                self.columns.insert(of(&format!("{block}{norm}")), factors.iter().map(|s| 1.0 / s).collect());
                for name in names {
                    self.columns.insert(name, factors.clone());
                }
            }
            let (up, down) = (of(&format!("{block}mlp.up_proj")), of(&format!("{block}mlp.down_proj")));
            let Some(squares) = self.squares.get(&down) else { continue };
            let Some(part) = of_name(&down) else { continue };
            let factors = awq_factors(&[part], group, squares, &self.sizes[&down]);
            self.rows.insert(up, factors.iter().map(|s| 1.0 / s).collect());
            self.columns.insert(down, factors);
        }
        // What is multiplied with a scaled weight is smaller by its factor.
        for (name, factors) in &self.columns {
            if let Some(squares) = self.squares.get_mut(name) {
                squares.iter_mut().zip(factors).for_each(|(square, s)| *square /= s * s);
            }
        }
    }

    /// Multiplies what the factors say into a tensor of rows of `inputs`; whether there were any.
    pub(crate) fn apply(&self, name: &str, values: &mut [f32], inputs: usize) -> bool {
        let (columns, rows) = (self.columns.get(name), self.rows.get(name));
        for (i, row) in values.chunks_mut(inputs).enumerate() {
            if let Some(columns) = columns {
                row.iter_mut().zip(columns).for_each(|(x, factor)| *x *= factor);
            }
            if let Some(rows) = rows {
                row.iter_mut().for_each(|x| *x *= rows[i]);
            }
        }
        columns.is_some() || rows.is_some()
    }
}
