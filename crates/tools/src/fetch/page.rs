//! HTML as Markdown, within bounds: a hostile page costs no more time, memory or stack than an honest one. Knows no
//! network, follows nothing.

use encoding_rs::{Encoding, UTF_8};
use html2text::{
    Element, Handle, RcDom, config,
    render::{TaggedLine, TextDecorator},
};
use std::{
    io::{self, Read},
    time::{Duration, Instant},
};

/// Milliseconds that parsing may take. Closing tags look through all that is open, so time can grow with the square of
/// the size.
const PARSE_MS_MAX: u64 = 1_000;
/// Elements within each other. Browsers stop at 512.
const DEPTH_MAX: usize = 256;
/// Nodes of a page.
const NODES_MAX: usize = 200_000;
/// Columns that a cell may stand for.
const SPAN_MAX: usize = 100;
/// What a list may begin to count at.
const START_MAX: u64 = 1_000_000;
/// Characters of a line before it is broken: wide, so that links and rows of tables stay whole.
const LINE_CHARS: usize = 400;
/// Where a page may say its encoding (<https://html.spec.whatwg.org>, "prescan a byte stream").
const META_BYTES: usize = 1024;
/// What was refused, as the model reads it.
const TOO_MUCH: &str = "the page takes too much to read: its HTML is nested too deep, or too large";

/// The text of a body: by its byte order mark, else by the media type's `charset`, else by what the HTML itself says,
/// else UTF-8.
pub fn decoded(body: Vec<u8>, media_type: &str, is_html: bool) -> String {
    let said = charset_in(media_type.as_bytes());
    let said = said.or_else(|| if is_html { charset_in(&body[..body.len().min(META_BYTES)]) } else { None });
    said.unwrap_or(UTF_8).decode(&body).0.into_owned()
}

/// The encoding behind the first `charset=`.
fn charset_in(bytes: &[u8]) -> Option<&'static Encoding> {
    const KEY: &str = "charset=";
    let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    let behind = text[text.find(KEY)? + KEY.len()..].trim_start_matches(['"', '\'', ' ']);
    let end = behind.find(|c: char| !(c.is_ascii_alphanumeric() || "-_:.".contains(c))).unwrap_or(behind.len());
    Encoding::for_label(&behind.as_bytes()[..end])
}

/// HTML as Markdown. Scripts and styles are left out; links keep their addresses, images their descriptions alone.
///
/// # Errors
/// If the page is nested too deep or takes too long.
pub fn markdown(html: &str) -> Result<String, String> {
    let config = config::with_decorator(Markdown::default())
        .max_wrap_width(LINE_CHARS)
        .no_table_borders()
        .no_link_wrapping()
        .allow_width_overflow();
    let source = Timed { left: html.as_bytes(), end: Instant::now() + Duration::from_millis(PARSE_MS_MAX) };
    let dom: RcDom = config.parse_html(source).map_err(|_| TOO_MUCH.to_string())?;
    tame(&dom)?;
    let tree = config.dom_to_render_tree(&dom).map_err(|_| TOO_MUCH.to_string())?;
    let text = config.render_to_string(tree, LINE_CHARS).map_err(|_| TOO_MUCH.to_string())?;
    Ok(tidied(&text))
}

/// Bytes that are not there any more once the time is over.
struct Timed<'a> {
    left: &'a [u8],
    end: Instant,
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if Instant::now() > self.end {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.left.read(buffer)
    }
}

/// Bounds what the renderer gets: its time and its stack grow with the depth, and cells can claim any number of
/// columns.
fn tame(dom: &RcDom) -> Result<(), String> {
    let mut open: Vec<(Handle, usize)> = vec![(dom.document.clone(), 0)];
    let mut nodes = 0;
    while let Some((node, depth)) = open.pop() {
        nodes += 1;
        if depth > DEPTH_MAX || nodes > NODES_MAX {
            return Err(TOO_MUCH.into());
        }
        if let Element { attrs, .. } = &node.data {
            attrs.borrow_mut().retain(|attribute| match &*attribute.name.local {
                "colspan" | "rowspan" => attribute.value.parse().is_ok_and(|span| (1..=SPAN_MAX).contains(&span)),
                "start" => attribute.value.parse().is_ok_and(|start: i64| start.unsigned_abs() <= START_MAX),
                _ => true,
            });
        }
        open.extend(node.children.borrow().iter().map(|child| (child.clone(), depth + 1)));
    }
    Ok(())
}

/// Without blanks at the ends of lines, and with one empty line where there were more.
fn tidied(text: &str) -> String {
    let mut tidy = String::with_capacity(text.len());
    let mut empty = true;
    for line in text.lines().map(str::trim_end) {
        if !(line.is_empty() && empty) {
            tidy += line;
            tidy.push('\n');
        }
        empty = line.is_empty();
    }
    tidy.truncate(tidy.trim_end().len());
    tidy
}

/// How elements are written.
#[derive(Clone, Debug, Default)]
struct Markdown {
    /// Addresses of the links that are open.
    links: Vec<String>,
}

impl TextDecorator for Markdown {
    type Annotation = ();

    fn decorate_link_start(&mut self, url: &str) -> (String, ()) {
        self.links.push(url.into());
        ("[".into(), ())
    }

    fn decorate_link_end(&mut self) -> String {
        format!("]({})", self.links.pop().unwrap_or_default())
    }

    fn decorate_em_start(&self) -> (String, ()) {
        ("*".into(), ())
    }

    fn decorate_em_end(&self) -> String {
        "*".into()
    }

    fn decorate_strong_start(&self) -> (String, ()) {
        ("**".into(), ())
    }

    fn decorate_strong_end(&self) -> String {
        "**".into()
    }

    fn decorate_strikeout_start(&self) -> (String, ()) {
        ("~~".into(), ())
    }

    fn decorate_strikeout_end(&self) -> String {
        "~~".into()
    }

    fn decorate_code_start(&self) -> (String, ()) {
        ("`".into(), ())
    }

    fn decorate_code_end(&self) -> String {
        "`".into()
    }

    fn decorate_preformat_first(&self) {}

    fn decorate_preformat_cont(&self) {}

    fn decorate_image(&mut self, _: &str, title: &str) -> (String, ()) {
        (format!("[image: {title}]"), ())
    }

    fn header_prefix(&self, level: usize) -> String {
        "#".repeat(level) + " "
    }

    fn quote_prefix(&self) -> String {
        "> ".into()
    }

    fn unordered_item_prefix(&self) -> String {
        "- ".into()
    }

    fn ordered_item_prefix(&self, number: i64) -> String {
        format!("{number}. ")
    }

    fn make_subblock_decorator(&self) -> Self {
        Self::default()
    }

    fn finalise(&mut self, _: Vec<String>) -> Vec<TaggedLine<()>> {
        vec![]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read() {
        for (html, expected) in [
            ("<h1>A</h1><p>b <em>c</em> <b>d</b></p>", "# A\n\nb *c* **d**"),
            ("<p>see <a href=\"/x?y=1\">this</a></p>", "see [this](/x?y=1)"),
            ("<ul><li>a<li>b</ul><ol><li>c</ol>", "- a\n- b\n1. c"),
            ("<script>alert(1)</script><style>p{}</style>t", "t"),
            ("a<img src=\"http://evil.example/?q=1\" alt=\"x\">b", "a[image: x]b"),
            ("<pre>a\n  b</pre>", "a\n  b"),
            ("<table><tr><td>a<td colspan=4000000000>b</table>", "a b"),
            ("&lt;&amp;&#233;", "<&é"),
            ("", ""),
        ] {
            assert_eq!(markdown(html).as_deref(), Ok(expected), "{html}");
        }
    }

    #[test]
    fn hostile_pages_end() {
        let many = |text: &str, times: usize| text.repeat(times);
        for (html, is_read) in [
            (many("<div>", 200) + "x", true),
            (many("<div>", 3_000), false),
            (many("<b>", 3_000) + &many("<p>", 3_000), false),
            (many("<table><tr><td>", 1_000), false),
            (many("<table><tr><td>", 50) + "x", true),
            (many("<blockquote>", 120) + &many("x ", 1000), true),
            (many("<ul><li>", 120) + "x", true),
            (many("<p>x", 100_001), false),
            (many("<p>x", 10_000), true),
            (format!("<table>{}", many(&format!("<tr>{}", many("<td>x", 300)), 20)), true),
            (format!("<table><tr>{}", many("<td colspan=100>x", 300)), true),
            (many("<td colspan=18446744073709551615>", 100), true),
            (format!("<ol start=9223372036854775807>{}", many("<li>a", 3)), true),
            (many("<a href=x>", 2_000), true),
            (many("&", 10_000), true),
            ("<!--".into(), true),
            (many("<svg><style>", 3_000), false),
        ] {
            let outcome = std::panic::catch_unwind(|| markdown(&html));
            let shown = &html[..html.len().min(40)];
            // A panic of the renderer ends the call alone, see the caller; here none is known.
            assert_eq!(outcome.expect(shown).is_ok(), is_read, "{shown}");
        }
        // The time is looked at with each block that is parsed.
        let over = Timed { left: b"x", end: Instant::now() - Duration::from_millis(1) };
        assert!(config::plain().parse_html(over).is_err());
    }

    #[test]
    fn encodings() {
        for (body, media_type, is_html, expected) in [
            (&b"\xe9"[..], "text/html; charset=iso-8859-1", true, "é"),
            (b"<meta charset=\"windows-1252\">\xe9", "text/html", true, "<meta charset=\"windows-1252\">é"),
            (b"\xef\xbb\xbf\xc3\xa9", "text/plain; charset=latin1", false, "é"),
            (b"\xc3\xa9", "text/plain", false, "é"),
            (b"\xff", "text/plain; charset=nonsense", false, "\u{fffd}"),
        ] {
            assert_eq!(decoded(body.to_vec(), media_type, is_html), expected, "{media_type}");
        }
    }
}
