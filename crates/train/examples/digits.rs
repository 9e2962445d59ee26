//! A convolutional network of one's own on handwritten digits, trained by the loop that trains language models:
//! `cargo run --release -p narthex-train --example digits [FOLDER]`. With a folder, a stopped run goes on from there.
//! `digits.csv.gz`: Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, UCI 80), CC-BY-4.0.

use narthex_train::{
    Objective, Training,
    base::{Observer, Result, config::*, random::Permutation, random::Stream},
    burn::{self, module::Module, nn::*, tensor::*},
    cpu, fit,
    objective::{Extent, Loss, Place, Units, Validation, Values},
};
use std::{io::Read, path::PathBuf};

#[derive(Module, Debug)]
struct Network {
    first: conv::Conv2d,
    second: conv::Conv2d,
    relu: Relu,
    output: Linear,
}

impl Network {
    fn new(device: &Device) -> Self {
        let layer = |channels| conv::Conv2dConfig::new(channels, [3, 3]).with_padding(PaddingConfig2d::Same);
        let (first, second) = (layer([1, 16]).init(device), layer([16, 32]).init(device));
        Self { first, second, relu: Relu, output: LinearConfig::new(32 * 4 * 4, 10).init(device) }
    }

    /// Images -> logits of the digits, and the digits.
    fn forward(&self, images: &[Image]) -> (Tensor<2>, Tensor<1, Int>) {
        let (device, count) = (&self.devices()[0], images.len());
        let pixels: Vec<f32> = images.iter().flat_map(|(pixels, _)| *pixels).collect();
        let digits: Vec<i64> = images.iter().map(|(_, digit)| *digit).collect();
        let x = Tensor::<4>::from_data(TensorData::new(pixels, [count, 1, 8, 8]), device);
        let x = self.relu.forward(self.second.forward(self.relu.forward(self.first.forward(x))));
        let x = pool::MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init().forward(x);
        (self.output.forward(x.flatten(1, 3)), Tensor::from_data(TensorData::new(digits, [count]), device))
    }
}

/// Pixels from 0 to 1, and the digit.
type Image = ([f32; 64], i64);

struct Digits {
    train: Vec<Image>,
    held_out: Vec<Image>,
}

const ROWS: u64 = 64;

impl Objective<Network> for Digits {
    type Batch = Vec<Image>;
    fn units(&self, network: &Network) -> Units {
        let (loss_figure, parameters) = ("training_nats", network.num_params());
        Units { item: "images", items_per_batch: ROWS, flop_per_item: None, loss_figure, parameters }
    }
    fn batch(&self, Place { seed, index, .. }: Place<Network>) -> Result<Vec<Image>> {
        let stream = Stream::new(seed, "images").at(index);
        Ok((0..ROWS).map(|row| self.train[stream.below(row, self.train.len() as u64) as usize]).collect())
    }
    fn weight(&self, batch: &Vec<Image>) -> u64 {
        batch.len() as u64
    }
    fn loss(&self, network: &Network, batch: &Vec<Image>, _: Stream, scale: f64) -> Loss {
        let (logits, digits) = network.forward(batch);
        let chosen = burn::tensor::activation::log_softmax(logits, 1).gather(1, digits.unsqueeze_dim(1));
        Loss { sum: chosen.sum() * -scale, value: None, values: vec![] }
    }
    fn validate(&self, network: &Network, _: Extent, _: Observer) -> Result<Option<Validation>> {
        let (logits, digits) = network.forward(&self.held_out);
        let right: i64 = logits.argmax(1).squeeze_dim::<1>(1).equal(digits).int().sum().into_scalar();
        let (accuracy, headline) = (right as f64 / self.held_out.len() as f64, "validation_accuracy");
        let values = Values::from([(headline.into(), accuracy)]);
        Ok(Some(Validation { values, headline, shown: format!("{accuracy:.4} right") }))
    }
}

fn main() -> Result<()> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(&include_bytes!("digits.csv.gz")[..]).read_to_string(&mut text).expect("gzip");
    let image = |line: &str| {
        let row: Vec<f32> = line.split(',').map(|cell| cell.parse().expect("a number")).collect();
        (std::array::from_fn(|i| row[i] / 16.0), row[64] as i64)
    };
    let images: Vec<Image> = text.lines().map(image).collect();
    // Every fifth of them, in an order that the seed decides, is held out.
    let order = Permutation::new(Stream::new(7, "split"), images.len() as u64);
    let places = |held_out: bool| (0..images.len() as u64).filter(move |i| (i % 5 == 0) == held_out);
    let [train, held_out] = [false, true].map(|part| places(part).map(|i| images[order.get(i) as usize]).collect());
    let (batches, rate) =
        (Batching { steps: 400, ..Batching::default() }, LearningRate { lr: 3e-3, ..LearningRate::default() });
    let folder = std::env::args().nth(1).map(PathBuf::from);
    let schedule = Schedule { batches, rate, ..Schedule::default() };
    let training = Training { schedule, seed: 7, work: folder.as_deref(), ..Training::default() };
    cpu().seed(7);
    let fitted = fit(Network::new(&cpu()), &Digits { train, held_out }, &training)?;
    assert!(fitted.figures["validation_accuracy"] >= 0.98, "{:?}", fitted.figures);
    println!("{:#?}", fitted.figures);
    Ok(())
}
