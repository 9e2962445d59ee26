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

/// The text and where its links lead to; none, if nothing is left. `article` is the text that the page states in its
/// data for machines.
pub(super) fn find(tree: &Tree, tables: bool, article: Option<&str>) -> Option<(String, Vec<String>)> {
    let alive = clean(tree, tables);
    let own = by_names(tree, &alive);
    let length = own.as_ref().map_or(0, Lines::length);
    let prose = by_prose(tree, &alive);
    let other = prose.length();
    let chosen = match own {
        Some(own)
            if !(other * 10
                > (if t("X15") {
                    15
                } else if t("X30") {
                    30
                } else if t("X40") {
                    40
                } else {
                    20
                }) * length
                || own.prose == 0 && other > 2 * ENOUGH) =>
        {
            own
        }
        _ => prose,
    };
    let chosen = if chosen.length() < ENOUGH && t("R") { rescue(tree, &alive, chosen) } else { chosen };
    if chosen.length() < ENOUGH
        && let Some(article) = article
        && article.len() > chosen.length()
    {
        return Some((article.to_string(), chosen.links));
    }
    let (text, links) = chosen.into_text();
    (!text.is_empty()).then_some((text, links))
}

/// Ways that keep more, for pages whose names mislead.
fn rescue(tree: &Tree, alive: &Alive, chosen: Lines) -> Lines {
    let mut best = chosen;
    if t("R1") {
        let weights = Weights::new(tree, alive);
        let lines = Lines::read(tree, alive, &prose(tree, alive, &weights), t("R1b"));
        if lines.length() > 2 * best.length() {
            best = lines;
        }
    }
    if best.length() < ENOUGH && t("R2") {
        let mut rest = alive.clone();
        prune(tree, &mut rest, 0);
        let lines = Lines::read(tree, &rest, &[0], t("R2b"));
        if lines.length() > 2 * best.length() {
            best = lines;
        }
    }
    if best.length() < ENOUGH && t("R3") {
        let mut rest = Alive::all(tree);
        for at in 1..tree.nodes.len() {
            if tree.nodes[at].tag.is_mute() || matches!(tree.nodes[at].tag, Tag::Footer | Tag::Nav | Tag::Head) {
                rest.remove(tree, at)
            }
        }
        let weights = Weights::new(tree, &rest);
        let lines = Lines::read(tree, &rest, &prose(tree, &rest, &weights), t("R3b"));
        if lines.length() > 2 * best.length() {
            best = lines;
        }
    }
    best
}

/// Temporary.
pub(super) fn t(name: &str) -> bool {
    static T: std::sync::LazyLock<Vec<String>> =
        std::sync::LazyLock::new(|| std::env::var("T").unwrap_or_default().split(',').map(str::to_string).collect());
    T.iter().any(|n| n == name)
}

/// Takes away the elements that never hold main text.
fn clean(tree: &Tree, tables: bool) -> Alive {
    let mut alive = Alive::all(tree);
    let mut at = 0;
    while at < tree.nodes.len() {
        let tag = tree.nodes[at].tag;
        let has_table = || tree.below(at).any(|below| tree.nodes[below].tag == Tag::Table);
        let goes = tag.is_mute()
            || tag.is_aside()
                && !(t("K") && matches!(tag, Tag::Label | Tag::Ins | Tag::Legend | Tag::Time))
                && !(t("KF") && matches!(tag, Tag::Fieldset | Tag::Form))
                && !(tag == Tag::Figure && tables && has_table())
            || tag == Tag::Table && !tables
            || !t("NC") && patterns::is_comments(tree, at);
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
        let bare = t("B") || (weights.of(tree, part).in_paragraphs as usize) < if t("B3") { 750 } else { ENOUGH };
        let lines = Lines::read(tree, &rest, &[part], bare);
        if lines.length()
            >= if t("E1") {
                100
            } else if t("E5") {
                400
            } else if t("E8") {
                800
            } else if t("E15") {
                1500
            } else {
                ENOUGH
            }
        {
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
    Lines::read(tree, &rest, &parts, !t("PB"))
}

/// Takes away what below a part says it is something else, unless nearly nothing were left, then what is mostly links.
fn prune(tree: &Tree, alive: &mut Alive, part: usize) {
    let before = Weights::new(tree, alive).of(tree, part).text;
    let mut rest = alive.clone();
    remove(tree, &mut rest, part, |at| !t("KH") && tree.nodes[at].tag == Tag::Header || patterns::is_aside(tree, at));
    let mut weights = Weights::new(tree, &rest);
    if weights.of(tree, part).text
        * (if t("S4") {
            4
        } else if t("S12") {
            12
        } else {
            7
        })
        > before
    {
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
            Tag::P => weight.is_links(if t("P1") { 60 } else { 200 }),
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
