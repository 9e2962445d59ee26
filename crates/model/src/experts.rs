//! Sparse experts (Shazeer et al., "Outrageously large neural networks", 2017): each token goes through the few that a
//! router chooses. A row's outcome does not depend on the rows beside it: experts are added in the order of their
//! numbers.
//!
//! Shapes: N rows, C hidden width, E experts.

use crate::{
    config::{Experts as Shape, ModelConfig},
    dropout::Dropout,
    feed_forward::FeedForward,
    layers::Linear,
    maker::{LinearShape, Maker},
};
use burn::{
    module::Module,
    tensor::{IndexingUpdateOp, Int, Tensor, TensorData},
};
use narthex_base::Result;
use narthex_kernels::{Precision, softmax};

/// The experts of a layer, and what chooses them.
#[derive(Module, Debug)]
pub(crate) struct Experts {
    /// The router.
    gate: Linear,
    experts: Vec<FeedForward>,
    #[module(skip)]
    routing: Routing,
}

impl Experts {
    /// Below `name`.
    ///
    /// # Errors
    /// If the maker has no such part; it is named.
    pub(crate) fn new(maker: &dyn Maker, config: &ModelConfig, shape: &Shape, name: &str) -> Result<Self> {
        let expert =
            |i: usize| FeedForward::new(maker, config, &format!("{name}.experts.{i}"), shape.intermediate_size, true);
        Ok(Self {
            // The choice of experts is kept at full precision: a rounded score may choose others.
            gate: maker.linear(LinearShape::new(format!("{name}.gate"), [shape.count, config.hidden_size]).exact())?,
            experts: (0..shape.count).map(expert).collect::<Result<_>>()?,
            routing: Routing { per_token: shape.per_token, normalised: shape.normalised },
        })
    }

    /// The projections of all experts by name.
    pub(crate) fn projections(&mut self) -> impl Iterator<Item = (String, &mut Linear)> {
        self.experts.iter_mut().enumerate().flat_map(|(i, expert)| {
            expert.projections().map(move |(part, linear)| (format!("experts.{i}.{part}"), linear))
        })
    }

    /// `[N, C]` -> `[N, C]`
    pub(crate) fn forward(&self, x: Tensor<2>, dropout: &mut Dropout, precision: Precision) -> Tensor<2> {
        let scores = self.gate.forward(x.clone(), &mut Dropout::none(), Precision::F32);
        self.routing.forward(&self.experts, x, scores, dropout, precision)
    }
}

/// How the experts of a layer are chosen.
#[derive(Clone, Copy, Debug)]
struct Routing {
    per_token: usize,
    /// Whether the shares of the chosen sum to 1.
    normalised: bool,
}

impl Routing {
    /// `x [N, C]`, the router's scores `[N, E]` -> `[N, C]`.
    fn forward(
        self,
        experts: &[FeedForward],
        x: Tensor<2>,
        scores: Tensor<2>,
        dropout: &mut Dropout,
        precision: Precision,
    ) -> Tensor<2> {
        let [n, _] = x.dims();
        let device = x.device();
        let list = |values: Vec<i64>| {
            let count = values.len();
            Tensor::<1, Int>::from_data(TensorData::new(values, [count]), &device)
        };
        let shares = softmax(scores);
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
            let out = expert.forward(x.clone().select(0, rows.clone()), None, dropout, precision, [&[], &[]]);
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
