//! Guessing changes no byte, whatever is guessed; and it saves steps where guesses are right.

use super::*;
use crate::{Speculation, SpeculationMethod};

fn ngram(max: usize, min: usize, tokens: usize) -> Option<Speculation> {
    Some(Speculation { method: SpeculationMethod::Ngram { max, min }, tokens })
}

fn draft(model: &Decoder, tokens: usize) -> Option<Speculation> {
    Some(Speculation { method: SpeculationMethod::Draft(Box::new(model.clone())), tokens })
}

/// An engine that takes a draft model's rows for cheap, though the models here are all of a size.
fn start(model: &Decoder, speculation: Option<Speculation>, options: EngineOptions) -> Engine {
    Engine::start_with(model.clone(), EngineOptions { speculation, ..options }, Some(0.01)).unwrap()
}

/// A model that likes another token at each place: the one whose id is lower by one.
fn contrary(model: &Decoder) -> Decoder {
    let config = ModelConfig { tied_embeddings: false, ..model.config().clone() };
    let mut tensors = model.tensors();
    let (shape, mut values) = tensors["model.embed_tokens.weight"].clone();
    values.rotate_left(config.hidden_size);
    tensors.insert("lm_head.weight".into(), (shape, values));
    Decoder::random(&config, 1, &cpu()).load(tensors).unwrap()
}

/// A model that mostly likes the same tokens.
fn similar(model: &Decoder) -> Decoder {
    narthex_model::map_parameters(model.clone(), |name, shape| {
        let stream = Stream::new(5, name);
        let values = model.tensors().remove(name).map(|(_, values)| values);
        let noise =
            |(i, value): (usize, f32)| value + if shape.len() == 2 { 0.03 * stream.normal(i as u64) } else { 0.0 };
        let values = values.map(|values| values.into_iter().enumerate().map(noise).collect());
        narthex_model::Replacement { values, trained: false }
    })
}

#[test]
fn guesses_change_no_byte() {
    for precision in [Precision::F32, Precision::Bf16] {
        let plain = model();
        let (similar, contrary) = (similar(&plain).pack(precision), contrary(&plain).pack(precision));
        let model = plain.pack(precision);
        let alone = Engine::start(model.clone(), EngineOptions { threads: 1, ..EngineOptions::default() }).unwrap();
        let roomy = || EngineOptions { threads: 2, ..EngineOptions::default() };
        let tight = |drafts: usize| EngineOptions {
            kv_cache_bytes: 7 * (1 + drafts) * alone.kv_cache_bytes() / alone.stats().kv_blocks_total as usize,
            step_tokens_max: 40,
            chunk_tokens_max: 9,
            ..roomy()
        };
        let engines = [
            ("look-up", start(&model, ngram(4, 2, 5), roomy())),
            ("short look-up in little room", start(&model, ngram(1, 1, 3), tight(0))),
            (
                "long look-up without prefixes",
                start(&model, ngram(3, 1, 16), EngineOptions { prefix_cache: false, ..tight(0) }),
            ),
            ("itself", start(&model, draft(&model, 4), roomy())),
            ("a similar draft in little room", start(&model, draft(&similar, 5), tight(1))),
            ("a contrary draft", start(&model, draft(&contrary, 2), tight(1))),
            ("a similar draft in 8 bits", start(&model, draft(&similar, 3), roomy())),
        ];
        for seed in 0..12 {
            let requests = mix(seed);
            let expected: Vec<Yield> =
                requests.iter().flat_map(|request| run_all(&alone, std::slice::from_ref(request))).collect();
            for (name, engine) in &engines {
                assert!(run_all(engine, &requests) == expected, "mix {seed} with {name} in {precision:?}");
            }
        }
        for (name, engine) in &engines {
            let stats = engine.stats();
            let (guessed, right) = (stats.guessed_tokens_total, stats.right_tokens_total());
            assert!(guessed > 20 && right <= guessed, "{name}: {right} of {guessed} right");
            assert!(stats.guesses_total <= guessed && stats.right_tokens_by_place[0] <= stats.guesses_total, "{name}");
            assert_eq!((stats.requests_running, stats.kv_blocks_used), (0, 0), "{name}");
            match *name {
                "itself" => assert_eq!(right, guessed, "a model agrees with itself, drawn tokens included"),
                // Drawn by the same numbers, it may say the same at times.
                "a contrary draft" => assert!(right < guessed, "{name}: {right} of {guessed} right"),
                _ => assert!(right > 0, "{name}: none of {guessed} right"),
            }
            assert_eq!(stats.preemptions_total > 0, engine.kv_cache_tokens() < 48 * 20, "{name}");
        }
    }
}

#[test]
fn right_guesses_save_steps_and_wrong_ones_end() {
    let model = model();
    let run = |speculation| {
        let engine = start(&model, speculation, EngineOptions::default());
        let tokens = engine.generate(request(&[1, 2, 3], 41)).unwrap().0;
        (tokens, engine.stats())
    };
    let (expected, without) = run(None);
    assert_eq!((without.steps_total, without.guesses_max, without.guesses_total), (41, 0, 0));
    let (tokens, itself) = run(draft(&model, 4));
    assert_eq!(tokens, expected);
    // The prompt's step gives one token, each further one up to five.
    assert!((9..=12).contains(&itself.steps_total), "{} steps", itself.steps_total);
    assert_eq!(itself.right_tokens_total() + itself.steps_total, 41);
    assert!(itself.right_tokens_by_place[3] > 0 && itself.right_tokens_by_place[4] == 0);
    let (tokens, contrary) = run(draft(&contrary(&model), 4));
    assert_eq!((tokens, contrary.right_tokens_total()), (expected, 0));
    assert!((1..=12).contains(&contrary.guesses_total), "{} guesses", contrary.guesses_total);
}

#[test]
fn loops_are_looked_up() {
    let model = model();
    let looped: Vec<u32> = [7, 3, 9, 11].into_iter().cycle().take(20).collect();
    let biased = Request {
        sampling: Sampling {
            temperature: 0.0,
            // Whatever the model thinks: these four by turns, since each has been penalised once more than the next.
            frequency_penalty: 100.0,
            logit_bias: [7, 3, 9, 11].into_iter().enumerate().map(|(i, id)| (id, 1000.0 - 20.0 * i as f32)).collect(),
            ..Sampling::default()
        },
        ..request(&looped, 28)
    };
    let engine = start(&model, ngram(4, 2, 8), EngineOptions::default());
    let tokens = engine.generate(biased).unwrap().0;
    assert_eq!(tokens, [7, 3, 9, 11].into_iter().cycle().take(28).collect::<Vec<_>>());
    let stats = engine.stats();
    assert!(stats.steps_total < 10, "{} steps", stats.steps_total);
    assert_eq!(stats.right_tokens_total(), stats.guessed_tokens_total);
}

#[test]
fn ends_within_right_guesses_are_ends() {
    let model = model();
    let plain = start(&model, None, EngineOptions::default());
    let engine = start(&model, draft(&model, 7), EngineOptions::default());
    let all = plain.generate(request(&[1, 2, 3], 30)).unwrap().0;
    for (i, stop) in all.iter().enumerate() {
        for min_tokens in [0, i, i + 3] {
            let stopped =
                Request { stop_tokens: vec![*stop], min_tokens, logprobs: Some(1), ..request(&[1, 2, 3], 30) };
            let asked = std::slice::from_ref(&stopped);
            assert!(run_all(&engine, asked) == run_all(&plain, asked), "stop at {i}, at least {min_tokens}");
        }
    }
    for max_tokens in 0..12 {
        assert_eq!(engine.generate(request(&[1, 2, 3], max_tokens)).unwrap().0, all[..max_tokens]);
    }
    // The context ends it.
    for len in 40..48 {
        let expected = plain.generate(request(&vec![1; len], 100)).unwrap();
        assert_eq!(engine.generate(request(&vec![1; len], 100)).unwrap(), expected);
    }
    assert!(engine.stats().right_tokens_total() > 100);
}

#[test]
fn who_leaves_within_right_guesses_hears_no_more() {
    let model = model();
    let engine = start(&model, draft(&model, 7), EngineOptions::default());
    for leave_after in 2..12 {
        let (sender, seen) = channel();
        let mut count = 0;
        let sink = Box::new(move |output| {
            count += 1;
            sender.send(output).unwrap();
            count < leave_after
        });
        let _ticket = engine.submit(request(&[1, 2, 3], 40), sink).unwrap();
        assert_eq!(seen.iter().count(), leave_after);
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while engine.stats().finished_abort_total < 10 && Instant::now() < deadline {
        thread::yield_now();
    }
    assert_eq!((engine.stats().finished_abort_total, engine.stats().kv_blocks_used), (10, 0));
}

#[test]
#[should_panic(expected = "same vocabulary")]
fn a_draft_model_with_another_vocabulary_is_refused() {
    let model = model();
    let other = ModelConfig { vocab_size: 41, ..model.config().clone() };
    start(&model, draft(&Decoder::random(&other, 1, &cpu()), 2), EngineOptions::default());
}

/// Pearson's statistic of counts against probabilities, and the bound that chance passes in one of some ten thousand cases
/// (Wilson and Hilferty, 1931). Rare tokens count together.
fn chi_square(counts: &[f64], probabilities: &[f64]) -> (f64, f64) {
    let total: f64 = counts.iter().sum();
    let (mut statistic, mut bins, mut rare) = (0.0, 0, (0.0, 0.0));
    let term = |count: f64, expected: f64| (count - expected).powi(2) / expected;
    for (count, probability) in counts.iter().zip(probabilities) {
        let expected = probability * total;
        if expected < 5.0 {
            rare = (rare.0 + count, rare.1 + expected);
        } else {
            statistic += term(*count, expected);
            bins += 1;
        }
    }
    if rare.1 > 0.0 {
        statistic += term(rare.0, rare.1);
        bins += 1;
    }
    let freedom = f64::from(bins - 1);
    let share = 2.0 / (9.0 * freedom);
    (statistic, freedom * (1.0 - share + 3.7 * share.sqrt()).powi(3))
}

/// Over many seeds, the second drawn token has the model's own distribution: the sum over the first of what the model says.
/// It is the first that can be guessed. Taking guesses that the model would not have drawn, in one of ten cases, shows.
#[test]
fn drawn_tokens_follow_the_models_distribution() {
    const SEEDS: u64 = 3000;
    const VOCABULARY: usize = 40;
    let model = model();
    let prompt = [5, 6, 7, 8, 5, 6, 7, 8, 5, 6];
    // The prompt's tokens are likelier, so that there is something to be looked up.
    let logit_bias: Vec<(u32, f32)> = (5..9).map(|id| (id, 1.5)).collect();
    let softmax = |ids: &[u32]| -> Vec<f64> {
        let mut all = logits(&model, ids);
        let last = all.split_off(all.len() - VOCABULARY);
        let bias =
            |id: usize| logit_bias.iter().find(|(biased, _)| *biased as usize == id).map_or(0.0, |(_, bias)| *bias);
        let last: Vec<f32> = last.into_iter().enumerate().map(|(id, logit)| logit + bias(id)).collect();
        crate::log_softmax(&last).into_iter().map(|l| f64::from(l).exp()).collect()
    };
    let mut expected = vec![0.0; VOCABULARY];
    for (first, likelihood) in softmax(&prompt).into_iter().enumerate() {
        let next = softmax(&[&prompt[..], &[first as u32]].concat());
        expected.iter_mut().zip(next).for_each(|(sum, p)| *sum += likelihood * p);
    }
    for speculation in [None, ngram(1, 1, 3), draft(&similar(&model), 3)] {
        let engine = start(&model, speculation, EngineOptions { sequences_max: 4, ..EngineOptions::default() });
        let drawn = |seed| {
            let sampling = Sampling { seed, logit_bias: logit_bias.clone(), ..Sampling::default() };
            Request { sampling, ..request(&prompt, 3) }
        };
        let requests: Vec<Request> = (0..SEEDS).map(drawn).collect();
        let found: Vec<Yield> = requests.chunks(64).flat_map(|requests| run_all(&engine, requests)).collect();
        let count = |second: &dyn Fn(usize) -> u32| {
            let mut counts = vec![0.0; VOCABULARY];
            (0..found.len()).for_each(|i| counts[second(i) as usize] += 1.0);
            chi_square(&counts, &expected)
        };
        let guessing = engine.stats().guesses_max > 0;
        let (statistic, bound) = count(&|i| found[i].0[1].0);
        assert!(statistic < bound, "{statistic} of {bound}, guessing {guessing}");
        if guessing {
            assert!(engine.stats().guesses_total > SEEDS / 10, "{} guesses", engine.stats().guesses_total);
            let biased = |i: usize| if i.is_multiple_of(10) { 7 } else { found[i].0[1].0 };
            let (statistic, bound) = count(&biased);
            assert!(statistic > bound, "a bias does not show: {statistic} of {bound}");
        }
    }
}
