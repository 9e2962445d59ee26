//! What comes to a run from outside: answers, and the order to stop.

use super::inner::Inner;
use crate::{
    agents::{AgentError, Answer},
    decide::decide,
    event::Event,
    state::Phase,
};
use futures::future::BoxFuture;
use std::sync::Arc;

impl Inner {
    /// Answers a question of a run, or of a run below it. Whichever process it comes to keeps it; of two, one wins.
    pub(super) fn answer<'a>(
        self: &'a Arc<Self>,
        tenant: &'a str,
        run: &'a str,
        question: &'a str,
        answer: Answer,
    ) -> BoxFuture<'a, Result<(), AgentError>> {
        Box::pin(async move {
            if let Some((child, inner)) = question.split_once('/') {
                let state = self.load(tenant, run).await?;
                let is_below = |call: &crate::state::CallState| matches!(&call.phase, Phase::Delegated { child: below, .. } if below == child);
                if !state.calls.iter().any(is_below) {
                    return Err(AgentError::Unknown(format!("the run asks no question `{question}`")));
                }
                let result = self.answer(tenant, child, inner, answer).await;
                if let Err(AgentError::Refused(_)) = &result {
                    // The run below may know more than this one: a process ended between the two.
                    self.report(&self.load(tenant, child).await?).await?;
                }
                return result;
            }
            let state = self
                .append_outside(tenant, run, |state| {
                    let ours = |error: narthex_base::Error| AgentError::Failed(error.to_string());
                    let agent = self.agent_of(state).map_err(ours)?;
                    let policies = self.policies(state, &agent).map_err(ours)?;
                    let judge = Self::judge(state, &agent, &policies);
                    let mut answer = answer.clone();
                    state.definition().masker().answer(&mut answer);
                    let event = decide(state, question, &answer, self.now_ms(), |call, arguments| {
                        judge.arguments(&call.id, &call.tool, arguments)
                    });
                    event.map(Some)
                })
                .await?;
            self.wake(tenant, run);
            self.report(&state).await
        })
    }

    /// Stops a run for good, and those below it.
    pub(super) fn cancel<'a>(
        self: &'a Arc<Self>,
        tenant: &'a str,
        run: &'a str,
    ) -> BoxFuture<'a, Result<(), AgentError>> {
        Box::pin(async move {
            let state = self
                .append_outside(tenant, run, |state| match state.outcome {
                    Some(_) => Err(AgentError::Ended(format!("the run {run} has ended already"))),
                    None => Ok(Some(Event::Cancelled)),
                })
                .await?;
            self.wake(tenant, run);
            for call in &state.calls {
                if let Phase::Delegated { child, .. } = &call.phase {
                    match self.cancel(tenant, child).await {
                        // It may have ended by itself, or not have begun.
                        Ok(()) | Err(AgentError::Ended(_) | AgentError::Unknown(_)) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            self.report(&state).await
        })
    }
}
