//! How a family's checkpoints name and lay out weights, as data. Knows no config.

/// A family of models, as checkpoints show it.
#[derive(Debug)]
pub struct Family {
    /// Its name in `config.json`.
    pub model_type: &'static str,
    /// How its checkpoints name and lay out weights.
    pub(crate) weights: WeightMap,
}

impl PartialEq for Family {
    fn eq(&self, other: &Self) -> bool {
        self.model_type == other.model_type
    }
}

/// How a family writes its weights. The network's own names are Llama's.
#[derive(Debug, PartialEq)]
pub(crate) struct WeightMap {
    /// What stands before the number of a layer.
    pub(crate) layers: &'static str,
    /// Modules whose names differ, ours and theirs; in layers without what stands before, `#` for the number of an
    /// expert. Where several of ours have one name, they lie in that one, in the order of their numbers here.
    pub(crate) names: &'static [(&'static str, &'static str)],
    /// Whether the matrices in layers are `[in, out]`.
    pub(crate) transposed: bool,
    /// Whether query, key and value of a head lie together, where they lie in one matrix.
    pub(crate) by_head: bool,
    /// What may stand before all names or be missing.
    pub(crate) prefix: &'static str,
}

impl WeightMap {
    /// As the decoder itself.
    pub(crate) const LLAMA: Self =
        Self { layers: "model.layers.", names: &[], transposed: false, by_head: false, prefix: "model." };

    /// The name of a module in their files.
    pub(crate) fn module(&self, ours: &str) -> String {
        let find = |name: &str| self.names.iter().find(|(ours, _)| *ours == name).map(|(_, theirs)| *theirs);
        let Some((number, part)) = ours.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')) else {
            return find(ours).unwrap_or(ours).into();
        };
        let expert = part.strip_prefix("mlp.experts.").and_then(|rest| rest.split_once('.'));
        let theirs = match expert {
            Some((expert, module)) => {
                find(&format!("mlp.experts.#.{module}")).map_or(part.into(), |theirs| theirs.replace('#', expert))
            }
            None => find(part).unwrap_or(part).into(),
        };
        format!("{}{number}.{theirs}", self.layers)
    }
}

/// Llama, whose design and names are the decoder's own.
pub(crate) const LLAMA: &Family = &Family { model_type: "llama", weights: WeightMap::LLAMA };
