//! The loop's one function: a state and an event give the next state, what others are told, and what is to be done now.
//! Pure: no clock, no chance, no reading and writing. Whatever comes from outside comes as an event.

use crate::{
    agents::{RunEventKind, RunStatus},
    definition::AgentDefinition,
    event::{Checked, Decision, Edit, Event, JudgedCall, Purpose, Stamped, Verdict},
    model::{ModelAnswer, ModelFailure},
    result::message,
    state::{Approval, Asking, CallState, Form, Outcome, Phase, State, Summary, Used},
    tool::{Effect, ToolResult},
    window::summary_due,
};
use narthex_base::Digest;
use serde_json::Value;
use std::sync::Arc;

/// Answers that may be invalid before a run fails that has been asked for the form by itself.
const FORM_TRIES: u32 = 2;
/// The tool whose list is a part of the run's state.
pub const TODO: &str = "todo";

/// What is to be done. Each begins with an event that says that it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask a model.
    Ask {
        /// What for.
        purpose: Purpose,
        /// Which of the definition's models.
        model: usize,
        /// Milliseconds since 1970 before which it is not asked.
        not_before_ms: u64,
    },
    /// Call a tool.
    Start {
        /// The call.
        call: String,
    },
    /// Ask another agent.
    Delegate {
        /// The call.
        call: String,
        /// The agent.
        agent: String,
    },
}

/// What comes of an event.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The run after it.
    pub state: State,
    /// What others are told.
    pub told: Vec<RunEventKind>,
    /// What is to be done now: all of it, in this order, at once where that is possible.
    pub actions: Vec<Action>,
}

/// What an event makes of a run.
pub fn step(state: State, stamped: &Stamped) -> Step {
    let mut scribe = Scribe { state, told: Vec::new() };
    scribe.read(stamped);
    let Scribe { state, told } = scribe;
    Step { actions: due(&state), state, told }
}

/// What a run of these events is, and what is to be done now.
pub fn fold<'a>(state: State, events: impl IntoIterator<Item = &'a Stamped>) -> Step {
    let start = Step { actions: vec![], told: vec![], state };
    events.into_iter().fold(start, |last, event| step(last.state, event))
}

/// What is to be done in a state.
pub fn due(state: &State) -> Vec<Action> {
    if state.outcome.is_some() {
        return vec![];
    }
    if state.calls.is_empty() {
        return ask(state).into_iter().collect();
    }
    let busy = |call: &&CallState| match &call.phase {
        Phase::Started { .. } => true,
        Phase::Delegated { interrupts, .. } => interrupts.is_empty(),
        _ => false,
    };
    let free = (state.definition().limits.parallel as usize).saturating_sub(state.calls.iter().filter(busy).count());
    let start = |call: &CallState| match (&call.judged.delegate, call.judged.id.clone()) {
        (Some(agent), call) => Action::Delegate { call, agent: agent.clone() },
        (None, call) => Action::Start { call },
    };
    state.calls.iter().filter(|call| state.may_start(call)).take(free).map(start).collect()
}

fn ask(state: &State) -> Option<Action> {
    let Asking { model, not_before_ms, under_way: None, .. } = state.asking else { return None };
    let purpose = match (summary_due(state), &state.form) {
        (Some(until), _) => Purpose::Summary { until },
        (None, Some(_)) => Purpose::Form,
        (None, None) => Purpose::Answer,
    };
    Some(Action::Ask { purpose, model, not_before_ms })
}

/// Writes an event into a state, and down what others are told.
struct Scribe {
    state: State,
    told: Vec<RunEventKind>,
}

impl Scribe {
    fn read(&mut self, Stamped { at_ms, event }: &Stamped) {
        let at_ms = *at_ms;
        let state = &mut self.state;
        if state.events == 0 {
            (state.started_ms, state.changed_ms) = (at_ms, at_ms);
        }
        // Nobody worked between a crash and what came after it.
        if state.status() == RunStatus::Running && !matches!(event, Event::Resumed | Event::Forked { .. }) {
            state.used.worked_ms += at_ms.saturating_sub(state.changed_ms);
        }
        state.events += 1;
        state.changed_ms = at_ms.max(state.changed_ms);
        if state.outcome.is_none() || matches!(event, Event::Forked { .. }) {
            self.take(at_ms, event);
            self.end_turn();
            self.check_limits();
        }
        self.state.told += self.told.len() as u64;
    }

    fn take(&mut self, at_ms: u64, event: &Event) {
        match event {
            Event::Created(created) => {
                self.state.created = Arc::new((**created).clone());
                self.tell(RunEventKind::Working);
                for message in &created.messages {
                    self.say(message.clone());
                }
            }
            Event::Asked { purpose, .. } => {
                self.state.asking.under_way = Some(*purpose);
                self.state.used.model_calls += 1;
            }
            Event::Answered { answer, calls, output } => self.answered(at_ms, answer, calls, output.as_ref()),
            Event::NotAnswered { failure, wait_ms } => self.not_answered(at_ms, failure, *wait_ms),
            Event::Decided { call, binding, decision } => self.decided(at_ms, call, *binding, decision),
            Event::Lapsed { call } => {
                self.settle(call);
                self.close(call, &ToolResult::error("nobody approved the call in time: it was not made"));
            }
            Event::Rejudged { call } => self.rejudged(at_ms, call),
            Event::Started { call } => self.started(call),
            Event::Delegated { call, child } => {
                self.phase(call, |_| Phase::Delegated { child: child.clone(), interrupts: vec![] });
                self.tell_started(call);
            }
            Event::ChildWaits { call, interrupts } => self.child_waits(call, interrupts),
            Event::Done { call, result } => self.done(call, result),
            Event::Resumed => self.resumed(),
            Event::TimeUp => self.limit_time(),
            Event::Cancelled => self.end(RunStatus::Cancelled, Some("it was cancelled".into()), None),
            Event::Forked { thread, edit, .. } => self.forked(at_ms, thread, edit.as_ref()),
        }
    }

    fn tell(&mut self, kind: RunEventKind) {
        self.told.push(kind);
    }

    fn say(&mut self, message: narthex_base::chat::Message) {
        self.tell(RunEventKind::Message { message: message.clone() });
        self.state.messages.push(message);
    }

    fn end(&mut self, status: RunStatus, reason: Option<String>, output: Option<Value>) {
        self.state.outcome = Some(Outcome { status, reason: reason.clone(), output: output.clone() });
        self.tell(RunEventKind::Ended { status, reason, output });
    }

    /// The model has answered: with a summary, with calls, or for good.
    fn answered(&mut self, at_ms: u64, answer: &ModelAnswer, calls: &[JudgedCall], output: Option<&Checked>) {
        let state = &mut self.state;
        let purpose = state.asking.under_way.unwrap_or(Purpose::Answer);
        let model = state.definition().models().nth(state.asking.model).unwrap_or_default().to_string();
        state.used.tokens += answer.tokens_in + answer.tokens_out;
        state.used.money += state.definition().cost(&model, answer.tokens_in, answer.tokens_out);
        state.asking = Asking::default();
        if let Purpose::Summary { until } = purpose {
            state.summary = Some(Summary { until, text: answer.message.text().into_owned() });
            return;
        }
        self.say(answer.message.clone());
        if !calls.is_empty() {
            return self.planned(at_ms, calls);
        }
        match output {
            None => self.end(RunStatus::Done, None, None),
            Some(Checked::Valid(value)) => self.end(RunStatus::Done, None, Some(value.clone())),
            Some(Checked::Wrong(complaint)) => {
                let failures = self.state.form.as_ref().map_or(0, |form| form.failures) + 1;
                // Where tools are at hand, the first answer was not asked for in the form.
                let tries = FORM_TRIES + u32::from(has_tools(self.state.definition()));
                if failures >= tries {
                    let reason = format!("the answer is not valid for `output`: {complaint}");
                    return self.end(RunStatus::Failed, Some(reason), None);
                }
                self.state.form = Some(Form { failures, complaint: complaint.clone() });
            }
        }
    }

    /// The model wants calls. Where they are more than are left, none is made.
    fn planned(&mut self, at_ms: u64, calls: &[JudgedCall]) {
        let limit = self.state.definition().limits.tool_calls;
        self.state.used.tool_calls = self.state.used.tool_calls.saturating_add(calls.len() as u32);
        if self.state.used.tool_calls > limit {
            return self.end_limited("tool_calls", limit);
        }
        self.state.turn += 1;
        for judged in calls {
            let phase = Phase::Ready { approved: None };
            self.state.calls.push(CallState { judged: judged.clone(), questions: 0, phase });
            self.judge(at_ms, &judged.id);
        }
    }

    /// Puts a call where its verdict wants it.
    fn judge(&mut self, at_ms: u64, id: &str) {
        let Some(call) = self.state.call(id) else { return };
        match call.judged.verdict.clone() {
            Verdict::Allow => self.phase(id, |_| Phase::Ready { approved: None }),
            Verdict::Ask => {
                let expires_ms = at_ms.saturating_add(self.state.definition().policy.approval_s.saturating_mul(1000));
                self.question(id, Phase::Asking { expires_ms });
            }
            Verdict::Deny { why } => {
                self.close(id, &ToolResult::error(format!("the call was not made: it is denied by {why}")));
            }
            Verdict::Wrong { why } => self.close(id, &ToolResult::error(why)),
        }
    }

    /// Asks a person about a call: a question of its own, which no earlier answer answers.
    fn question(&mut self, id: &str, phase: Phase) {
        let Some(call) = self.state.calls.iter_mut().find(|call| call.judged.id == id) else { return };
        call.questions += 1;
        call.phase = phase;
        self.tell_waiting(id);
    }

    fn not_answered(&mut self, at_ms: u64, failure: &ModelFailure, wait_ms: u64) {
        let definition = &self.state.created.definition;
        let (times, models) = (definition.retry.times, definition.models().count());
        let asking = &mut self.state.asking;
        asking.under_way = None;
        if failure.passing && asking.failures < times {
            asking.failures += 1;
            asking.not_before_ms = at_ms.saturating_add(wait_ms);
        } else if asking.model + 1 < models {
            *asking = Asking { model: asking.model + 1, ..Asking::default() };
        } else {
            let reason = format!("no model answered; the last said: {}", failure.message);
            self.end(RunStatus::Failed, Some(reason), None);
        }
    }

    fn decided(&mut self, at_ms: u64, id: &str, binding: Digest, decision: &Decision) {
        self.tell(RunEventKind::Working);
        self.settle(id);
        match decision {
            Decision::Approve { by } => {
                let approved = Some(Approval { binding, by: by.clone(), at_ms });
                self.phase(id, |_| Phase::Ready { approved });
            }
            Decision::Edit { by, call } => self.edited(at_ms, id, by, call),
            Decision::Refuse { by, why } => {
                let known = !matches!(self.state.call(id), Some(CallState { phase: Phase::Unknown, .. }));
                let what = if known { "the call was not made" } else { "nobody knows whether the call took effect" };
                self.close(id, &ToolResult::error(format!("{what}: {by} refused it: {why}")));
            }
            Decision::Given { text } => self.close(id, &ToolResult::text(text)),
        }
    }

    /// A question is answered once.
    fn settle(&mut self, id: &str) {
        if let Some(call) = self.state.call(id) {
            let question = self.state.question_id(call);
            self.state.settled.push(question);
        }
    }

    /// From now on the call is the edited one, for the model too: what it asked for is never made.
    fn edited(&mut self, at_ms: u64, id: &str, by: &str, edited: &JudgedCall) {
        let Some(call) = self.state.calls.iter_mut().find(|call| call.judged.id == id) else { return };
        call.judged = edited.clone();
        if matches!(edited.verdict, Verdict::Deny { .. } | Verdict::Wrong { .. }) {
            return self.judge(at_ms, id);
        }
        let arguments = Value::Object(edited.arguments.clone()).to_string();
        let calls = self.state.messages.iter_mut().rev().flat_map(|message| &mut message.tool_calls);
        if let Some(asked) = calls.into_iter().find(|asked| asked.id == id) {
            asked.function.arguments = arguments;
        }
        let Some(call) = self.state.call(id) else { return };
        let approved = Some(Approval { binding: self.state.binding(call), by: by.to_string(), at_ms });
        self.phase(id, |_| Phase::Ready { approved });
    }

    fn rejudged(&mut self, at_ms: u64, judged: &JudgedCall) {
        let Some(call) = self.state.calls.iter_mut().find(|call| call.judged.id == judged.id) else { return };
        call.judged = judged.clone();
        self.judge(at_ms, &judged.id);
    }

    fn started(&mut self, id: &str) {
        self.phase(id, |phase| match phase {
            Phase::Ready { approved } => Phase::Started { approved },
            _ => Phase::Started { approved: None },
        });
        self.tell_started(id);
    }

    fn child_waits(&mut self, id: &str, waits: &[crate::agents::Interrupt]) {
        self.phase(id, |phase| match phase {
            Phase::Delegated { child, .. } => Phase::Delegated { child, interrupts: waits.to_vec() },
            other => other,
        });
        if waits.is_empty() { self.tell(RunEventKind::Working) } else { self.tell_waiting(id) }
    }

    fn done(&mut self, id: &str, result: &ToolResult) {
        if let Some(call) = self.state.call(id)
            && let (TODO, false, Some(Value::Array(items))) =
                (call.judged.tool.as_str(), result.is_error, call.judged.arguments.get("items"))
        {
            self.state.todo = items.clone();
        }
        self.close(id, result);
    }

    /// A process ended in the middle of what was under way. What only reads is done again; of all else, nobody knows.
    fn resumed(&mut self) {
        self.tell(RunEventKind::Working);
        self.state.asking.under_way = None;
        for id in self.call_ids() {
            match self.state.call(&id) {
                Some(CallState { phase: Phase::Started { approved }, judged, .. })
                    if judged.effect == Effect::Reads =>
                {
                    let approved = approved.clone();
                    self.phase(&id, |_| Phase::Ready { approved });
                }
                Some(CallState { phase: Phase::Started { .. }, .. }) => self.question(&id, Phase::Unknown),
                _ => {}
            }
        }
    }

    fn forked(&mut self, at_ms: u64, thread: &str, edit: Option<&Edit>) {
        self.tell(RunEventKind::Working);
        let created = Arc::make_mut(&mut self.state.created);
        (created.thread, created.parent) = (thread.to_string(), None);
        // It is another run: it begins now, with limits of its own.
        (self.state.started_ms, self.state.used) = (at_ms, Used::default());
        self.state.asking = Asking::default();
        if let Some(Edit { message, content }) = edit
            && let Some(edited) = self.state.messages.get_mut(*message)
        {
            edited.content = content.clone();
            self.state.messages.truncate(message + 1);
            (self.state.calls, self.state.form, self.state.outcome) = (vec![], None, None);
            return;
        }
        // What stopped the other run does not stop this one; what was said for good was said.
        if self.state.outcome.as_ref().is_some_and(|outcome| outcome.status != RunStatus::Done) {
            self.state.outcome = None;
        }
        for id in self.call_ids() {
            let Some(call) = self.state.call(&id) else { continue };
            match (&call.phase, call.judged.effect) {
                (Phase::Started { .. }, effect) if effect != Effect::Reads => self.question(&id, Phase::Unknown),
                (Phase::Unknown, _) => self.question(&id, Phase::Unknown),
                (Phase::Closed(_), _) => {}
                _ => self.judge(at_ms, &id),
            }
        }
    }

    fn limit_time(&mut self) {
        let limit = self.state.definition().limits.wall_s;
        if self.state.used.worked_ms >= limit.saturating_mul(1000) {
            self.end_limited("wall_s", limit);
        }
    }

    fn end_limited(&mut self, limit: &str, value: impl std::fmt::Display) {
        let agent = &self.state.created.agent;
        let reason = format!("the limit `{limit}` of {value} is reached: raise it in `[agents.{agent}.limits]`");
        self.end(RunStatus::Limited, Some(reason), None);
    }

    /// The results of a turn stand in the order of its calls, whichever came first.
    fn end_turn(&mut self) {
        let closed = |call: &CallState| matches!(call.phase, Phase::Closed(_));
        if self.state.outcome.is_none() && self.state.calls.iter().all(closed) {
            for call in std::mem::take(&mut self.state.calls) {
                if let Phase::Closed(message) = call.phase {
                    self.state.messages.push(*message);
                }
            }
        }
    }

    /// Ends the run where a model would be asked and may not be.
    fn check_limits(&mut self) {
        let state = &self.state;
        if state.outcome.is_some() || !state.calls.is_empty() || state.asking.under_way.is_some() {
            return;
        }
        let (limits, used) = (state.definition().limits.clone(), state.used.clone());
        if used.model_calls >= limits.model_calls {
            self.end_limited("model_calls", limits.model_calls);
        } else if used.tokens >= limits.tokens {
            self.end_limited("tokens", limits.tokens);
        } else if used.worked_ms >= limits.wall_s.saturating_mul(1000) {
            self.end_limited("wall_s", limits.wall_s);
        } else if let Some(money) = limits.money.filter(|money| used.money >= *money) {
            self.end_limited("money", money);
        }
    }

    fn call_ids(&self) -> Vec<String> {
        self.state.calls.iter().map(|call| call.judged.id.clone()).collect()
    }

    fn phase(&mut self, id: &str, next: impl FnOnce(Phase) -> Phase) {
        if let Some(call) = self.state.calls.iter_mut().find(|call| call.judged.id == id) {
            call.phase = next(std::mem::replace(&mut call.phase, Phase::Unknown));
        }
    }

    fn close(&mut self, id: &str, result: &ToolResult) {
        let bytes_max = self.state.definition().limits.result_bytes;
        let Some(call) = self.state.call(id) else { return };
        let message = message(id, &call.judged.tool, result, bytes_max);
        self.phase(id, |_| Phase::Closed(Box::new(message.clone())));
        self.tell(RunEventKind::Message { message });
    }

    fn tell_started(&mut self, id: &str) {
        let Some(CallState { judged, .. }) = self.state.call(id) else { return };
        let (tool, arguments) = (judged.tool.clone(), Value::Object(judged.arguments.clone()));
        self.tell(RunEventKind::ToolStarted { call: id.to_string(), tool, arguments });
    }

    fn tell_waiting(&mut self, id: &str) {
        let Some(call) = self.state.call(id) else { return };
        for interrupt in self.state.interrupts_of(call) {
            self.tell(RunEventKind::Waiting { interrupt });
        }
    }
}

/// Whether an agent can call anything.
pub(crate) fn has_tools(definition: &AgentDefinition) -> bool {
    !definition.tools.is_empty()
}
