//! What came of an evaluation: for a program, for a person, and as JUnit's XML, which build servers read. Pure.

use super::seen::Seen;
use narthex_base::chat::Message;
use serde::{Deserialize, Serialize};

/// An evaluation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Tasks that passed, each time counted.
    pub passed: usize,
    /// Tasks that did not.
    pub failed: usize,
    /// Tokens of all prompts.
    pub tokens_in: u64,
    /// Tokens of all answers.
    pub tokens_out: u64,
    /// The tasks, in the order of the file.
    pub tasks: Vec<TaskReport>,
}

/// A task that was done once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskReport {
    /// Its name.
    pub id: String,
    /// The agent.
    pub agent: String,
    /// Which time it is, counted from 1.
    pub time: u32,
    /// The seed, where one was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Whether all was as expected.
    pub passed: bool,
    /// The first thing that was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Requests to models.
    pub model_calls: u32,
    /// Calls that were asked for.
    pub tool_calls: u32,
    /// Tokens of prompts.
    pub tokens_in: u64,
    /// Tokens of answers.
    pub tokens_out: u64,
    /// What was said.
    pub messages: Vec<Message>,
}

impl TaskReport {
    /// With what is seen of its run; nothing where it could not be begun.
    pub fn new(
        id: &str,
        agent: &str,
        time: u32,
        seed: Option<u64>,
        seen: Option<Seen>,
        verdict: Result<(), String>,
    ) -> Self {
        let (model_calls, tool_calls) = seen.as_ref().map_or((0, 0), |seen| (seen.model_calls, seen.tool_calls));
        let (tokens_in, tokens_out) = seen.as_ref().map_or((0, 0), |seen| (seen.tokens_in, seen.tokens_out));
        Self {
            id: id.to_string(),
            agent: agent.to_string(),
            time,
            seed,
            passed: verdict.is_ok(),
            reason: verdict.err(),
            model_calls,
            tool_calls,
            tokens_in,
            tokens_out,
            messages: seen.map(|seen| seen.messages).unwrap_or_default(),
        }
    }
}

impl Report {
    /// Adds a task.
    pub fn add(&mut self, task: TaskReport) {
        *(if task.passed { &mut self.passed } else { &mut self.failed }) += 1;
        self.tokens_in += task.tokens_in;
        self.tokens_out += task.tokens_out;
        self.tasks.push(task);
    }

    /// As JUnit's XML, under the name of the file.
    pub fn junit(&self, name: &str) -> String {
        let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        let (tests, failures) = (self.tasks.len(), self.failed);
        let name = escaped(name);
        xml += &format!("<testsuites name=\"{name}\" tests=\"{tests}\" failures=\"{failures}\">\n");
        xml += &format!("  <testsuite name=\"{name}\" tests=\"{tests}\" failures=\"{failures}\" errors=\"0\">\n");
        for task in &self.tasks {
            let (id, agent) = (escaped(&task.id), escaped(&task.agent));
            let time = if task.time > 1 { format!(" ({})", task.time) } else { String::new() };
            match &task.reason {
                None => xml += &format!("    <testcase classname=\"{agent}\" name=\"{id}{time}\"/>\n"),
                Some(reason) => {
                    let reason = escaped(reason);
                    xml += &format!("    <testcase classname=\"{agent}\" name=\"{id}{time}\">\n");
                    xml += &format!("      <failure message=\"{reason}\">{reason}</failure>\n    </testcase>\n");
                }
            }
        }
        xml + "  </testsuite>\n</testsuites>\n"
    }
}

/// A text within XML: what XML cannot hold at all is left out.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push_str("&#10;"),
            '\t' => escaped.push_str("&#9;"),
            c if c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}') => {}
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_up_and_written() {
        let mut report = Report::default();
        report.add(TaskReport::new("a<b>", "clerk", 1, None, None, Ok(())));
        let failed = TaskReport::new("c", "clerk", 2, Some(7), None, Err("it said \"x\" & \u{1}\nno".into()));
        report.add(TaskReport { tokens_in: 3, tokens_out: 4, ..failed });
        assert_eq!((report.passed, report.failed, report.tokens_in, report.tokens_out), (1, 1, 3, 4));
        let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
            <testsuites name=\"t.toml\" tests=\"2\" failures=\"1\">\n  \
            <testsuite name=\"t.toml\" tests=\"2\" failures=\"1\" errors=\"0\">\n    \
            <testcase classname=\"clerk\" name=\"a&lt;b&gt;\"/>\n    \
            <testcase classname=\"clerk\" name=\"c (2)\">\n      \
            <failure message=\"it said &quot;x&quot; &amp; &#10;no\">it said &quot;x&quot; &amp; &#10;no</failure>\n    \
            </testcase>\n  </testsuite>\n</testsuites>\n";
        assert_eq!(report.junit("t.toml"), expected);
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    }
}
