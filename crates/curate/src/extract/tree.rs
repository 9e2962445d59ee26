//! A page as a flat list of nodes in the order of the source: a node's descendants are the nodes after it up to its
//! `end`, so every walk is a loop and nothing recurses, however deep a page nests. The tokenizer follows the HTML
//! standard; the tree does where end tags are left out, and otherwise closes what an end tag names, if that is open.

use super::{
    Limits, Refusal,
    tags::{Attribute, Tag},
};
use html5gum::{
    Span, Tokenizer,
    emitters::callback::{CallbackEmitter, CallbackEvent},
};
use std::ops::Range;

/// An element or a piece of text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub tag: Tag,
    pub parent: u32,
    /// One past the last descendant.
    pub end: u32,
    /// Of an element its attributes, of a text its bytes: a range in the list of them.
    from: u32,
    to: u32,
}

/// The nodes of a page; the first is the root, which has no tag of its own.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub nodes: Vec<Node>,
    attributes: Vec<(Attribute, u32, u32)>,
    /// All texts and values one after the other.
    text: String,
}

impl Tree {
    /// Reads a page, unless it is larger than the limits allow.
    pub(super) fn read(source: &str, limits: &Limits) -> Result<Self, Refusal> {
        let mut builder = Builder::new(limits, source.len());
        let mut emitter = CallbackEmitter::new(|event: CallbackEvent<'_>, _: Span<()>| builder.event(event));
        // Scripts and the like are not HTML inside.
        emitter.naively_switch_states(true);
        if let Some(Ok(refusal)) = Tokenizer::new_with_emitter(source, emitter).next() {
            return Err(refusal);
        }
        Ok(builder.finish())
    }

    pub(super) fn text(&self, node: usize) -> &str {
        let node = &self.nodes[node];
        match node.tag {
            Tag::Text => &self.text[node.from as usize..node.to as usize],
            _ => "",
        }
    }

    pub(super) fn attribute(&self, node: usize, attribute: Attribute) -> Option<&str> {
        let node = &self.nodes[node];
        if node.tag == Tag::Text {
            return None;
        }
        let mut attributes = self.attributes[node.from as usize..node.to as usize].iter();
        let (_, from, to) = attributes.find(|(name, ..)| *name == attribute)?;
        Some(&self.text[*from as usize..*to as usize])
    }

    /// The descendants of a node.
    pub(super) fn below(&self, node: usize) -> Range<usize> {
        node + 1..self.nodes[node].end as usize
    }

    pub(super) fn parent(&self, node: usize) -> usize {
        self.nodes[node].parent as usize
    }

    /// All text below a node, white space as it stands.
    pub(super) fn content(&self, node: usize) -> String {
        self.below(node).map(|below| self.text(below)).collect()
    }
}

struct Builder<'a> {
    limits: &'a Limits,
    tree: Tree,
    /// The open elements.
    open: Vec<u32>,
    /// The start tag that is being read.
    started: Option<Tag>,
    /// Its attribute whose value is being read.
    attribute: Option<Attribute>,
    /// The text of this element is dropped: scripts and styles, unless they hold data.
    in_code: bool,
    seen_body: bool,
}

impl<'a> Builder<'a> {
    fn new(limits: &'a Limits, bytes: usize) -> Self {
        let root = Node { tag: Tag::Other, parent: 0, end: 0, from: 0, to: 0 };
        let mut tree = Tree { nodes: Vec::with_capacity(bytes / 48 + 16), ..Tree::default() };
        tree.nodes.push(root);
        Self { limits, tree, open: vec![0], started: None, attribute: None, in_code: false, seen_body: false }
    }

    fn finish(mut self) -> Tree {
        self.close_to(0);
        self.tree.nodes[0].end = self.tree.nodes.len() as u32;
        self.tree
    }

    /// A returned refusal ends the reading.
    fn event(&mut self, event: CallbackEvent<'_>) -> Option<Refusal> {
        match event {
            CallbackEvent::OpenStartTag { name } => {
                let tag = Tag::named(name);
                self.started = None;
                if self.is_ignored(tag) {
                    return None;
                }
                self.imply_ends(tag);
                self.started = Some(tag);
                let attributes = self.tree.attributes.len();
                return self.push(tag, attributes, attributes);
            }
            CallbackEvent::AttributeName { name } => {
                self.attribute = self.started.map(|_| Attribute::named(name)).filter(|name| *name != Attribute::Other);
                if let Some(attribute) = self.attribute {
                    let at = self.tree.text.len() as u32;
                    self.tree.attributes.push((attribute, at, at));
                    self.tree.nodes.last_mut()?.to += 1;
                }
            }
            CallbackEvent::AttributeValue { value } => {
                self.attribute.take()?;
                self.tree.text.push_str(&String::from_utf8_lossy(value));
                let end = self.tree.text.len() as u32;
                self.tree.attributes.last_mut()?.2 = end;
            }
            CallbackEvent::CloseStartTag { self_closing } => {
                let tag = self.started.take()?;
                let node = self.tree.nodes.len() - 1;
                if tag.is_void() || (self_closing && !matches!(tag, Tag::Script | Tag::Style)) {
                    self.tree.nodes[node].end = node as u32 + 1;
                    return None;
                }
                self.in_code = match tag {
                    Tag::Style => true,
                    Tag::Script => self.tree.attribute(node, Attribute::Type) != Some("application/ld+json"),
                    _ => false,
                };
                self.open.push(node as u32);
                if self.open.len() > self.limits.depth {
                    return Some(Refusal::TooDeep { limit: self.limits.depth });
                }
            }
            CallbackEvent::EndTag { name } => {
                self.started = None;
                self.in_code = false;
                self.end(Tag::named(name));
            }
            CallbackEvent::String { value } if !self.in_code => {
                let from = self.tree.text.len();
                self.tree.text.push_str(&String::from_utf8_lossy(value));
                return self.push(Tag::Text, from, self.tree.text.len());
            }
            _ => (),
        }
        None
    }

    /// The page has one `html`, `head` and `body`.
    fn is_ignored(&mut self, tag: Tag) -> bool {
        match tag {
            Tag::Body => std::mem::replace(&mut self.seen_body, true),
            Tag::Html => self.open.len() > 1,
            Tag::Head => self.seen_body || self.open.len() > 2,
            _ => false,
        }
    }

    fn push(&mut self, tag: Tag, from: usize, to: usize) -> Option<Refusal> {
        let at = self.tree.nodes.len() as u32;
        let parent = self.open.last().copied().unwrap_or_default();
        self.tree.nodes.push(Node { tag, parent, end: at + 1, from: from as u32, to: to as u32 });
        let limit = self.limits.nodes;
        (self.tree.nodes.len() > limit).then_some(Refusal::TooManyNodes { limit })
    }

    fn tag(&self, depth: usize) -> Tag {
        self.tree.nodes[self.open[depth] as usize].tag
    }

    /// Closes all elements from the given place in the list of open ones on, but never the root.
    fn close_to(&mut self, depth: usize) {
        let end = self.tree.nodes.len() as u32;
        for node in self.open.drain(depth.max(1)..) {
            self.tree.nodes[node as usize].end = end;
        }
    }

    /// Closes the innermost open element for which `is_closed` holds, unless one for which `is_wall` does is nearer.
    fn close(&mut self, is_closed: impl Fn(Tag) -> bool, is_wall: impl Fn(Tag) -> bool) {
        for depth in (1..self.open.len()).rev() {
            let tag = self.tag(depth);
            if is_closed(tag) {
                return self.close_to(depth);
            }
            if is_wall(tag) {
                return;
            }
        }
    }

    /// Ends the elements whose end tags the start of this one makes needless.
    fn imply_ends(&mut self, tag: Tag) {
        use Tag::*;
        let is_table = |tag| matches!(tag, Table | Td | Th | Caption);
        match tag {
            Text | Html | Meta | Link | Base | Title | Script | Style | Noscript | Template => return,
            _ => self.close(|open| open == Head, |open| open == Body),
        }
        match tag {
            Li => self.close(|open| open == Li, |open| matches!(open, Ul | Ol | Menu | Dir) || is_table(open)),
            Dd | Dt => self.close(|open| matches!(open, Dd | Dt), |open| open == Dl || is_table(open)),
            Tr => self.close(|open| open == Tr, |open| open == Table),
            Td | Th => self.close(Tag::is_cell, |open| matches!(open, Tr | Table)),
            Tbody | Thead | Tfoot => self.close(|open| matches!(open, Tbody | Thead | Tfoot), |open| open == Table),
            OptionItem => self.close(|open| open == OptionItem, |open| open == Select),
            A => self.close(|open| open == A, Tag::is_block),
            _ if tag.is_heading() => self.close(Tag::is_heading, Tag::is_block),
            _ => (),
        }
        if tag.is_block() && !matches!(tag, Tr | Td | Th | Tbody | Thead | Tfoot) {
            // A paragraph ends where a block begins, except around a table or a list inside it.
            self.close(|open| open == P, |open| is_table(open) || (open.is_block() && open != P));
        }
    }

    fn end(&mut self, tag: Tag) {
        use Tag::*;
        match tag {
            Body | Html | Other | Text => {
                if tag == Other {
                    self.close(|open| open == Other, Tag::is_block);
                }
            }
            Br => {
                let attributes = self.tree.attributes.len();
                self.push(Br, attributes, attributes);
            }
            Table => self.close(|open| open == Table, |_| false),
            Tr | Td | Th | Tbody | Thead | Tfoot | Caption => self.close(|open| open == tag, |open| open == Table),
            _ if tag.is_heading() => self.close(Tag::is_heading, |open| open.is_block()),
            P => self.close(|open| open == P, Tag::is_block),
            _ if tag.is_block() || tag.is_mute() => {
                self.close(|open| open == tag, |open| matches!(open, Td | Th | Table));
            }
            _ => self.close(|open| open == tag, Tag::is_block),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The elements and texts with brackets around what each holds.
    fn shape(source: &str) -> String {
        let tree = Tree::read(source, &Limits::default()).unwrap();
        let mut out = String::new();
        let mut ends: Vec<u32> = vec![];
        for at in 1..=tree.nodes.len() {
            while ends.last().is_some_and(|end| *end as usize <= at) {
                ends.pop();
                out.push(')');
            }
            let Some(node) = tree.nodes.get(at) else { break };
            if node.tag == Tag::Text {
                out.push_str(tree.text(at).trim());
            } else {
                out.push_str(&format!("{:?}(", node.tag));
                ends.push(node.end);
            }
        }
        out
    }

    #[test]
    fn end_tags_that_are_left_out_are_implied() {
        let cases = [
            ("<p>a<p>b<div>c</div>", "P(a)P(b)Div(c)"),
            ("<ul><li>a<li>b<ul><li>c</ul></ul>d", "Ul(Li(a)Li(bUl(Li(c))))d"),
            ("<table><tr><td>a<td>b<tr><td>c</table>d", "Table(Tr(Td(a)Td(b))Tr(Td(c)))d"),
            ("<dl><dt>a<dd>b<dt>c</dl>", "Dl(Dt(a)Dd(b)Dt(c))"),
            ("<html><head><title>t</title><p>a", "Html(Head(Title(t))P(a))"),
            ("<a href=x>a<a href=y>b</a>", "A(a)A(b)"),
            ("a<br>b</br>c", "aBr()bBr()c"),
        ];
        for (source, expected) in cases {
            assert_eq!(shape(source), expected, "{source}");
        }
    }

    #[test]
    fn wrong_end_tags_close_nothing_else() {
        let cases = [
            ("<div>a</p>b</span>c</div>", "Div(abc)"),
            ("<div><table><tr><td>a</div>b</table>c</div>", "Div(Table(Tr(Td(ab)))c)"),
            ("<b><p>a</b>b</p>", "B(P(ab))"),
            ("</div></div>a", "a"),
            ("<body>a</body>b<body>c</html>d", "Body(abcd)"),
            ("<script>if (a</p>b) x</script>c<style>d</style>", "Script()cStyle()"),
        ];
        for (source, expected) in cases {
            assert_eq!(shape(source), expected, "{source}");
        }
    }

    #[test]
    fn attributes_are_those_of_their_element() {
        let tree = Tree::read("<p class='a b' data-x=1 hidden id=q>t</p id=z><i CLASS=&lt;>u", &Limits::default());
        let tree = tree.unwrap();
        assert_eq!(tree.attribute(1, Attribute::Class), Some("a b"));
        assert_eq!(tree.attribute(1, Attribute::Hidden), Some(""));
        assert_eq!(tree.attribute(1, Attribute::Id), Some("q"));
        assert_eq!(tree.attribute(2, Attribute::Id), None);
        assert_eq!(tree.attribute(3, Attribute::Class), Some("<"));
        assert_eq!(tree.content(0), "tu");
    }
}
