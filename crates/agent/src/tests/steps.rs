//! The pure function: tables of events, and what is to be done, told and said then.

use crate::{
    agents::RunStatus,
    definition::{AgentDefinition, Limits, Retry},
    event::{Created, Decision, Edit, Event, JudgedCall, Purpose, Stamped, Verdict},
    model::{ModelAnswer, ModelFailure},
    scripted::{busy, call, say},
    state::{CallState, Earlier, Phase, State},
    step::{Action, Step, fold, step},
    tool::{Effect, ToolResult},
};
use narthex_base::{
    Digest,
    chat::{Message, MessageContent, Role},
};
use serde_json::{Map, Value, json};

fn created(definition: AgentDefinition) -> Event {
    Event::Created(Box::new(Created {
        agent: "a".into(),
        definition,
        guards: vec![],
        thread: "t".into(),
        follows: None,
        parent: None,
        messages: vec![Message::new(Role::User, "hi")],
        metadata: Map::new(),
    }))
}

fn definition() -> AgentDefinition {
    AgentDefinition { tools: vec!["t".into()], fallback: vec!["n".into()], ..AgentDefinition::new("m") }
}

fn asked() -> Event {
    Event::Asked { purpose: Purpose::Answer, model: "m".into() }
}

fn answered(answer: ModelAnswer, calls: Vec<JudgedCall>) -> Event {
    let mut answer = answer;
    for (call, judged) in answer.message.tool_calls.iter_mut().zip(&calls) {
        call.id = judged.id.clone();
    }
    Event::Answered { answer: Box::new(answer), calls, output: None }
}

fn judged(id: &str, effect: Effect, verdict: Verdict) -> JudgedCall {
    let arguments = json!({"x": 1}).as_object().unwrap().clone();
    let (tool, digest) = ("t".to_string(), Digest::of(b"t"));
    JudgedCall { id: id.into(), tool, arguments, effect, digest, delegate: None, verdict }
}

/// An answer that calls the tool once for each verdict; the calls are `c0`, `c1` and so on.
fn calls(effect: Effect, verdicts: &[Verdict]) -> Vec<Event> {
    let answer = call(&vec![("t", json!({"x": 1})); verdicts.len()]);
    let judged = verdicts.iter().enumerate().map(|(i, verdict)| judged(&format!("c{i}"), effect, verdict.clone()));
    vec![created(definition()), asked(), answered(answer, judged.collect())]
}

fn done(call: &str) -> Event {
    Event::Done { call: call.into(), result: ToolResult::text(format!("r {call}")) }
}

fn started(call: &str) -> Event {
    Event::Started { call: call.into() }
}

fn run(events: &[Event]) -> Step {
    let stamped: Vec<Stamped> =
        (0..).zip(events).map(|(i, event)| Stamped { at_ms: 1000 + i * 10, event: event.clone() }).collect();
    fold(State::new("r", "anna", Earlier::default()), &stamped)
}

/// What is to be done, in short.
fn actions(step: &Step) -> Vec<String> {
    let short = |action: &Action| match action {
        Action::Ask { purpose, model, not_before_ms } => format!("ask {purpose:?} {model} {not_before_ms}"),
        Action::Start { call } => format!("start {call}"),
        Action::Delegate { call, agent } => format!("delegate {call} {agent}"),
    };
    step.actions.iter().map(short).collect()
}

fn check(events: &[Event], expected: &[&str], status: RunStatus) -> Step {
    let step = run(events);
    assert_eq!((actions(&step), step.state.status()), (expected.iter().map(|s| s.to_string()).collect(), status));
    step
}

fn with(mut events: Vec<Event>, more: &[Event]) -> Vec<Event> {
    events.extend_from_slice(more);
    events
}

#[test]
fn from_question_to_answer() {
    use RunStatus::{Done, Running, Waiting};
    let begin = vec![created(definition())];
    check(&begin, &["ask Answer 0 0"], Running);
    check(&with(begin.clone(), &[asked()]), &[], Running);
    check(&with(begin.clone(), &[asked(), answered(say("yes"), vec![])]), &[], Done);
    check(&with(begin, &[asked(), Event::Resumed]), &["ask Answer 0 0"], Running);

    let two = calls(Effect::Reads, &[Verdict::Allow, Verdict::Allow]);
    check(&two, &["start c0", "start c1"], Running);
    check(&with(two.clone(), &[started("c0")]), &["start c1"], Running);
    check(&with(two.clone(), &[started("c0"), started("c1"), done("c1")]), &[], Running);
    let both = check(&with(two, &[started("c0"), started("c1"), done("c1"), done("c0")]), &["ask Answer 0 0"], Running);
    let texts: Vec<_> = both.state.messages.iter().map(|message| message.text().into_owned()).collect();
    assert_eq!(texts, ["hi", "", "r c0", "r c1"], "results stand in the order of the calls");

    let mixed = calls(Effect::Writes, &[Verdict::Ask, Verdict::Allow, Verdict::Deny { why: "law".into() }]);
    check(&mixed, &["start c1"], Running);
    check(&with(mixed.clone(), &[started("c1")]), &[], Running);
    let waits = check(&with(mixed, &[started("c1"), done("c1")]), &[], Waiting);
    assert_eq!((waits.state.interrupts().len(), waits.state.wake_at_ms()), (1, Some(1020 + 86_400_000)));

    let wrong = calls(Effect::Writes, &[Verdict::Wrong { why: "no such tool".into() }]);
    let again = check(&wrong, &["ask Answer 0 0"], Running);
    assert_eq!(again.state.messages[2].text(), "error:\nno such tool");
}

#[test]
fn answers_of_people() {
    use RunStatus::{Running, Waiting};
    let asks = calls(Effect::Writes, &[Verdict::Ask]);
    let state = run(&asks).state;
    let binding = state.binding(&state.calls[0]);
    let decided = |decision| Event::Decided { call: "c0".into(), binding, decision };
    let by = || "berta".to_string();
    check(&with(asks.clone(), &[decided(Decision::Approve { by: by() })]), &["start c0"], Running);
    let other =
        Event::Decided { call: "c0".into(), binding: Digest::of(b""), decision: Decision::Approve { by: by() } };
    check(&with(asks.clone(), &[other]), &[], Running);
    let refused = decided(Decision::Refuse { by: by(), why: "too dear".into() });
    let refused = check(&with(asks.clone(), &[refused]), &["ask Answer 0 0"], Running);
    assert_eq!(refused.state.messages[2].text(), "error:\nthe call was not made: berta refused it: too dear");
    let lapsed = check(&with(asks.clone(), &[Event::Lapsed { call: "c0".into() }]), &["ask Answer 0 0"], Running);
    assert!(lapsed.state.messages[2].text().contains("nobody approved"));

    let mut call = judged("c0", Effect::Writes, Verdict::Ask);
    call.arguments.insert("x".into(), json!(2));
    let edited = check(
        &with(asks.clone(), &[decided(Decision::Edit { by: by(), call: Box::new(call.clone()) })]),
        &["start c0"],
        Running,
    );
    assert_eq!(edited.state.messages[1].tool_calls[0].function.arguments, r#"{"x":2}"#);
    call.verdict = Verdict::Deny { why: "law".into() };
    check(&with(asks, &[decided(Decision::Edit { by: by(), call: Box::new(call) })]), &["ask Answer 0 0"], Running);

    let cut = |effect| with(calls(effect, &[Verdict::Allow]), &[started("c0"), Event::Resumed]);
    check(&cut(Effect::Reads), &["start c0"], Running);
    for effect in [Effect::Writes, Effect::Reaches] {
        let unknown = check(&cut(effect), &[], Waiting);
        let call = &unknown.state.calls[0];
        assert_eq!((&call.phase, unknown.state.interrupts()[0].form.is_some()), (&Phase::Unknown, true));
        let again = Event::Decided {
            call: "c0".into(),
            binding: unknown.state.binding(call),
            decision: Decision::Approve { by: by() },
        };
        check(&with(cut(effect), &[again]), &["start c0"], Running);
        let given = Event::Decided {
            call: "c0".into(),
            binding: unknown.state.binding(call),
            decision: Decision::Given { text: "it was sent".into() },
        };
        let given = check(&with(cut(effect), &[given]), &["ask Answer 0 0"], Running);
        assert_eq!(given.state.messages[2].text(), "it was sent");
    }
}

#[test]
fn models_that_do_not_answer() {
    use RunStatus::{Failed, Running};
    let failed = |passing| Event::NotAnswered { failure: ModelFailure { passing, ..busy("full") }, wait_ms: 500 };
    let retry = Retry { times: 1, ..Retry::default() };
    let begin = vec![created(AgentDefinition { retry, ..definition() })];
    check(&with(begin.clone(), &[asked(), failed(true)]), &["ask Answer 0 1520"], Running);
    let next = with(begin.clone(), &[asked(), failed(true), asked(), failed(true)]);
    check(&next, &["ask Answer 1 0"], Running);
    check(&with(begin.clone(), &[asked(), failed(false)]), &["ask Answer 1 0"], Running);
    check(&with(begin.clone(), &[asked(), failed(false), asked(), failed(false)]), &[], Failed);
    // Who answered is asked first again.
    let answer = answered(call(&[("t", json!({}))]), vec![judged("c0", Effect::Reads, Verdict::Allow)]);
    let back = with(begin, &[asked(), failed(false), asked(), answer, started("c0"), done("c0")]);
    check(&back, &["ask Answer 0 0"], Running);
}

#[test]
fn ends_are_ends() {
    let over = with(calls(Effect::Writes, &[Verdict::Ask]), &[Event::Cancelled]);
    check(&over, &[], RunStatus::Cancelled);
    let late = check(&with(over, &[done("c0"), Event::Resumed, Event::TimeUp]), &[], RunStatus::Cancelled);
    assert_eq!((late.told.len(), late.state.events, late.state.interrupts().len()), (0, 7, 0));
}

#[test]
fn forks_take_no_approvals_along() {
    let forked = |edit| Event::Forked { from: "r".into(), thread: "u".into(), at: 1, edit };
    let asks = calls(Effect::Writes, &[Verdict::Ask]);
    let state = run(&asks).state;
    let binding = state.binding(&state.calls[0]);
    let approved = Event::Decided { call: "c0".into(), binding, decision: Decision::Approve { by: "berta".into() } };
    let waits = RunStatus::Waiting;
    let approved = with(asks.clone(), &[approved]);
    check(&approved, &["start c0"], RunStatus::Running);
    check(&with(approved.clone(), &[forked(None)]), &[], waits);
    // What the other run has started may have taken effect.
    let unknown = check(&with(approved.clone(), &[started("c0"), forked(None)]), &[], waits);
    assert_eq!(unknown.state.calls[0].phase, Phase::Unknown);
    check(&with(asks.clone(), &[Event::Cancelled, forked(None)]), &[], waits);
    let done = with(approved, &[started("c0"), done("c0"), asked(), answered(say("yes"), vec![])]);
    check(&with(done.clone(), &[forked(None)]), &[], RunStatus::Done);
    let edit = Edit { message: 0, content: MessageContent::Text("ho".into()) };
    let edited = check(&with(done, &[forked(Some(edit))]), &["ask Answer 0 0"], RunStatus::Running);
    assert_eq!(edited.state.messages, [Message::new(Role::User, "ho")]);
    assert_eq!(edited.state.created.thread, "u");
}

#[test]
fn only_so_many_at_once() {
    let limits = Limits { parallel: 2, ..Limits::default() };
    let mut events = calls(Effect::Reads, &[Verdict::Allow, Verdict::Allow, Verdict::Allow]);
    events[0] = created(AgentDefinition { limits, ..definition() });
    check(&events, &["start c0", "start c1"], RunStatus::Running);
    check(&with(events.clone(), &[started("c0")]), &["start c1"], RunStatus::Running);
    check(&with(events.clone(), &[started("c0"), started("c1")]), &[], RunStatus::Running);
    check(&with(events, &[started("c0"), started("c1"), done("c1")]), &["start c2"], RunStatus::Running);
}

#[test]
fn what_an_approval_is_bound_to() {
    let base = run(&calls(Effect::Writes, &[Verdict::Ask])).state;
    let call = base.calls[0].clone();
    let mut bindings = vec![base.binding(&call)];
    let mut reordered = call.clone();
    let arguments = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap();
    reordered.judged.arguments = arguments(r#"{"a":1,"b":{"c":2,"d":3}}"#);
    let one = base.binding(&reordered);
    reordered.judged.arguments = arguments(r#"{"b":{"d":3,"c":2},"a":1}"#);
    assert_eq!(base.binding(&reordered), one, "the order of keys makes no difference");
    bindings.push(one);
    type Change<'a> = &'a dyn Fn(&mut State, &mut CallState);
    let change: [Change; 7] = [
        &|state, _| state.run = "s".into(),
        &|state, _| state.turn += 1,
        &|_, call| call.judged.id = "c1".into(),
        &|_, call| call.judged.tool = "u".into(),
        &|_, call| call.judged.digest = Digest::of(b"u"),
        &|_, call| call.judged.arguments = arguments(r#"{"x":"1"}"#),
        &|_, call| call.questions += 1,
    ];
    for change in change {
        let (mut state, mut call) = (base.clone(), call.clone());
        change(&mut state, &mut call);
        bindings.push(state.binding(&call));
    }
    let count = bindings.len();
    bindings.sort();
    bindings.dedup();
    assert_eq!((bindings.len(), count), (9, 9));
}

#[test]
fn one_step_is_what_the_fold_is_made_of() {
    let events = with(calls(Effect::Reads, &[Verdict::Allow]), &[started("c0"), done("c0")]);
    let whole = run(&events);
    let mut state = State::new("r", "anna", Earlier::default());
    for (i, event) in (0..).zip(&events) {
        state = step(state, &Stamped { at_ms: 1000 + i * 10, event: event.clone() }).state;
    }
    assert_eq!(state, whole.state);
    assert_eq!((state.events, state.told, state.used.worked_ms), (5, 5, 40));
}
