//! Decoders made: drawn by counter, or read from a folder as numbers, over integers, or packed for inference.

use super::{Body, Decoder};
use crate::{
    block::Block,
    config::ModelConfig,
    device::cpu,
    integer_folder::ModelWeights,
    maker::{Fresh, LinearShape, Maker, NormShape, Packing, Stored},
    mapped::Mapped,
    weights::WeightSource,
};
use burn::tensor::Device;
use narthex_base::Result;
use narthex_kernels::Precision;
use std::path::Path;

impl Decoder {
    /// Normal weights of deviation 0.02, drawn by counter from the seed; the projections back into the residual stream
    /// are smaller by sqrt(2 * layers) (Radford et al., "GPT-2", 2019).
    pub fn random(config: &ModelConfig, seed: u64, device: &Device) -> Self {
        Self::made(config, &Fresh { seed, device }).expect("anything can be drawn")
    }

    /// The one place that says what a decoder is made of. Products are in f32.
    ///
    /// # Errors
    /// If the maker has no such part; it is named.
    pub(crate) fn made(config: &ModelConfig, maker: &dyn Maker) -> Result<Self> {
        let ModelConfig { hidden_size, vocab_size, context, .. } = *config;
        let shape = [vocab_size, hidden_size];
        let positions = || maker.table("model.embed_positions", [context, hidden_size], true);
        let head = || maker.linear(LinearShape::new("lm_head", shape));
        Ok(Self {
            model: Body {
                embed_tokens: maker.table("model.embed_tokens", shape, false)?,
                embed_positions: config.design.learned_positions.then(positions).transpose()?,
                layers: (0..config.layers).map(|layer| Block::new(maker, config, layer)).collect::<Result<_>>()?,
                norm: maker.norm("model.norm", NormShape::of(config, hidden_size))?,
            },
            lm_head: (!config.tied_embeddings).then(head).transpose()?,
            config: config.clone(),
            precision: Precision::default(),
        })
    }

    /// Reads a folder in Hugging Face layout.
    ///
    /// # Errors
    /// If files are missing or broken, or the config asks for something that is not supported.
    pub fn read(folder: &Path, device: &Device) -> Result<Self> {
        Self::read_whole(folder, device, None)
    }

    /// Reads a folder in Hugging Face layout to tune adapters over it on the CPU: matrices of layers that it holds as
    /// integers stay integers, and are not trained.
    ///
    /// # Errors
    /// As [`Decoder::read`].
    pub fn read_frozen(folder: &Path) -> Result<Self> {
        Self::read_whole(folder, &cpu(), Some("model.layers."))
    }

    fn read_whole(folder: &Path, device: &Device, frozen: Option<&'static str>) -> Result<Self> {
        let mut config = ModelConfig::read(&folder.join("config.json"))?;
        let stored = ModelWeights::open(folder)?;
        stored.correct(&mut config);
        let weights = Mapped::new(&config, &stored);
        let model = Self::made(&config, &Stored { weights: &weights, device: device.clone(), frozen });
        model
            .and_then(|model| stored.all_used(&config).map(|()| model))
            .map_err(|error| error.at(folder.display(), None))
    }

    /// Reads a folder in Hugging Face layout for inference on the CPU: weights are packed as they are read, and are
    /// never there in full size beside the file. Without a precision it is that of the file: bf16 for 16 bits and for
    /// integers, else f32.
    ///
    /// # Errors
    /// As [`Decoder::read`].
    pub fn read_packed(folder: &Path, precision: Option<Precision>) -> Result<Self> {
        let mut config = ModelConfig::read(&folder.join("config.json"))?;
        let stored = ModelWeights::open(folder)?;
        stored.correct(&mut config);
        let precision = precision.unwrap_or_else(|| stored.precision());
        let model = Self::packed(&config, &Mapped::new(&config, &stored), precision);
        model
            .and_then(|model| stored.all_used(&config).map(|()| model))
            .map_err(|error| error.at(folder.display(), None))
    }

    /// The model of a folder's config.json with weights from elsewhere by the family's names, packed as
    /// [`Decoder::read_packed`] packs them.
    ///
    /// # Errors
    /// If config.json cannot be read or asks for something that is not supported, or a weight is missing or has another
    /// shape.
    pub fn packed_from(folder: &Path, weights: &dyn WeightSource, precision: Precision) -> Result<Self> {
        let config = ModelConfig::read(&folder.join("config.json"))?;
        Self::packed(&config, &Mapped::new(&config, weights), precision)
    }

    /// The same in single precision.
    ///
    /// # Errors
    /// As [`Decoder::packed_from`].
    pub fn made_from(folder: &Path, weights: &dyn WeightSource) -> Result<Self> {
        let config = ModelConfig::read(&folder.join("config.json"))?;
        Self::made(&config, &Stored { weights: &Mapped::new(&config, weights), device: cpu(), frozen: None })
    }

    /// Packed for inference on the CPU, from weights by the decoder's own names: products in `precision`, the rest in
    /// f32.
    ///
    /// # Errors
    /// If a weight is missing or has another shape; it is named.
    pub(crate) fn packed(config: &ModelConfig, weights: &dyn WeightSource, precision: Precision) -> Result<Self> {
        Ok(Self::made(config, &Packing { weights, precision })?.with_precision(precision))
    }
}
