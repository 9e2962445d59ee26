//! The scheduler against random traffic: what must hold after every step, and that everybody gets through.

use super::*;
use narthex_base::random::Stream;
use std::collections::HashSet;

const LIMITS: Limits = Limits {
    sequences_max: 4,
    step_tokens_max: 64,
    chunk_tokens_max: 64,
    blocks: 16,
    prefix_cache: true,
    policy: Policy::Fcfs,
};

fn tokens(count: usize) -> Vec<u32> {
    (0..count as u32).collect()
}

fn sequence(tokens: Vec<u32>) -> NewSequence {
    NewSequence { tokens, ..NewSequence::default() }
}

fn work(id: SequenceId, first: usize, end: usize) -> Work {
    Work { id, first, end, proposed: 0 }
}

#[test]
fn long_prompts_come_in_chunks_behind_those_that_run() {
    let mut scheduler = Scheduler::new(Limits { chunk_tokens_max: 40, ..LIMITS });
    let short = scheduler.add(sequence(tokens(5)));
    let long = scheduler.add(sequence((100..200).collect()));
    assert_eq!(scheduler.step(), [work(short, 0, 5), work(long, 0, 40)]);
    scheduler.push(short, 7);
    assert_eq!(scheduler.step(), [work(short, 5, 6), work(long, 40, 80)]);
    scheduler.push(short, 8);
    assert_eq!(scheduler.step(), [work(short, 6, 7), work(long, 80, 100)]);
}

#[test]
fn the_budget_is_shared() {
    let mut scheduler = Scheduler::new(Limits { step_tokens_max: 10, ..LIMITS });
    let ids: Vec<_> = (0..3).map(|i| scheduler.add(sequence(vec![i; 6]))).collect();
    assert_eq!(scheduler.step(), [work(ids[0], 0, 6), work(ids[1], 0, 4)]);
    scheduler.push(ids[0], 9);
    assert_eq!(scheduler.step(), [work(ids[0], 6, 7), work(ids[1], 4, 6), work(ids[2], 0, 6)]);
}

#[test]
fn steps_are_short_while_most_generate() {
    let mut scheduler = Scheduler::new(LIMITS);
    let ids: Vec<_> = (0..3).map(|i| scheduler.add(sequence(vec![i; 8]))).collect();
    assert_eq!(scheduler.step().len(), 3);
    ids.iter().for_each(|id| scheduler.push(*id, 9));
    // One reads and three generate: a sixth of the step's 64 tokens for it.
    let long = scheduler.add(sequence((100..180).collect()));
    let tokens = |first: usize| ids.iter().map(move |id| work(*id, first, first + 1));
    assert!(scheduler.step().iter().copied().eq(tokens(8).chain([work(long, 0, 11)])));
    // One of each: the step stays short as long as it would not be the last.
    scheduler.push(ids[0], 9);
    assert!(scheduler.remove(ids[1]) && scheduler.remove(ids[2]));
    assert_eq!(scheduler.step(), [work(ids[0], 9, 10), work(long, 11, 22)]);
    scheduler.push(ids[0], 9);
    assert_eq!(scheduler.step(), [work(ids[0], 10, 11), work(long, 22, 80)]);
}

#[test]
fn a_prefix_is_computed_once_even_in_the_same_step() {
    let mut scheduler = Scheduler::new(LIMITS);
    let mut second = tokens(40);
    second[39] = 0;
    let (a, b) = (scheduler.add(sequence(tokens(40))), scheduler.add(sequence(second)));
    assert_eq!(scheduler.step(), [work(a, 0, 40), work(b, 32, 40)]);
    assert_eq!(scheduler.blocks(a)[..2], scheduler.blocks(b)[..2]);
    assert!(scheduler.remove(a) && scheduler.remove(b) && !scheduler.remove(a));
    // A prompt that is known whole still computes its last token.
    let c = scheduler.add(sequence(tokens(32)));
    assert_eq!(scheduler.step(), [work(c, 16, 32)]);
    // Another salt, and one that wants all of it, share nothing.
    let salted = scheduler.add(NewSequence { salt: Some("x".into()), ..sequence(tokens(32)) });
    let whole = scheduler.add(NewSequence { compute_all: true, ..sequence(tokens(32)) });
    scheduler.push(c, 1);
    assert_eq!(scheduler.step(), [work(c, 32, 33), work(salted, 0, 32), work(whole, 0, 31)]);
    assert_eq!(scheduler.counters(), Counters { preemptions: 0, cache_queries: 144, cache_hits: 48 });
}

#[test]
fn who_does_not_fit_waits_and_holds_back_the_rest() {
    let mut scheduler = Scheduler::new(Limits { step_tokens_max: 1000, chunk_tokens_max: 1000, ..LIMITS });
    let first = scheduler.add(sequence((0..200).collect()));
    let second = scheduler.add(sequence((1000..1100).collect()));
    let third = scheduler.add(sequence(vec![5]));
    assert_eq!(scheduler.step(), [work(first, 0, 200)]);
    assert_eq!(scheduler.waiting(), 2);
    scheduler.remove(first);
    assert_eq!(scheduler.step(), [work(second, 0, 100), work(third, 0, 1)]);
}

#[test]
fn the_last_admitted_makes_room_and_comes_back() {
    let mut scheduler = Scheduler::new(Limits { blocks: 2, ..LIMITS });
    let (a, b) = (scheduler.add(sequence(vec![1; 16])), scheduler.add(sequence(vec![2; 15])));
    assert_eq!(scheduler.step(), [work(a, 0, 16), work(b, 0, 15)]);
    [a, b].into_iter().for_each(|id| scheduler.push(id, 3));
    assert_eq!(scheduler.step(), [work(a, 16, 17)]);
    assert_eq!((scheduler.running(), scheduler.waiting(), scheduler.counters().preemptions), (1, 1, 1));
    scheduler.remove(a);
    assert_eq!(scheduler.step(), [work(b, 0, 16)]);
}

#[test]
fn priorities_go_first_and_make_room_last() {
    let limits = Limits { blocks: 3, sequences_max: 2, policy: Policy::Priority, ..LIMITS };
    let mut scheduler = Scheduler::new(limits);
    let add = |scheduler: &mut Scheduler, token: u32, priority| {
        scheduler.add(NewSequence { priority, ..sequence(vec![token; 16]) })
    };
    let (low, high, middle) = (add(&mut scheduler, 1, 5), add(&mut scheduler, 2, -1), add(&mut scheduler, 3, 0));
    assert_eq!(scheduler.step(), [work(high, 0, 16), work(middle, 0, 16)]);
    [high, middle].into_iter().for_each(|id| scheduler.push(id, 9));
    // One block is left for two; `middle` makes room though `low` waits.
    assert_eq!(scheduler.step(), [work(high, 16, 17)]);
    scheduler.remove(high);
    // What it had computed is still there.
    assert_eq!(scheduler.step(), [work(middle, 16, 17), work(low, 0, 16)]);
}

#[test]
fn guesses_get_what_is_left() {
    let mut scheduler = Scheduler::new(Limits { step_tokens_max: 12, chunk_tokens_max: 6, blocks: 4, ..LIMITS });
    let (a, b) = (scheduler.add(sequence(vec![1; 6])), scheduler.add(sequence(vec![2; 6])));
    assert_eq!(scheduler.step(), [work(a, 0, 6), work(b, 0, 6)]);
    [a, b].into_iter().for_each(|id| scheduler.push(id, 3));
    assert_eq!(scheduler.outlook(), Outlook { rows: 2, spare: 10 });
    assert!(scheduler.generating().eq([a, b]));
    [a, b].into_iter().for_each(|id| scheduler.propose(id, 9));
    // A chunk is six.
    assert_eq!(scheduler.step(), [Work { proposed: 5, ..work(a, 6, 7) }, Work { proposed: 5, ..work(b, 6, 7) }]);
    scheduler.guess(a, vec![4, 5, 6, 7, 8]);
    scheduler.guess(b, vec![4, 5]);
    [4, 5, 9].into_iter().for_each(|token| scheduler.push(a, token));
    scheduler.push(b, 9);
    assert_eq!((scheduler.guesses(a), scheduler.guesses(b)), (&[][..], &[][..]));
    // What was right is computed, the rest is not.
    assert_eq!(scheduler.step(), [work(a, 9, 10), work(b, 7, 8)]);
    // A prompt goes first, with its sixth.
    [a, b].into_iter().for_each(|id| scheduler.push(id, 3));
    let c = scheduler.add(sequence(vec![5; 6]));
    assert_eq!(scheduler.outlook(), Outlook { rows: 4, spare: 8 });
    scheduler.propose(a, 9);
    scheduler.propose(b, 9);
    let expected = [Work { proposed: 5, ..work(a, 10, 11) }, Work { proposed: 3, ..work(b, 8, 9) }, work(c, 0, 2)];
    assert_eq!(scheduler.step(), expected);
}

#[test]
fn guesses_push_nobody_out_and_are_not_remembered() {
    let mut scheduler = Scheduler::new(Limits { blocks: 2, ..LIMITS });
    let (a, b) = (scheduler.add(sequence(vec![1; 13])), scheduler.add(sequence(vec![2; 13])));
    assert_eq!(scheduler.step().len(), 2);
    [a, b].into_iter().for_each(|id| scheduler.push(id, 3));
    scheduler.propose(a, 9);
    // Up to the end of its block: there is no other.
    assert_eq!(scheduler.step(), [Work { proposed: 2, ..work(a, 13, 14) }, work(b, 13, 14)]);
    scheduler.guess(a, vec![4, 4]);
    let block = scheduler.blocks(a)[0];
    assert!(!scheduler.pool().is_known(block));
    scheduler.push(a, 4);
    assert!(!scheduler.pool().is_known(block));
    scheduler.push(a, 4);
    assert!(scheduler.pool().is_known(block), "a full block of right guesses is remembered");
    scheduler.push(a, 5);
    assert!(scheduler.remove(b));
    scheduler.propose(a, 9);
    assert_eq!(scheduler.step(), [Work { proposed: 9, ..work(a, 16, 17) }]);
    assert_eq!(scheduler.counters().preemptions, 0);
    // A block that only wrong guesses needed is given back.
    scheduler.guess(a, vec![7; 9]);
    scheduler.push(a, 6);
    assert_eq!((scheduler.blocks(a).len(), scheduler.pool().free()), (2, 0));
    let mut scheduler = Scheduler::new(Limits { blocks: 2, ..LIMITS });
    let a = scheduler.add(sequence(vec![1; 13]));
    assert_eq!(scheduler.step().len(), 1);
    scheduler.push(a, 3);
    scheduler.propose(a, 9);
    assert_eq!(scheduler.step(), [Work { proposed: 9, ..work(a, 13, 14) }]);
    scheduler.guess(a, vec![7; 9]);
    scheduler.push(a, 6);
    assert_eq!((scheduler.blocks(a).len(), scheduler.pool().free()), (1, 1));
}

/// Random arrivals, ends and aborts; every sequence ends after a number of tokens of its own.
fn simulate(seed: u64, limits: Limits, events: u64) {
    let random = Stream::new(seed, "traffic");
    let mut scheduler = Scheduler::new(limits);
    let mut left: BTreeMap<SequenceId, usize> = BTreeMap::new();
    let (mut finished, mut steps, mut draws) = (0u64, 0u64, 0u64);
    let mut draw = |bound: u64| {
        draws += 1;
        random.below(draws, bound)
    };
    let mut arrived = 0;
    while arrived < events || !left.is_empty() {
        for _ in 0..draw(3) {
            if arrived >= events || scheduler.waiting() > 20 {
                break;
            }
            arrived += 1;
            let room = scheduler.tokens_max() as u64;
            let prompt = 1 + draw(room - 1);
            let new = draw((room - prompt).min(60) + 1) as usize;
            // Few different beginnings, so that blocks are shared.
            let (family, shared) = (draw(3) as u32, draw(prompt) as u32);
            let tokens = (0..prompt as u32).map(|i| if i < shared { family } else { arrived as u32 * 64 + i });
            let tokens: Vec<u32> = tokens.collect();
            let compute_all = draw(8) == 0;
            let salt = (draw(8) == 0).then(|| "salt".to_string());
            let id = scheduler.add(NewSequence { tokens, priority: draw(3) as i64, salt, compute_all });
            left.insert(id, new);
        }
        if draw(20) == 0
            && let Some(id) = left.keys().nth(draw(left.len().max(1) as u64) as usize).copied()
        {
            assert!(scheduler.remove(id));
            left.remove(&id);
        }
        if draw(500) == 0 {
            scheduler.forget();
        }
        let (generating, outlook) = (scheduler.generating().collect::<Vec<_>>(), scheduler.outlook());
        assert!(outlook.rows + outlook.spare <= limits.step_tokens_max);
        for id in generating {
            if draw(2) == 0 {
                scheduler.propose(id, draw(20) as usize);
            }
        }
        let preemptions = scheduler.counters().preemptions;
        let step = scheduler.step().to_vec();
        let proposed: usize = step.iter().map(|work| work.proposed).sum();
        assert!(proposed == 0 || scheduler.counters().preemptions == preemptions, "guesses push nobody out");
        steps += 1;
        assert_eq!(step.is_empty(), left.is_empty(), "there is work as long as there are sequences");
        check(&scheduler, &step, limits);
        for Work { id, end, proposed, .. } in step {
            if end < scheduler.tokens(id).len() {
                assert_eq!(proposed, 0, "nothing is guessed before all is read");
                continue;
            }
            let guesses: Vec<u32> = (0..draw(proposed as u64 + 1)).map(|_| draw(50) as u32).collect();
            scheduler.guess(id, guesses.clone());
            let right = draw(guesses.len() as u64 + 1) as usize;
            // Behind the right ones one that was not guessed.
            for token in guesses[..right].iter().copied().chain([50 + draw(50) as u32]) {
                let more = left.get_mut(&id).expect("only sequences in hand are in a step");
                if *more == 0 {
                    left.remove(&id);
                    assert!(scheduler.remove(id));
                    finished += 1;
                    break;
                }
                *more -= 1;
                scheduler.push(id, token);
            }
            if left.contains_key(&id) {
                let tokens = scheduler.tokens(id).len();
                assert_eq!(scheduler.entries[&id].computed, tokens - 1, "all but the last token are computed");
                assert!(scheduler.blocks(id).len() <= tokens.div_ceil(KV_BLOCK), "no block is held for guesses");
            }
        }
        assert!(steps < 1000 + 2000 * arrived, "somebody never ends");
    }
    assert_eq!(scheduler.pool().free(), limits.blocks);
    assert!(finished > 0);
}

fn check(scheduler: &Scheduler, step: &[Work], limits: Limits) {
    assert!(step.iter().map(Work::rows).sum::<usize>() <= limits.step_tokens_max);
    assert!(scheduler.running() <= limits.sequences_max);
    assert_eq!(scheduler.running() + scheduler.waiting(), scheduler.entries.len());
    let in_step: HashSet<SequenceId> = step.iter().map(|work| work.id).collect();
    assert_eq!(in_step.len(), step.len(), "a sequence has one part in a step");
    let mut references: HashMap<u32, u32> = HashMap::new();
    for id in &scheduler.running {
        let entry = &scheduler.entries[id];
        assert!(entry.blocks.len() * KV_BLOCK >= entry.computed && entry.computed <= entry.tokens.len());
        for (i, block) in entry.blocks.iter().enumerate() {
            *references.entry(*block).or_default() += 1;
            // A block that is not full has one user.
            let full = (i + 1) * KV_BLOCK <= entry.computed;
            assert!(full || references[block] == 1, "block {block} is written by two");
            assert!(full || !scheduler.pool.is_known(*block), "block {block} is remembered before it is full");
        }
    }
    assert!(scheduler.waiting.values().all(|id| scheduler.entries[id].blocks.is_empty()));
    scheduler.pool.check(&references);
    for work in step {
        let Work { id, first, end, proposed } = work;
        let entry = &scheduler.entries[id];
        assert!(scheduler.running.contains(id) && first < end && *end == entry.computed);
        assert!(work.rows() <= limits.chunk_tokens_max && end + proposed <= entry.blocks.len() * KV_BLOCK);
    }
}

#[test]
fn random_traffic_gets_through() {
    let small = Limits { blocks: 7, sequences_max: 3, step_tokens_max: 24, chunk_tokens_max: 16, ..LIMITS };
    for (seed, limits) in [
        (1, LIMITS),
        (2, small),
        (3, Limits { policy: Policy::Priority, ..small }),
        (4, Limits { prefix_cache: false, ..small }),
        (5, Limits { blocks: 1, ..small }),
        (6, Limits { blocks: 200, sequences_max: 32, step_tokens_max: 256, chunk_tokens_max: 100, ..LIMITS }),
    ] {
        simulate(seed, limits, 400);
    }
}

/// Two million arrivals and some hundred million events; `cargo test --release -p narthex-infer -- --ignored millions`.
#[test]
#[ignore = "takes minutes"]
fn millions_of_events() {
    for seed in 100..150 {
        let stream = Stream::new(seed, "limits");
        let pick = |i, low: u64, high: u64| (low + stream.below(i, high - low)) as usize;
        let limits = Limits {
            sequences_max: pick(1, 1, 12),
            step_tokens_max: pick(2, 1, 200),
            chunk_tokens_max: pick(3, 1, 100),
            blocks: pick(4, 1, 30),
            prefix_cache: pick(5, 0, 4) > 0,
            policy: if pick(6, 0, 2) == 0 { Policy::Fcfs } else { Policy::Priority },
        };
        simulate(seed, limits, 40_000);
    }
}
