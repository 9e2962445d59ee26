//! The extraction on pages made by hand.

use super::*;

fn text_of(page: &str) -> Result<String, Refusal> {
    extract(page.as_bytes(), &Options::default()).map(|page| page.text)
}

const PROSE: &str = "The lighthouse at the end of the pier was built in 1871 to lead fishing boats home, and its first \
                     keeper lived in two small rooms below the lamp, where he wrote down the weather three times a day. \
                     Storms have taken the pier away twice since then, and each time the town has built it again.";

#[test]
fn what_is_beside_the_text_goes() {
    let page = format!(
        "<html lang=en-GB><head><title>Pier | Site</title><meta property=og:title content='The pier'>\
         <meta name=description content='On a pier'><meta property=og:site_name content=Town>\
         <meta name=author content='A. Keeper'><meta property=article:published_time content=2020-01-02></head><body>\
         <nav><a href=/>Home</a></nav><div class=cookie-note>We use cookies.</div>\
         <article><div class=byline>Who wrote it</div><h1>The pier</h1><p>{PROSE}</p><p>It has <b>two</b> <a href=/lamps>lamps</a>.\
         <ul><li>one is red</li><li>one is green</li></ul><div class=share-buttons><p>Share this page with all</p></div>\
         <ul><li><a href=/1>Another page</a><li><a href=/2>One more page</a></ul>\
         <div id=comments><p>What a fine pier this is!</p></div><h2>More</h2></article><aside><p>{PROSE}</p></aside>\
         <footer>Imprint</footer></body></html>"
    );
    let page = extract(page.as_bytes(), &Options::default()).unwrap();
    assert_eq!(page.text, format!("The pier\n{PROSE}\nIt has two lamps.\none is red\none is green"));
    assert_eq!(page.title.as_deref(), Some("The pier"));
    assert_eq!(page.language.as_deref(), Some("en-GB"));
    assert_eq!(page.description.as_deref(), Some("On a pier"));
    assert_eq!(page.site.as_deref(), Some("Town"));
    assert_eq!(page.author.as_deref(), Some("A. Keeper"));
    assert_eq!(page.date.as_deref(), Some("2020-01-02"));
    assert_eq!(page.links, ["/lamps"]);
    assert_eq!(page.encoding, "UTF-8");
}

#[test]
fn without_names_the_prose_is_found() {
    let page = format!(
        "<div><div><a href=/a>Home</a> <a href=/b>Shop</a></div><div><p>{PROSE}</p><p>{PROSE} Again.</p></div>\
         <div><a href=/c>Imprint</a></div></div>"
    );
    assert_eq!(text_of(&page).unwrap(), format!("{PROSE}\n{PROSE} Again."));
}

#[test]
fn text_for_machines_is_used_where_there_is_no_other() {
    let page = format!(
        "<script type='application/ld+json'>{{\"@graph\": [{{\"articleBody\": \"{PROSE}\", \"author\": [{{\"name\": \
         \"B\"}}], \"datePublished\": \"2021\"}}]}}</script><div id=app></div>"
    );
    let page = extract(page.as_bytes(), &Options::default()).unwrap();
    assert_eq!((page.text.as_str(), page.author.as_deref()), (PROSE, Some("B")));
    assert_eq!(page.date.as_deref(), Some("2021"));
}

#[test]
fn tables_are_rows_and_can_be_left_out() {
    let page = format!("<article><p>{PROSE}</p><table><tr><th>Lamp<th>Colour<tr><td>left<td>red</table></article>");
    assert_eq!(text_of(&page).unwrap(), format!("{PROSE}\nLamp | Colour\nleft | red"));
    let options = Options { tables: false, ..Options::default() };
    assert_eq!(extract(page.as_bytes(), &options).unwrap().text, PROSE);
}

#[test]
fn pages_over_the_limits_are_refused() {
    let deep = format!("{}{PROSE}", "<div>".repeat(200_000));
    assert_eq!(text_of(&deep), Err(Refusal::TooDeep { limit: 1024 }));
    let limits = Limits { bytes: 100, nodes: 10, depth: 10 };
    let options = Options { limits, ..Options::default() };
    assert_eq!(extract(PROSE.as_bytes(), &options), Err(Refusal::TooLarge { limit: 100 }));
    assert_eq!(extract(&b"<br>".repeat(12), &options), Err(Refusal::TooManyNodes { limit: 10 }));
}

#[test]
fn pages_without_text_say_so() {
    for page in ["", "<nav><a href=/>Home</a></nav>", "\0\0<", "<article></article>", "<p>"] {
        assert_eq!(text_of(page), Err(Refusal::NoText), "{page:?}");
    }
}
