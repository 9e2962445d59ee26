//! Which part of a page is its main text: the part that says so, if it holds enough, without what says it is something
//! else and what is mostly links; else the part with the most prose; else all paragraphs.

use super::{
    blocks::Lines,
    patterns,
    tags::Tag,
    tree::Tree,
    weigh::{Alive, Weights, prose},
};

/// Characters below which another way is tried.
const ENOUGH: usize = 250;
/// Characters with which a part that names itself the main text is believed.
const BELIEVED: usize = 400;

/// The text and where its links lead to; none, if nothing is left. `article` is the text that the page states in its
/// data for machines.
pub(super) fn find(tree: &Tree, tables: bool, article: Option<&str>) -> Option<(String, Vec<String>)> {
    let alive = clean(tree, tables);
    let own = by_names(tree, &alive);
    let length = own.as_ref().map_or(0, Lines::length);
    let prose = by_prose(tree, &alive);
    let other = prose.length();
    let chosen = match own {
        Some(own) if !(other > 3 * length || own.prose == 0 && other > 2 * ENOUGH) => own,
        _ => prose,
    };
    let chosen = if chosen.length() < ENOUGH { rescue(tree, &alive, chosen) } else { chosen };
    if chosen.length() < ENOUGH
        && let Some(article) = article
        && article.len() > chosen.length()
    {
        return Some((article.to_string(), chosen.links));
    }
    let (text, links) = chosen.into_text();
    (!text.is_empty()).then_some((text, links))
}

/// Ways that keep more, for pages whose names mislead: what names itself something else stays, then also forms, figures
/// and the like. Only if it is more than twice as much is it likely that something was lost.
fn rescue(tree: &Tree, alive: &Alive, mut best: Lines) -> Lines {
    let mut all = Alive::all(tree);
    remove(tree, &mut all, 0, |at| {
        let tag = tree.nodes[at].tag;
        tag.is_mute() || matches!(tag, Tag::Footer | Tag::Nav | Tag::Head)
    });
    for alive in [alive, &all] {
        if best.length() < ENOUGH {
            let lines = Lines::read(tree, alive, &prose(tree, alive, &Weights::new(tree, alive)), false);
            if lines.length() > 2 * best.length() {
                best = lines;
            }
        }
    }
    best
}

/// Takes away the elements that never hold main text.
fn clean(tree: &Tree, tables: bool) -> Alive {
    let mut alive = Alive::all(tree);
    let mut at = 0;
    while at < tree.nodes.len() {
        let tag = tree.nodes[at].tag;
        let has_table = || tree.below(at).any(|below| tree.nodes[below].tag == Tag::Table);
        let goes = tag.is_mute()
            || tag.is_aside() && !(tag == Tag::Figure && tables && has_table())
            || tag == Tag::Table && !tables
            || patterns::is_comments(tree, at);
        if goes {
            alive.remove(tree, at);
            at = tree.nodes[at].end as usize;
        } else {
            at += 1;
        }
    }
    alive
}

/// The first part that says it is the main text and holds some.
fn by_names(tree: &Tree, alive: &Alive) -> Option<Lines> {
    let mut best: Option<Lines> = None;
    for attempt in 0..patterns::BODY_TRIES {
        let found = (1..tree.nodes.len()).find(|at| alive.has(*at) && patterns::is_body(tree, *at, attempt));
        let Some(part) = found else { continue };
        let mut rest = alive.clone();
        prune(tree, &mut rest, part);
        let weights = Weights::new(tree, &rest);
        let bare = (weights.of(tree, part).in_paragraphs as usize) < ENOUGH;
        let lines = Lines::read(tree, &rest, &[part], bare);
        if lines.length() >= BELIEVED {
            return Some(lines);
        }
        if best.as_ref().is_none_or(|best| best.length() < lines.length()) {
            best = Some(lines);
        }
    }
    best
}

fn by_prose(tree: &Tree, alive: &Alive) -> Lines {
    let mut rest = alive.clone();
    prune(tree, &mut rest, 0);
    let weights = Weights::new(tree, &rest);
    let parts = prose(tree, &rest, &weights);
    Lines::read(tree, &rest, &parts, true)
}

/// Takes away what below a part says it is something else, unless nearly nothing were left, then what is mostly links.
fn prune(tree: &Tree, alive: &mut Alive, part: usize) {
    let before = Weights::new(tree, alive).of(tree, part).text;
    let mut rest = alive.clone();
    remove(tree, &mut rest, part, |at| patterns::is_aside(tree, at));
    let mut weights = Weights::new(tree, &rest);
    if weights.of(tree, part).text * 7 > before {
        *alive = rest;
    } else {
        weights = Weights::new(tree, alive);
    }
    let is_last = |at: usize| {
        let mut next = tree.nodes[at].end as usize;
        let end = tree.nodes[tree.parent(at)].end as usize;
        while next < end && tree.nodes[next].tag == Tag::Text {
            next += 1;
        }
        next >= end
    };
    remove(tree, alive, part, |at| {
        let tag = tree.nodes[at].tag;
        let weight = weights.of(tree, at);
        match tag {
            Tag::Div | Tag::Blockquote => weight.is_links(if is_last(at) { 300 } else { 100 }),
            Tag::P => weight.is_links(200),
            _ if tag.is_list() => weight.is_links(if is_last(at) { 300 } else { 100 }),
            _ if tag.is_heading() => weight.is_links(if is_last(at) { 300 } else { 100 }),
            Tag::Table => {
                let (text, links) = (u64::from(weight.text), u64::from(weight.in_links));
                text > 250 && if text < 1000 { links * 5 > text * 4 } else { links * 2 > text }
            }
            _ => false,
        }
    });
}

/// Takes away the outermost nodes below a part for which `goes` holds.
fn remove(tree: &Tree, alive: &mut Alive, part: usize, goes: impl Fn(usize) -> bool) {
    let below = tree.below(part);
    let mut at = below.start;
    while at < below.end {
        if alive.has(at) && !goes(at) {
            at += 1;
            continue;
        }
        alive.remove(tree, at);
        at = tree.nodes[at].end as usize;
    }
}
