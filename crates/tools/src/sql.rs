//! `kind = "sql"`: questions to tables, in SQL. The seam alone: whoever holds the tables answers, and lets nothing
//! through that is more than reading.

use crate::{
    bounds::{RESULT_BYTES_MAX, cut},
    described::{Described, Outcome, refused, string, within},
};
use futures::future::BoxFuture;
use narthex_agent::{Effect, Tool, ToolResult};
use narthex_base::Error;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::{sync::Arc, time::Duration};

/// Characters of a statement.
const STATEMENT_CHARS_MAX: usize = 20_000;
/// Rows that a setting may allow.
const ROWS_MAX: usize = 10_000;
/// Milliseconds that a setting may allow.
const WALL_MS_MAX: u64 = 600_000;
/// Tables that a setting may name.
const TABLES_MAX: usize = 256;

/// Answers statements over tables that it holds.
pub trait Query: Send + Sync {
    /// The rows that a statement gives, as a table of Markdown or rows of JSON: `rows_max` at most, and a word about it
    /// if there are more. Refuses whatever is not one statement that only reads, for the model to read. Dropping the
    /// future ends the work.
    fn query(&self, sql: &str, rows_max: usize) -> BoxFuture<'static, Result<String, String>>;
}

/// `[tools.NAME]` with `kind = "sql"`: questions to tables. They can be read and not changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SqlTool {
    /// The tables: names of sources and steps of this file.
    #[schemars(length(min = 1), extend("x-hint" = "name a source, such as `orders`"))]
    pub tables: Vec<String>,
    /// What stands in them, for the model.
    #[serde(default)]
    pub description: String,
    /// Rows that a result has at most.
    #[serde(default = "rows_max")]
    #[schemars(range(min = 1, max = 10_000))]
    pub rows_max: usize,
    /// Bytes of text that a result has at most.
    #[serde(default = "result_bytes_max")]
    #[schemars(range(min = 100, max = 1_048_576))]
    pub result_bytes_max: usize,
    /// Milliseconds that a call may take.
    #[serde(default = "wall_ms")]
    #[schemars(range(min = 1, max = 600_000))]
    pub wall_ms: u64,
}

fn rows_max() -> usize {
    100
}

fn result_bytes_max() -> usize {
    20_000
}

fn wall_ms() -> u64 {
    30_000
}

/// The tool that asks tables. `columns` says what they are, for the model: a line for each table.
///
/// # Errors
/// If no table is named, or a number is out of bounds.
pub fn sql(name: &str, settings: &SqlTool, columns: &str, query: Arc<dyn Query>) -> Result<Vec<Arc<dyn Tool>>, Error> {
    if settings.tables.is_empty() || settings.tables.len() > TABLES_MAX {
        return Err(Error::input(format!("the tool `{name}` has {} tables", settings.tables.len()))
            .help(format!("name 1 to {TABLES_MAX}: `tables = [\"orders\"]`")));
    }
    let asking = Arc::new(Asking {
        rows_max: within(name, "rows_max", settings.rows_max, 1..=ROWS_MAX)?,
        result_bytes_max: within(name, "result_bytes_max", settings.result_bytes_max, 100..=RESULT_BYTES_MAX)?,
        wall_ms: within(name, "wall_ms", settings.wall_ms, 1..=WALL_MS_MAX)?,
        query,
    });
    let told = [settings.description.trim(), "Answers one SELECT statement over these tables:", columns.trim()];
    let told = told.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n");
    let description = cut(told, RESULT_BYTES_MAX / 16, "");
    let schema = json!({
        "type": "object",
        "properties": {"sql": {"type": "string", "description": "One SELECT statement"}},
        "required": ["sql"],
        "additionalProperties": false
    });
    let tool = Described::tool(name, description, schema, Effect::Reads, move |call| {
        let asking = asking.clone();
        Box::pin(async move { asking.ask(&call.arguments).await })
    })?;
    Ok(vec![tool])
}

struct Asking {
    query: Arc<dyn Query>,
    rows_max: usize,
    result_bytes_max: usize,
    wall_ms: u64,
}

impl Asking {
    async fn ask(&self, arguments: &Map<String, Value>) -> Outcome {
        let statement = string(arguments, "sql")?;
        if statement.chars().count() > STATEMENT_CHARS_MAX {
            return Err(refused(format!("`sql` has more than {STATEMENT_CHARS_MAX} characters")));
        }
        let answer = self.query.query(statement, self.rows_max);
        let Ok(answer) = tokio::time::timeout(Duration::from_millis(self.wall_ms), answer).await else {
            return Err(refused(format!("no answer within {} ms: ask for less, or add conditions", self.wall_ms)));
        };
        let advice = "choose fewer columns, add conditions or a LIMIT";
        Ok(match answer {
            Ok(rows) => ToolResult::text(cut(rows, self.result_bytes_max, advice)),
            Err(why) => ToolResult::error(cut(why, self.result_bytes_max, "")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use narthex_agent::{Call, Content};

    /// Answers with the statement and the limit, or as the statement says.
    struct Echo;

    impl Query for Echo {
        fn query(&self, sql: &str, rows_max: usize) -> BoxFuture<'static, Result<String, String>> {
            let sql = sql.to_string();
            Box::pin(async move {
                match sql.as_str() {
                    "never" => std::future::pending().await,
                    "drop table t" => Err("only SELECT is answered".into()),
                    "long" => Ok("x".repeat(1000)),
                    _ => Ok(format!("{sql} {rows_max}")),
                }
            })
        }
    }

    fn settings(more: &str) -> SqlTool {
        toml::from_str(&format!("tables = [\"t\"]\nresult_bytes_max = 100\nwall_ms = 50\n{more}")).unwrap()
    }

    #[tokio::test]
    async fn statements_are_bounded() {
        let tool = sql("ask", &settings("rows_max = 7"), "t(a INTEGER)", Arc::new(Echo)).unwrap().remove(0);
        assert_eq!(tool.definition().effect, Effect::Reads);
        assert!(tool.definition().description.contains("t(a INTEGER)"));
        for (arguments, expected) in [
            (json!({"sql": "select 1"}), Ok((false, "select 1 7"))),
            (json!({"sql": "drop table t"}), Ok((true, "only SELECT"))),
            (json!({"sql": "long"}), Ok((false, "[cut: 900 bytes more; choose fewer columns"))),
            (json!({"sql": "never"}), Err("within 50 ms")),
            (json!({"sql": "x".repeat(20_001)}), Err("characters")),
            (json!({}), Err("`sql` must be given")),
        ] {
            let shown: String = arguments.to_string().chars().take(60).collect();
            let call = Call {
                id: "1".into(),
                run: "1".into(),
                tenant: "t".into(),
                arguments: arguments.as_object().unwrap().clone(),
            };
            match (tool.call(call, Arc::new(|_, _, _| {})).await, expected) {
                (Ok(result), Ok((is_error, part))) => {
                    let [Content::Text { text }] = &result.content[..] else { panic!("one text: {result:?}") };
                    assert!(result.is_error == is_error && text.contains(part), "{shown}: {result:?}");
                }
                (Err(failure), Err(part)) => assert!(failure.harmless && failure.message.contains(part), "{shown}"),
                (outcome, _) => panic!("{shown}: {outcome:?}"),
            }
        }
    }

    #[test]
    fn settings_are_checked() {
        for (settings, part) in [
            (SqlTool { tables: vec![], ..settings("") }, "has 0 tables"),
            (SqlTool { rows_max: 0, ..settings("") }, "`rows_max`"),
            (SqlTool { wall_ms: 0, ..settings("") }, "`wall_ms`"),
        ] {
            assert!(sql("ask", &settings, "", Arc::new(Echo)).err().unwrap().to_string().contains(part), "{part}");
        }
        assert!(toml::from_str::<SqlTool>("tables = [\"t\"]\ntable = 1").is_err());
    }
}
