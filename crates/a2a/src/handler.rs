//! One agent's operations, as the official routers call them: messages become runs and answers, runs become tasks.
//! Every call is made for the caller who was authenticated; a task of another caller, or of another agent, is unknown.

use crate::{
    follow::{Followed, failed, snapshot, tells_pieces, under_way},
    front::{caller, lists_nothing},
    incoming,
    listing::Listing,
    options::A2aOptions,
    push::{self, Deliverer},
    store::{Exchange, PushRow, StoreError},
    task,
    updates::Updates,
};
use a2a::{
    A2AError, AgentCard, AuthenticationInfo, CancelTaskRequest, DeleteTaskPushNotificationConfigRequest,
    GetExtendedAgentCardRequest, GetTaskPushNotificationConfigRequest, GetTaskRequest,
    ListTaskPushNotificationConfigsRequest, ListTaskPushNotificationConfigsResponse, ListTasksRequest,
    ListTasksResponse, Message, PartContent, SendMessageRequest, SendMessageResponse, StreamResponse,
    SubscribeToTaskRequest, Task, TaskPushNotificationConfig,
};
use a2a_server::{RequestHandler, ServiceParams};
use async_trait::async_trait;
use futures::stream::BoxStream;
use narthex_agent::{AgentError, Agents, Ask, RunStatus, RunView};
use serde_json::Map;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// What all agents of a server share.
pub(crate) struct Shared {
    pub agents: Arc<dyn Agents>,
    pub options: A2aOptions,
    /// Rung when a run was answered or cancelled here.
    pub answered: Arc<Notify>,
    pub streams: Arc<Semaphore>,
    pub deliverer: Option<Arc<Deliverer>>,
}

/// Handles what one agent is asked.
pub(crate) struct Handler {
    pub shared: Arc<Shared>,
    pub agent: String,
}

/// A run that was begun or answered.
struct Begun {
    view: RunView,
    /// The last event before.
    after: u64,
    /// Whether this message had come before.
    again: bool,
}

type Updating = BoxStream<'static, Result<StreamResponse, A2AError>>;

impl Handler {
    fn followed(&self, tenant: &str, view: &RunView) -> Followed {
        Followed {
            agents: self.shared.agents.clone(),
            tenant: tenant.to_string(),
            run: view.id.clone(),
            context: view.thread.clone(),
            bell: self.shared.answered.clone(),
            look_again: Duration::from_millis(self.shared.options.limits.look_again_ms),
        }
    }

    /// The error of a call about a run; what is ours to know is told to whoever runs the server.
    fn failed(&self, run: &str, error: &AgentError) -> A2AError {
        if let AgentError::Failed(why) = error {
            (self.shared.options.warn)(&format!("run {run} of agent {}: {why}", self.agent));
        }
        failed(run, error)
    }

    fn unstored(&self, error: &StoreError) -> A2AError {
        match error {
            StoreError::Full(what) => A2AError::invalid_request(format!("there are too many {what}")),
            StoreError::Sqlite(_) => {
                (self.shared.options.warn)(&error.to_string());
                A2AError::internal("the store failed; whoever runs the server has been told why")
            }
        }
    }

    /// The caller's run of this agent, with its thread as the caller calls it.
    async fn view(&self, tenant: &str, run: &str) -> Result<RunView, A2AError> {
        if run.is_empty() || run.len() > incoming::ID_BYTES_MAX {
            return Err(A2AError::task_not_found("it has no such id"));
        }
        let view = self.shared.agents.run(tenant, run).await.map_err(|error| self.failed(run, &error))?;
        if view.agent != self.agent {
            return Err(A2AError::task_not_found(run));
        }
        let thread = self.context(tenant, &view.thread).await?;
        Ok(RunView { thread, ..view })
    }

    async fn context(&self, tenant: &str, thread: &str) -> Result<String, A2AError> {
        self.shared.options.store.context(tenant, thread).await.map_err(|error| self.unstored(&error))
    }

    async fn task(&self, tenant: &str, view: &RunView, history_length: Option<i32>) -> Result<Task, A2AError> {
        Ok(task::task(view, &self.exchanges(tenant, &view.id).await?, length(history_length)?, true))
    }

    async fn exchanges(&self, tenant: &str, run: &str) -> Result<Vec<Exchange>, A2AError> {
        self.shared.options.store.exchanges(tenant, run).await.map_err(|error| self.unstored(&error))
    }

    /// Begins a run with the message, or answers what its task waits for.
    async fn begin(&self, tenant: &str, request: &mut SendMessageRequest) -> Result<Begun, A2AError> {
        incoming::check(&request.message)?;
        if request.message.message_id.is_empty() {
            // Required, and yet left out by some: such a message is one of its own each time.
            request.message.message_id = a2a::new_message_id();
        }
        let configuration = request.configuration.as_ref();
        length(configuration.and_then(|configuration| configuration.history_length))?;
        let push = configuration.and_then(|configuration| configuration.task_push_notification_config.as_ref());
        if let Some(config) = push {
            // Before anything has happened: a caller whose address is refused may mend it and send the message again.
            push::check(config, &self.shared.options.screen).await?;
        }
        let begun = match &request.message.task_id {
            Some(run) => self.answer(tenant, run, &request.message).await?,
            None => self.start(tenant, request).await?,
        };
        if let Some(config) = push {
            self.keep_push(tenant, &begun.view, config, begun.after).await?;
        }
        Ok(begun)
    }

    async fn start(&self, tenant: &str, request: &SendMessageRequest) -> Result<Begun, A2AError> {
        let message = &request.message;
        let said = incoming::said(message, &self.shared.options.input_modes)?;
        let content = incoming::content(message);
        let unique = if self.shared.options.once { String::new() } else { a2a::new_message_id() };
        let mut metadata = Map::new();
        for (key, value) in [&request.metadata, &message.metadata].into_iter().flatten().flatten() {
            metadata.insert(key.clone(), value.clone());
        }
        let store = &self.shared.options.store;
        let thread = match &message.context_id {
            Some(context) => {
                let known = store.thread(tenant, context).await.map_err(|error| self.unstored(&error))?;
                Some(known.unwrap_or_else(|| context.clone()))
            }
            None => None,
        };
        let mut ask = Ask {
            agent: self.agent.clone(),
            tenant: tenant.to_string(),
            messages: vec![said],
            thread,
            key: Some(format!("a2a:{}:{content}{unique}:{}", self.agent, message.message_id)),
            metadata,
        };
        let agents = &self.shared.agents;
        let started = match (agents.start(ask.clone()).await, &message.context_id) {
            // The agent is there: it is the conversation that is not, yet. Section 3.4.1 lets a caller name one. Under
            // the same key it is the same run, should this be cut short before the name is kept.
            (Err(AgentError::Unknown(_)), Some(context)) => {
                ask.thread = None;
                let run = agents.start(ask).await.map_err(|error| self.failed("", &error))?;
                let view = agents.run(tenant, &run).await.map_err(|error| self.failed(&run, &error))?;
                let kept = store.put_context(tenant, context, &view.thread).await;
                kept.map_err(|error| self.unstored(&error))?;
                Ok(run)
            }
            (started, _) => started,
        };
        let run = started.map_err(|error| self.failed("", &error))?;
        let view = self.view(tenant, &run).await?;
        let exchange = exchange(message, content, 0, None, None);
        let known = store.put_exchange(tenant, &run, &exchange).await;
        let again = known.map_err(|error| self.unstored(&error))?.is_some();
        Ok(Begun { view, after: 0, again })
    }

    async fn answer(&self, tenant: &str, run: &str, message: &Message) -> Result<Begun, A2AError> {
        let view = self.view(tenant, run).await?;
        if message.context_id.as_ref().is_some_and(|context| *context != view.thread) {
            return Err(A2AError::invalid_params("contextId is not that of the task: leave it out"));
        }
        let store = &self.shared.options.store;
        let (id, content) = (message.message_id.as_str(), incoming::content(message));
        let known = self.exchanges(tenant, run).await?;
        let known = known.into_iter().find(|exchange| exchange.message_id == id && exchange.content == content);
        if let Some(known) = known {
            // Cut short between keeping it and giving it to the run: it is given now, but only to what it answered.
            // What waits by now may be another call, which nobody has approved.
            let waits = view.interrupts.iter().any(|interrupt| Some(&interrupt.id) == known.interrupt.as_ref());
            if !known.done && !waits {
                store.finish_exchange(tenant, run, id, &content).await.map_err(|error| self.unstored(&error))?;
            }
            if self.shared.options.once && (known.done || !waits) {
                return Ok(Begun { after: view.last_event, view, again: true });
            }
        }
        match view.status {
            RunStatus::Waiting => {}
            RunStatus::Running => {
                return Err(A2AError::unsupported_operation(
                    "the task works: it takes messages when it asks for input",
                ));
            }
            _ => {
                return Err(A2AError::unsupported_operation("the task has ended: send the message without its taskId"));
            }
        }
        let (interrupt, answer) = incoming::answer(&view.interrupts, message, tenant, self.shared.options.approvals)?;
        // On disk before the run goes on: a caller who hears nothing may send it again.
        let question = task::question(&view);
        let row = exchange(message, content.clone(), view.messages.len(), question, Some(interrupt.clone()));
        store.put_exchange(tenant, run, &row).await.map_err(|error| self.unstored(&error))?;
        match self.shared.agents.answer(tenant, run, &interrupt, answer).await {
            Ok(()) => {}
            Err(error) => {
                store.remove_exchange(tenant, run, id, &content).await.map_err(|error| self.unstored(&error))?;
                return Err(match error {
                    AgentError::Unknown(_) => {
                        A2AError::unsupported_operation("the task does not wait for this any more")
                    }
                    error => self.failed(run, &error),
                });
            }
        }
        store.finish_exchange(tenant, run, id, &content).await.map_err(|error| self.unstored(&error))?;
        self.shared.answered.notify_waiters();
        Ok(Begun { after: view.last_event, view: self.view(tenant, run).await?, again: false })
    }

    async fn keep_push(
        &self,
        tenant: &str,
        view: &RunView,
        config: &TaskPushNotificationConfig,
        after: u64,
    ) -> Result<PushRow, A2AError> {
        let Some(deliverer) = &self.shared.deliverer else {
            return Err(A2AError::push_notification_not_supported());
        };
        let (scheme, credentials) = match config.authentication.clone() {
            Some(AuthenticationInfo { scheme, credentials }) => (Some(scheme), credentials),
            None => (None, None),
        };
        let row = PushRow {
            tenant: tenant.to_string(),
            task: view.id.clone(),
            context: view.thread.clone(),
            id: config.id.clone().filter(|id| !id.is_empty()).unwrap_or_else(a2a::new_message_id),
            agent: self.agent.clone(),
            url: config.url.clone(),
            token: config.token.clone().filter(|token| !token.is_empty()),
            scheme,
            credentials,
            cursor: after,
            closed: false,
            created_ms: (self.shared.options.now_ms)(),
        };
        self.shared.options.store.put_push(&row).await.map_err(|error| self.unstored(&error))?;
        deliverer.ring();
        Ok(row)
    }

    fn permit(&self) -> Result<OwnedSemaphorePermit, A2AError> {
        self.shared
            .streams
            .clone()
            .try_acquire_owned()
            .map_err(|_| A2AError::internal("busy: too many streams are open; ask for the task, or try again later"))
    }
}

#[async_trait]
impl RequestHandler for Handler {
    async fn send_message(
        &self,
        _: &ServiceParams,
        mut request: SendMessageRequest,
    ) -> Result<SendMessageResponse, A2AError> {
        let tenant = caller();
        let begun = self.begin(&tenant, &mut request).await?;
        let configuration = request.configuration.unwrap_or_else(no_configuration);
        let view = if configuration.return_immediately == Some(true) {
            begun.view
        } else {
            let deadline = Instant::now() + Duration::from_millis(self.shared.options.limits.wait_ms);
            let settled = self.followed(&tenant, &begun.view).settled(deadline).await;
            settled.map_err(|error| self.failed(&begun.view.id, &error))?
        };
        if let Some(message) = task::direct(&view) {
            return Ok(SendMessageResponse::Message(message));
        }
        Ok(SendMessageResponse::Task(self.task(&tenant, &view, configuration.history_length).await?))
    }

    async fn send_streaming_message(
        &self,
        _: &ServiceParams,
        mut request: SendMessageRequest,
    ) -> Result<Updating, A2AError> {
        let tenant = caller();
        let permit = self.permit()?;
        let Begun { view, after, again } = self.begin(&tenant, &mut request).await?;
        let history_length = request.configuration.and_then(|configuration| configuration.history_length);
        let updates = Updates::new(&view, tells_pieces(&*self.shared.agents, &self.agent));
        let exchanges = self.exchanges(&tenant, &view.id).await?;
        // A caller who comes again gets the task as it is, and what comes; one who comes first gets all of it in order.
        let (first, after) = match again {
            true => (task::task(&view, &exchanges, length(history_length)?, true), view.last_event),
            false => (under_way(view.clone(), &exchanges, length(history_length)?), after),
        };
        if first.status.state.is_terminal() {
            return Ok(Box::pin(futures::stream::once(async move { Ok(snapshot(first)) })));
        }
        Ok(self.followed(&tenant, &view).stream(snapshot(first), after, updates, true, permit))
    }

    async fn get_task(&self, _: &ServiceParams, request: GetTaskRequest) -> Result<Task, A2AError> {
        let tenant = caller();
        let view = self.view(&tenant, &request.id).await?;
        self.task(&tenant, &view, request.history_length).await
    }

    async fn list_tasks(&self, _: &ServiceParams, request: ListTasksRequest) -> Result<ListTasksResponse, A2AError> {
        let tenant = caller();
        let history_length = length(request.history_length)?;
        let scanned = self.shared.options.limits.scanned;
        let mut request = request;
        if let Some(context) = request.context_id.as_deref().filter(|context| !context.is_empty()) {
            let thread = self.shared.options.store.thread(&tenant, context).await;
            request.context_id = thread.map_err(|error| self.unstored(&error))?.or(request.context_id);
        }
        let listing = Listing::read(&request, &self.agent, scanned)?;
        let listed = listing.list(&*self.shared.agents, &tenant).await.map_err(|error| match error {
            AgentError::Unknown(_) => A2AError::invalid_params("pageToken is not one that was given out"),
            error => self.failed("", &error),
        })?;
        let mut tasks = Vec::with_capacity(listed.views.len());
        for mut view in listed.views {
            view.thread = self.context(&tenant, &view.thread).await?;
            let exchanges = match history_length {
                Some(0) => vec![],
                _ => self.exchanges(&tenant, &view.id).await?,
            };
            tasks.push(task::task(&view, &exchanges, history_length, request.include_artifacts == Some(true)));
        }
        if tasks.is_empty() {
            lists_nothing();
        }
        Ok(ListTasksResponse {
            tasks,
            next_page_token: listed.next,
            page_size: listing.page_size as i32,
            total_size: i32::try_from(listed.total).unwrap_or(i32::MAX),
        })
    }

    async fn cancel_task(&self, _: &ServiceParams, request: CancelTaskRequest) -> Result<Task, A2AError> {
        let tenant = caller();
        let view = self.view(&tenant, &request.id).await?;
        // Cancelling twice is the same as once (section 3.3.1).
        if view.status == RunStatus::Cancelled {
            return self.task(&tenant, &view, None).await;
        }
        let cancelled = self.shared.agents.cancel(&tenant, &request.id).await.map_err(|error| match error {
            AgentError::Ended(_) | AgentError::Refused(_) => A2AError::task_not_cancelable(&request.id),
            error => self.failed(&request.id, &error),
        })?;
        self.shared.answered.notify_waiters();
        self.task(&tenant, &RunView { thread: view.thread, ..cancelled }, None).await
    }

    async fn subscribe_to_task(
        &self,
        _: &ServiceParams,
        request: SubscribeToTaskRequest,
    ) -> Result<Updating, A2AError> {
        let tenant = caller();
        let view = self.view(&tenant, &request.id).await?;
        if view.status.is_final() {
            return Err(A2AError::unsupported_operation("the task has ended: get it instead"));
        }
        let permit = self.permit()?;
        let updates = Updates::new(&view, tells_pieces(&*self.shared.agents, &self.agent));
        let first = self.task(&tenant, &view, None).await?;
        let followed = self.followed(&tenant, &view);
        Ok(followed.stream(snapshot(first), view.last_event, updates, false, permit))
    }

    async fn create_push_config(
        &self,
        _: &ServiceParams,
        request: TaskPushNotificationConfig,
    ) -> Result<TaskPushNotificationConfig, A2AError> {
        let tenant = caller();
        let view = self.view(&tenant, &request.task_id).await?;
        push::check(&request, &self.shared.options.screen).await?;
        self.keep_push(&tenant, &view, &request, view.last_event).await.map(config)
    }

    async fn get_push_config(
        &self,
        _: &ServiceParams,
        request: GetTaskPushNotificationConfigRequest,
    ) -> Result<TaskPushNotificationConfig, A2AError> {
        let configs = self.push_configs(&request.task_id).await?;
        let found = configs.into_iter().find(|row| row.id == request.id);
        found.map(config).ok_or_else(|| {
            A2AError::task_not_found(&format!("{} has no such push notification config", request.task_id))
        })
    }

    async fn list_push_configs(
        &self,
        _: &ServiceParams,
        request: ListTaskPushNotificationConfigsRequest,
    ) -> Result<ListTaskPushNotificationConfigsResponse, A2AError> {
        let configs = self.push_configs(&request.task_id).await?;
        let size = match request.page_size {
            None | Some(0) => configs.len().max(1),
            Some(size) => {
                usize::try_from(size).map_err(|_| A2AError::invalid_params("pageSize must not be negative"))?
            }
        };
        let after = request.page_token.as_deref().unwrap_or_default();
        let mut page: Vec<_> = configs.into_iter().filter(|row| row.id.as_str() > after).map(config).collect();
        let more = page.len() > size;
        page.truncate(size);
        let next_page_token = page.last().filter(|_| more).and_then(|last| last.id.clone());
        Ok(ListTaskPushNotificationConfigsResponse { configs: page, next_page_token })
    }

    async fn delete_push_config(
        &self,
        _: &ServiceParams,
        request: DeleteTaskPushNotificationConfigRequest,
    ) -> Result<(), A2AError> {
        let tenant = caller();
        self.view(&tenant, &request.task_id).await?;
        let removed = self.shared.options.store.remove_push(&tenant, &request.task_id, &request.id).await;
        removed.map_err(|error| self.unstored(&error))
    }

    async fn get_extended_agent_card(
        &self,
        _: &ServiceParams,
        _: GetExtendedAgentCardRequest,
    ) -> Result<AgentCard, A2AError> {
        Err(A2AError::unsupported_operation("the agent has no extended card: the public one says all"))
    }
}

impl Handler {
    async fn push_configs(&self, run: &str) -> Result<Vec<PushRow>, A2AError> {
        let tenant = caller();
        self.view(&tenant, run).await?;
        self.shared.options.store.pushes(&tenant, run).await.map_err(|error| self.unstored(&error))
    }
}

fn no_configuration() -> a2a::SendMessageConfiguration {
    a2a::SendMessageConfiguration {
        accepted_output_modes: None,
        task_push_notification_config: None,
        history_length: None,
        return_immediately: None,
    }
}

fn length(history_length: Option<i32>) -> Result<Option<usize>, A2AError> {
    let read = |length: i32| {
        usize::try_from(length).map_err(|_| A2AError::invalid_params("historyLength must not be negative"))
    };
    history_length.map(read).transpose()
}

/// The largest file that is kept of a message, in bytes; of a larger one, that it was there. The run has what it needs.
const FILE_BYTES_MAX: usize = 64 << 10;

fn kept(message: &Message) -> Message {
    let mut message = message.clone();
    for part in &mut message.parts {
        if let PartContent::Raw(bytes) = &part.content
            && bytes.len() > FILE_BYTES_MAX
        {
            part.content = PartContent::Text(format!("[a file of {} bytes]", bytes.len()));
            part.media_type = None;
        }
    }
    message
}

fn exchange(
    message: &Message,
    content: String,
    position: usize,
    question: Option<Message>,
    interrupt: Option<String>,
) -> Exchange {
    // It fails on no message that was parsed.
    let text = |message: &Message| serde_json::to_string(message).unwrap_or_default();
    Exchange {
        position,
        message_id: message.message_id.clone(),
        content,
        // What began a run is with it already.
        done: interrupt.is_none(),
        interrupt,
        question: question.as_ref().map(text),
        message: text(&kept(message)),
    }
}

fn config(row: PushRow) -> TaskPushNotificationConfig {
    let credentials = row.credentials;
    TaskPushNotificationConfig {
        url: row.url,
        id: Some(row.id),
        task_id: row.task,
        token: row.token,
        authentication: row.scheme.map(|scheme| AuthenticationInfo { scheme, credentials }),
        tenant: None,
    }
}

#[cfg(test)]
mod tests;
