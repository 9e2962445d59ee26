//! An adapter packed for inference: what it adds to each product of each block, to the rows that ask for it. Many are there
//! at a time over one base.

use crate::{
    Decoder,
    block::{Site, site},
    peft::PeftAdapter,
};
use narthex_base::{Error, Result};
use narthex_kernels::{LowRank, LowRankPart};
use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// The updates of an adapter. Its weights are in the base's precision.
#[derive(Debug)]
pub struct Adapter {
    /// Of all that this process has read, which.
    number: u64,
    updates: HashMap<(usize, Site), Arc<LowRank>>,
    rank: usize,
    bytes: usize,
    base_model: Option<String>,
}

/// Adapters that this process has read.
static READ: AtomicU64 = AtomicU64::new(0);

impl Adapter {
    /// One that changes nothing and says that it has this rank: a stand-in where no model is.
    pub fn nothing(rank: usize) -> Self {
        let number = READ.fetch_add(1, Ordering::Relaxed);
        Self { number, updates: HashMap::new(), rank, bytes: 0, base_model: None }
    }

    /// Tells it from all others that this process has read, also from the same folder.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Reads a PEFT folder for a model packed for inference.
    ///
    /// # Errors
    /// If files are missing or broken, the adapter does not fit the model, or it changes experts.
    pub fn read(folder: &Path, base: &Decoder) -> Result<Self> {
        if !base.is_packed() {
            return Err(Error::input("adapters are served over models on the CPU")
                .at(folder.display(), None)
                .help("merge the adapter into the model for other devices"));
        }
        let adapter = PeftAdapter::read(folder, base)?;
        let (config, mut sites) = (base.config(), HashMap::<(usize, Site), Vec<LowRankPart>>::new());
        let shapes: HashMap<String, [usize; 2]> = base.projection_shapes().into_iter().collect();
        let mut inputs_of = HashMap::new();
        for module in &adapter.modules {
            let (layer, part) = place(&module.name);
            let Some((site, column)) = site(config, layer, part) else {
                return Err(Error::input(format!("the adapter changes the expert `{}`", module.name))
                    .at(folder.display(), None)
                    .help("merge the adapter into the model: updates of experts are not served beside others"));
            };
            let [outputs, inputs] = shapes[&module.name];
            let scale = module.scale as f32;
            let mut b: Vec<f32> = module.b.iter().map(|b| b * scale).collect();
            let gain = module.magnitude.as_ref().map(|magnitude| {
                let mut row = vec![0f32; inputs];
                let gain = |output: usize| {
                    base.packed_row(layer, part, output, &mut row);
                    let b = &mut b[output * module.rank..(output + 1) * module.rank];
                    let gain = magnitude[output] / size_of_sum(&row, b, &module.a);
                    b.iter_mut().for_each(|b| *b *= gain);
                    gain - 1.0
                };
                (0..outputs).map(gain).collect()
            });
            let part = LowRankPart { a: module.a.clone(), b, rank: module.rank, column, outputs, gain };
            sites.entry((layer, site)).or_default().push(part);
            inputs_of.insert((layer, site), inputs);
        }
        let precision = base.precision();
        let update = |(place, mut parts): ((usize, Site), Vec<LowRankPart>)| {
            parts.sort_by_key(|part| part.column);
            (place, Arc::new(LowRank::new(inputs_of[&place], &parts, precision)))
        };
        let updates: HashMap<_, _> = sites.into_iter().map(update).collect();
        let bytes = updates.values().map(|update| update.bytes()).sum();
        let number = READ.fetch_add(1, Ordering::Relaxed);
        Ok(Self { number, updates, rank: adapter.rank(), bytes, base_model: adapter.base_model().map(str::to_string) })
    }

    /// What it adds to a product, if anything.
    pub(crate) fn update(&self, layer: usize, site: Site) -> Option<Arc<LowRank>> {
        self.updates.get(&(layer, site)).cloned()
    }

    /// The largest rank.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The model that it was trained on, as its config says.
    pub fn base_model(&self) -> Option<&str> {
        self.base_model.as_deref()
    }
}

/// Layer and rest of a name that begins with `model.layers.`.
fn place(name: &str) -> (usize, &str) {
    let rest = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
    rest.map_or((0, name), |(layer, part)| (layer.parse().unwrap_or(0), part))
}

/// The Euclidean size of `row + b A`, with A `[rank, in]`.
fn size_of_sum(row: &[f32], b: &[f32], a: &[f32]) -> f32 {
    let mut sum = row.to_vec();
    for (b, a) in b.iter().zip(a.chunks_exact(row.len())) {
        sum.iter_mut().zip(a).for_each(|(sum, a)| *sum += b * a);
    }
    sum.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt() as f32
}
