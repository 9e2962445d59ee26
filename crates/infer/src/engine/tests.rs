//! The engine against the model itself: the cache and the batch change nothing.

use super::*;
use crate::{
    History, Sampling, TokenLogprobs,
    sampling::{sample, token_logprobs},
};
use narthex_base::random::Stream;
use narthex_model::{CausalContext, Design, Dropout, Int, Precision, Tensor};
use std::{
    thread,
    time::{Duration, Instant},
};

mod constraints;
mod speculation;

fn model() -> Decoder {
    let config = ModelConfig {
        vocab_size: 40,
        hidden_size: 32,
        intermediate_size: 48,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_width: 8,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        tied_embeddings: true,
        context: 48,
        bos_token: None,
        eos_tokens: vec![],
        design: Design::default(),
    };
    // Larger weights than at the start of training, so that logits differ enough to be told apart.
    let model = Decoder::random(&config, 3, &cpu());
    narthex_model::map_parameters(model, |name, shape| {
        let stream = narthex_base::random::Stream::new(11, name);
        let len = shape.iter().product::<usize>() as u64;
        let values = (shape.len() == 2).then(|| (0..len).map(|i| stream.normal(i) * 0.3).collect());
        narthex_model::Replacement { values, trained: false }
    })
}

fn request(prompt: &[u32], max_tokens: usize) -> Request {
    Request {
        prompt: prompt.to_vec(),
        max_tokens,
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        ..Request::default()
    }
}

/// All logits of a sequence in one pass without a cache.
fn logits(model: &Decoder, ids: &[u32]) -> Vec<f32> {
    let positions: Vec<usize> = (0..ids.len()).collect();
    let places = model.positions(&[&positions], &cpu());
    let tokens: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
    let tokens = Tensor::<1, Int>::from_ints(tokens.as_slice(), &cpu()).unsqueeze::<2>();
    let logits = model.forward(tokens, &places, &mut CausalContext::new(ids.len()), &mut Dropout::none());
    logits.into_data().try_to_vec::<f32>().unwrap()
}

fn greedy_without_cache(model: &Decoder, prompt: &[u32], count: usize) -> Vec<u32> {
    let mut ids = prompt.to_vec();
    for _ in 0..count {
        let all = logits(model, &ids);
        let last = &all[all.len() - model.config().vocab_size..];
        let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
        ids.push(sample(last, &greedy, &History::default(), None, None).id);
    }
    ids.split_off(prompt.len())
}

#[test]
fn the_cache_changes_nothing() {
    let model = model();
    let engine = Engine::start(model.clone(), EngineOptions::default()).unwrap();
    for prompt in [&[5][..], &[1, 2, 3], &[9, 8, 7, 6, 5, 4, 3]] {
        let expected = greedy_without_cache(&model, prompt, 12);
        let (tokens, reason) = engine.generate(request(prompt, 12)).unwrap();
        assert_eq!((tokens, reason), (expected, Ok(FinishReason::Length)));
    }
}

#[test]
fn many_at_once_are_each_what_they_are_alone() {
    let model = model();
    let engine = Engine::start(model.clone(), EngineOptions { sequences_max: 3, ..EngineOptions::default() }).unwrap();
    let (sender, outputs) = channel();
    let mut tickets = vec![];
    for i in 0..10u32 {
        let sender = sender.clone();
        let sink = Box::new(move |output| sender.send((i, output)).is_ok());
        tickets.push(engine.submit(request(&[i, i + 1, 2 * i], 3 + i as usize), sink).unwrap());
    }
    drop(sender);
    let mut tokens = vec![vec![]; 10];
    for (i, output) in outputs {
        if let Output::Token { id, .. } = output {
            tokens[i as usize].push(id);
        }
    }
    for i in 0..10u32 {
        assert_eq!(tokens[i as usize], greedy_without_cache(&model, &[i, i + 1, 2 * i], 3 + i as usize));
    }
    let stats = engine.stats();
    assert_eq!((stats.prompt_tokens_total, stats.finished_length_total), (30, 10));
}

#[test]
fn prompt_logprobs_are_those_of_the_model() {
    let model = model();
    let prompt = [4, 30, 2, 17];
    let all = logits(&model, &prompt);
    let engine = Engine::start(model, EngineOptions::default()).unwrap();
    let (sender, outputs) = channel();
    let scoring = Request { logprobs: Some(2), prompt_logprobs: Some(2), ..request(&prompt, 0) };
    let _ticket = engine.submit(scoring, Box::new(move |output| sender.send(output).is_ok())).unwrap();
    assert_eq!(outputs.recv().unwrap(), Output::Admitted { cached: 0 });
    let Output::Prompt(scores) = outputs.recv().unwrap() else { panic!("the prompt's scores come first") };
    assert!(scores[0].is_none());
    for i in 1..prompt.len() {
        let expected = token_logprobs(&all[(i - 1) * 40..i * 40], prompt[i], 2);
        let found = scores[i].as_ref().unwrap();
        assert!((found.logprob - expected.logprob).abs() < 1e-5);
        assert_eq!(found.top[0].0, expected.top[0].0);
    }
    assert_eq!(outputs.recv().unwrap(), Output::Finished(FinishReason::Length));
}

#[test]
fn stop_tokens_end_and_are_not_part_of_the_output() {
    let model = model();
    let expected = greedy_without_cache(&model, &[1, 2, 3], 12);
    let engine = Engine::start(model, EngineOptions::default()).unwrap();
    let stop = expected[5];
    let first = expected.iter().position(|id| *id == stop).unwrap();
    let stopped = Request { stop_tokens: vec![stop], ..request(&[1, 2, 3], 12) };
    assert_eq!(engine.generate(stopped).unwrap(), (expected[..first].to_vec(), Ok(FinishReason::Stop)));
}

#[test]
fn the_context_is_a_limit() {
    let engine = Engine::start(model(), EngineOptions::default()).unwrap();
    let (tokens, reason) = engine.generate(request(&[1; 40], 100)).unwrap();
    assert_eq!((tokens.len(), reason), (8, Ok(FinishReason::Length)));
    for (bad, expected) in [
        (request(&[], 1), SubmitError::EmptyPrompt),
        (request(&[40], 1), SubmitError::UnknownToken(40)),
        (request(&[1; 48], 1), SubmitError::TooLong { prompt: 48, context: 48 }),
        (Request { priority: 1, ..request(&[1], 1) }, SubmitError::NoPriorities),
    ] {
        assert_eq!(engine.generate(bad).unwrap_err(), expected);
    }
}

#[test]
fn readers_that_go_away_free_their_place() {
    let engine =
        Engine::start(model(), EngineOptions { sequences_max: 1, waiting_max: 2, ..EngineOptions::default() }).unwrap();
    let mut seen = 0;
    let leaves = Box::new(move |_| {
        seen += 1;
        seen < 3
    });
    let _ticket = engine.submit(request(&[1], 40), leaves).unwrap();
    assert_eq!(engine.generate(request(&[2], 2)).unwrap().0.len(), 2);
    let deadline = Instant::now() + Duration::from_secs(10);
    while engine.stats().requests_running > 0 && Instant::now() < deadline {
        thread::yield_now();
    }
    let stats = engine.stats();
    assert_eq!((stats.requests_running, stats.requests_waiting, stats.finished_abort_total), (0, 0, 1));
    assert_eq!(stats.kv_blocks_used, 0);
}

#[test]
fn dropped_tickets_cancel_running_and_waiting_requests() {
    let engine = Engine::start(model(), EngineOptions { sequences_max: 1, ..EngineOptions::default() }).unwrap();
    let tickets: Vec<Ticket> = (0..3).map(|i| engine.submit(request(&[i], 47), Box::new(|_| true)).unwrap()).collect();
    drop(tickets);
    assert_eq!(engine.generate(request(&[2], 2)).unwrap().0.len(), 2);
    // Some may have got to their end before.
    let stats = engine.stats();
    assert_eq!(stats.finished_abort_total + stats.finished_length_total, 4);
    assert_eq!((stats.requests_running, stats.requests_waiting, stats.kv_blocks_used), (0, 0, 0));
}

#[test]
fn a_full_queue_refuses() {
    let engine = Engine::start(model(), EngineOptions { waiting_max: 0, ..EngineOptions::default() }).unwrap();
    assert_eq!(engine.generate(request(&[1], 1)).unwrap_err(), SubmitError::QueueFull);
}

/// What a request yields, with the bits of its scores.
type Yield = (Vec<(u32, Vec<(u32, u32)>)>, FinishReason);

/// Submits all at once and collects what each yields.
fn run_all(engine: &Engine, requests: &[Request]) -> Vec<Yield> {
    let bits = |scores: TokenLogprobs| {
        scores.top.iter().map(|(id, logprob)| (*id, logprob.to_bits())).chain([(0, scores.logprob.to_bits())]).collect()
    };
    let streams: Vec<_> = requests
        .iter()
        .map(|request| {
            let (sender, outputs) = channel();
            let sink = Box::new(move |output| sender.send(output).is_ok());
            (engine.submit(request.clone(), sink).unwrap(), outputs)
        })
        .collect();
    let collected = streams.into_iter().map(|(_ticket, outputs)| {
        let mut found = vec![];
        for output in outputs {
            match output {
                Output::Admitted { .. } => {}
                Output::Prompt(scores) => found.extend(scores.into_iter().flatten().map(|scores| (0, bits(scores)))),
                Output::Token { id, logprobs } | Output::StopToken { id, logprobs } => {
                    found.push((id, logprobs.map(bits).unwrap_or_default()));
                }
                Output::Finished(reason) => return (found, reason),
                Output::Failed(why) => panic!("{why}"),
            }
        }
        panic!("an ended request says so");
    });
    collected.collect()
}

/// A random mix of requests: greedy and drawn, short and long, with common beginnings, some wanting their prompt's scores.
fn mix(seed: u64) -> Vec<Request> {
    let random = Stream::new(seed, "mix");
    let mut draws = 0;
    let mut draw = |bound: u64| {
        draws += 1;
        random.below(draws, bound)
    };
    let requests = (0..2 + draw(10)).map(|_| {
        let (family, shared, len) = (draw(2) as u32, draw(40), 1 + draw(44));
        let prompt = (0..len).map(|i| if i < shared { family * 7 + i as u32 % 5 } else { draw(40) as u32 }).collect();
        let greedy = draw(2) == 0;
        Request {
            prompt,
            max_tokens: draw(25) as usize,
            sampling: Sampling {
                temperature: if greedy { 0.0 } else { 1.0 },
                seed: draw(1000),
                frequency_penalty: if draw(3) == 0 { 0.5 } else { 0.0 },
                repetition_penalty: if draw(6) == 0 { 1.3 } else { 1.0 },
                top_k: if draw(3) == 0 { 5 } else { 0 },
                logit_bias: if draw(6) == 0 { vec![(draw(40) as u32, 2.0)] } else { vec![] },
                ..Sampling::default()
            },
            stop_tokens: if draw(4) == 0 { vec![draw(40) as u32] } else { vec![] },
            min_tokens: if draw(4) == 0 { draw(6) as usize } else { 0 },
            logprobs: Some(2),
            prompt_logprobs: (draw(5) == 0).then_some(0),
            ..Request::default()
        }
    });
    requests.collect()
}

fn mixes_change_no_byte(seeds: std::ops::Range<u64>) {
    for (precision, kv_cache_int8) in
        [(Precision::F32, false), (Precision::Bf16, false), (Precision::F32, true), (Precision::Bf16, true)]
    {
        let model = model().pack(precision);
        let start = |options| Engine::start(model.clone(), EngineOptions { kv_cache_int8, ..options }).unwrap();
        let alone = start(EngineOptions { threads: 1, prefix_cache: false, ..EngineOptions::default() });
        // Room for three to four sequences of full length: mixes that are larger are preempted.
        let block = alone.kv_cache_bytes() / alone.stats().kv_blocks_total as usize;
        let tight = EngineOptions {
            kv_cache_bytes: 7 * block,
            step_tokens_max: 20,
            chunk_tokens_max: 9,
            threads: 2,
            ..EngineOptions::default()
        };
        let engines = [
            ("all at once", start(EngineOptions { threads: 2, ..EngineOptions::default() })),
            ("without prefix cache", start(EngineOptions { prefix_cache: false, ..tight.clone() })),
            ("in little room", start(tight)),
        ];
        for seed in seeds.clone() {
            let requests = mix(seed);
            let expected: Vec<Yield> =
                requests.iter().flat_map(|request| run_all(&alone, std::slice::from_ref(request))).collect();
            for (name, engine) in &engines {
                let found = run_all(engine, &requests);
                assert!(found == expected, "mix {seed} {name} in {precision:?}, int8 {kv_cache_int8}");
            }
        }
        assert!(engines[0].1.stats().prefix_cache_hits_total > 0);
        assert!(engines[1].1.stats().preemptions_total > 0 && engines[2].1.stats().preemptions_total > 0);
    }
}

#[test]
fn what_else_runs_changes_no_byte() {
    mixes_change_no_byte(0..20);
}

/// `cargo test --release -p narthex-infer -- --ignored thousand`
#[test]
#[ignore = "takes a minute"]
fn a_thousand_mixes_change_no_byte() {
    mixes_change_no_byte(0..1000);
}

#[test]
fn a_seed_repeats_and_seeds_differ() {
    let engine = Engine::start(model(), EngineOptions::default()).unwrap();
    let drawn = |seed| {
        let sampling = Sampling { temperature: 1.5, seed, ..Sampling::default() };
        engine.generate(Request { sampling, ..request(&[1, 2], 20) }).unwrap().0
    };
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
}
