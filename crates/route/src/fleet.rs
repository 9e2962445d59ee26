//! The replicas of the moment. They come and go with the file that names them; who asks holds on to the one it asks.

use crate::{address::Address, client::Connector, replica::Replica};
use std::sync::{Arc, PoisonError, RwLock};

/// The replicas, in the order in which they were named.
pub(crate) struct Fleet {
    replicas: RwLock<Arc<[Arc<Replica>]>>,
    connector: Connector,
}

/// What has changed.
#[derive(Default)]
pub(crate) struct Change {
    pub come: Vec<Arc<Replica>>,
    pub gone: Vec<Arc<Replica>>,
}

impl Fleet {
    /// None yet, to be reached so.
    pub fn new(connector: Connector) -> Self {
        Self { replicas: RwLock::default(), connector }
    }

    /// All of them.
    pub fn all(&self) -> Arc<[Arc<Replica>]> {
        self.replicas.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Those that take requests.
    pub fn ready(&self) -> Vec<Arc<Replica>> {
        self.all().iter().filter(|replica| replica.is_ready()).cloned().collect()
    }

    /// Has these from now on. Those that were there before stay as they are; a new one gets a bit that nobody has, or,
    /// if there is none left, is left out.
    pub fn become_these(&self, addresses: &[Address]) -> Change {
        let mut now = self.replicas.write().unwrap_or_else(PoisonError::into_inner);
        let (kept, gone): (Vec<_>, Vec<_>) =
            now.iter().cloned().partition(|replica| addresses.contains(&replica.address));
        let mut next: Vec<Arc<Replica>> = vec![];
        let mut come = vec![];
        for address in addresses {
            if let Some(replica) = kept.iter().find(|replica| replica.address == *address) {
                next.push(replica.clone());
                continue;
            }
            let is_free = |slot: &u8| kept.iter().chain(&come).all(|replica: &Arc<Replica>| replica.slot != *slot);
            let Some(slot) = (0..64).find(is_free) else { continue };
            let replica = Arc::new(Replica::new(address.clone(), slot, &self.connector));
            come.push(replica.clone());
            next.push(replica);
        }
        *now = next.into();
        Change { come, gone }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_come_and_go_and_bits_differ() {
        let fleet = Fleet::new(Connector::new().unwrap());
        let addresses = |names: &[&str]| -> Vec<Address> {
            names.iter().map(|name| Address::parse(&format!("http://{name}")).unwrap()).collect()
        };
        let slots = || fleet.all().iter().map(|replica| replica.slot).collect::<Vec<_>>();
        assert_eq!(fleet.become_these(&addresses(&["a", "b", "c"])).come.len(), 3);
        fleet.all()[1].set_ready(true);
        let change = fleet.become_these(&addresses(&["d", "b"]));
        assert_eq!((change.come.len(), change.gone.len(), slots()), (1, 2, vec![0, 1]));
        assert_eq!(fleet.ready().len(), 1, "b is as it was");
        fleet.become_these(&addresses(&["e", "d", "b"]));
        assert_eq!(slots(), [2, 0, 1]);
    }
}
