//! What an adapter's answers come from: its own ancestors and the model under it, in one tree, as it is shown.

use crate::{ServedAdapter, model::Described};
use narthex_base::{Digest, LineageNode};
use serde_json::{Value, json};

/// The tree of an adapter with the model under it as one more parent, in the role `base`. A model that stands in the
/// tree already is repeated without its parents, as trees of ancestors have it.
pub(crate) fn over(adapter: &dyn ServedAdapter, name: &str, base: &Described) -> Value {
    let own = adapter.provenance().lineage.as_ref();
    let mut tree = own.map_or_else(|| unknown(name), |node| json!(node));
    let under = match &base.provenance.lineage {
        None => {
            let mut node = unknown(&base.id);
            node["role"] = json!("base");
            node
        }
        Some(node) => {
            let repeated = own.is_some_and(|own| stands_in(own, node.digest));
            let parents = if repeated { vec![] } else { node.parents.clone() };
            let repeated = repeated || node.repeated;
            json!(LineageNode { role: Some("base".into()), parents, repeated, ..node.clone() })
        }
    };
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

fn stands_in(tree: &LineageNode, digest: Digest) -> bool {
    // Deep trees are the caller's to avoid: they come from a ledger that limits them.
    tree.digest == digest || tree.parents.iter().any(|node| stands_in(node, digest))
}
