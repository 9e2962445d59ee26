//! What is masked and what is not, over a corpus of each; that streaming and masking twice change nothing; that time
//! grows with the text and not faster.

use super::{Masker, Redact, Veil};
use crate::{
    model::Delta,
    tool::{Content, ToolResult},
};
use narthex_base::chat::{Message, MessageContent, Role};
use serde_json::{Value, json};
use std::borrow::Cow;

/// The text and what becomes of it. `¦` is taken out first, so that no line here looks like a token.
const POSITIVE: &[(&str, &str)] = &[
    ("write to anna@example.org.", "write to [email]."),
    ("Anna <anna.b+news@mail.example.co.uk>, Bert", "Anna <[email]>, Bert"),
    ("mailto:anna_b@example.museum?subject=x", "mailto:[email]?subject=x"),
    ("?user=anna%40example.org&x=1", "?user=[email]&x=1"),
    ("{\"mail\":\"o'brien@example.ie\"}", "{\"mail\":\"[email]\"}"),
    ("müller@bücher.example", "[email]"),
    ("a@xn--bcher-kva.xn--p1ai!", "[email]!"),
    ("from \"Anna B\"@example.org today", "from [email] today"),
    ("(x@y.zz)", "([email])"),
    ("a@b.com,c@d.com;e@f.org", "[email],[email];[email]"),
    ("ANNA@EXAMPLE.COM", "[email]"),
    ("a@example.com.5 things", "[email].5 things"),
    ("user=anna@example.org", "user=[email]"),
    ("4111111111111111", "[card]"),
    ("card 4111 1111 1111 1111 exp 12/26", "card [card] exp 12/26"),
    ("4242-4242-4242-4242.", "[card]."),
    ("4012888888881881", "[card]"),
    ("4222222222222", "[card]"),
    ("5555\u{a0}5555\u{a0}5555\u{a0}4444", "[card]"),
    ("\"5105105105105100\"", "\"[card]\""),
    ("2223003122003222", "[card]"),
    ("378282246310005", "[card]"),
    ("amex 3782 822463 10005", "amex [card]"),
    ("371449635398431,", "[card],"),
    ("6011 0009 9013 9424", "[card]"),
    ("3530111333300000", "[card]"),
    ("3056 930902 5904", "[card]"),
    ("38520000023237", "[card]"),
    ("nr:6304000000000000", "nr:[card]"),
    ("6200000000000005", "[card]"),
    ("order 123 4111 1111 1111 1111 99", "order 123 [card] 99"),
    ("DE89370400440532013000", "[iban]"),
    ("IBAN: DE89 3704 0044 0532 0130 00, BIC", "IBAN: [iban], BIC"),
    ("gb82 west 1234 5698 7654 32", "[iban]"),
    ("FR14 2004 1010 0505 0001 3M02 606", "[iban]"),
    ("NL91ABNA0417164300 is mine", "[iban] is mine"),
    ("IT60 X054 2811 1010 0000 0123 456", "[iban]"),
    ("CH93-0076-2011-6238-5295-7", "[iban]"),
    ("AT61\u{a0}1904\u{a0}3002\u{a0}3457\u{a0}3201", "[iban]"),
    ("BE68 5390 0754 7034", "[iban]"),
    ("NO93 8601 1117 947", "[iban]"),
    ("PL61 1090 1014 0000 0712 1981 2874", "[iban]"),
    ("MT84 MALT 0110 0001 2345 MTLC AST0 01S", "[iban]"),
    ("BR18 0036 0305 0000 1000 9795 493C 1", "[iban]"),
    ("from 203.0.113.7 at noon", "from [ip] at noon"),
    ("http://192.168.1.20:8080/x", "http://[ip]:8080/x"),
    ("10.0.0.0/8", "[ip]/8"),
    ("10.1.2.3.", "[ip]."),
    ("10.0.0.1-10.0.0.9", "[ip]-[ip]"),
    ("[2001:db8::1]:443", "[[ip]]:443"),
    ("fe80::1%eth0", "[ip]%eth0"),
    ("2001:0db8:0000:0000:0000:ff00:0042:8329", "[ip]"),
    ("::ffff:198.51.100.4", "[ip]"),
    ("call +49 170 1234567", "call [phone]"),
    ("+1 (555) 123-4567", "[phone]"),
    ("+44 (0) 20 7946 0958", "[phone]"),
    ("tel:+33123456789", "tel:[phone]"),
    ("0049 30 1234567", "[phone]"),
    ("(212) 555-0187", "[phone]"),
    ("212-555-0187", "[phone]"),
    ("1-800-555-0199", "[phone]"),
    ("212.555.0187", "[phone]"),
    ("030 1234567", "[phone]"),
    ("(0711) 123456-7", "[phone]"),
    ("030/12345678", "[phone]"),
    ("01 23 45 67 89", "[phone]"),
    ("01.23.45.67.89", "[phone]"),
    ("07911 123456", "[phone]"),
    ("0301234567", "[phone]"),
    ("+86 138 0013 8000", "[phone]"),
    ("+49.30.1234567", "[phone]"),
    ("key sk-¦abcdefghijklmnopqrstuvwx", "key [secret]"),
    ("sk-¦proj-abcDEF123_456-789abcdefXYZ", "[secret]"),
    ("sk_¦live_abcdefghij0123456789", "[secret]"),
    ("TOKEN=ghp_¦abcdefghijklmnopqrstuvwxyz0123456789", "TOKEN=[secret]"),
    ("github_¦pat_11ABCDEFG0abcdefghijkl_mnop", "[secret]"),
    ("glpat-¦abcdefghij0123456789", "[secret]"),
    ("AKIA¦IOSFODNN7EXAMPLE", "[secret]"),
    ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG¦/bPxRfiCYEXAMPLEKEY", "aws_secret_access_key = [secret]"),
    ("xoxb-¦123456789012-abcdefghij", "[secret]"),
    (
        "https://hooks.slack.com/services/¦T00000000/B00000000/XXXXXXXXXXXXXXXX",
        "https://hooks.slack.com/services/[secret]",
    ),
    ("AIza¦SyA1234567890abcdefghijklmnopqrstuv", "[secret]"),
    ("hf_¦abcdefghijklmnopqrstuvwxyzABCDEFGH", "[secret]"),
    ("npm_¦abcdefghijklmnopqrstuvwxyz0123456789", "[secret]"),
    ("SG.¦abcdefghijklmnop.qrstuvwxyz0123456789", "[secret]"),
    ("eyJ¦hbGciOiJIUzI1NiJ9.eyJ¦zdWIiOiIxMjM0In0.abc-DEF_123", "[secret]"),
    ("Authorization: Bearer abcdef0123456789¦abcdef0123", "Authorization: Bearer [secret]"),
    ("postgres://anna:hunter2¦@db.example.org/x", "postgres://anna:[secret]/x"),
    ("redis://:s3cret¦@localhost:6379", "redis://:[secret]@localhost:6379"),
    ("-----BEGIN RSA ¦PRIVATE KEY-----\nMIIE\nabc=\n-----END RSA ¦PRIVATE KEY-----\nrest", "[secret]\nrest"),
    ("x\n-----BEGIN ¦PRIVATE KEY-----\nMIIE\nabc", "x\n[secret]"),
    ("-----BEGIN OPENSSH ¦PRIVATE KEY-----\nb3Blbn\n-----END OPENSSH ¦PRIVATE KEY-----", "[secret]"),
];

const NEGATIVE: &[&str] = &[
    "follow @anna on the list",
    "root@localhost",
    "a @ b . c",
    "git@github.com:anna/things.git",
    "import x from '@scope/pkg'",
    "npm i left-pad@1.3.0",
    "icon@2x.png",
    "5 apples @ 1.20",
    "@media (max-width: 60rem)",
    "user@",
    "@example.org",
    "4111111111111112",
    "1234567890123456",
    "1700000000000000 microseconds",
    "4111 1111 1111",
    "41111111111111111111111",
    "0x4111111111111111",
    "a4111111111111111",
    "4111111111111111abc",
    "0.4111111111111111",
    "9999999999999995",
    "0000000000000000",
    "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
    "123e4567-e89b-12d3-a456-426614174000",
    "00000000-0000-4000-8000-000000000000",
    "DE89370400440532013001",
    "DE89 3704 0044",
    "XX89370400440532013000",
    "ADE89370400440532013000",
    "DE893704004405320130000",
    "GB82 WEST 1234 5698 7654 33",
    "1.2.3",
    "1.2.3.4.5",
    "v1.2.3.4",
    "1.2.3.4-beta",
    "300.1.2.3",
    "256.256.256.256",
    "127.0.0.1:8080",
    "0.0.0.0",
    "255.255.255.255",
    "std::vector<int>",
    "a::b::c",
    "12:30:45",
    "00:1a:2b:3c:4d:5e",
    "http://[::1]:80/",
    "face::bed",
    "2024-11-30",
    "2024-11-30T12:30:45.123Z",
    "01.02.2024",
    "01.02.2024 12:30",
    "30.11.2024",
    "12/31/2024",
    "978-3-16-148410-0",
    "0-306-40615-2",
    "ISBN 9783161484100",
    "1,234,567,890",
    "1 234 567",
    "3.14159265358979",
    "0.0123456789",
    "order 0012345678",
    "page 123-456",
    "123-45-678",
    "1024x768",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "run-00491701234567890123456789012345",
    "call_1_0",
    "C++ 12345678",
    "$ 1+1234567890",
    "sk-short",
    "ask-me-anything-about-the-weather-tomorrow",
    "ghp_short",
    "task_live_",
    "AKIAshort",
    "eyJ is how they begin",
    "the bearer of bad news",
    "https://example.org/a:b@c",
    "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
    "-----BEGIN PUBLIC KEY-----\nMIIE\n-----END PUBLIC KEY-----",
    "[email] and [card] and [secret]",
    "The quick brown fox jumps over 13 lazy dogs in 2024.",
];

fn all() -> Masker {
    Masker::new(&Redact::ALL)
}

fn told(deltas: impl IntoIterator<Item = Delta>) -> String {
    let text = |delta| match delta {
        Delta::Text(text) => text,
        Delta::Thought(text) => panic!("{text}"),
    };
    deltas.into_iter().map(text).collect()
}

#[test]
fn the_corpus() {
    assert!(POSITIVE.len() >= 60 && NEGATIVE.len() >= 60);
    let mut wrong = vec![];
    for (text, expected) in POSITIVE {
        let text = text.replace('¦', "");
        let masked = all().text(&text).into_owned();
        if masked != *expected {
            wrong.push(format!("{text:?} became {masked:?} and not {expected:?}"));
        }
        assert_eq!(all().text(&masked), masked, "twice is as once");
        assert_eq!(Masker::default().text(&text), text);
    }
    for text in NEGATIVE {
        let masked = all().text(text);
        if masked != *text {
            wrong.push(format!("{text:?} became {masked:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_kind_masks_its_own_and_nothing_else() {
    let text = "a@b.org 4111111111111111 +49 170 1234567 DE89370400440532013000 203.0.113.7";
    for (kind, part) in [
        (Redact::Email, "[email] 4111"),
        (Redact::Card, " [card] "),
        (Redact::Phone, " [phone] DE"),
        (Redact::Iban, " [iban] 203"),
        (Redact::Ip, " [ip]"),
    ] {
        let masked = Masker::new(&[kind]).text(text).into_owned();
        assert!(masked.contains(part) && masked.matches('[').count() == 1, "{kind:?}: {masked}");
    }
}

#[test]
fn wherever_a_stream_is_cut_it_tells_the_same() {
    let key = "-----BEGIN ¦PRIVATE KEY-----\nMII. E\n-----END ¦PRIVATE KEY-----\n".replace('¦', "");
    let whole = format!(
        "Hello. Write to \"anna. b\"@example.org or anna@example.org! Then\npay 4111 1111 1111 1111 to DE89 3704 0044 \
         0532 0130 00? {key}Call +49 170 1234567. The end {key}and -----BEGIN more\nlines. {key}of 203.0.113.7. it"
    );
    let expected = all().text(&whole).into_owned();
    assert!(expected.matches("[secret]").count() == 3 && !expected.contains("MII"), "{expected}");
    for size in 1..40 {
        let mut veil = Veil::new(all());
        let chars: Vec<char> = whole.chars().collect();
        let mut pieces = vec![];
        for piece in chars.chunks(size) {
            pieces.extend(veil.push(Delta::Text(piece.iter().collect())));
        }
        assert!(!pieces.is_empty() && told(pieces.clone()).starts_with("Hello. "), "it streams");
        pieces.extend(veil.finish());
        assert_eq!(told(pieces), expected, "in pieces of {size}");
    }
}

#[test]
fn a_stream_without_a_place_to_cut_is_told_at_its_end() {
    let mut veil = Veil::new(all());
    for _ in 0..20_000 {
        assert_eq!(veil.push(Delta::Text("anna@".into())), None);
    }
    assert_eq!(told(veil.finish()).len(), 100_000);
    let mut open = Veil::new(Masker::default());
    assert_eq!(open.push(Delta::Thought("a".into())), Some(Delta::Thought("a".into())), "nothing is held for nothing");
}

#[test]
fn values_keys_and_numbers() {
    let mut value = json!({"a@b.org": 1, "c@d.org": [4_111_111_111_111_111_u64, true, null, {"x": "203.0.113.7"}]});
    all().value(&mut value);
    assert_eq!(value, json!({"[email]": 1, "[email] 1": ["[card]", true, null, {"x": "[ip]"}]}));
}

#[test]
fn messages_and_results() {
    let mut message = Message::new(Role::Assistant, "a@b.org");
    message.others.insert("reasoning".into(), Value::String("about c@d.org".into()));
    message.tool_calls = serde_json::from_value(json!([
        {"id": "1", "function": {"name": "send", "arguments": "{\"to\": \"a\\u0040b.org\"}"}},
        {"id": "2", "function": {"name": "send", "arguments": "{\"to\": \"nobody\"}"}},
        {"id": "3", "function": {"name": "send", "arguments": "not JSON: a@b.org"}},
    ]))
    .unwrap();
    all().message(&mut message);
    assert_eq!(message.content, MessageContent::Text("[email]".into()));
    let arguments: Vec<&str> = message.tool_calls.iter().map(|call| call.function.arguments.as_str()).collect();
    assert_eq!(arguments, [r#"{"to":"[email]"}"#, r#"{"to": "nobody"}"#, "not JSON: [email]"]);
    assert!(!json!(message).to_string().contains("@"));
    let blob = Content::Resource { uri: "f:a@b.org".into(), mime_type: None, text: None, blob: Some("YUBi".into()) };
    let result = ToolResult { content: vec![blob], structured: Some(json!("a@b.org")), is_error: false };
    let given = all().given(Ok(result.clone())).unwrap();
    let text = "f:[email]: about 3 bytes of unknown type, left out: `redact` cannot look into them";
    assert_eq!(given, ToolResult { structured: Some(json!("[email]")), ..ToolResult::text(text) });
    assert_eq!(Masker::default().given(Ok(result.clone())).unwrap(), result);
}

#[test]
fn texts_that_are_made_to_take_long() {
    // Work that grows with the square of this would take minutes.
    const BYTES: usize = 1 << 17;
    for piece in [
        "a@",
        "a.",
        "1 ",
        "1234 ",
        "0",
        "+1",
        "DE12 ",
        "::",
        "1.",
        "eyJ",
        "sk-",
        "://a:",
        "-----BEGIN ",
        "(0",
        "\"@",
        "%40",
    ] {
        let text = piece.repeat(BYTES / piece.len());
        assert!(matches!(all().text(&text), Cow::Borrowed(_) | Cow::Owned(_)));
    }
}
