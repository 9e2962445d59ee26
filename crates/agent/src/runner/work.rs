//! What a run has under way: a model that is asked, tools that are called, a wait before a further try. Futures, with
//! what becomes of them as a value. A model or a tool that panics has failed; the run has not.

use super::inner::{Heard, Inner};
use crate::{
    agents::{RunEvent, RunEventKind},
    event::Purpose,
    model::{Model, ModelAnswer, ModelFailure, ModelRequest},
    redact::{Masker, Veil},
    tool::{Call, Tool, ToolFailure, ToolResult},
};
use futures::{FutureExt, future::BoxFuture};
use std::{
    any::Any,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
};

/// Something that was under way and is not any more.
pub(super) enum Finished {
    Model { purpose: Purpose, result: Box<Result<ModelAnswer, ModelFailure>> },
    Tool { call: String, result: Result<ToolResult, ToolFailure> },
    Paused,
}

pub(super) type Work = BoxFuture<'static, Finished>;

/// Asks a model, and masks what it is sent and says. `asked` counts the requests of the run, so that a piece of an
/// answer is known by its request.
pub(super) fn ask(
    inner: &Arc<Inner>,
    run: &str,
    asked: u32,
    model: Arc<dyn Model>,
    purpose: Purpose,
    mut request: ModelRequest,
    masker: Masker,
) -> Work {
    let (inner, run) = (inner.clone(), run.to_string());
    masker.request(&mut request);
    let tell = Arc::new(move |delta| {
        // A summary is nothing that is said to anybody.
        if !matches!(purpose, Purpose::Summary { .. }) {
            let event = RunEvent { number: 0, at_ms: inner.now_ms(), kind: RunEventKind::Said { delta } };
            inner.hear(&run, || Heard::Said { asked, event: Box::new(event) });
        }
    });
    let veil = Arc::new(Mutex::new(Veil::new(masker.clone())));
    let (told, held) = (tell.clone(), veil.clone());
    let said = Arc::new(move |delta| {
        let piece = held.lock().unwrap_or_else(PoisonError::into_inner).push(delta);
        piece.into_iter().for_each(|piece| told(piece));
    });
    let answer = async move { model.answer(request, said).await };
    Box::pin(async move {
        let result = AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|panic| {
            Err(ModelFailure { message: format!("it panicked: {}", words(&*panic)), passing: false, wait_ms: None })
        });
        if result.is_ok() {
            let rest = veil.lock().unwrap_or_else(PoisonError::into_inner).finish();
            rest.into_iter().for_each(|piece| tell(piece));
        }
        Finished::Model { purpose, result: Box::new(masker.answered(result)) }
    })
}

/// Calls a tool, and masks what it gives.
pub(super) fn call(inner: &Arc<Inner>, tool: Arc<dyn Tool>, call: Call, masker: Masker) -> Work {
    let (inner, run, id) = (inner.clone(), call.run.clone(), call.id.clone());
    let (told, words_masker) = (id.clone(), masker.clone());
    let progress = Arc::new(move |done: f64, of: Option<f64>, word: Option<&str>| {
        let (call, word) = (told.clone(), word.map(|word| words_masker.text(word).into_owned()));
        let kind = RunEventKind::ToolProgress { call: call.clone(), done, of, word };
        let event = RunEvent { number: 0, at_ms: inner.now_ms(), kind };
        inner.hear(&run, || Heard::Progress { call, event: Box::new(event) });
    });
    let result = async move { tool.call(call, progress).await };
    Box::pin(async move {
        let result = AssertUnwindSafe(result).catch_unwind().await.unwrap_or_else(|panic| {
            Err(ToolFailure { message: format!("it panicked: {}", words(&*panic)), harmless: false })
        });
        Finished::Tool { call: id, result: masker.given(result) }
    })
}

/// Lets time pass.
pub(super) fn pause(inner: &Arc<Inner>, ms: u64) -> Work {
    let pause = inner.surroundings.clock.pause(ms);
    Box::pin(async move {
        pause.await;
        Finished::Paused
    })
}

fn words(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("?")
}
