//! Formats of texts that the engine takes too widely: dates that are in no calendar, leap seconds at any time of day,
//! names of hosts of any length. Knows no tokens; the engine knows the other formats.

use serde_json::{Map, Value, json};

/// Bytes of a host's name at most (RFC 1123, section 2.1: 255 with the root's label and the length of each; 253 as
/// written).
const HOSTNAME_BYTES_MAX: u64 = 253;

/// Years are from 0001: RFC 3339 has a year 0000 too, which many readers refuse.
const DATE: &str = "(?:(?:000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})-\
    (?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))|\
    (?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)-02-29)";

/// Without leap seconds, which stand only before midnight UTC, and which most readers refuse there too.
const TIME: &str =
    "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]+)?(?:[zZ]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])";

/// Puts what a format asks for into words that the engine keeps to.
pub(super) fn narrow(map: &mut Map<String, Value>) {
    let whole = match map.get("format").and_then(Value::as_str) {
        Some("date") => format!("^{DATE}$"),
        Some("time") => format!("^{TIME}$"),
        Some("date-time") => format!("^{DATE}[tT]{TIME}$"),
        Some("hostname") => {
            let most = map.get("maxLength").and_then(Value::as_u64).unwrap_or(u64::MAX);
            map.insert("maxLength".into(), json!(most.min(HOSTNAME_BYTES_MAX)));
            return;
        }
        _ => return,
    };
    map.shift_remove("format");
    if !map.contains_key("pattern") {
        map.insert("pattern".into(), json!(whole));
    } else if let Value::Array(all) = map.entry("allOf").or_insert_with(|| json!([])) {
        all.push(json!({"pattern": whole}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schema: Value, expected: Value) {
        let mut found = schema.clone();
        narrow(found.as_object_mut().unwrap());
        assert_eq!(found, expected, "{schema}");
    }

    #[test]
    fn formats_are_put_into_words() {
        let date = json!(format!("^{DATE}$"));
        for (schema, expected) in [
            (json!({"format": "email"}), json!({"format": "email"})),
            (json!({"type": "string", "format": "date"}), json!({"type": "string", "pattern": date})),
            (json!({"format": "date", "pattern": "^2"}), json!({"pattern": "^2", "allOf": [{"pattern": date}]})),
            (json!({"format": "hostname"}), json!({"format": "hostname", "maxLength": 253})),
            (json!({"format": "hostname", "maxLength": 9}), json!({"format": "hostname", "maxLength": 9})),
        ] {
            check(schema, expected);
        }
    }
}
