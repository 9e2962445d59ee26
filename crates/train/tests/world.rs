//! Several processes give the same bytes as one: here they are threads, which talk over channels or over sockets.

use burn::{
    module::{Module, Param},
    tensor::{Tensor, TensorData},
};
use narthex_base::{
    Result,
    config::{Batching, LearningRate, Offload, Optimizer, Schedule, Shard},
    random::Stream,
};
use narthex_model::{cpu, named_parameters};
use narthex_train::{
    Alone, Communicator, Mesh, Message, Objective, Operation, Pending, Ranks, Seat, Selection, Traffic, Training,
    World, fit,
    objective::{Loss, Place, Units},
    replay, sockets, tcp, threads,
};
use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// How long ranks wait for each other here.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Module, Debug)]
struct Line {
    slopes: Param<Tensor<2>>,
    offset: Param<Tensor<1>>,
}

impl Line {
    fn new() -> Self {
        Self {
            slopes: Param::from_tensor(Tensor::from_data([[0.1f32], [-0.2], [0.3]], &cpu())),
            offset: Param::from_tensor(Tensor::from_data([0.0f32], &cpu())),
        }
    }
}

/// Fits a line through points that are drawn by number, some batches of which are empty.
struct Points {
    /// Batches are drawn by the network: towards what it gets wrong now.
    by_network: bool,
}

/// The same objective, whose batches the network makes.
struct OwnPoints(Points);

type Batch = (Vec<f32>, Vec<f32>);

impl Points {
    fn draw(&self, seed: u64, index: u64, network: Option<&Line>) -> Batch {
        assert_eq!(network.is_some(), self.by_network);
        let stream = Stream::new(seed, "points").at(index);
        let rows = if index % 5 == 3 { 0 } else { 1 + index % 3 };
        let x: Vec<f32> = (0..3 * rows).map(|i| stream.normal(i)).collect();
        let shift = network.map_or(0.0, |line| line.offset.val().inner().into_scalar::<f32>());
        let y = x.chunks(3).map(|x| x[0] - 2.0 * x[1] + 0.5 * x[2] + 1.0 + 0.1 * shift).collect();
        (x, y)
    }

    fn square(line: &Line, (x, y): &Batch, scale: f64) -> Loss {
        let device = line.devices()[0].clone();
        let x = Tensor::<2>::from_data(TensorData::new(x.clone(), [y.len(), 3]), &device);
        let y = Tensor::<2>::from_data(TensorData::new(y.clone(), [y.len(), 1]), &device);
        let off = x.matmul(line.slopes.val()) + line.offset.val().unsqueeze() - y;
        let worst = off.clone().abs().max().inner().into_scalar::<f32>();
        Loss { sum: off.clone().powf_scalar(2.0).sum() * scale, value: None, values: vec![f64::from(worst)] }
    }
}

fn units(line: &Line) -> Units {
    Units {
        item: "points",
        items_per_batch: 2,
        flop_per_item: None,
        loss_figure: "training_square",
        parameters: line.num_params(),
    }
}

impl Objective<Line> for Points {
    type Batch = Batch;
    const VALUES: &'static [&'static str] = &["worst"];
    fn units(&self, line: &Line) -> Units {
        units(line)
    }
    fn batch(&self, place: Place<Line>) -> Result<Batch> {
        Ok(self.draw(place.seed, place.index, place.network))
    }
    fn weight(&self, (_, y): &Batch) -> u64 {
        y.len() as u64
    }
    fn loss(&self, line: &Line, batch: &Batch, _: Stream, scale: f64) -> Loss {
        Self::square(line, batch, scale)
    }
}

impl Objective<Line> for OwnPoints {
    type Batch = Batch;
    const BY_NETWORK: bool = true;
    const VALUES: &'static [&'static str] = Points::VALUES;
    fn units(&self, line: &Line) -> Units {
        units(line)
    }
    fn batch(&self, place: Place<Line>) -> Result<Batch> {
        self.0.batch(place)
    }
    fn weight(&self, batch: &Batch) -> u64 {
        self.0.weight(batch)
    }
    fn loss(&self, line: &Line, batch: &Batch, noise: Stream, scale: f64) -> Loss {
        self.0.loss(line, batch, noise, scale)
    }
}

/// Ranks whose parts are added in the other order, which must give other bytes: otherwise nothing is tested.
struct Backwards(Mesh);

impl Communicator for Backwards {
    fn rank(&self) -> usize {
        self.0.rank()
    }
    fn size(&self) -> usize {
        self.0.size()
    }
    fn engine(&self) -> String {
        "backwards".into()
    }
    fn begin(&self, operation: Operation, messages: Vec<Message>) -> Result<Pending> {
        self.0.begin(operation, messages)
    }
    fn finish(&self, pending: Pending) -> Result<Vec<Message>> {
        let is_reduced = pending.operation() == Operation::Reduce;
        let mut found = self.0.finish(pending)?;
        if is_reduced {
            found.reverse();
        }
        Ok(found)
    }
    fn abort(&self, why: &str) {
        self.0.abort(why);
    }
    fn traffic(&self) -> Traffic {
        self.0.traffic()
    }
}

/// A rank that sends other gradients than it has found, from a step on.
struct Forger {
    mesh: Mesh,
    honest: u64,
    sums: AtomicU64,
}

impl Communicator for Forger {
    fn rank(&self) -> usize {
        self.mesh.rank()
    }
    fn size(&self) -> usize {
        self.mesh.size()
    }
    fn engine(&self) -> String {
        self.mesh.engine()
    }
    fn begin(&self, operation: Operation, mut messages: Vec<Message>) -> Result<Pending> {
        if operation == Operation::Reduce && self.sums.fetch_add(1, Ordering::Relaxed) >= self.honest {
            for message in &mut messages {
                // A bit of the first value, behind a flag for each of two parameters.
                let mut bytes = message.bytes().to_vec();
                bytes.get_mut(4).into_iter().for_each(|byte| *byte ^= 0x20);
                *message = Message::new(bytes);
            }
        }
        self.mesh.begin(operation, messages)
    }
    fn finish(&self, pending: Pending) -> Result<Vec<Message>> {
        self.mesh.finish(pending)
    }
    fn abort(&self, why: &str) {
        self.mesh.abort(why);
    }
    fn traffic(&self) -> Traffic {
        self.mesh.traffic()
    }
}

/// One process that takes parts of a run of two again finds what one of those has forged.
#[test]
fn a_forged_interval_is_found() {
    let work = tempfile::tempdir().unwrap();
    let mut schedule = schedule(2);
    (schedule.checkpoints.checkpoint_every, schedule.checkpoints.keep_checkpoints) = (5, true);
    fn training<'a>(schedule: &Schedule, work: &'a Path, world: &'a dyn World) -> Training<'a, Line> {
        Training { schedule: schedule.clone(), work: Some(work), world, ..Training::default() }
    }
    let objective = Points { by_network: false };
    let passed = std::thread::scope(|scope| {
        let run = |mesh: Mesh| {
            scope.spawn(|| {
                // One sum a step: two steps of the third interval are forged by rank 1.
                let honest = if mesh.rank() == 1 { 13 } else { u64::MAX };
                let world = Ranks::meet(Forger { mesh, honest, sums: AtomicU64::new(0) }, &[]).unwrap();
                fit(Line::new(), &objective, &training(&schedule, work.path(), &world)).unwrap().passed
            })
        };
        let ranks: Vec<_> = threads(2).into_iter().map(run).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).find(|passed| !passed.is_empty()).unwrap()
    });
    assert_eq!(passed.iter().map(|passed| passed.step).collect::<Vec<_>>(), [5, 10, 15, 20, 25]);
    for (i, claimed) in passed.iter().enumerate() {
        let again = tempfile::tempdir().unwrap();
        let from = i.checked_sub(1).map(|i| &passed[i]);
        let folder = from.map(|from| work.path().join(format!("checkpoint-{}", from.step)));
        let alone = training(&schedule, again.path(), &Alone);
        let found = replay(Line::new(), &objective, &alone, folder.as_deref().zip(from), claimed.step).unwrap();
        assert_eq!(found == *claimed, i < 2, "the interval to step {}", claimed.step);
    }
}

fn schedule(gradient_accumulation: usize) -> Schedule {
    Schedule {
        batches: Batching { steps: 25, gradient_accumulation, ..Batching::default() },
        rate: LearningRate { lr: 0.03, warmup: 2, ..LearningRate::default() },
        ..Schedule::default()
    }
}

/// The bits of the weights, and the lines of metrics without what is measured.
fn outcome<O: Objective<Line>>(
    objective: &O,
    accumulation: usize,
    world: Option<&dyn World>,
) -> (Vec<u32>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    let mut training =
        Training { schedule: schedule(accumulation), seed: 3, metrics: Some(&path), ..Training::default() };
    if let Some(world) = world {
        training.world = world;
    }
    let fitted = fit(Line::new(), objective, &training).unwrap();
    let bits = named_parameters(&fitted.model).iter().flat_map(|p| p.values.iter().map(|x| x.to_bits())).collect();
    let lines = std::fs::read_to_string(&path).unwrap_or_default();
    let numbers = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        ["step", "loss", "grad_norm", "points", "worst"].map(|key| line[key].to_string()).join(" ")
    };
    (bits, lines.lines().map(numbers).collect())
}

/// The outcome of each of these ranks.
fn of_ranks<O: Objective<Line>, C: Communicator>(
    objective: &O,
    accumulation: usize,
    ranks: Vec<C>,
) -> Vec<(Vec<u32>, Vec<String>)> {
    std::thread::scope(|scope| {
        let run = |communicator| {
            scope.spawn(move || {
                let world = Ranks::meet(communicator, &[("project", "the same".into())]).unwrap();
                outcome(objective, accumulation, Some(&world))
            })
        };
        let running: Vec<_> = ranks.into_iter().map(run).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Ranks that meet each other, each in a thread of its own.
fn meeting(size: usize, meet: impl Fn(Seat) -> Result<Mesh> + Sync) -> Vec<Mesh> {
    std::thread::scope(|scope| {
        let meet = &meet;
        let seat = |rank| Seat { rank, size, meeting: PATIENCE, patience: PATIENCE };
        let meeting: Vec<_> = (0..size).map(|rank| scope.spawn(move || meet(seat(rank)).unwrap())).collect();
        meeting.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Processes of one machine, as threads.
fn of_one_machine(size: usize) -> Vec<Mesh> {
    let folder = tempfile::tempdir().unwrap();
    meeting(size, |seat| sockets(folder.path(), seat))
}

/// Processes of several machines, as threads.
fn of_several_machines(size: usize) -> Vec<Mesh> {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    meeting(size, |seat| {
        if seat.rank == 1 {
            // Somebody who is no rank.
            let mut stranger = std::net::TcpStream::connect(("127.0.0.1", port));
            _ = stranger.as_mut().map(|stream| std::io::Write::write_all(stream, b"GET / HTTP/1.1\r\n\r\n"));
        }
        tcp(&format!("127.0.0.1:{port}"), seat)
    })
}

fn check<O: Objective<Line>>(objective: &O) {
    for accumulation in [1, 2, 3, 6] {
        let (weights, lines) = outcome(objective, accumulation, None);
        assert_eq!(lines.len(), 25);
        for size in [2, 3, 4] {
            let ranks = match accumulation {
                2 => of_ranks(objective, accumulation, of_several_machines(size)),
                3 => of_ranks(objective, accumulation, of_one_machine(size)),
                _ => of_ranks(objective, accumulation, threads(size)),
            };
            assert_eq!(ranks[0].1, lines, "{accumulation} micro-batches over {size}");
            assert!(ranks.iter().all(|(found, _)| *found == weights), "{accumulation} micro-batches over {size}");
            assert!(ranks[1..].iter().all(|(_, lines)| lines.is_empty()), "one rank writes");
        }
        if accumulation == 6 {
            let ranks = threads(3).into_iter().map(Backwards).collect();
            let backwards = of_ranks(objective, accumulation, ranks);
            assert!(backwards[0] != (weights, lines), "another order is other bits");
        }
    }
}

#[test]
fn the_number_of_processes_changes_nothing() {
    check(&Points { by_network: false });
}

#[test]
fn batches_may_come_from_the_network_itself() {
    check(&OwnPoints(Points { by_network: true }));
}

/// A network whose matrices are cut into several ranges, one of them for Muon.
#[derive(Module, Debug)]
struct Wide {
    inner: Param<Tensor<2>>,
    outer: Param<Tensor<2>>,
    offset: Param<Tensor<1>>,
}

struct Widths;

const WIDE: usize = 300;

impl Wide {
    fn new() -> Self {
        let normal = |name: &str, shape: [usize; 2]| {
            let stream = Stream::new(7, name);
            let values: Vec<f32> = (0..(shape[0] * shape[1]) as u64).map(|i| 0.05 * stream.normal(i)).collect();
            Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), &cpu()))
        };
        let offset = Param::from_tensor(Tensor::zeros([WIDE], &cpu()));
        Self { inner: normal("inner", [WIDE, WIDE]), outer: normal("outer", [WIDE, WIDE]), offset }
    }
}

impl Objective<Wide> for Widths {
    type Batch = Tensor<2>;
    fn units(&self, wide: &Wide) -> Units {
        Units { parameters: wide.num_params(), ..units(&Line::new()) }
    }
    fn batch(&self, place: Place<Wide>) -> Result<Tensor<2>> {
        let stream = Stream::new(place.seed, "wide").at(place.index);
        let values: Vec<f32> = (0..4 * WIDE as u64).map(|i| stream.normal(i)).collect();
        Ok(Tensor::from_data(TensorData::new(values, [4, WIDE]), &cpu()))
    }
    fn weight(&self, _: &Tensor<2>) -> u64 {
        4
    }
    fn loss(&self, wide: &Wide, x: &Tensor<2>, _: Stream, scale: f64) -> Loss {
        let x = Tensor::from_inner(x.clone());
        let y = x.clone().matmul(wide.inner.val()).tanh().matmul(wide.outer.val()) + wide.offset.val().unsqueeze();
        Loss { sum: (y - x).powf_scalar(2.0).sum() * scale, value: None, values: vec![] }
    }
}

/// How a run is spread.
#[derive(Clone, Copy, Debug)]
struct Spread {
    shard: Shard,
    offload: Offload,
}

/// The bits of the weights and the lines of metrics of a rank, and the bytes that it has sent.
fn spread(spread: Spread, muon: bool, accumulation: usize, world: Option<Ranks<Mesh>>) -> (Vec<u32>, Vec<String>, u64) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    let mut schedule = schedule(accumulation);
    schedule.batches.steps = 6;
    (schedule.machine.shard, schedule.machine.offload) = (spread.shard, spread.offload);
    schedule.update.optimizer = if muon { Optimizer::Muon } else { Optimizer::Adamw };
    let selection = Selection::all(&Wide::new()).with_hidden(|name| name == "inner");
    let mut training = Training { schedule, metrics: Some(&path), selection: Some(selection), ..Training::default() };
    if let Some(world) = &world {
        training.world = world;
    }
    let fitted = fit(Wide::new(), &Widths, &training).unwrap();
    let bits = named_parameters(&fitted.model).iter().flat_map(|p| p.values.iter().map(|x| x.to_bits())).collect();
    let lines = std::fs::read_to_string(&path).unwrap_or_default();
    let numbers = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        ["step", "loss", "grad_norm"].map(|key| line[key].to_string()).join(" ")
    };
    let sent = world.map_or(0, |world| world.communicator().traffic().sent_bytes);
    (bits, lines.lines().map(numbers).collect(), sent)
}

#[test]
fn how_a_run_is_spread_changes_no_byte() {
    let parameters = (2 * WIDE * WIDE + WIDE) as f64;
    let cases = [
        (Shard::None, Offload::None, 2),
        (Shard::None, Offload::Disk, 1),
        (Shard::Optimizer, Offload::None, 2),
        (Shard::Optimizer, Offload::Disk, 2),
        (Shard::Gradients, Offload::None, 3),
        (Shard::Optimizer, Offload::None, 4),
        (Shard::Parameters, Offload::None, 2),
        (Shard::Parameters, Offload::None, 3),
        (Shard::Parameters, Offload::Disk, 1),
        (Shard::Parameters, Offload::Disk, 2),
    ];
    for muon in [false, true] {
        for accumulation in [1, 4] {
            let alone = Spread { shard: Shard::None, offload: Offload::None };
            let alone = self::spread(alone, muon, accumulation, None);
            for (shard, offload, size) in cases {
                let case = Spread { shard, offload };
                let ranks: Vec<_> = std::thread::scope(|scope| {
                    let run = |communicator| {
                        scope.spawn(move || {
                            let world = Ranks::meet(communicator, &[]).unwrap();
                            spread(case, muon, accumulation, Some(world))
                        })
                    };
                    let running: Vec<_> = threads(size).into_iter().map(run).collect();
                    running.into_iter().map(|thread| thread.join().unwrap()).collect()
                });
                let what = format!("{case:?} over {size}, {accumulation} micro-batches, Muon {muon}");
                assert_eq!(ranks[0].1, alone.1, "{what}");
                // Rank 0 alone gets what was in parts.
                let whole = if shard == Shard::Parameters { 1 } else { size };
                assert!(ranks[..whole].iter().all(|(weights, ..)| *weights == alone.0), "{what}");
                // Each round every gradient goes to who adds it; each step the sums, or the weights, to everybody. In
                // parts the weights go to everybody in each round instead, and at the end to rank 0.
                let sent: u64 = ranks.iter().map(|(.., sent)| sent).sum();
                let (others, micro) = ((size - 1) as f64, accumulation as f64);
                let rounds = accumulation.div_ceil(size) as f64;
                let formula = match shard {
                    Shard::Parameters => 6.0 * (others * micro / size as f64 + others * rounds) + others / size as f64,
                    _ => 6.0 * others * (micro / size as f64 + 1.0),
                };
                let formula = 4.0 * parameters * formula;
                // A matrix of Muon's is one rank's, which is no even share.
                let off = if size == 1 { sent as f64 } else { sent as f64 / formula - 1.0 };
                assert!(muon || off.abs() < 0.05, "{what}: {sent} bytes, not {formula}");
            }
        }
    }
}

/// Sums that processes make by themselves are other bytes, and the same whoever makes them.
#[test]
fn sums_of_ones_own_do_not_depend_on_whose_they_are() {
    let outcome = |sums: usize, shard: Shard, world: Option<Ranks<Mesh>>| {
        let mut schedule = schedule(7);
        (schedule.batches.steps, schedule.batches.gradient_sums, schedule.machine.shard) = (4, sums, shard);
        let mut training = Training { schedule, ..Training::default() };
        if let Some(world) = &world {
            training.world = world;
        }
        let fitted = fit(Wide::new(), &Widths, &training).unwrap();
        let sent = world.map_or(0, |world| world.communicator().traffic().sent_bytes);
        let bits = named_parameters(&fitted.model).iter().flat_map(|p| p.values.iter().map(|x| x.to_bits())).collect();
        (bits, sent)
    };
    let alone = |sums| -> Vec<u32> { outcome(sums, Shard::None, None).0 };
    let expected: Vec<Vec<u32>> = (0..=7).map(alone).collect();
    assert!(expected[0] == expected[7], "each micro-batch for itself is what is done anyway");
    let mut others = expected[1..].to_vec();
    others.dedup();
    assert_eq!(others.len(), 7, "another number of sums is other bytes");
    for (sums, expected) in expected.iter().enumerate() {
        for (size, shard) in [(2, Shard::None), (3, Shard::Optimizer), (2, Shard::Parameters)] {
            let ranks: Vec<(Vec<u32>, u64)> = std::thread::scope(|scope| {
                let run = |mesh| scope.spawn(|| outcome(sums, shard, Some(Ranks::meet(mesh, &[]).unwrap())));
                let running: Vec<_> = threads(size).into_iter().map(run).collect();
                running.into_iter().map(|rank| rank.join().unwrap()).collect()
            });
            assert!(ranks[0].0 == *expected, "{sums} sums, {shard:?} over {size}");
            // A sum travels once, and its gradients are added where they belong.
            if shard == Shard::Optimizer {
                let sent: u64 = ranks.iter().map(|(_, sent)| sent).sum();
                let sums = if sums == 0 { 7.0 } else { sums as f64 };
                let formula = 4.0 * 4.0 * (2 * WIDE * WIDE + WIDE) as f64 * (2.0 * sums / 3.0 + 2.0);
                let off = sent as f64 / formula - 1.0;
                assert!(off.abs() < 0.05, "{sums} sums: {sent} bytes, not {formula}");
            }
        }
    }
}

#[test]
fn ranks_that_part_or_go_are_named() {
    let errors = |work: fn(Mesh) -> Result<()>| -> Vec<String> {
        std::thread::scope(|scope| {
            let running: Vec<_> = of_one_machine(2).into_iter().map(|rank| scope.spawn(move || work(rank))).collect();
            let ended = running.into_iter().map(|thread| thread.join().unwrap());
            ended.map(|outcome| outcome.err().map(|error| error.to_string()).unwrap_or_default()).collect()
        })
    };
    let gone = errors(|rank| match rank.rank() {
        1 => Ok(()),
        _ => rank.exchange(Operation::Gather, vec![Message::default(); 2]).map(|_| ()),
    });
    assert!(gone[0].contains("rank 1 has gone, in gather number 0"), "{gone:?}");
    let parted = errors(|rank| {
        let operation = if rank.rank() == 0 { Operation::Gather } else { Operation::Reduce };
        rank.exchange(operation, vec![Message::default(); 2]).map(|_| ())
    });
    assert!(parted[0].contains("rank 1 is at reduce number 0, and this rank at gather number 0"), "{parted:?}");
    let failed = errors(|rank| match rank.rank() {
        1 => {
            rank.abort("the disk is full");
            Ok(())
        }
        _ => rank.exchange(Operation::Share, vec![Message::new(vec![1; 1 << 20]); 2]).map(|_| ()),
    });
    assert!(failed[0].contains("rank 1 has failed") && failed[0].contains("the disk is full"), "{failed:?}");
    let other = errors(|rank| {
        let plan = rank.rank().to_string();
        Ranks::meet(rank, &[("program", "a".into()), ("project", plan)]).map(|_| ())
    });
    assert!(other[0].contains("rank 1 has another project than rank 0") && other[0].contains("1, not 0"), "{other:?}");
}
