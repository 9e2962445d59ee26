//! How well scores tell labels: accuracy, F1, log-loss and precision over recall, as scikit-learn defines them. Knows
//! numbers only.

use narthex_base::{Error, Result};

/// What a classifier's scores are worth.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelFigures {
    /// The share of texts whose label has the highest score.
    pub accuracy: f64,
    /// The mean over labels that are there, or found, of [`LabelFigures::f1`].
    pub macro_f1: f64,
    /// The mean negative log-likelihood of the label, in nats.
    pub nats_per_text: f64,
    /// Of each label the harmonic mean of precision and recall; 0 if it is neither there nor found.
    pub f1: Vec<f64>,
    /// Of each label the average precision over thresholds of its probability: the sum of (R_i - R_(i-1)) P_i; 0 if it
    /// is not there.
    pub pr_auc: Vec<f64>,
}

impl LabelFigures {
    /// Those of a row of logits and a label for each text.
    ///
    /// # Errors
    /// If there are none.
    pub fn of(logits: &[Vec<f32>], labels: &[usize]) -> Result<Self> {
        let Some(count) = logits.first().map(Vec::len).filter(|_| logits.len() == labels.len()) else {
            return Err(Error::input("there is nothing to measure on").help("add rows to the validation part"));
        };
        let found: Vec<usize> = logits.iter().map(|row| best(row)).collect();
        let right = found.iter().zip(labels).filter(|(found, label)| found == label).count();
        let of = |list: &[usize], label: usize| list.iter().filter(|one| **one == label).count();
        let both = |label: usize| found.iter().zip(labels).filter(|pair| *pair == (&label, &label)).count();
        let f1 = |label: usize| match of(&found, label) + of(labels, label) {
            0 => 0.0,
            all => 2.0 * both(label) as f64 / all as f64,
        };
        let f1: Vec<f64> = (0..count).map(f1).collect();
        let met = (0..count).filter(|label| of(&found, *label) + of(labels, *label) > 0).count();
        let probabilities: Vec<Vec<f64>> = logits.iter().map(|row| probabilities(row)).collect();
        let nats = logits.iter().zip(labels).map(|(row, label)| nats(row, *label)).sum::<f64>();
        let pr_auc = |label: usize| {
            let texts = probabilities.iter().zip(labels);
            average_precision(texts.map(|(row, own)| (row[label], *own == label)).collect())
        };
        Ok(Self {
            accuracy: right as f64 / labels.len() as f64,
            macro_f1: f1.iter().sum::<f64>() / met.max(1) as f64,
            nats_per_text: nats / labels.len() as f64,
            pr_auc: (0..count).map(pr_auc).collect(),
            f1,
        })
    }
}

/// The label with the highest score; of equals the first.
pub(crate) fn best(row: &[f32]) -> usize {
    row.iter().enumerate().fold(0, |best, (i, score)| if *score > row[best] { i } else { best })
}

/// Softmax.
pub fn probabilities(row: &[f32]) -> Vec<f64> {
    let largest = f64::from(row[best(row)]);
    let raised: Vec<f64> = row.iter().map(|score| (f64::from(*score) - largest).exp()).collect();
    let sum: f64 = raised.iter().sum();
    raised.into_iter().map(|x| x / sum).collect()
}

/// The negative log-likelihood of a label, in nats.
fn nats(row: &[f32], label: usize) -> f64 {
    let largest = f64::from(row[best(row)]);
    let sum: f64 = row.iter().map(|score| (f64::from(*score) - largest).exp()).sum();
    sum.ln() + largest - f64::from(row[label])
}

/// From each text's probability and whether it has the label. Texts of one probability are one threshold.
fn average_precision(mut texts: Vec<(f64, bool)>) -> f64 {
    texts.sort_by(|a, b| b.0.total_cmp(&a.0));
    let all = texts.iter().filter(|(_, has)| *has).count();
    let (mut area, mut hits, mut seen) = (0.0, 0, 0);
    for threshold in texts.chunk_by(|a, b| a.0 == b.0) {
        let more = threshold.iter().filter(|(_, has)| *has).count();
        (hits, seen) = (hits + more, seen + threshold.len());
        area += more as f64 / all.max(1) as f64 * (hits as f64 / seen as f64);
    }
    area
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of logits and labels, with what scikit-learn 1.9.1 gives: accuracy, macro F1, log-loss, F1 and average
    /// precision of the last label.
    #[test]
    fn figures_are_those_of_scikit_learn() {
        let two = vec![vec![2.0, 0.0], vec![0.5, 1.0], vec![0.0, 3.0], vec![1.0, 0.9], vec![0.2, 0.1], vec![-1.0, 1.0]];
        let three = vec![vec![1.0, 0.0, 0.0], vec![0.0, 2.0, 1.0], vec![0.5, 0.4, 0.3], vec![0.0, 0.0, 1.0]];
        for (logits, labels, expected) in [
            (two, vec![0, 0, 1, 1, 0, 1], [2.0 / 3.0, 2.0 / 3.0, 0.444_218_948_299_263_1, 2.0 / 3.0, 13.0 / 15.0]),
            (three, vec![0, 1, 2, 1], [0.5, 4.0 / 9.0, 0.928_109_558_545_139_8, 0.0, 0.5]),
            (vec![vec![0.0, 0.0]], vec![0], [1.0, 1.0, std::f64::consts::LN_2, 0.0, 0.0]),
        ] {
            let found = LabelFigures::of(&logits, &labels).unwrap();
            let last = |values: &[f64]| *values.last().unwrap();
            let found = [found.accuracy, found.macro_f1, found.nats_per_text, last(&found.f1), last(&found.pr_auc)];
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-9, "{found} instead of {expected} for {labels:?}");
            }
        }
        assert!(LabelFigures::of(&[], &[]).is_err());
    }
}
