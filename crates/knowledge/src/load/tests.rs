//! Files of each kind, sound and hostile, and what comes out of them.

use super::*;
use crate::document::BlockForm;

/// The blocks as `place form heading|text`, line ends shown as `⏎`.
fn shown(document: &Document) -> Vec<String> {
    let block = |block: &crate::document::Block| {
        let place = document.place(block.range.clone());
        let form = match block.form {
            BlockForm::Heading(level) => format!("h{level}"),
            BlockForm::Prose => "p".into(),
            BlockForm::Lines => "l".into(),
        };
        let text = block.heading.as_deref().unwrap_or(&document.text[block.range.clone()]).replace('\n', "⏎");
        format!("{}-{} {form} {text}", place.from, place.to)
    };
    document.blocks.iter().map(block).collect()
}

fn load(kind: FileKind, bytes: &[u8]) -> Result<Document> {
    load_bytes(kind, bytes, &LoadLimits::default())
}

fn check(kind: FileKind, bytes: &[u8], title: Option<&str>, expected: &[&str]) {
    let document = load(kind, bytes).unwrap();
    assert_eq!(shown(&document), expected, "{}", String::from_utf8_lossy(bytes));
    assert_eq!(document.title.as_deref(), title);
}

fn refused(kind: FileKind, bytes: &[u8], limits: &LoadLimits, expected: &str) {
    let error = load_bytes(kind, bytes, limits).expect_err(expected);
    assert!(error.to_string().contains(expected), "{error}\nnot {expected}");
}

#[test]
fn plain_text() {
    for (text, expected) in [
        ("", &[][..]),
        ("\n \n", &[]),
        ("a\nb\n\n\nc", &["1-2 p a⏎b", "5-5 p c"]),
        ("\n  a \n\t\n b\r\nc\r\n", &["2-2 p   a", "4-5 p  b\r⏎c"]),
    ] {
        check(FileKind::Text, text.as_bytes(), None, expected);
    }
}

#[test]
fn markdown() {
    for (text, title, expected) in [
        ("# A *b* `c`\n\ntext\nmore\n", None, &["1-1 h1 A b c", "3-4 p text⏎more"][..]),
        ("Two\nlines\n===\nx", None, &["1-3 h1 Two lines", "4-4 p x"]),
        ("- a\n- b\n\n  - c\n> q\n>\n> ## H\n", None, &["1-1 p - a", "2-4 p - b⏎⏎  - c", "5-5 p q", "7-7 h2 H"]),
        ("```\n  x = 1\n\n# no heading\n```\n", None, &["1-5 l ```⏎  x = 1⏎⏎# no heading⏎```"]),
        ("|a|b|\n|-|-|\n|1|2|\n", None, &["1-3 l |a|b|⏎|-|-|⏎|1|2|"]),
        ("---\ntitle: \"The title\"\ntags: x\n---\n\ntext", Some("The title"), &["6-6 p text"]),
        ("+++\ntitle = 'T'\n+++\ntext", Some("T"), &["4-4 p text"]),
        ("<!-- a\ncomment -->\n\n<div>shown</div>\n", None, &["4-4 p <div>shown</div>"]),
        ("#\n\ntext", None, &["1-1 h1 ", "3-3 p text"]),
    ] {
        check(FileKind::Markdown, text.as_bytes(), title, expected);
    }
    let deep = "+ ".repeat(2000) + "x";
    refused(FileKind::Markdown, deep.as_bytes(), &LoadLimits::default(), "limits.depth_max");
}

#[test]
fn html() {
    for (text, title, expected) in [
        (
            "<html><head><title>T &amp; U</title><style>p{}</style></head>\n\
             <body><h1>A\n<em>b</em></h1>\n<p>one\n  two</p></body>",
            Some("T & U"),
            &["2-3 h1 A b", "4-5 p one two"][..],
        ),
        ("<ul><li>a<li>b\n</ul>\n<p>c<br>d", None, &["1-1 p - a", "1-1 p - b", "3-3 p c⏎d"]),
        ("<table>\n<tr><td>1<td>2</tr>\n<tr><th>3</th><td>4</td></tr></table>", None, &["2-2 p 1 | 2", "3-3 p 3 | 4"]),
        ("<pre>\n  x\n    y\n</pre>z", None, &["2-3 l ⏎  x⏎    y", "4-4 p z"]),
        ("<script>if (a<b) { '<p>no' }</script><nav>\nmenu</nav>\n\ntext", None, &["4-4 p text"]),
        ("<p>a<svg><title>no</title></svg>b<img src=x alt='a cat'> c", None, &["1-1 p aba cat c"]),
        ("plain\n\n<!-- no -->&lt;p&gt; &#x41;&nbsp;B", None, &["1-3 p plain <p> A\u{a0}B"]),
        ("<p>unclosed <b>bold <p>next</b>", None, &["1-1 p unclosed bold", "1-1 p next"]),
        ("<script>never ends", None, &[]),
        ("", None, &[]),
    ] {
        check(FileKind::Html, text.as_bytes(), title, expected);
    }
    let deep = "<svg>".repeat(300);
    refused(FileKind::Html, deep.as_bytes(), &LoadLimits::default(), "limits.depth_max");
    // Elements that are shown are not kept on a stack: any number of them is as good as one.
    let many = format!("{}x", "<div>".repeat(100_000));
    check(FileKind::Html, many.as_bytes(), None, &["1-1 p x"]);
}

#[test]
fn what_is_no_text_or_too_much() {
    for kind in [FileKind::Text, FileKind::Markdown, FileKind::Html] {
        refused(kind, b"a\n\xff", &LoadLimits::default(), "line 2 is not UTF-8");
        refused(
            kind,
            b"12345",
            &LoadLimits { file_bytes_max: 4, ..LoadLimits::default() },
            "limits.file_bytes_max = 4",
        );
    }
    let none = LoadLimits { time_ms_max: 0, ..LoadLimits::default() };
    let long = "x\n\n".repeat(20_000);
    refused(FileKind::Markdown, long.as_bytes(), &none, "limits.time_ms_max");
}

#[cfg(not(feature = "documents"))]
#[test]
fn documents_need_their_feature() {
    refused(FileKind::Pdf, b"%PDF", &LoadLimits::default(), "--features documents");
}

#[cfg(feature = "documents")]
mod documents {
    use super::*;
    use std::io::{Cursor, Write};
    use zip::{ZipWriter, write::SimpleFileOptions};

    fn archive(parts: &[(&str, &str)]) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in parts {
            writer.start_file(*name, SimpleFileOptions::default()).unwrap();
            writer.write_all(content.as_bytes()).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn docx(body: &str) -> Vec<u8> {
        let styles = "<w:styles xmlns:w='w'><w:style w:styleId='berschrift1'><w:name w:val='heading 1'/></w:style>\
                      <w:style w:styleId='T'><w:name w:val='Title'/></w:style></w:styles>";
        let document = format!("<?xml version='1.0'?><w:document xmlns:w='w'><w:body>{body}</w:body></w:document>");
        archive(&[("word/styles.xml", styles), ("word/document.xml", &document)])
    }

    fn paragraph(style: &str, text: &str) -> String {
        format!(
            "<w:p><w:pPr><w:pStyle w:val='{style}'/><w:tabs><w:tab/></w:tabs></w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"
        )
    }

    /// A paragraph of one run.
    fn run(content: &str) -> String {
        format!("<w:p><w:r>{content}</w:r></w:p>")
    }

    #[test]
    fn docx_paragraphs() {
        let headed = paragraph("T", "A") + &paragraph("berschrift1", "B") + "<w:p/>" + &paragraph("x", "C");
        let marked = run("<w:t>a &amp;</w:t><w:tab/><w:t> b&#233;</w:t><w:br/><w:t>c</w:t>");
        let table = format!("<w:tbl><w:tr><w:tc>{}</w:tc></w:tr></w:tbl>", run("<w:t>1</w:t>"));
        let reviewed =
            "<w:p><w:del><w:r><w:delText>no</w:delText></w:r></w:del><w:ins><w:r><w:t>yes</w:t></w:r></w:ins></w:p>";
        let text_box = run("<w:t>box</w:t>");
        let boxed = run(&format!(
            "<w:t>out</w:t><mc:AlternateContent><mc:Choice>{text_box}</mc:Choice>\
             <mc:Fallback>{text_box}</mc:Fallback></mc:AlternateContent>"
        ));
        for (body, expected) in [
            (headed.as_str(), &["1-1 h1 A", "2-2 h1 B", "4-4 p C"][..]),
            (&marked, &["1-1 p a &\t bé⏎c"]),
            (&table, &["1-1 p 1"]),
            (reviewed, &["1-1 p yes"]),
            (&boxed, &["1-1 p out", "2-2 p box"]),
        ] {
            check(FileKind::Docx, &docx(body), None, expected);
        }
    }

    #[test]
    fn hostile_docx() {
        let limits = LoadLimits { expanded_bytes_max: 100_000, ..LoadLimits::default() };
        let bomb = docx(&paragraph("x", &"0".repeat(1_000_000)));
        assert!(bomb.len() < 50_000);
        let deep = docx(&"<w:p>".repeat(300));
        let entities = format!("<!DOCTYPE x [<!ENTITY a 'aaaa'>]><w:document>{}</w:document>", run("<w:t>&a;</w:t>"));
        for (bytes, expected) in [
            (b"PK\x03\x04 no archive".to_vec(), "no ZIP archive"),
            (vec![], "no ZIP archive"),
            (archive(&[("a.txt", "a")]), "no word/document.xml"),
            (bomb, "limits.expanded_bytes_max = 100000"),
            (deep, "limits.depth_max"),
            (docx("<w:p>\n\n<w:t></w:p>"), "line 3 of word/document.xml"),
            (archive(&[("word/document.xml", &entities)]), "entities of its own"),
        ] {
            refused(FileKind::Docx, &bytes, &limits, expected);
        }
    }

    /// A PDF of pages with these drawing commands, one of its streams compressed or not.
    fn pdf(pages: &[&str], compressed: bool) -> Vec<u8> {
        use lopdf::{Document, Object, Stream, dictionary};
        let mut file = Document::with_version("1.5");
        let tree = file.new_object_id();
        let font = file.add_object(dictionary! {
            "Type" => "Font", "Subtype" => "Type1", "BaseFont" => "Helvetica", "Encoding" => "WinAnsiEncoding"
        });
        let resources = file.add_object(dictionary! { "Font" => dictionary! { "F1" => font } });
        let kids: Vec<Object> = pages
            .iter()
            .map(|commands| {
                let mut stream = Stream::new(dictionary! {}, commands.as_bytes().to_vec());
                if compressed {
                    stream.compress().unwrap();
                }
                let content = file.add_object(stream);
                file.add_object(dictionary! {
                    "Type" => "Page", "Parent" => tree, "Contents" => content, "Resources" => resources
                })
                .into()
            })
            .collect();
        let count = kids.len() as i64;
        file.objects.insert(tree, dictionary! { "Type" => "Pages", "Kids" => kids, "Count" => count }.into());
        let catalog = file.add_object(dictionary! { "Type" => "Catalog", "Pages" => tree });
        file.trailer.set("Root", catalog);
        let mut bytes = Vec::new();
        file.save_to(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn pdf_pages() {
        let spaced = "BT /F1 12 Tf 72 700 Td [(Th)-20.5(e)-333.25(wing)]TJ 0 -14 Td (next line) Tj T* (third) Tj ET";
        let moved =
            "BT /F1 12 Tf 1 0 0 1 72 700 Tm (left) Tj 1 0 0 1 99 700 Tm (right) Tj 1 0 0 1 72 680 Tm (below) Tj ET";
        for (pages, expected) in [
            (&[spaced, moved][..], &["1-1 p The wing⏎next line⏎third", "2-2 p left right⏎below"][..]),
            (&["BT /F1 12 Tf (caf\\351) Tj (one) ' 0 0 (two) \" ET"], &["1-1 p café⏎one⏎two"]),
            (&["", "BT /F1 12 Tf (second) Tj ET"], &["2-2 p second"]),
            (
                &["BT /F1 12 Tf (w) Tj 9 0 Td (i) Tj 3 0 Td (n) Tj 7 0 Td (g) Tj 7 0 Td ( ) Tj 3 0 Td (a) Tj ET"],
                &["1-1 p wing a"],
            ),
            (&["BT /F1 12 Tf (a) Tj 9 0 Td (large) Tj 30 0 Td (wing) Tj ET"], &["1-1 p a large wing"]),
            (
                &["BT /F1 12 Tf (a hy-) Tj T* (phen, mid-air, X-) Tj T* (ray, 1-) Tj T* (b) Tj ET"],
                &["1-1 p a hyphen, mid-air, X-⏎ray, 1-⏎b"],
            ),
            (&["BT /F9 12 Tf (no such font) Tj /F1 12 Tf (yes) Tj ET"], &["1-1 p yes"]),
        ] {
            for compressed in [false, true] {
                check(FileKind::Pdf, &pdf(pages, compressed), None, expected);
            }
        }
    }

    #[test]
    fn hostile_pdf() {
        let bomb = pdf(&["BT /F1 12 Tf (a) Tj ET", &"0 g ".repeat(100_000)], true);
        assert!(bomb.len() < 50_000);
        let small = LoadLimits { expanded_bytes_max: 100_000, ..LoadLimits::default() };
        // The page that is too large is left out, the other one counts.
        let document = load_bytes(FileKind::Pdf, &bomb, &small).unwrap();
        assert_eq!(shown(&document), ["1-1 p a"]);
        let one = LoadLimits { pages_max: 1, ..LoadLimits::default() };
        let only_bomb = pdf(&[&"0 g ".repeat(100_000)], true);
        for (bytes, limits, expected) in [
            (b"%PDF-1.5 broken".to_vec(), &small, "cannot read the PDF"),
            (vec![], &small, "cannot read the PDF"),
            (only_bomb, &small, "page 1 of the PDF"),
            (pdf(&["", ""], true), &one, "limits.pages_max = 1"),
            (pdf(&["", ""], true), &small, "holds no text"),
        ] {
            refused(FileKind::Pdf, &bytes, limits, expected);
        }
    }

    /// Bytes that are changed at random: no file may do more harm than to be refused.
    #[test]
    fn damaged_files_do_no_harm() {
        use narthex_base::random::Stream;
        let page = "BT /F1 12 Tf 72 700 Td [(The)-333(wing)]TJ T* (x) ' ET";
        let sound = [
            (FileKind::Pdf, pdf(&[page, page], false)),
            (FileKind::Docx, docx(&paragraph("T", "A"))),
            (FileKind::Html, b"<p>a&amp;<table><tr><td>x</pre><script>".to_vec()),
            (FileKind::Markdown, b"# a\n\n- b\n  1. c\n\n| a |\n|-|\n".to_vec()),
        ];
        let limits = LoadLimits { time_ms_max: 2000, expanded_bytes_max: 1 << 20, ..LoadLimits::default() };
        for (number, (kind, bytes)) in sound.iter().enumerate() {
            let stream = Stream::new(number as u64, "damage");
            for round in 0..150 {
                let stream = stream.at(round);
                let mut bytes = bytes.clone();
                for change in 0..1 + round % 8 {
                    let at = stream.below(3 * change, bytes.len() as u64) as usize;
                    match stream.below(3 * change + 1, 3) {
                        0 => bytes[at] = stream.bits(3 * change + 2) as u8,
                        1 => drop(bytes.drain(at..)),
                        _ => bytes.insert(at, stream.bits(3 * change + 2) as u8),
                    }
                    if bytes.is_empty() {
                        break;
                    }
                }
                if let Ok(document) = load_bytes(*kind, &bytes, &limits) {
                    document.check().unwrap();
                }
            }
        }
    }
}
