//! A call from its arguments to its result: what it asks meanwhile goes to the client, in a waiting request of the
//! older revision, or by an answer that the client comes back to, with sealed state, in the newest. Knows no list.
#![expect(deprecated, reason = "the older revision has notices for a log")]

use super::{
    agent::AgentTool,
    asking::{abilities, answers, ask, failed, lacks, requests},
    catalog::{Catalog, Found, Notice, line},
    seal::Purpose,
    tasks,
};
use crate::{
    convert,
    cut::cut,
    offer::{Dialogue, Level, Line, Question, Refusal, Reply, Turn},
};
use narthex_agent::{Call, ToolResult};
use rmcp::{
    ErrorData, RoleServer,
    model::{
        CallToolRequestParams, CallToolResponse, InputRequiredResult, LoggingLevel, LoggingMessageNotificationParam,
        ProgressNotificationParam, ProtocolVersion,
    },
    service::RequestContext,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, future::Future, time::Duration};
use tokio::sync::mpsc;

/// A call that waits for its client.
#[derive(Serialize, Deserialize)]
struct Paused {
    id: String,
    round: usize,
    questions: BTreeMap<String, Question>,
    state: Value,
}

/// Whether a request is of the newest revision, which has no requests of the server to the client.
pub(crate) fn is_newest(context: &RequestContext<RoleServer>) -> bool {
    context.protocol_version().is_some_and(|version| version.as_str() >= ProtocolVersion::V_2026_07_28.as_str())
}

/// Calls what a name stands for.
pub(crate) async fn call(
    catalog: &Catalog,
    tenant: String,
    log_level: Option<Level>,
    params: CallToolRequestParams,
    context: RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let name = params.name.as_ref();
    let Some(found) = catalog.find(name) else {
        return Err(ErrorData::invalid_params(format!("there is no tool `{name}`: `tools/list` names them"), None));
    };
    let arguments = params.arguments.clone().unwrap_or_default();
    if let Err(why) = catalog.fits(&found, &Value::Object(arguments.clone())) {
        // A result, not an error: the model reads it and can do better.
        let text = format!("the arguments of `{name}` do not fit its schema: {why}");
        return Ok(convert::result(ToolResult::error(text)).into());
    }
    let Ok(_permit) = catalog.calls.try_acquire() else {
        let calls_max = catalog.limits.calls_max;
        let what = format!("{calls_max} calls are under way, and no more are taken: try again later");
        return Err(ErrorData::internal_error(what, None));
    };
    let id = catalog.call_id();
    let (line, notices) = line(catalog.limits.notices_max);
    let seconds = match &found {
        Found::Tool(_) => catalog.limits.call_s,
        _ => catalog.limits.agent_s,
    };
    let work = async {
        match &found {
            Found::Tool(tool) => {
                let call = Call { id: id.clone(), run: id, tenant, arguments };
                let result = tool.call(call, line.progress).await;
                let result = result.unwrap_or_else(|failure| ToolResult::error(failure.message));
                Ok(finished(catalog, result))
            }
            Found::Agent(agent) if as_task(&context) && params.request_state.is_none() => {
                let agents = catalog.offer.agents.as_ref().ok_or_else(|| failed(Refusal::Unknown(name.into())))?;
                let run = AgentTool::start(agents, &agent.definition().name, &tenant, &id, &arguments).await;
                tasks::created(catalog, agents, &tenant, &run.map_err(failed)?).await.map(CallToolResponse::from)
            }
            Found::Agent(agent) => converse(catalog, agent, id, tenant, &params, line, &context).await,
            Found::Dialogue(dialogue) => {
                converse(catalog, dialogue.as_ref(), id, tenant, &params, line, &context).await
            }
        }
    };
    let timed = tokio::time::timeout(Duration::from_secs(seconds), work);
    tokio::select! {
        biased;
        () = context.ct.cancelled() => Err(ErrorData::internal_error("the client cancelled the call", None)),
        outcome = telling(timed, notices, log_level, &context) => outcome.unwrap_or_else(|_| {
            let text = format!("`{name}` took longer than {seconds} s and was stopped");
            Ok(convert::result(ToolResult::error(text)).into())
        }),
    }
}

/// Whether the client wants long calls as tasks.
fn as_task(context: &RequestContext<RoleServer>) -> bool {
    is_newest(context) && context.client_capabilities().is_some_and(|capabilities| capabilities.supports_tasks())
}

fn finished(catalog: &Catalog, result: ToolResult) -> CallToolResponse {
    convert::result(cut(result, catalog.limits.result_bytes_max)).into()
}

/// Takes turns until there is a result, or until the client has to come back.
async fn converse(
    catalog: &Catalog,
    dialogue: &dyn Dialogue,
    id: String,
    tenant: String,
    params: &CallToolRequestParams,
    line: Line,
    context: &RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let newest = is_newest(context);
    let arguments = params.arguments.clone().unwrap_or_default();
    let purpose = Purpose::call(&tenant, "tools/call", &params.name, &Value::Object(arguments.clone()));
    let mut given = params.input_responses.clone().unwrap_or_default();
    let mut paused: Option<Paused> = match &params.request_state {
        Some(sealed) if newest => {
            let opened = catalog.seals.open(sealed, &purpose, (catalog.clock)());
            Some(opened.map_err(|why| ErrorData::invalid_params(why, None))?)
        }
        _ => None,
    };
    let abilities = abilities(context);
    loop {
        let mut answered = BTreeMap::new();
        if let Some(paused) = &paused {
            match answers(&paused.questions, &given) {
                Some(answers) => answered = answers,
                // Whoever answers nothing, or something else, is asked again.
                None => {
                    if newest {
                        return required(catalog, paused, &purpose);
                    }
                    let what = "the client answered something else than it was asked";
                    return Ok(convert::result(ToolResult::error(what)).into());
                }
            }
        }
        let (id, round) = paused.as_ref().map_or((id.clone(), 0), |paused| (paused.id.clone(), paused.round));
        let call = Call { id: id.clone(), run: id.clone(), tenant: tenant.clone(), arguments: arguments.clone() };
        let state = paused.map(|paused| paused.state).filter(|state| !state.is_null());
        let turn = Turn { call, state, answers: answered, abilities: abilities.clone() };
        let (questions, state) = match dialogue.turn(turn, line.clone()).await.map_err(failed)? {
            Reply::Done(result) => return Ok(finished(catalog, result)),
            Reply::Ask { questions, state } => (questions, state),
        };
        if let Some(missing) = questions.values().map(Question::needs).find(|needed| !abilities.contains(needed)) {
            return Err(lacks(missing));
        }
        let round = round + 1;
        if round > catalog.limits.rounds_max {
            let text = format!("the call asked for something more than {} times", catalog.limits.rounds_max);
            return Ok(convert::result(ToolResult::error(text)).into());
        }
        let next = Paused { id, round, questions, state };
        if newest {
            // Questions without state may come already answered.
            let early = next.round == 1 && next.state.is_null() && answers(&next.questions, &given).is_some();
            if !early {
                return required(catalog, &next, &purpose);
            }
        } else {
            given = ask(&context.peer, &next.questions, catalog.limits.answer_s).await?;
        }
        paused = Some(next);
    }
}

/// That the client must answer something and call again.
fn required(catalog: &Catalog, paused: &Paused, purpose: &Purpose) -> Result<CallToolResponse, ErrorData> {
    let requests = requests(&paused.questions).map_err(failed)?;
    let stateless = paused.state.is_null() && paused.round == 1;
    let until_ms = (catalog.clock)() + 1000 * catalog.limits.answer_s;
    let sealed = match stateless {
        true => None,
        false => Some(catalog.seals.seal(paused, purpose, Some(until_ms))),
    };
    let sealed = sealed.transpose().map_err(|why| ErrorData::internal_error(why, None))?;
    Ok(InputRequiredResult::new(Some(requests), sealed).into())
}

/// Does work and sends what it tells meanwhile, in order; all of it is sent before the work's result.
async fn telling<T>(
    work: impl Future<Output = T>,
    mut notices: mpsc::Receiver<Notice>,
    log_level: Option<Level>,
    context: &RequestContext<RoleServer>,
) -> T {
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            Some(notice) = notices.recv() => tell(notice, log_level, context).await,
            outcome = &mut work => {
                while let Ok(notice) = notices.try_recv() {
                    tell(notice, log_level, context).await;
                }
                return outcome;
            }
        }
    }
}

/// Sends a notice if the client wants it. One that went away is noticed elsewhere.
async fn tell(notice: Notice, log_level: Option<Level>, context: &RequestContext<RoleServer>) {
    match notice {
        Notice::Progress { done, of, word } => {
            let Some(token) = context.meta.get_progress_token() else { return };
            let mut params = ProgressNotificationParam::new(token, done);
            params.total = of;
            params.message = word;
            let _ = context.peer.notify_progress(params).await;
        }
        Notice::Log { level, data } => {
            if log_level.is_some_and(|least| level >= least) {
                let params = LoggingMessageNotificationParam::new(wire_level(level), data).with_logger("narthex");
                let _ = context.peer.notify_logging_message(params).await;
            }
        }
    }
}

/// A level as the wire names it.
fn wire_level(level: Level) -> LoggingLevel {
    match level {
        Level::Debug => LoggingLevel::Debug,
        Level::Info => LoggingLevel::Info,
        Level::Warning => LoggingLevel::Warning,
        Level::Error => LoggingLevel::Error,
    }
}

/// The least level of ours that a client wants which names one of its own.
pub(crate) fn least_level(level: LoggingLevel) -> Level {
    match level {
        LoggingLevel::Debug => Level::Debug,
        LoggingLevel::Info | LoggingLevel::Notice => Level::Info,
        LoggingLevel::Warning => Level::Warning,
        _ => Level::Error,
    }
}
