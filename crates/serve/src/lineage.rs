//! What an adapter's answers come from: its own ancestors and the model under it, in one tree. Works on what callers gave as
//! JSON; knows of it only the names of the fields.

use crate::{AdapterSource, ServedModel};
use serde_json::{Value, json};

/// What a model's provenance says under a key; null if it says nothing.
pub(crate) fn known(provenance: &Value, key: &str) -> Value {
    provenance.get(key).cloned().unwrap_or_default()
}

/// The tree of an adapter with the model under it as one more parent, in the role `base`. A model that stands in the tree
/// already is repeated without its parents, as trees of ancestors have it.
pub(crate) fn over(adapter: &dyn AdapterSource, name: &str, base: &ServedModel) -> Value {
    let mut tree = known(adapter.provenance(), "lineage");
    if !tree.is_object() {
        tree = unknown(name);
    }
    let mut under = known(&base.provenance, "lineage");
    if !under.is_object() {
        under = unknown(&base.id);
    }
    under["role"] = json!("base");
    if stands_in(&tree, &under["digest"]) {
        under["repeated"] = json!(true);
        under["parents"] = json!([]);
    }
    match tree["parents"].as_array_mut() {
        Some(parents) => parents.push(under),
        None => tree["parents"] = json!([under]),
    }
    tree
}

/// A model of which nothing is known but its name.
fn unknown(name: &str) -> Value {
    json!({
        "role": null, "name": name, "kind": "model", "digest": null, "license": null, "origins": [], "components": [],
        "files": [], "parents": [], "repeated": false, "presence": "missing",
    })
}

fn stands_in(tree: &Value, digest: &Value) -> bool {
    // Deep trees are the caller's to avoid: they come from a ledger that limits them.
    let below = || tree["parents"].as_array().is_some_and(|all| all.iter().any(|node| stands_in(node, digest)));
    !digest.is_null() && (tree["digest"] == *digest || below())
}
