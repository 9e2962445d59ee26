//! The projections of a block by name: their shapes, and the products that they are parts of. Knows configs; no
//! weights.

use crate::config::ModelConfig;

/// A product of a block and what shares its input: what one update of an adapter changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Site {
    Qkv,
    Output,
    GateUp,
    Down,
}

/// The projections of a block that are no expert's: name, shape `[out, in]`.
fn dense_shapes(config: &ModelConfig, layer: usize) -> Vec<(&'static str, [usize; 2])> {
    let ModelConfig { hidden_size: c, intermediate_size: f, heads, kv_heads, head_width: d, .. } = *config;
    let mut shapes = vec![
        ("self_attn.q_proj", [heads * d, c]),
        ("self_attn.k_proj", [kv_heads * d, c]),
        ("self_attn.v_proj", [kv_heads * d, c]),
        ("self_attn.o_proj", [c, heads * d]),
    ];
    if config.experts(layer).is_none() {
        if config.design.gated {
            shapes.push(("mlp.gate_proj", [f, c]));
        }
        shapes.extend([("mlp.up_proj", [f, c]), ("mlp.down_proj", [c, f])]);
    }
    shapes
}

/// All projections of a block that can carry an adapter: name, shape `[out, in]`.
fn projection_shapes(config: &ModelConfig, layer: usize) -> Vec<(String, [usize; 2])> {
    let mut shapes: Vec<_> =
        dense_shapes(config, layer).into_iter().map(|(name, shape)| (name.to_string(), shape)).collect();
    if let Some(experts) = config.experts(layer) {
        let (c, f) = (config.hidden_size, experts.intermediate_size);
        for i in 0..experts.count {
            let parts = [("gate_proj", [f, c]), ("up_proj", [f, c]), ("down_proj", [c, f])];
            shapes.extend(parts.map(|(part, shape)| (format!("mlp.experts.{i}.{part}"), shape)));
        }
    }
    shapes
}

/// Where the outputs of a projection stand: the product that it is part of, and its first column there. None for
/// experts.
pub(crate) fn site(config: &ModelConfig, layer: usize, part: &str) -> Option<(Site, usize)> {
    let shapes = dense_shapes(config, layer);
    let outputs = |name: &str| shapes.iter().find(|(found, _)| *found == name).map_or(0, |(_, [outputs, _])| *outputs);
    let (q, k) = (outputs("self_attn.q_proj"), outputs("self_attn.k_proj"));
    match part {
        "self_attn.q_proj" => Some((Site::Qkv, 0)),
        "self_attn.k_proj" => Some((Site::Qkv, q)),
        "self_attn.v_proj" => Some((Site::Qkv, q + k)),
        "self_attn.o_proj" => Some((Site::Output, 0)),
        "mlp.gate_proj" => Some((Site::GateUp, 0)),
        "mlp.up_proj" => Some((Site::GateUp, outputs("mlp.gate_proj"))),
        "mlp.down_proj" => Some((Site::Down, 0)),
        _ => None,
    }
}

/// All projections of a model that can carry an adapter: name, shape `[out, in]`.
pub(crate) fn all_projection_shapes(config: &ModelConfig) -> Vec<(String, [usize; 2])> {
    let of_layer = |layer: usize| {
        let block = projection_shapes(config, layer).into_iter();
        block.map(move |(part, shape)| (format!("model.layers.{layer}.{part}"), shape))
    };
    (0..config.layers).flat_map(of_layer).collect()
}
