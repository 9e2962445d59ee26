//! The lineage of an artifact as one HTML page with a drawing: it loads nothing and runs nothing.

use narthex_base::{ArtifactKind, Digest, LineageNode, Presence};
use std::{collections::BTreeMap, fmt::Write};

/// A box of the drawing, in CSS pixels.
const BOX: (usize, usize) = (208, 62);
/// The space between boxes.
const GAP: (usize, usize) = (56, 18);

struct Placed<'a> {
    node: &'a LineageNode,
    column: usize,
    row: usize,
}

/// The page. `title` is the artifact's name; `class` is what the Model Openness Framework says of it.
pub fn lineage_html(title: &str, class: &str, top: &LineageNode) -> String {
    let mut columns: BTreeMap<Digest, (usize, &LineageNode)> = BTreeMap::new();
    depths(top, 0, &mut columns);
    // Raw files stand on the left and the artifact on the right: the deepest column first.
    let deepest = columns.values().map(|(depth, _)| *depth).max().unwrap_or(0);
    let mut rows = vec![0; deepest + 1];
    let mut placed: BTreeMap<Digest, Placed> = BTreeMap::new();
    let mut order: Vec<(&Digest, &(usize, &LineageNode))> = columns.iter().collect();
    order.sort_by_key(|(digest, (depth, node))| (*depth, node.name.clone(), **digest));
    for (digest, (depth, node)) in order {
        placed.insert(*digest, Placed { node, column: deepest - depth, row: rows[*depth] });
        rows[*depth] += 1;
    }
    let width = (deepest + 1) * (BOX.0 + GAP.0) + GAP.0;
    let height = rows.iter().max().unwrap_or(&1) * (BOX.1 + GAP.1) + GAP.1;
    let mut edges = String::new();
    let mut seen = Vec::new();
    draw_edges(top, &placed, &mut seen, &mut edges);
    let boxes: String = placed.values().map(draw_box).collect();
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}: lineage</title>\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<style>{STYLE}</style></head>\n<body>\n\
         <h1>{title}</h1>\n<p>{}</p>\n<div class=\"sheet\"><svg viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\" \
         aria-label=\"What {title} was made from\">\n{edges}{boxes}</svg></div>\n{}</body></html>\n",
        escape(class),
        table(&placed)
    )
}

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;margin:2rem;color:#1c1b19;background:#fbfaf7}\
h1{font-size:1.4rem;margin:0}.sheet{overflow-x:auto;margin:1.2rem 0}svg text{font:12px system-ui,sans-serif;fill:currentColor}\
svg .name{font-weight:600;font-size:13px}svg .dim{fill:#6b6860}svg rect{fill:#fff;stroke:#b9b4a6}svg .source rect{fill:#eef4e8}\
svg .model rect,svg .bundle rect{fill:#fdf1d8}svg .undeclared rect{stroke:#b3261e;stroke-width:2}\
svg path{fill:none;stroke:#a39d8d;stroke-width:1.4}table{border-collapse:collapse}td,th{text-align:left;vertical-align:top;\
padding:.25rem .9rem .25rem 0;border-bottom:1px solid #e4dfd2}code{font-size:12px}\
@media(prefers-color-scheme:dark){body{background:#191816;color:#ece8df}svg rect{fill:#25231f;stroke:#5b564a}\
svg .source rect{fill:#22301d}svg .model rect,svg .bundle rect{fill:#3a2f16}td,th{border-color:#3a372f}svg .dim{fill:#a39d8d}}";

/// Each artifact once, at its greatest distance from the top.
fn depths<'a>(node: &'a LineageNode, depth: usize, found: &mut BTreeMap<Digest, (usize, &'a LineageNode)>) {
    let entry = found.entry(node.digest).or_insert((depth, node));
    entry.0 = entry.0.max(depth);
    if !node.repeated {
        entry.1 = node;
    }
    for parent in &node.parents {
        depths(parent, depth + 1, found);
    }
}

fn draw_edges(
    node: &LineageNode,
    placed: &BTreeMap<Digest, Placed>,
    seen: &mut Vec<(Digest, Digest)>,
    text: &mut String,
) {
    for parent in &node.parents {
        let edge = (parent.digest, node.digest);
        if !seen.contains(&edge)
            && let (Some(from), Some(to)) = (placed.get(&parent.digest), placed.get(&node.digest))
        {
            seen.push(edge);
            let ((x, y), (left, top)) = (corner(from), corner(to));
            let (x, y, top) = (x + BOX.0, y + BOX.1 / 2, top + BOX.1 / 2);
            let middle = (x + left) / 2;
            let role = escape(parent.role.as_deref().unwrap_or_default());
            let _ = writeln!(
                text,
                "<path d=\"M{x} {y}C{middle} {y} {middle} {top} {left} {top}\"><title>{role}</title></path>"
            );
        }
        draw_edges(parent, placed, seen, text);
    }
}

fn corner(placed: &Placed) -> (usize, usize) {
    (GAP.0 / 2 + placed.column * (BOX.0 + GAP.0), GAP.1 + placed.row * (BOX.1 + GAP.1))
}

fn draw_box(placed: &Placed) -> String {
    let node = placed.node;
    let (x, y) = corner(placed);
    let undeclared = if is_undeclared(node) { " undeclared" } else { "" };
    let kind = node.kind;
    format!(
        "<g class=\"{kind}{undeclared}\"><title>{}</title><rect x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{}\" rx=\"6\"/>\
         <text class=\"name\" x=\"{tx}\" y=\"{}\">{}</text><text class=\"dim\" x=\"{tx}\" y=\"{}\">{kind} {}</text>\
         <text x=\"{tx}\" y=\"{}\">{}</text></g>\n",
        node.digest,
        BOX.0,
        BOX.1,
        y + 19,
        escape(&short(&node.name)),
        y + 36,
        node.digest.short(),
        y + 53,
        escape(&short(&license(node))),
        tx = x + 10,
    )
}

fn is_undeclared(node: &LineageNode) -> bool {
    node.license.is_none() && node.presence != Presence::Missing
}

fn license(node: &LineageNode) -> String {
    node.license.as_ref().map_or_else(|| "undeclared".into(), |license| license.to_string())
}

/// What fits into a box.
fn short(text: &str) -> String {
    const FITS: usize = 28;
    if text.chars().count() <= FITS { text.into() } else { text.chars().take(FITS - 1).chain(['…']).collect() }
}

/// Every artifact with its licence, origin and files in full.
fn table(placed: &BTreeMap<Digest, Placed>) -> String {
    let mut nodes: Vec<&Placed> = placed.values().collect();
    nodes.sort_by_key(|placed| (std::cmp::Reverse(placed.column), placed.row));
    let mut text = String::from(
        "<table><thead><tr><th>artifact</th><th>kind</th><th>licence</th><th>origin</th><th>digest</th></tr></thead><tbody>\n",
    );
    for Placed { node, .. } in nodes {
        let mut origins = node.origins.clone();
        origins.extend(node.declared.iter().map(ToString::to_string));
        let mut origin = origins.join("; ");
        if node.kind == ArtifactKind::Source {
            for file in &node.files {
                let _ = write!(origin, " [{}, {} bytes, blake3 {}]", file.path, file.bytes, file.digest.short());
            }
        }
        let _ = writeln!(
            text,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td><code>{}</code></td></tr>",
            escape(&node.name),
            node.kind,
            escape(&license(node)),
            escape(&origin),
            node.digest
        );
    }
    text + "</tbody></table>\n"
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, kind: ArtifactKind, parents: Vec<LineageNode>) -> LineageNode {
        LineageNode {
            role: Some("from".into()),
            name: name.into(),
            kind,
            digest: Digest::of(name.as_bytes()),
            license: None,
            origins: vec!["<here> & there".into()],
            components: vec![],
            declared: vec![],
            files: vec![],
            parents,
            repeated: false,
            presence: Presence::Complete,
        }
    }

    #[test]
    fn each_artifact_and_edge_once_and_nothing_unescaped() {
        let source = node("plays", ArtifactKind::Source, vec![]);
        let again = LineageNode { repeated: true, ..node("plays", ArtifactKind::Source, vec![]) };
        let base = node("base", ArtifactKind::Model, vec![source]);
        let top = node("a<b>", ArtifactKind::Bundle, vec![base, again]);
        let page = lineage_html("a<b>", "Class III & more", &top);
        assert_eq!(page.matches("<rect").count(), 3);
        assert_eq!(page.matches("<path").count(), 3);
        assert!(page.contains("a&lt;b&gt;") && !page.contains("a<b>") && page.contains("&lt;here&gt; &amp; there"));
        assert!(page.contains("Class III &amp; more") && page.contains("class=\"source undeclared\""));
        assert!(!page.contains("<script") && !page.contains("http"));
    }
}
