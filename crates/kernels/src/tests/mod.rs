//! Every operator's kernel against its reference in f64, against central differences, and against itself on other
//! machines.

mod activation;
mod adamw;
mod attention;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod attention_on_tiles;
mod blocks;
mod cross_entropy;
mod embedding;
mod frozen;
mod gated;
mod layer_norm;
mod linear;
mod low_rank;
mod muon;
mod packed;
mod paged;
mod product;
mod quantized;
mod ragged;
mod rms_norm;
mod rotary;
mod softmax;

use crate::{
    Activation, AttentionShape, Isa, Precision, Scores, activation as activate, causal_attention,
    embedding as embedding_rows, layer_norm as centred_norm, linear as linear_layer, linear_cross_entropy,
    machine::profile,
    rms_norm as norm, rotary as rotate, softmax as shares, swiglu,
    testing::{Input, Operator, constant, indices, outcome, with_isa},
};
use burn::tensor::{DType, Tensor};
use narthex_base::random::Stream;

/// All other tests compare f32 with f64 in the belief that one is the kernel and the other is not.
#[test]
fn kernels_run_in_f32_and_references_in_f64() {
    let shape = AttentionShape {
        batch: 1,
        len: 4,
        heads: 1,
        kv_heads: 1,
        head_width: 2,
        starts: None,
        dropout: None,
        scores: Scores::default(),
        portable: false,
    };
    let attention = |x: &[Tensor<2>]| {
        causal_attention(x[0].clone().reshape([4, 6]), constant(&x[0], &[0.5; 8], [4, 2]), &shape, Precision::F32)
    };
    let loss = |x: &[Tensor<2>]| {
        linear_cross_entropy(x[0].clone(), x[0].clone(), indices(&x[0], &[1; 6]), 1.0, Precision::F32).reshape([1, 1])
    };
    let layer = |x: &[Tensor<2>]| linear_layer(x[0].clone(), &[x[0].clone()], None, None, Precision::F32);
    let operators: [(&[&str], Operator); 10] = [
        (&["linear forward", "linear dX", "linear dW"], &layer),
        (&["RMSNorm forward", "RMSNorm backward"], &|x| norm(x[0].clone(), constant(&x[0], &[1.0; 4], [4]), 1e-6)),
        (&["SwiGLU forward", "SwiGLU backward"], &|x| swiglu(x[0].clone())),
        (&["rotary"], &|x| rotate(x[0].clone(), constant(&x[0], &[0.5; 24], [6, 4]))),
        (&["attention forward", "attention backward"], &attention),
        (&["embedding forward", "embedding backward"], &|x| embedding_rows(x[0].clone(), indices(&x[0], &[1]))),
        (&["output and cross-entropy"], &loss),
        (&["activation forward", "activation backward"], &|x| activate(x[0].clone(), Activation::Gelu)),
        (&["softmax forward", "softmax backward"], &|x| shares(x[0].clone())),
        (&["LayerNorm forward", "LayerNorm backward"], &|x| {
            let row = constant(&x[0], &[1.0; 4], [4]);
            centred_norm(x[0].clone(), row.clone(), row, 1e-6)
        }),
    ];
    // While a set is forced, no other test runs kernels.
    let _guard = with_isa(Isa::best());
    let input = [Input::normal(Stream::new(1, "which"), [6, 4], 1.0)];
    for (names, operator) in operators {
        profile::start();
        outcome(DType::F64, &input, operator);
        let times = profile::stop();
        assert!(times.is_empty(), "f64 runs kernels: {times:?}");
        profile::start();
        outcome(DType::F32, &input, operator);
        let times = profile::stop();
        assert!(names.iter().all(|name| times.contains_key(name)), "f32 runs {names:?}: {times:?}");
    }
}
