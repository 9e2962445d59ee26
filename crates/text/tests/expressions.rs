//! Expressions of chat templates, held against Jinja2 with transformers' settings (`xtask/goldens/templates.py`).

use narthex_base::Message;
use narthex_text::ChatTemplate;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Golden {
    messages: Vec<Message>,
    tools: Vec<Value>,
    /// The expression, and its text; none where Jinja2 refuses it.
    cases: Vec<(String, Option<String>)>,
}

/// Expressions that Jinja2 takes and that are refused here, loudly: numbers taken for lists, the absolute value of a
/// truth value, and the tolerance of `truncate` without its name.
const REFUSED: usize = 6;

#[test]
fn expressions_are_those_of_jinja2_or_refused() {
    let golden: Golden = serde_json::from_str(include_str!("golden/expressions.json")).unwrap();
    let (mut wrong, mut refused) = (Vec::new(), Vec::new());
    for (expression, expected) in &golden.cases {
        let Some(expected) = expected else { continue };
        let found = ChatTemplate::new(&format!("{{{{ {expression} }}}}"), None, None)
            .and_then(|template| template.render_with_tools(&golden.messages, &golden.tools, false));
        match found {
            Ok(text) if text == *expected => {}
            Ok(text) => wrong.push(format!("{expression}: {text:?}, not {expected:?}")),
            Err(error) => refused.push(format!("{expression}: {}", error.causes().join(": "))),
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), golden.cases.len(), wrong.join("\n"));
    assert_eq!(refused.len(), REFUSED, "refused:\n{}", refused.join("\n"));
}
