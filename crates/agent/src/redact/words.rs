//! Words that name somebody or open something: addresses of e-mail and of machines, tokens and keys. Forms only; asks
//! nobody whether they are valid.

use super::near::{after, begins, ends};
use regex::Regex;
use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::LazyLock,
};

/// Bytes before the `@` of an address.
const LOCAL_BYTES_MAX: usize = 256;
/// Bytes of a domain.
const DOMAIN_BYTES_MAX: usize = 255;
/// Bytes of an IPv6 address.
const IPV6_BYTES_MAX: usize = 45;
/// Endings of pictures, whose names hold an `@` with a factor.
const PICTURES: [&str; 6] = ["png", "jpg", "jpeg", "webp", "gif", "svg"];

/// Addresses of e-mail.
pub(super) fn emails(text: &str, found: &mut dyn FnMut(usize, usize)) {
    // In a query the sign is written as %40.
    for sign in ["@", "%40"] {
        for (at, _) in text.match_indices(sign) {
            if let (Some(start), Some(end)) = (local_start(text, at), domain_end(text, at + sign.len()))
                && !is_no_email(text, start, at, end)
            {
                found(start, end);
            }
        }
    }
}

fn local_start(text: &str, at: usize) -> Option<usize> {
    let within = &text[text.ceil_char_boundary(at.saturating_sub(LOCAL_BYTES_MAX))..at];
    if let Some(quoted) = within.strip_suffix('"') {
        // Not beyond a line or a sentence: see the veil.
        let open =
            quoted.rfind('"').filter(|open| !["\n", ". ", "! ", "? "].iter().any(|end| quoted[*open..].contains(end)));
        return Some(at - within.len() + open.unwrap_or(quoted.len()));
    }
    let fits = |c: char| c.is_alphanumeric() || "._%+-'!#$&*=?^`{|}~".contains(c);
    let local = within.rsplit(|c| !fits(c)).next().unwrap_or_default();
    // What stands before a value in a text or a path is no part of it.
    let local = local.rsplit(['=', '?', '&', '`', '{', '|', '}', '#', '*']).next().unwrap_or_default();
    let local = local.trim_start_matches(['.', '-', '!', '$', '~', '^', '\'']);
    (!local.is_empty()).then(|| at - local.len())
}

fn domain_end(text: &str, start: usize) -> Option<usize> {
    let within = &text[start..text.floor_char_boundary((start + DOMAIN_BYTES_MAX).min(text.len()))];
    let fits = |c: char| c.is_alphanumeric() || c == '-' || c == '.';
    let mut domain = within.split(|c| !fits(c)).next().unwrap_or_default();
    domain = domain.split("..").next().unwrap_or_default();
    let is_label = |label: &str| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-');
    let is_top = |label: &str| {
        label.starts_with("xn--") || (label.chars().count() >= 2 && label.chars().all(char::is_alphabetic))
    };
    loop {
        let (rest, last) = domain.rsplit_once('.')?;
        if is_top(last) && rest.split('.').all(is_label) {
            return Some(start + domain.len());
        }
        domain = rest;
    }
}

/// `git@host:path` and `icon@2x.png` look like addresses and are none.
fn is_no_email(text: &str, start: usize, at: usize, end: usize) -> bool {
    let (local, domain) = (&text[start..at], text[at..end].trim_start_matches('@'));
    let top = domain.rsplit('.').next().unwrap_or_default();
    let factor = domain.split('.').next().and_then(|first| first.strip_suffix('x'));
    (local == "git" && text[end..].starts_with(':'))
        || (factor.is_some_and(|factor| factor.parse::<u8>().is_ok()) && PICTURES.contains(&top))
}

static IPV4: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b[0-9]{1,3}(?:\.[0-9]{1,3}){3}").expect("it is ours"));
static IPV6: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"[0-9a-fA-F:][0-9a-fA-F:.]*:[0-9a-fA-F:.]*").expect("it is ours"));

/// Addresses of machines, but for those that name no machine in particular: loopback, unspecified, broadcast.
pub(super) fn ips(text: &str, found: &mut dyn FnMut(usize, usize)) {
    for candidate in IPV4.find_iter(text) {
        let (start, end) = (candidate.start(), candidate.end());
        let suffix = after(text, end) == Some('-') && after(text, end + 1).is_some_and(char::is_alphabetic);
        let named = |address: Ipv4Addr| !(address.is_loopback() || address.is_unspecified() || address.is_broadcast());
        if begins(text, start) && ends(text, end) && !suffix && candidate.as_str().parse().is_ok_and(named) {
            found(start, end);
        }
    }
    for candidate in IPV6.find_iter(text) {
        let start = candidate.start();
        let trimmed = candidate.as_str().trim_end_matches('.');
        // One colon at the end is the text's.
        let trimmed = if trimmed.ends_with("::") { trimmed } else { trimmed.trim_end_matches(':') };
        let end = start + trimmed.len();
        let named = |address: Ipv6Addr| !(address.is_loopback() || address.is_unspecified());
        let has_digit = trimmed.bytes().any(|byte| byte.is_ascii_digit());
        if trimmed.len() <= IPV6_BYTES_MAX
            && has_digit
            && begins(text, start)
            && ends(text, end)
            && trimmed.parse().is_ok_and(named)
        {
            found(start, end);
        }
    }
}

/// Forms of tokens. What stands in one of the named groups is masked, or the whole where there is none. No form holds
/// a space behind a point, or a line end: texts are cut there while they stream.
static SECRETS: LazyLock<Regex> = LazyLock::new(|| {
    let forms = [
        r"\bsk-[A-Za-z0-9_\-]{20,}",
        r"\b[srp]k_(?:live|test)_[A-Za-z0-9]{16,}",
        r"\bwhsec_[A-Za-z0-9+/=]{24,}",
        r"\bgh[pousr]_[A-Za-z0-9]{30,}",
        r"\bgithub_pat_[A-Za-z0-9_]{22,}",
        r"\bgl(?:pat|dt|rt|cbt)-[A-Za-z0-9_\-]{20,}",
        r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b",
        r#"(?i:aws_?secret_?(?:access_?)?key)["']?[ \t]{0,8}[=:][ \t]{0,8}["']?(?<aws>[A-Za-z0-9/+=]{40})"#,
        r"\bxox[abeoprs]-[A-Za-z0-9\-]{10,}",
        r"\bxapp-[A-Za-z0-9\-]{10,}",
        r"hooks\.slack\.com/services/(?<hook>[A-Za-z0-9/]{20,})",
        r"\bAIza[A-Za-z0-9_\-]{35}",
        r"\bya29\.[A-Za-z0-9_\-]{20,}",
        r"\bGOCSPX-[A-Za-z0-9_\-]{20,}",
        r"\bhf_[A-Za-z0-9]{30,}",
        r"\bnpm_[A-Za-z0-9]{36}",
        r"\bpypi-[A-Za-z0-9_\-]{50,}",
        r"\bSG\.[A-Za-z0-9_\-]{16,}\.[A-Za-z0-9_\-]{16,}",
        r"\bdop_v1_[a-f0-9]{64}",
        r"\bdapi[a-f0-9]{32}",
        r"\bAGE-SECRET-KEY-1[0-9A-Z]{58}",
        r"\b[0-9]{8,10}:AA[A-Za-z0-9_\-]{33}",
        r"\beyJ[A-Za-z0-9_\-]{8,}\.eyJ[A-Za-z0-9_\-]{4,}\.[A-Za-z0-9_\-]*",
        r"(?i:\bbearer[ \t]{1,8})(?<bearer>[A-Za-z0-9._~+/=\-]{20,})",
        r"[A-Za-z0-9]://[^\s/:@]*:(?<password>[^\s/@]+)@",
    ];
    Regex::new(&forms.join("|")).expect("it is ours")
});

static KEY_BEGINS: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----").expect("it is ours"));

/// What stands in place of a secret.
pub(super) const MASK: &str = "[secret]";

/// What begins the end of a key.
const KEY_ENDS: &str = "-----END ";

/// Tokens, keys and passwords.
pub(super) fn secrets(text: &str, found: &mut dyn FnMut(usize, usize)) {
    const GROUPS: [&str; 4] = ["aws", "hook", "bearer", "password"];
    for captures in SECRETS.captures_iter(text) {
        let part = GROUPS.iter().find_map(|group| captures.name(group)).or(captures.get(0));
        // What was masked before stands as it is.
        if let Some(part) = part.filter(|part| part.as_str() != MASK) {
            found(part.start(), part.end());
        }
    }
    let mut at = 0;
    while let Some(begin) = KEY_BEGINS.find_at(text, at) {
        // One that is cut off is a key up to the end.
        let close = text[begin.end()..].find(KEY_ENDS).map(|offset| begin.end() + offset + KEY_ENDS.len());
        let end = close.and_then(|close| text[close..].find("-----").map(|offset| close + offset + 5));
        at = end.unwrap_or(text.len());
        found(begin.start(), at);
    }
}
