//! Sparse experts (Shazeer et al., "Outrageously large neural networks", 2017): each token goes through the few that a router
//! chooses. A row's outcome does not depend on the rows beside it: experts are added in the order of their numbers.
//!
//! Shapes: N rows, C hidden width, E experts.

use crate::{
    Dropout, Linear,
    block::feed_forward,
    decoder::{DEVIATION, Maker},
    weights::WeightSource,
};
use burn::{
    module::Module,
    tensor::{IndexingUpdateOp, Int, Tensor, TensorData, activation::softmax},
};
use narthex_base::Result;
use narthex_kernels::{Activation, Precision};

/// One expert.
#[derive(Module, Debug)]
pub(crate) struct Expert {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

impl Expert {
    pub(crate) fn new(maker: &Maker, name: &str, width: usize) -> Self {
        let residual = DEVIATION / (2.0 * maker.config.layers as f32).sqrt();
        let c = maker.config.hidden_size;
        let linear = |part: &str, shape, deviation| {
            maker.linear(&format!("{name}.{part}"), shape, deviation, maker.config.design.mlp_bias)
        };
        Self {
            gate_proj: linear("gate_proj", [width, c], DEVIATION),
            up_proj: linear("up_proj", [width, c], DEVIATION),
            down_proj: linear("down_proj", [c, width], residual),
        }
    }

    /// # Errors
    /// If a weight is missing or has another shape; it is named.
    pub(crate) fn pack(
        &mut self,
        name: &str,
        [f, c]: [usize; 2],
        weights: &dyn WeightSource,
        precision: Precision,
    ) -> Result<()> {
        let named = |part: &str, shape: [usize; 2]| (format!("{name}.{part}"), shape);
        let inward = [named("gate_proj", [f, c]), named("up_proj", [f, c])];
        Linear::pack(&mut [&mut self.gate_proj, &mut self.up_proj], &inward, weights, precision)?;
        Linear::pack(&mut [&mut self.down_proj], &[named("down_proj", [c, f])], weights, precision)
    }

    /// Its projections by name.
    pub(crate) fn projections(&mut self) -> [(&'static str, &mut Linear); 3] {
        let Self { gate_proj, up_proj, down_proj } = self;
        [("gate_proj", gate_proj), ("up_proj", up_proj), ("down_proj", down_proj)]
    }
}

/// How the experts of a layer are chosen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Routing {
    pub(crate) per_token: usize,
    /// Whether the shares of the chosen sum to 1.
    pub(crate) normalised: bool,
}

impl Routing {
    /// `x [N, C]`, the router's scores `[N, E]` -> `[N, C]`.
    pub(crate) fn forward(
        self,
        experts: &[Expert],
        x: Tensor<2>,
        scores: Tensor<2>,
        function: Activation,
        dropout: &mut Dropout,
        precision: Precision,
    ) -> Tensor<2> {
        let [n, _] = x.dims();
        let device = x.device();
        let list = |values: Vec<i64>| {
            let count = values.len();
            Tensor::<1, Int>::from_data(TensorData::new(values, [count]), &device)
        };
        let shares = softmax(scores, 1);
        let chosen = self.chosen(&shares);
        // The shares of the chosen `[N, per token]`.
        let places: Vec<i64> = chosen.iter().map(|expert| *expert as i64).collect();
        let mut shares = shares.gather(1, list(places).reshape([n, self.per_token]));
        if self.normalised {
            shares = shares.clone() / shares.sum_dim(1);
        }
        let shares = shares.reshape([n * self.per_token, 1]);
        let mut y = x.zeros_like();
        for (number, expert) in experts.iter().enumerate() {
            let places: Vec<i64> = (0..chosen.len()).filter(|i| chosen[*i] == number).map(|i| i as i64).collect();
            if places.is_empty() {
                continue;
            }
            let rows = list(places.iter().map(|place| place / self.per_token as i64).collect());
            let projections = [&expert.gate_proj, &expert.up_proj, &expert.down_proj].map(Some);
            let out = feed_forward(
                projections,
                function,
                x.clone().select(0, rows.clone()),
                None,
                dropout,
                precision,
                [&[], &[]],
            );
            let out = out * shares.clone().select(0, list(places));
            y = y.select_assign(0, rows, out, IndexingUpdateOp::Add);
        }
        y
    }

    /// The experts of each row, row by row, best first; of equals the first.
    fn chosen(self, shares: &Tensor<2>) -> Vec<usize> {
        let [_, count] = shares.dims();
        let shares: Vec<f32> = shares.clone().into_data().iter::<f32>().collect();
        let best = |row: &[f32]| {
            let mut order: Vec<usize> = (0..count).collect();
            order.sort_by(|a, b| row[*b].total_cmp(&row[*a]));
            order.truncate(self.per_token);
            order
        };
        shares.chunks_exact(count).flat_map(best).collect()
    }
}
