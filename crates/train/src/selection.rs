//! Which parameters of a network are trained, and which of them are the matrices of hidden layers. Knows names and
//! shapes, neither values nor what the network is for.

use narthex_model::{Decoder, Module, shapes};

/// A parameter that is trained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// Its name: the path of fields through the module.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Whether it is a matrix of a hidden layer, which Muon takes.
    pub hidden: bool,
}

/// The parameters that are trained, in the order of the module's definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection(Vec<Selected>);

impl Selection {
    /// All parameters; [`Selection::with_hidden`] tells the hidden ones.
    pub fn all(network: &impl Module) -> Self {
        Self::named(network, |_| true)
    }

    /// The parameters whose names `wanted` accepts.
    pub fn named(network: &impl Module, wanted: impl Fn(&str) -> bool) -> Self {
        let wanted = shapes(network).into_iter().filter(|(name, _)| wanted(name));
        Self(wanted.map(|(name, shape)| Selected { name, shape, hidden: false }).collect())
    }

    /// The same where those parameters are of hidden layers whose names `hidden` accepts; only matrices count.
    pub fn with_hidden(mut self, hidden: impl Fn(&str) -> bool) -> Self {
        for selected in &mut self.0 {
            selected.hidden = selected.shape.len() == 2 && hidden(&selected.name);
        }
        self
    }

    /// All parameters of a decoder. Embeddings, the output projection and vectors are not hidden.
    pub fn whole_decoder(model: &Decoder) -> Self {
        Self::of_decoder(model, |_| true)
    }

    /// The adapters of a decoder.
    pub fn adapters(model: &Decoder) -> Self {
        let adapters = model.adapter_parameters();
        Self::of_decoder(model, |name| adapters.iter().any(|known| known == name))
    }

    fn of_decoder(model: &Decoder, wanted: impl Fn(&str) -> bool) -> Self {
        let blocks: std::collections::HashSet<String> = model.block_parameters().into_iter().collect();
        Self::named(model, wanted).with_hidden(|name| blocks.contains(name))
    }

    /// Whether the parameter of this name is trained.
    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|selected| selected.name == name)
    }

    /// The parameters.
    pub fn parameters(&self) -> &[Selected] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use narthex_model::{Design, LoraSpec, ModelConfig, cpu};

    #[test]
    fn decoders_tell_their_adapters_and_blocks() {
        let config = ModelConfig {
            vocab_size: 10,
            hidden_size: 8,
            intermediate_size: 12,
            layers: 2,
            heads: 2,
            kv_heads: 2,
            head_width: 4,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            tied_embeddings: false,
            context: 8,
            bos_token: None,
            eos_tokens: vec![],
            design: Design::default(),
        };
        let targets = vec!["q_proj".to_string()];
        let lora = LoraSpec { rank: 2, alpha: 2.0, targets, dropout: 0.0, rank_stabilized: false, decomposed: true };
        let model = Decoder::random(&config, 1, &cpu()).with_lora(&lora, 1);
        let names = |selection: &Selection, hidden: bool| -> Vec<String> {
            let wanted = selection.parameters().iter().filter(|selected| selected.hidden == hidden);
            wanted.map(|selected| selected.name.clone()).collect()
        };
        let adapters = Selection::adapters(&model);
        let expected: Vec<String> =
            ["lora_a", "lora_b"].iter().map(|part| format!("model.layers.1.self_attn.q_proj.lora.{part}")).collect();
        assert_eq!(names(&adapters, true)[2..], expected);
        assert!(names(&adapters, false).iter().all(|name| name.ends_with("lora.magnitude")));
        let whole = Selection::whole_decoder(&model);
        let others = names(&whole, false);
        assert!(others.contains(&"lm_head.weight".to_string()) && others.contains(&"model.norm.weight".to_string()));
        assert!(names(&whole, true).iter().all(|name| name.starts_with("model.layers.")));
        assert!(whole.contains("model.embed_tokens.weight") && !adapters.contains("model.embed_tokens.weight"));
    }
}
