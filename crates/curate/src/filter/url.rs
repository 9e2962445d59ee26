//! Drops documents by where they come from: lists of domains, addresses and words (Penedo et al., "RefinedWeb", 2023),
//! as datatrove's `URLFilter`. Words of an address are compared as they are written, parts of words in lower case.

use super::Verdict;
use foldhash::fast::FixedState;
use psl::{Psl, Type};
use std::collections::HashSet;

/// What is not wanted.
#[derive(Clone, Debug, Default)]
pub struct UnwantedUrls {
    domains: HashSet<String, FixedState>,
    urls: HashSet<String, FixedState>,
    words: HashSet<String, FixedState>,
    soft_words: HashSet<String, FixedState>,
    subwords: Vec<String>,
    soft_limit: usize,
}

impl UnwantedUrls {
    /// Registered domains or hosts, whole addresses, words of which one is too many, words of which `soft_limit` are,
    /// and parts of words. Words are taken in lower case, and only their ASCII letters and digits count. Lines that
    /// begin with
    /// `#` are comments.
    pub fn new([domains, urls, words, soft_words, subwords]: [&[String]; 5], soft_limit: usize) -> Self {
        let plain = |list: &[String]| -> HashSet<String, FixedState> {
            list.iter().filter(|line| !line.starts_with('#')).map(|line| line.trim().to_string()).collect()
        };
        let normal = |list: &[String]| -> HashSet<String, FixedState> {
            list.iter().filter(|line| !line.starts_with('#')).map(|line| letters_and_digits(line)).collect()
        };
        let mut subwords: Vec<String> = normal(subwords).into_iter().filter(|word| !word.is_empty()).collect();
        subwords.sort_unstable();
        Self {
            domains: plain(domains),
            urls: plain(urls),
            words: normal(words),
            soft_words: normal(soft_words),
            subwords,
            soft_limit,
        }
    }

    /// Judges an address.
    pub fn judge(&self, url: &str) -> Verdict {
        let host = host(url);
        let (registered, whole) = match registered_domain(host) {
            Some(registered) => (registered, host),
            None => ("", ""),
        };
        for (name, of) in [(registered, "domain"), (whole, "subdomain")] {
            if self.domains.contains(name) {
                return Verdict::dropped(of, 1.0);
            }
        }
        if self.urls.contains(url) {
            return Verdict::dropped("url", 1.0);
        }
        let words: HashSet<&str, FixedState> = url.split(|c: char| !c.is_ascii_alphanumeric()).collect();
        if words.iter().any(|word| self.words.contains(*word)) {
            return Verdict::dropped("hard_blacklisted", 1.0);
        }
        let soft = words.iter().filter(|word| self.soft_words.contains(**word)).count();
        if soft >= self.soft_limit {
            return Verdict::dropped("soft_blacklisted", soft as f64);
        }
        let joined = letters_and_digits(url);
        if self.subwords.iter().any(|word| joined.contains(word.as_str())) {
            return Verdict::dropped("blacklisted_subword", 1.0);
        }
        Verdict::Kept
    }
}

fn letters_and_digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// The host in an address, which may lack a scheme.
pub fn host(url: &str) -> &str {
    let scheme = |scheme: &str| scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let rest = match url.find("//") {
        Some(0) => &url[2..],
        Some(at) if at >= 2 && url[..at].strip_suffix(':').is_some_and(scheme) => &url[at + 2..],
        _ => url,
    };
    let rest = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let rest = rest.rsplit('@').next().unwrap_or(rest);
    let end = if rest.starts_with('[') {
        rest.find(']').map_or(rest.len(), |at| at + 1)
    } else {
        rest.find(':').unwrap_or(rest.len())
    };
    rest[..end].trim().trim_end_matches(['.', '\u{3002}', '\u{ff0e}', '\u{ff61}'])
}

/// The part of a host that somebody registered, by the public suffix list without its private part. Nothing for an
/// address of numbers and for what has no known suffix.
pub fn registered_domain(host: &str) -> Option<&str> {
    let lower = host.to_ascii_lowercase();
    let starts = std::iter::once(0).chain(host.match_indices('.').map(|(at, _)| at + 1));
    let starts: Vec<usize> = starts.collect();
    let suffix = starts.iter().position(|start| {
        let suffix = psl::List.find(lower[*start..].rsplit('.').map(str::as_bytes));
        suffix.typ == Some(Type::Icann) && suffix.len == lower.len() - start
    })?;
    Some(&host[*starts.get(suffix.checked_sub(1)?)?..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_domains() {
        for (url, of, registered) in [
            ("https://user@www.Example.co.uk:8080/a?b#c", "www.Example.co.uk", Some("Example.co.uk")),
            ("foo.github.io/x", "foo.github.io", Some("github.io")),
            ("//a.com.", "a.com", Some("a.com")),
            ("http://8.8.8.8/x", "8.8.8.8", None),
            ("http://[::1]:80/", "[::1]", None),
            ("co.uk", "co.uk", None),
            ("localhost", "localhost", None),
        ] {
            assert_eq!((host(url), registered_domain(host(url))), (of, registered), "{url}");
        }
    }
}
