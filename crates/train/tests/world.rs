//! Several processes give the same bytes as one: here they are threads, which talk over channels or over sockets.

use burn::{
    module::{Module, Param},
    tensor::{Tensor, TensorData},
};
use narthex_base::{
    Result,
    config::{Batching, LearningRate, Schedule},
    random::Stream,
};
use narthex_model::{cpu, named_parameters};
use narthex_train::{
    Communicator, Objective, Operation, Ranks, Sockets, Threads, Training, World, fit,
    objective::{Loss, Place, Units},
};
use std::time::Duration;

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
struct Backwards(Threads);

impl Communicator for Backwards {
    fn rank(&self) -> usize {
        self.0.rank()
    }
    fn size(&self) -> usize {
        self.0.size()
    }
    fn exchange(&self, operation: Operation, messages: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
        let mut found = self.0.exchange(operation, messages)?;
        if operation == Operation::Reduce {
            found.reverse();
        }
        Ok(found)
    }
    fn abort(&self, why: &str) {
        self.0.abort(why);
    }
    fn bytes_sent(&self) -> u64 {
        self.0.bytes_sent()
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

/// Processes of one machine, as threads.
fn sockets(size: usize) -> Vec<Sockets> {
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let at = folder.path();
        let meeting: Vec<_> =
            (0..size).map(|rank| scope.spawn(move || Sockets::meet(at, rank, size, PATIENCE).unwrap())).collect();
        meeting.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn check<O: Objective<Line>>(objective: &O) {
    for accumulation in [1, 2, 3, 6] {
        let (weights, lines) = outcome(objective, accumulation, None);
        assert_eq!(lines.len(), 25);
        for size in [2, 3, 4] {
            let ranks = match accumulation {
                3 => of_ranks(objective, accumulation, sockets(size)),
                _ => of_ranks(objective, accumulation, Threads::new(size)),
            };
            assert_eq!(ranks[0].1, lines, "{accumulation} micro-batches over {size}");
            assert!(ranks.iter().all(|(found, _)| *found == weights), "{accumulation} micro-batches over {size}");
            assert!(ranks[1..].iter().all(|(_, lines)| lines.is_empty()), "one rank writes");
        }
        if accumulation == 6 {
            let ranks = Threads::new(3).into_iter().map(Backwards).collect();
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

#[test]
fn ranks_that_part_or_go_are_named() {
    let errors = |work: fn(Sockets) -> Result<()>| -> Vec<String> {
        std::thread::scope(|scope| {
            let running: Vec<_> = sockets(2).into_iter().map(|rank| scope.spawn(move || work(rank))).collect();
            let ended = running.into_iter().map(|thread| thread.join().unwrap());
            ended.map(|outcome| outcome.err().map(|error| error.to_string()).unwrap_or_default()).collect()
        })
    };
    let gone = errors(|rank| match rank.rank() {
        1 => Ok(()),
        _ => rank.exchange(Operation::Gather, vec![vec![]; 2]).map(|_| ()),
    });
    assert!(gone[0].contains("rank 1 has gone, in gather number 0"), "{gone:?}");
    let parted = errors(|rank| {
        let operation = if rank.rank() == 0 { Operation::Gather } else { Operation::Reduce };
        rank.exchange(operation, vec![vec![]; 2]).map(|_| ())
    });
    assert!(parted[0].contains("rank 1 is at reduce number 0, and this rank at gather number 0"), "{parted:?}");
    let failed = errors(|rank| match rank.rank() {
        1 => {
            rank.abort("the disk is full");
            Ok(())
        }
        _ => rank.exchange(Operation::Share, vec![vec![1; 1 << 20]; 2]).map(|_| ()),
    });
    assert!(failed[0].contains("rank 1 has failed") && failed[0].contains("the disk is full"), "{failed:?}");
    let other = errors(|rank| {
        let plan = rank.rank().to_string();
        Ranks::meet(rank, &[("program", "a".into()), ("project", plan)]).map(|_| ())
    });
    assert!(other[0].contains("rank 1 has another project than rank 0") && other[0].contains("1, not 0"), "{other:?}");
}
