//! The tables of a project file that are about agents, as a JSON schema. Knows their types, reads nothing.

use narthex_a2a::RemoteSettings;
use narthex_agent::AgentDefinition;
use narthex_mcp::McpSettings;
use narthex_tools::{endpoint::Endpoint, settings::ToolSettings};
use schemars::JsonSchema;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The tables.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is wanted")]
struct Tables {
    /// Agents by name.
    agents: BTreeMap<String, AgentDefinition>,
    /// Models behind somebody's OpenAI-compatible API, by the name that agents give.
    models: BTreeMap<String, Endpoint>,
    /// What agents may call, by name.
    tools: BTreeMap<String, ToolSettings>,
    /// Servers of tools that speak MCP, by name: their tools are `NAME.TOOL`.
    mcp: BTreeMap<String, McpSettings>,
    /// Agents of others, reached over A2A, by name: each is a tool of this name.
    remotes: BTreeMap<String, RemoteSettings>,
}

/// Adds them to the schema of a project file.
pub fn add_to(schema: &mut Value) {
    let tables = serde_json::to_value(schemars::schema_for!(Tables)).expect("a schema is JSON");
    for part in ["properties", "$defs"] {
        let theirs = tables[part].as_object().cloned().unwrap_or_default();
        match schema[part].as_object_mut() {
            Some(ours) => ours.extend(theirs),
            None => schema[part] = Value::Object(Map::from_iter(theirs)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use narthex_base::{Plan, plan::GUESTS};

    #[test]
    fn every_table_of_a_guest_is_described() {
        let mut schema = Plan::schema();
        let own = schema["properties"].as_object().map_or(0, Map::len);
        add_to(&mut schema);
        assert!(GUESTS.iter().all(|table| schema["properties"][*table].is_object()));
        assert_eq!(schema["properties"].as_object().map_or(0, Map::len), own + GUESTS.len());
        let text = schema.to_string();
        let references = text.split("\"#/$defs/").skip(1).filter_map(|rest| rest.split('"').next());
        assert!(references.into_iter().all(|name| schema["$defs"][name].is_object()));
    }
}
