//! The way to models of this process: the API without a port. Knows no model.

use futures::future::BoxFuture;
use narthex_agent::{ModelFailure, Reply, Transport};
use narthex_serve::{HouseAnswer, InHouse};

/// The way to models of this process.
pub(super) struct House(pub InHouse);

impl Transport for House {
    fn post(&self, path: &'static str, body: Vec<u8>) -> BoxFuture<'static, Result<Reply, ModelFailure>> {
        let house = self.0.clone();
        Box::pin(async move {
            let HouseAnswer { status, wait_ms, body } = house.post(&format!("/v1{path}"), body).await;
            Ok(Reply { status, wait_ms, body })
        })
    }
}
