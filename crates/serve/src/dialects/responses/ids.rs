//! Names of a response and of its items, all made from one seed, so that an item's name tells whose it is. Draws no
//! random numbers: the seed is handed in.

/// Gives names to one response and its items.
#[derive(Debug, Clone)]
pub(super) struct Ids(String);

impl Ids {
    pub fn new(seed: impl Into<String>) -> Self {
        Self(seed.into())
    }

    pub fn response(&self) -> String {
        format!("resp_{}", self.0)
    }

    /// Items are counted through: first what was given, then what was answered.
    pub fn item(&self, kind: &str, index: usize) -> String {
        format!("{}_{}_{index}", prefix(kind), self.0)
    }

    /// For a call that came without a name.
    pub fn call(&self, index: usize) -> String {
        format!("call_{}_{index}", self.0)
    }
}

/// The response which an item of ours is part of.
pub(super) fn response_of(item: &str) -> Option<String> {
    let (_, rest) = item.split_once('_')?;
    let (seed, index) = rest.rsplit_once('_')?;
    index.parse::<usize>().ok().map(|_| Ids::new(seed).response())
}

fn prefix(kind: &str) -> &'static str {
    match kind {
        "reasoning" => "rs",
        "function_call" => "fc",
        "function_call_output" => "fco",
        _ => "msg",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_tells_whose_it_is() {
        let ids = Ids::new("a_b");
        for (kind, expected) in [
            ("message", "msg_a_b_7"),
            ("reasoning", "rs_a_b_7"),
            ("function_call", "fc_a_b_7"),
            ("function_call_output", "fco_a_b_7"),
        ] {
            assert_eq!(ids.item(kind, 7), expected);
            assert_eq!(response_of(expected), Some(ids.response()));
        }
        for foreign in ["", "msg", "msg_abc", "msg_abc_", "msg_abc_x", "msg_abc_-1"] {
            assert_eq!(response_of(foreign), None, "{foreign}");
        }
    }
}
