//! What the names of classes and ids say about the part of a page that has them. Knows names, not trees.

use super::{
    tags::{Attribute, Tag},
    tree::Tree,
};
use regex::Regex;
use std::sync::LazyLock;

/// A pattern on the class, the id or both of an element.
struct Names {
    class: Regex,
    id: Regex,
}

impl Names {
    fn new(class: &str, id: &str) -> Self {
        // The patterns are ours: `tests::all_patterns_compile` sees them all.
        #[expect(clippy::unwrap_used, reason = "constants, compiled by a test")]
        let compile = |pattern: &str| Regex::new(pattern).unwrap();
        Self { class: compile(class), id: compile(id) }
    }

    fn fit(&self, tree: &Tree, node: usize) -> bool {
        tree.attribute(node, Attribute::Class).is_some_and(|class| self.class.is_match(class))
            || tree.attribute(node, Attribute::Id).is_some_and(|id| self.id.is_match(id))
    }
}

/// How many tries [`is_body`] knows, best first.
pub(super) const BODY_TRIES: usize = 5;

static BODIES: LazyLock<[Names; 4]> = LazyLock::new(|| {
    [
        Names::new(
            "^(?:post|entry)$|post[-_](?:text|body|entry)|postentry|post[-_]?[cC]ontent|post_inner_wrapper\
             |article-?text|articleText|entry-content|article(?:-|__)content|article(?:-|__)body|[aA]rticleBody\
             |articlebody|ArticleContent|page-content|text-content|body-text|article__container|art-content",
            "entry-content|article(?:-|__)content|article(?:-|__)body|article[bB]ody|^articleContent$|body-text\
             |art-content",
        ),
        Names::new(
            "post-bodycopy|story-?content|^postarea$|^art-postcontent$|theme-content|blog-content|section-content\
             |single-content|single-post|main-column|wpb_text_column|^article |^(?:text|cell|story)$|story-body\
             |field-body|(?i:fulltext)",
            "^primary|^article$|^story$|story-body",
        ),
        Names::new(
            "content[-_]main|content-body|content__body|(?i:main-content|page-content)|^content$",
            "content-main|content-body|contentBody|(?i:main-content)|^content$",
        ),
        Names::new("^main", "^main"),
    ]
});

/// Whether an element says of itself, in the way of the given try, that it is the main text.
pub(super) fn is_body(tree: &Tree, node: usize, attempt: usize) -> bool {
    let tag = tree.nodes[node].tag;
    if !matches!(tag, Tag::Article | Tag::Div | Tag::Main | Tag::Section) {
        return false;
    }
    let role = || tree.attribute(node, Attribute::Role);
    match attempt {
        0 => BODIES[0].fit(tree, node) || tree.attribute(node, Attribute::Itemprop) == Some("articleBody"),
        1 => tag == Tag::Article,
        2 => BODIES[1].fit(tree, node) || role() == Some("article"),
        3 => BODIES[2].fit(tree, node),
        _ => tag == Tag::Main || BODIES[3].fit(tree, node) || role().is_some_and(|role| role.starts_with("main")),
    }
}

static ASIDE: LazyLock<Names> = LazyLock::new(|| {
    Names::new(
        "[fF]ooter|[rR]elated|viral|^shar|share-|social|sociable|syndication|embed|newsletter|subnav|cookie|tags\
         |tag-list|sidebar|banner|bar|meta|menu|^nav|[nN]avigation|navbox|^post-nav|bread-?crumb|author|button\
         |[bB]yline|rating|widget|attachment|timestamp|user-(?:info|profile)|-ad-|-icon|article-infos|[iI]nfoline\
         |outbrain|taboola|criteo|options|expand|consent|modal-content|paid-?content|obfuscated|blurred| ad \
         |permission|next-|side-stories|most-popular|mol-factbox|^ZendeskForm|message-container|slide|viewport\
         |restricted|overlay|caption|[tT]easer",
        "[fF]ooter|related|viral|^shar|[sS]hare|social|syndication|^jp-|^dpsp-content|newsletter|cookie|tags|sidebar\
         |banner|menu|[nN]av|bread-?crumb|author|button|premium|paywall|message_container|caption|[tT]easer",
    )
});

/// Names that trafilatura has not: seen on pages of one half of its evaluation set.
static SELLING: LazyLock<Names> = LazyLock::new(|| {
    let words = "(?i)subscri|paywall|promo|disclaimer|copyright|recommend|more-|popular|trending|sign-?up|login|advert\
                 |sponsor|print|category|categories|pagination|pager|infobox|toolbar|fb-|tweet|twitter|facebook";
    Names::new(words, words)
});

static COMMENTS: LazyLock<Names> = LazyLock::new(|| {
    Names::new("^[cC]omment|article-comments|post-comments", "^[cC]omment|^comol|^disqus_thread|^dsq-comments")
});

static HIDDEN: LazyLock<Names> = LazyLock::new(|| {
    Names::new(
        "comments-title|nocomments|^reply-|-reply-|message|akismet|suggest-links|^hide-|-hide-|hide-print| hidden\
         | hide|noprint|notloaded",
        "^reply-|reader-comments|akismet|hidden",
    )
});

static STYLE: LazyLock<Regex> = LazyLock::new(|| Names::new("hidden|display: ?none", "").class);

/// Whether an element says of itself that it is beside the main text.
pub(super) fn is_aside(tree: &Tree, node: usize) -> bool {
    let tag = tree.nodes[node].tag;
    if matches!(tag, Tag::Text | Tag::Body | Tag::Html) {
        return false;
    }
    let parts = matches!(tag, Tag::Div | Tag::P | Tag::Section | Tag::Span | Tag::Table)
        || tag.is_item()
        || tag.is_list()
        || tag.is_cell();
    let style = || tree.attribute(node, Attribute::Style);
    let role = || tree.attribute(node, Attribute::Role);
    HIDDEN.fit(tree, node)
        || tree.attribute(node, Attribute::AriaHidden) == Some("true")
        || style().is_some_and(|style| STYLE.is_match(style))
        || parts
            && (ASIDE.fit(tree, node)
                || SELLING.fit(tree, node)
                || role().is_some_and(|role| role.contains("nav"))
                || style().is_some_and(|style| style.contains("border")))
}

/// Whether an element says of itself that it holds comments.
pub(super) fn is_comments(tree: &Tree, node: usize) -> bool {
    let tag = tree.nodes[node].tag;
    (matches!(tag, Tag::Div | Tag::Section) || tag.is_list()) && COMMENTS.fit(tree, node)
}

static GOOD: LazyLock<Names> = LazyLock::new(|| {
    let words = "(?i)article|body|content|entry|hentry|main|page|pagination|post|text|blog|story";
    Names::new(words, words)
});

static BAD: LazyLock<Names> = LazyLock::new(|| {
    let words = "(?i)button|combx|comment|com-|contact|figure|foot|footer|footnote|form|input|masthead|media|meta\
                 |outbrain|promo|related|scroll|shoutbox|sidebar|sponsor|shopping|tags|tool|widget";
    Names::new(words, words)
});

/// How much the names of an element speak for its being prose: 25 for and 25 against.
pub(super) fn weight(tree: &Tree, node: usize) -> f32 {
    let good = if GOOD.fit(tree, node) { 25.0 } else { 0.0 };
    if BAD.fit(tree, node) { good - 25.0 } else { good }
}

static LINE: LazyLock<Regex> = LazyLock::new(|| {
    let words = "(?i)^\\W*(?:drucken|e-?mail|facebook|flipboard|google\\+?|instagram|linkedin|mail|pdf|pinterest|pocket\
                 |print|qq|reddit|twitter|whatsapp|xing|share(?: this| on .*)?|teilen|tweet|weibo|snapchat|copyright.*\
                 |tags:?|mehr zum thema:?.*|more on this.*|weiterlesen.*|read more.*|loading\\.*|advertisement|anzeige\
                 |werbung|kommentare?|comments?|leave a (?:comment|reply))\\W*$";
    Names::new(words, "").class
});

/// Whether a short line is the label of a button or the like.
pub(super) fn is_label(line: &str) -> bool {
    line.len() < 120 && LINE.is_match(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_patterns_compile() {
        let source = "<div class='post-content'><span class='share-buttons' style=display:none>a</span></div>";
        let tree = Tree::read(source, &super::super::Limits::default()).unwrap();
        assert!(is_body(&tree, 1, 0) && !is_body(&tree, 2, 0) && !is_body(&tree, 1, 4));
        assert!(!is_aside(&tree, 1) && is_aside(&tree, 2) && !is_comments(&tree, 1));
        assert_eq!(weight(&tree, 1), 25.0);
        assert!(is_label("Share this") && !is_label("Share this with the keeper of the lighthouse."));
        assert!(BODIES.len() == BODY_TRIES - 1);
    }
}
