//! What a server says by itself: that something changed, how far a call is, and questions while a call waits. Knows one
//! server.
#![expect(deprecated, reason = "the newest revision still has sampling and roots, and older servers ask for them")]

use super::questions::{Questions, capabilities, question, written};
use crate::offer::Question;
use narthex_agent::Progress;
use rmcp::{
    ClientHandler, ErrorData, RoleClient,
    model::*,
    service::{NotificationContext, RequestContext},
};
use serde_json::Value;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::watch;

/// Listens to one server.
#[derive(Clone)]
pub(super) struct Ears(Arc<Inner>);

struct Inner {
    server: String,
    version: String,
    questions: Arc<dyn Questions>,
    /// Who is told how far a call is.
    progress: Mutex<HashMap<ProgressToken, Progress>>,
    /// How often the server said that its tools changed.
    changed: watch::Sender<u64>,
}

/// Stops telling how far a call is.
pub(super) struct Telling {
    ears: Ears,
    token: ProgressToken,
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.ears.0.progress.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.token);
    }
}

impl Ears {
    pub fn new(server: String, version: String, questions: Arc<dyn Questions>) -> Self {
        let changed = watch::Sender::new(0);
        Self(Arc::new(Inner { server, version, questions, progress: Mutex::default(), changed }))
    }

    /// How often the server said that its tools changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    pub fn tools_changed(&self) {
        self.0.changed.send_modify(|times| *times += 1);
    }

    /// Tells how far a call is, until what is returned is dropped.
    pub fn tell(&self, token: ProgressToken, progress: Progress) -> Telling {
        self.0.progress.lock().unwrap_or_else(PoisonError::into_inner).insert(token.clone(), progress);
        Telling { ears: self.clone(), token }
    }

    /// Answers a question of the server's, as the wire has it; nothing if it must not be asked that.
    pub async fn answer(&self, request: &InputRequest) -> Option<Value> {
        let question = question(request);
        let declined = || match request {
            InputRequest::Elicitation(_) => Some(serde_json::json!({"action": "decline"})),
            _ => None,
        };
        let Some(question) = question.filter(|question| self.0.questions.abilities().contains(&question.needs()))
        else {
            return declined();
        };
        let answered = self.0.questions.answer(&self.0.server, question.clone()).await;
        match written(&question, answered) {
            Value::Null => declined(),
            value => Some(value),
        }
    }

    async fn answer_as<T: serde::de::DeserializeOwned>(&self, request: InputRequest) -> Result<T, ErrorData> {
        let refused = || ErrorData::invalid_request("this client does not answer that", None);
        let value = self.answer(&request).await.ok_or_else(refused)?;
        serde_json::from_value(value).map_err(|_| refused())
    }

    /// Whether something can be asked of us.
    fn can(&self, question: &Question) -> bool {
        self.0.questions.abilities().contains(&question.needs())
    }
}

impl ClientHandler for Ears {
    fn get_info(&self) -> ClientConfig {
        let capabilities = capabilities(&self.0.questions.abilities());
        ClientConfig::new(capabilities, Implementation::new("narthex", self.0.version.clone()))
    }

    async fn create_message(
        &self,
        params: CreateMessageRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        self.answer_as(InputRequest::CreateMessage(CreateMessageRequest::new(params))).await
    }

    async fn list_roots(&self, _: RequestContext<RoleClient>) -> Result<ListRootsResult, ErrorData> {
        if !self.can(&Question::Roots) {
            return Err(ErrorData::method_not_found::<ListRootsRequestMethod>());
        }
        self.answer_as(InputRequest::ListRoots(ListRootsRequest::default())).await
    }

    async fn create_elicitation(
        &self,
        params: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        self.answer_as(InputRequest::Elicitation(ElicitRequest::new(params))).await
    }

    async fn on_progress(&self, params: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        let progress = self.0.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let told = progress.get(&params.progress_token).cloned();
        drop(progress);
        if let Some(told) = told {
            told(params.progress, params.total, params.message.as_deref());
        }
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.tools_changed();
    }
}
