//! Classifying texts: the cross-entropy of each text's label. Batches hold texts of like length, so that no work is
//! spent on filling up. Knows tokens and numbers of labels; no text and no labels' names.

use super::{Extent, Loss, Objective, Place, Units, Validation, Values};
use crate::label_figures::{LabelFigures, best};
use burn::tensor::{Int, Tensor, TensorData, activation::log_softmax};
use narthex_base::{
    Error, Observer, Result,
    random::{Permutation, Stream},
};
use narthex_model::{Classifier, Dropout, EncoderInput, shapes};

/// Batches whose texts are sorted by length together.
const BATCHES_TOGETHER: usize = 16;

/// Texts that are looked at between steps; at the end all of them count.
const INTERIM_TEXTS_MAX: usize = 1024;

/// Texts in a batch of validation.
const VALIDATION_ROWS: usize = 32;

/// A text with its label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledText {
    /// Its tokens, those that begin and end it included, no more than the classifier's context.
    pub input: EncoderInput,
    /// The number of its label.
    pub label: usize,
}

/// The labels of texts.
pub struct Classify<'a> {
    train: &'a [LabelledText],
    validation: &'a [LabelledText],
    rows: usize,
    /// What a text of each label weighs.
    weights: Vec<f64>,
    dropout: f64,
    /// The label that single figures are of.
    positive: usize,
}

impl<'a> Classify<'a> {
    /// Learns from `train` in batches of `rows` texts, and measures on `validation` if that is not empty. Dropout is
    /// that of transformers, with one probability for all places.
    ///
    /// # Errors
    /// If there is nothing to learn from, a text is empty or longer than the classifier's context, or a label has no
    /// number there.
    pub fn new(
        classifier: &Classifier,
        train: &'a [LabelledText],
        validation: &'a [LabelledText],
        rows: usize,
        dropout: f64,
    ) -> Result<Self> {
        let (labels, context) = (classifier.labels().len(), classifier.context());
        let vocabulary = classifier.vocab_size();
        for text in train.iter().chain(validation) {
            let (len, last) = (text.input.ids.len(), text.input.ids.iter().max().copied().unwrap_or(0));
            if len == 0 || len > context || last as usize >= vocabulary || text.label >= labels {
                return Err(Error::internal(format!(
                    "a text of {len} tokens up to {last} with label {} for a classifier of {context} tokens of \
                     {vocabulary} and {labels} labels",
                    text.label
                )));
            }
        }
        if train.is_empty() || rows == 0 {
            return Err(Error::input("there are no texts to learn from").help("add rows to the training part"));
        }
        Ok(Self { train, validation, rows, weights: vec![1.0; labels], dropout, positive: 0 })
    }

    /// The same with F1 and average precision of the label of this number, rather than of the first.
    pub fn with_positive(self, positive: usize) -> Self {
        Self { positive, ..self }
    }

    /// The same with each text weighing `texts / (labels * texts of its label)`, so that all labels weigh the same in
    /// all (scikit-learn's `balanced`).
    pub fn balanced(mut self) -> Self {
        let mut counts = vec![0usize; self.weights.len()];
        self.train.iter().for_each(|text| counts[text.label] += 1);
        let all = self.train.len() as f64 / counts.len() as f64;
        // A label without a text has nothing to weigh.
        self.weights = counts.into_iter().map(|count| all / count.max(1) as f64).collect();
        self
    }

    /// Batches in which each text is met once.
    pub fn batches_per_epoch(&self) -> u64 {
        self.train.len().div_ceil(self.rows) as u64
    }

    /// The texts of batch `index`, by their places in the training part. Each epoch meets each text once, in another
    /// order: texts are drawn for some batches together and dealt out by their length, and those batches come in an
    /// order of their own. No batch is empty.
    fn texts(&self, seed: u64, index: u64) -> Vec<usize> {
        let per_epoch = self.batches_per_epoch();
        let (epoch, number) = (index / per_epoch, index % per_epoch);
        let stream = Stream::new(seed, "texts").at(epoch);
        let order = Permutation::new(stream, self.train.len() as u64);
        let pool = number / BATCHES_TOGETHER as u64;
        let first = pool as usize * BATCHES_TOGETHER * self.rows;
        let end = self.train.len().min(first + BATCHES_TOGETHER * self.rows);
        let mut texts: Vec<usize> = (first..end).map(|place| order.get(place as u64) as usize).collect();
        texts.sort_by_key(|text| (self.train[*text].input.ids.len(), *text));
        let batches = texts.len().div_ceil(self.rows) as u64;
        let within = Permutation::new(stream.at(pool), batches).get(number % BATCHES_TOGETHER as u64) as usize;
        texts[within * self.rows..texts.len().min((within + 1) * self.rows)].to_vec()
    }

    /// Measures a classifier on texts.
    ///
    /// # Errors
    /// If there are none, or the work is interrupted.
    pub fn measure(classifier: &Classifier, texts: &[LabelledText], observer: Observer) -> Result<LabelFigures> {
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|text| texts[*text].input.ids.len());
        let mut logits = vec![vec![]; texts.len()];
        for batch in order.chunks(VALIDATION_ROWS) {
            observer.check()?;
            let inputs: Vec<&EncoderInput> = batch.iter().map(|text| &texts[*text].input).collect();
            batch.iter().zip(classifier.scores(&inputs)).for_each(|(text, scores)| logits[*text] = scores);
        }
        let labels: Vec<usize> = texts.iter().map(|text| text.label).collect();
        LabelFigures::of(&logits, &labels)
    }
}

impl Objective<Classifier> for Classify<'_> {
    /// Places in the training part.
    type Batch = Vec<usize>;

    const VALUES: &'static [&'static str] = &["accuracy"];

    fn units(&self, classifier: &Classifier) -> Units {
        Units {
            item: "texts",
            items_per_batch: self.rows as u64,
            flop_per_item: None,
            loss_figure: "training_nats_per_text",
            parameters: shapes(classifier).iter().map(|(_, shape)| shape.iter().product::<usize>()).sum(),
        }
    }

    fn batch(&self, place: Place<Classifier>) -> Result<Vec<usize>> {
        Ok(self.texts(place.seed, place.index))
    }

    fn weight(&self, batch: &Vec<usize>) -> u64 {
        batch.len() as u64
    }

    fn loss(&self, classifier: &Classifier, batch: &Vec<usize>, noise: Stream, scale: f64) -> Loss {
        let inputs: Vec<&EncoderInput> = batch.iter().map(|text| &self.train[*text].input).collect();
        let labels: Vec<usize> = batch.iter().map(|text| self.train[*text].label).collect();
        let logits = classifier.logits(&inputs, &mut Dropout::new(noise, self.dropout));
        let right = right(&logits, &labels);
        let device = logits.device();
        let count = labels.len();
        let targets = labels.iter().map(|label| *label as i64).collect::<Vec<_>>();
        let targets = Tensor::<2, Int>::from_data(TensorData::new(targets, [count, 1]), &device);
        let weights: Vec<f32> = labels.iter().map(|label| self.weights[*label] as f32).collect();
        let weights = Tensor::<2>::from_data(TensorData::new(weights, [count, 1]), &device);
        let sum = (log_softmax(logits, 1).gather(1, targets) * weights).sum() * -scale;
        Loss { sum, value: None, values: vec![right as f64] }
    }

    fn validate(&self, classifier: &Classifier, extent: Extent, observer: Observer) -> Result<Option<Validation>> {
        if self.validation.is_empty() {
            return Ok(None);
        }
        let count = match extent {
            Extent::Part => self.validation.len().min(INTERIM_TEXTS_MAX),
            Extent::Whole => self.validation.len(),
        };
        let found = Self::measure(classifier, &self.validation[..count], observer)?;
        let headline = "validation_nats_per_text";
        Ok(Some(Validation {
            values: Values::from([
                (headline.into(), found.nats_per_text),
                ("validation_accuracy".into(), found.accuracy),
                ("validation_macro_f1".into(), found.macro_f1),
                ("validation_f1".into(), found.f1[self.positive]),
                ("validation_pr_auc".into(), found.pr_auc[self.positive]),
            ]),
            headline,
            shown: format!("{:.3} nats/text, {:.1} % right", found.nats_per_text, 100.0 * found.accuracy),
        }))
    }

    fn shown(&self, values: &[f64]) -> String {
        values.first().map(|accuracy| format!("{:.1} % right", 100.0 * accuracy)).unwrap_or_default()
    }
}

/// Texts whose label has the highest score; of equals the first counts.
fn right(logits: &Tensor<2>, labels: &[usize]) -> usize {
    let [_, count] = logits.dims();
    let logits = logits.clone().inner().into_data();
    let scores = logits.as_slice::<f32>().expect("logits are f32");
    scores.chunks_exact(count).zip(labels).filter(|(row, label)| best(row) == **label).count()
}
