//! A PEFT folder read for a decoder that is packed for inference.

use super::Decoder;
use crate::{
    adapter::Adapter,
    peft::PeftAdapter,
    site::{Site, all_projection_shapes, site},
};
use narthex_base::{Error, Result};
use narthex_kernels::{LowRank, LowRankPart};
use std::{collections::HashMap, path::Path, sync::Arc};

impl Adapter {
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
        let adapter = PeftAdapter::read(folder, base.config())?;
        let (config, mut sites) = (base.config(), HashMap::<(usize, Site), Vec<LowRankPart>>::new());
        let shapes: HashMap<String, [usize; 2]> = all_projection_shapes(config).into_iter().collect();
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
        Ok(Self::new(updates, adapter.rank(), adapter.base_model().map(str::to_string)))
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
