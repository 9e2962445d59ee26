//! How much text there is in parts of a page, and how much of it in links; and what part has the most prose. All sums
//! are running sums over the nodes in their order, so any part's sum is one subtraction.

use super::{patterns, tags::Tag, tree::Tree};

/// Links shorter than this look like those of a menu.
const SHORT_LINK: u32 = 50;
/// A paragraph shorter than this says nothing of where the prose is.
const SHORT_PARAGRAPH: u32 = 25;

/// Which nodes are still there.
#[derive(Clone)]
pub(super) struct Alive(Vec<bool>);

impl Alive {
    pub(super) fn all(tree: &Tree) -> Self {
        Self(vec![true; tree.nodes.len()])
    }

    pub(super) fn has(&self, node: usize) -> bool {
        self.0[node]
    }

    /// Takes a node away with all below it.
    pub(super) fn remove(&mut self, tree: &Tree, node: usize) {
        self.0[node..tree.nodes[node].end as usize].fill(false);
    }
}

/// What a part of a page holds. Lengths are in characters, with runs of white space as one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weight {
    pub text: u32,
    pub in_links: u32,
    pub links: u32,
    pub short_links: u32,
    pub in_paragraphs: u32,
    pub commas: u32,
}

/// The running sums.
pub(super) struct Weights(Vec<Weight>);

/// Characters with runs of white space as one, and commas.
fn measure(text: &str) -> (u32, u32) {
    let (mut length, mut commas, mut space) = (0, 0, true);
    for character in text.chars() {
        let white = character.is_whitespace();
        length += u32::from(!white || !space);
        commas += u32::from(matches!(character, ',' | '，' | '、' | '،'));
        space = white;
    }
    (length - u32::from(space && length > 0), commas)
}

impl Weights {
    pub(super) fn new(tree: &Tree, alive: &Alive) -> Self {
        let mut sums = Vec::with_capacity(tree.nodes.len() + 1);
        let mut sum = Weight::default();
        let (mut link_end, mut paragraph_end) = (0, 0);
        // The link that the walk is in, and the length of the text before it.
        let mut open: Option<u32> = None;
        for at in 0..tree.nodes.len() {
            let node = &tree.nodes[at];
            if at >= link_end
                && let Some(before) = open.take()
            {
                sum.short_links += u32::from(sum.text - before < SHORT_LINK && sum.text > before);
                sum.links += u32::from(sum.text > before);
            }
            sums.push(sum);
            if !alive.has(at) {
                continue;
            }
            match node.tag {
                Tag::A => {
                    link_end = link_end.max(node.end as usize);
                    open = open.or(Some(sum.text));
                }
                Tag::P => paragraph_end = paragraph_end.max(node.end as usize),
                Tag::Text => {
                    let (length, commas) = measure(tree.text(at));
                    sum.text += length;
                    sum.commas += commas;
                    sum.in_links += if at < link_end { length } else { 0 };
                    sum.in_paragraphs += if at < paragraph_end { length } else { 0 };
                }
                _ => (),
            }
        }
        if let Some(before) = open {
            sum.links += 1;
            sum.short_links += u32::from(sum.text - before < SHORT_LINK);
        }
        sums.push(sum);
        Self(sums)
    }

    /// What a node and all below it hold.
    pub(super) fn of(&self, tree: &Tree, node: usize) -> Weight {
        let (from, to) = (self.0[node], self.0[tree.nodes[node].end as usize]);
        Weight {
            text: to.text - from.text,
            in_links: to.in_links - from.in_links,
            links: to.links - from.links,
            short_links: to.short_links - from.short_links,
            in_paragraphs: to.in_paragraphs - from.in_paragraphs,
            commas: to.commas - from.commas,
        }
    }
}

impl Weight {
    /// Whether a part is mostly links, if it is shorter than `limit`.
    pub(super) fn is_links(&self, limit: u32) -> bool {
        self.text < limit
            && self.in_links > 0
            && (self.in_links * 5 > self.text * 4 || (self.links > 1 && self.short_links * 5 > self.links * 4))
    }

    fn link_density(&self) -> f32 {
        self.in_links as f32 / self.text.max(1) as f32
    }
}

/// The parts that hold the prose of a page by the way of readability: each paragraph speaks for the element around it
/// and half for the one around that; the best and what beside it is nearly as good are the text.
pub(super) fn prose(tree: &Tree, alive: &Alive, weights: &Weights) -> Vec<usize> {
    let mut scores: Vec<Option<f32>> = vec![None; tree.nodes.len()];
    let start = |node: usize| {
        let base = match tree.nodes[node].tag {
            Tag::Div | Tag::Article => 5.0,
            Tag::Pre | Tag::Td | Tag::Blockquote => 3.0,
            Tag::Ol | Tag::Ul | Tag::Dl | Tag::Dd | Tag::Dt | Tag::Li | Tag::Form | Tag::Address | Tag::Aside => -3.0,
            Tag::Th | Tag::Header | Tag::Footer | Tag::Nav => -5.0,
            tag if tag.is_heading() => -5.0,
            _ => 0.0,
        };
        base + patterns::weight(tree, node)
    };
    for at in 1..tree.nodes.len() {
        let tag = tree.nodes[at].tag;
        let is_leaf = |at: usize| tree.below(at).all(|below| !tree.nodes[below].tag.is_block());
        if !alive.has(at) || !(matches!(tag, Tag::P | Tag::Pre | Tag::Td) || tag == Tag::Div && is_leaf(at)) {
            continue;
        }
        let weight = weights.of(tree, at);
        if weight.text < SHORT_PARAGRAPH {
            continue;
        }
        let score = 1.0 + weight.commas as f32 + (weight.text as f32 / 100.0).min(3.0);
        let parent = tree.parent(at);
        for (node, share) in [(parent, score), (tree.parent(parent), score / 2.0)] {
            if node != 0 {
                *scores[node].get_or_insert_with(|| start(node)) += share;
            }
        }
    }
    for (at, score) in scores.iter_mut().enumerate() {
        if let Some(score) = score {
            *score *= 1.0 - weights.of(tree, at).link_density();
        }
    }
    let best = scores.iter().enumerate().filter_map(|(at, score)| Some((at, (*score)?)));
    let Some((best, top)) = best.max_by(|one, two| one.1.total_cmp(&two.1)) else { return vec![] };
    let threshold = (top * 0.2).max(10.0);
    let mut parts = vec![];
    let parent = tree.parent(best);
    let mut at = parent + 1;
    while at < tree.nodes[parent].end as usize {
        let good = at == best || scores[at].is_some_and(|score| score >= threshold) || {
            let weight = weights.of(tree, at);
            tree.nodes[at].tag == Tag::P && weight.text > 80 && weight.link_density() < 0.25
        };
        if good && alive.has(at) {
            parts.push(at);
        }
        at = tree.nodes[at].end as usize;
    }
    parts
}
