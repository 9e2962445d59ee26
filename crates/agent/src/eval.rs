//! Evaluations of agents: a table of tasks, each with what is expected of the run that does it. Reading, judging and
//! reporting are pure; carrying out needs a runtime and a folder. Knows no project, no terminal and no file format but
//! its own.

mod carry_out;
mod judge;
mod report;
mod seen;
mod task;

pub use carry_out::{EVALUATOR, carry_out};
pub use judge::judge;
pub use report::{Report, TaskReport};
pub use seen::Seen;
pub use task::{
    AnswerExpected, CallExpected, EvalFile, EvalModel, Expected, ScriptedAnswer, ScriptedCall, StatusExpected, Task,
    UsedLimits,
};
