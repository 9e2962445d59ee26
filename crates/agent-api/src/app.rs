//! What all handlers share: the agents, the options, the conversations that are open but empty, and who asks.

use crate::{opened::Opened, options::ApiOptions};
use axum::{extract::FromRequestParts, http::request::Parts};
use narthex_agent::Agents;
use narthex_base::Caller;
use std::{convert::Infallible, sync::Arc};

/// What all handlers share.
#[derive(Clone)]
pub(crate) struct App {
    pub agents: Arc<dyn Agents>,
    pub options: ApiOptions,
    pub opened: Arc<Opened>,
}

/// Whose request it is.
#[derive(Clone)]
pub(crate) struct Tenant(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Tenant {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.extensions.get::<Caller>().map_or(Caller::LOCAL, |Caller(name)| name).to_string()))
    }
}

impl Tenant {
    /// Who an answer is said to be from: the tenant, and the name that the request claims, if it does.
    pub fn approver(&self, claimed: Option<String>) -> String {
        match claimed.filter(|name| !name.trim().is_empty()) {
            Some(name) => format!("{name} ({})", self.0),
            None => self.0.clone(),
        }
    }
}
