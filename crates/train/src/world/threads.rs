//! Ranks that are threads of one process: for tests, and to see what several processes would do.

use super::mesh::{Incoming, Link, Mesh, Outgoing};
use std::{
    sync::mpsc::{Receiver, Sender, channel},
    time::Duration,
};

/// How long a thread may let the others wait.
const PATIENCE: Duration = Duration::from_secs(3600);

/// So many ranks, each for a thread of its own.
pub fn threads(size: usize) -> Vec<Mesh> {
    type Ends = (Vec<Option<Sender<Outgoing>>>, Vec<Option<Receiver<Outgoing>>>);
    let mut ends: Vec<Ends> = (0..size).map(|_| (vec![], vec![])).collect();
    for from in 0..size {
        for to in 0..size {
            let (sender, receiver) = if from == to { (None, None) } else { Some(channel()).unzip() };
            ends[from].0.push(sender);
            ends[to].1.push(receiver);
        }
    }
    let meshes = ends.into_iter().enumerate().map(|(rank, (to, from))| {
        let links = to.into_iter().zip(from).map(|(to, from)| Some(Link { to: to?, from: incoming(from?) }));
        Mesh::new(rank, links.collect(), PATIENCE, "threads", vec![])
    });
    meshes.collect()
}

/// The same as what comes from a rank; it ends when that rank is dropped.
fn incoming(outgoing: Receiver<Outgoing>) -> Receiver<Incoming> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || outgoing.into_iter().try_for_each(|message| sender.send(Ok(message))));
    receiver
}
