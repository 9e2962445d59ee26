//! The weight of a layer or a table in the forms that a model can hold it in: numbers, or packed. Knows no layers and
//! no files.

use crate::device::cpu;
use burn::{
    module::{Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor, Param},
    tensor::{Device, Tensor, TensorData},
};
use narthex_kernels::PackedWeight;
use std::ops::Range;

/// A matrix `[out, in]`. As a module it is as if the parameter stood in its place, so that names of parameters do not
/// tell the form; packed weights are no parameters.
#[derive(Clone, Debug)]
pub enum Weight {
    /// Numbers, which training may change.
    Numbers(Param<Tensor<2>>),
    /// Packed by itself, on the CPU: training leaves it as it is, and adapters are tuned over it.
    Frozen(PackedWeight),
    /// Packed for inference on the CPU, one matrix with what runs side by side with it.
    Packed(PackedRows),
}

/// Rows of a packed matrix that belong to one of the layers that share it.
#[derive(Clone, Debug)]
pub struct PackedRows {
    whole: PackedWeight,
    rows: Range<usize>,
}

impl PackedRows {
    /// Shares a packed matrix out, from its first row on, to layers of these heights.
    ///
    /// # Panics
    /// If the heights do not add up to the matrix's.
    pub(crate) fn share(whole: &PackedWeight, heights: &[usize]) -> Vec<Self> {
        assert_eq!(heights.iter().sum::<usize>(), whole.shape()[0], "each row belongs to a layer");
        let mut first = 0;
        let rows = |height: &usize| {
            first += height;
            first - height..first
        };
        heights.iter().map(rows).map(|rows| Self { whole: whole.clone(), rows }).collect()
    }

    /// The whole matrix, with its bias.
    pub(crate) fn whole(&self) -> &PackedWeight {
        &self.whole
    }

    /// Which rows of it are meant.
    pub(crate) fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// Values of row `row` of those that are meant.
    pub(crate) fn read_row(&self, row: usize, to: &mut [f32]) {
        self.whole.read_row(self.rows.start + row, to);
    }

    fn shape(&self) -> [usize; 2] {
        [self.rows.len(), self.whole.shape()[1]]
    }
}

impl Weight {
    /// Numbers as a parameter.
    pub fn new(numbers: Tensor<2>) -> Self {
        Self::Numbers(Param::from_tensor(numbers))
    }

    /// `[out, in]`
    pub fn shape(&self) -> [usize; 2] {
        match self {
            Self::Numbers(param) => param.dims(),
            Self::Frozen(packed) => packed.shape(),
            Self::Packed(rows) => rows.shape(),
        }
    }

    /// Where it is.
    pub fn device(&self) -> Device {
        match self {
            Self::Numbers(param) => param.device(),
            Self::Frozen(_) | Self::Packed(_) => cpu(),
        }
    }

    /// Whether it is kept as integers.
    pub(crate) fn is_integers(&self) -> bool {
        match self {
            Self::Numbers(_) => false,
            Self::Frozen(packed) => packed.is_integers(),
            Self::Packed(rows) => rows.whole.is_integers(),
        }
    }

    /// Whether it gets gradients.
    pub(crate) fn is_trained(&self) -> bool {
        matches!(self, Self::Numbers(param) if param.val().is_require_grad())
    }

    /// As numbers, `[out, in]`: of packed weights, what they stand for.
    pub(crate) fn numbers(&self) -> Tensor<2> {
        let values = match self {
            Self::Numbers(param) => return param.val(),
            Self::Frozen(packed) => packed.dequantized(),
            Self::Packed(part) => {
                let [outputs, inputs] = part.shape();
                let mut values = vec![0f32; outputs * inputs];
                values.chunks_exact_mut(inputs).enumerate().for_each(|(row, to)| part.read_row(row, to));
                values
            }
        };
        Tensor::from_data(TensorData::new(values, self.shape()), &self.device())
    }
}

impl Module for Weight {
    fn collect_devices(&self, devices: Devices) -> Devices {
        match self {
            Self::Numbers(param) => param.collect_devices(devices),
            Self::Frozen(_) | Self::Packed(_) => devices,
        }
    }

    fn fork(self, device: &Device) -> Self {
        self.changed(|param| param.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.changed(|param| param.to_device(device))
    }

    fn train(self) -> Self {
        self.changed(Module::train)
    }

    fn valid(&self) -> Self {
        self.clone().changed(|param| param.valid())
    }

    fn materialize(self) -> Self {
        self.changed(Module::materialize)
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        if let Self::Numbers(param) = self {
            param.visit(visitor);
        }
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        self.changed(|param| Module::map(param, mapper))
    }
}

impl Weight {
    /// The parameter changed, if there is one.
    fn changed(self, change: impl FnOnce(Param<Tensor<2>>) -> Param<Tensor<2>>) -> Self {
        match self {
            Self::Numbers(param) => Self::Numbers(change(param)),
            packed => packed,
        }
    }
}

impl ModuleDisplayDefault for Weight {
    fn content(&self, content: Content) -> Option<Content> {
        content.add_formatted(&format!("{:?}", self.shape())).optional()
    }
}

impl ModuleDisplay for Weight {}
