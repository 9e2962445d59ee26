//! How tokens are chosen where nobody says: what is asked for goes over what the model's author says, and that over
//! ours. The one place of this rule.

use narthex_infer::Sampling;
use narthex_text::GenerationConfig;

/// How tokens of a model are chosen when a request does not say.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingDefaults {
    /// 0 is greedy.
    pub temperature: f32,
    /// Keep the smallest set of tokens whose probability reaches this; 1 keeps all.
    pub top_p: f32,
    /// Keep this many of the most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the tokens with at least this share of the likeliest one's probability; 0 keeps all.
    pub min_p: f32,
    /// Divides the logits of what the text holds already; 1 leaves them.
    pub repetition_penalty: f32,
}

impl Default for SamplingDefaults {
    /// OpenAI's defaults: the model's own distribution.
    fn default() -> Self {
        Self { temperature: 1.0, top_p: 1.0, top_k: 0, min_p: 0.0, repetition_penalty: 1.0 }
    }
}

/// What a request says of how tokens are chosen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SamplingWish {
    /// 0 is greedy.
    pub temperature: Option<f32>,
    /// 1 keeps all.
    pub top_p: Option<f32>,
    /// 0 keeps all.
    pub top_k: Option<usize>,
    /// The seed of this request's random numbers.
    pub seed: u64,
}

impl SamplingDefaults {
    /// What the author of a model says in `generation_config.json`, else ours.
    pub fn of(generation: &GenerationConfig) -> Self {
        let ours = Self::default();
        Self {
            // Whoever asks for no sampling means the likeliest token.
            temperature: match (generation.do_sample, generation.temperature) {
                (Some(false), None) => 0.0,
                (_, asked) => asked.unwrap_or(ours.temperature),
            },
            top_p: generation.top_p.unwrap_or(ours.top_p),
            top_k: generation.top_k.map_or(ours.top_k, |k| k as usize),
            min_p: generation.min_p.unwrap_or(ours.min_p),
            repetition_penalty: generation.repetition_penalty.unwrap_or(ours.repetition_penalty),
        }
    }

    /// What is asked for, else these.
    pub fn sampling(&self, wish: &SamplingWish) -> Sampling {
        Sampling {
            temperature: wish.temperature.unwrap_or(self.temperature),
            top_p: wish.top_p.unwrap_or(self.top_p),
            top_k: wish.top_k.unwrap_or(self.top_k),
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: wish.seed,
            ..Sampling::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_goes_over_the_author_and_the_author_over_us() {
        let author = GenerationConfig { temperature: Some(0.7), top_k: Some(5), ..GenerationConfig::default() };
        for (generation, wish, expected) in [
            (GenerationConfig::default(), SamplingWish::default(), (1.0, 1.0, 0)),
            (author.clone(), SamplingWish::default(), (0.7, 1.0, 5)),
            (author, SamplingWish { temperature: Some(0.0), top_k: Some(0), top_p: Some(0.5), seed: 3 }, (0.0, 0.5, 0)),
        ] {
            let found = SamplingDefaults::of(&generation).sampling(&wish);
            assert_eq!((found.temperature, found.top_p, found.top_k), expected, "{generation:?} {wish:?}");
            assert_eq!(found.seed, wish.seed);
            assert_eq!((found.min_p, found.repetition_penalty), (0.0, 1.0));
        }
        // As Qwen2.5's: `"repetition_penalty": 1.05`.
        let penal = GenerationConfig::from_json(
            r#"{"repetition_penalty": 1.05, "min_p": 0.1, "num_beams": 4, "typical_p": 1.0}"#,
        )
        .unwrap();
        let found = SamplingDefaults::of(&penal).sampling(&SamplingWish::default());
        assert_eq!((found.repetition_penalty, found.min_p), (1.05, 0.1));
        assert_eq!(penal.unread(), ["num_beams"]);
        {}
    }
}
