//! GBNF (<https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md>) to Lark's syntax: rules keep their
//! meaning, each class of characters becomes a terminal of one character.

use narthex_base::{Error, Result};
use std::fmt::Write;

/// Whether a grammar is written in GBNF (or another form of EBNF with `::=`).
pub(super) fn is_gbnf(text: &str) -> bool {
    text.lines().any(|line| {
        let line = line.trim_start();
        !line.starts_with('#') && line.contains("::=")
    })
}

/// The same grammar in Lark's syntax; its rule `root` begins it.
///
/// # Errors
/// If it is no GBNF; the line is named.
pub(super) fn to_lark(text: &str) -> Result<String> {
    let mut reader = Reader { rest: text, line: 1 };
    let mut lark = String::from("start: rule_root\n");
    let mut found = false;
    reader.skip(true);
    while !reader.rest.is_empty() {
        let name = reader.name().ok_or_else(|| reader.wrong("a rule's name"))?.to_string();
        found |= name == "root";
        reader.skip(true);
        if !reader.take("::=") {
            return Err(reader.wrong("`::=`"));
        }
        reader.skip(true);
        write!(lark, "{}:", rule(&name)).expect("a string takes all text");
        reader.alternatives(&mut lark, 0)?;
        lark.push('\n');
        reader.skip(true);
    }
    if found { Ok(lark) } else { Err(Error::input("the grammar has no rule `root`")) }
}

/// Groups within groups at most.
const DEPTH_MAX: usize = 64;

/// A rule's name as Lark takes it: small letters, digits and `_`.
fn rule(name: &str) -> String {
    name.chars().fold("rule_".to_string(), |mut rule, c| {
        match c {
            'a'..='z' | '0'..='9' => rule.push(c),
            '-' => rule.push('_'),
            // Others keep apart what would be alike.
            c => write!(rule, "_{:x}_", u32::from(c)).expect("a string takes all text"),
        }
        rule
    })
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Reader<'a> {
    fn wrong(&self, wanted: &str) -> Error {
        let found = self.rest.chars().next().map_or("the end".to_string(), |c| format!("`{}`", c.escape_default()));
        Error::input(format!("line {} of the grammar: {wanted} is expected, not {found}", self.line))
    }

    fn advance(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }

    fn take(&mut self, text: &str) -> bool {
        let found = self.rest.starts_with(text);
        if found {
            self.advance(text.len());
        }
        found
    }

    /// Passes over white space and comments, and over line ends if asked.
    fn skip(&mut self, lines: bool) {
        loop {
            let blank = self.rest.find(|c: char| !(c == ' ' || c == '\t' || lines && (c == '\n' || c == '\r')));
            self.advance(blank.unwrap_or(self.rest.len()));
            if !self.rest.starts_with('#') {
                return;
            }
            self.advance(self.rest.find('\n').unwrap_or(self.rest.len()));
        }
    }

    fn name(&mut self) -> Option<&'a str> {
        let end = self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'));
        let end = end.unwrap_or(self.rest.len());
        (end > 0).then(|| self.advance(end))
    }

    /// Whether another rule begins here: a name and `::=`.
    fn at_rule(&self) -> bool {
        let mut ahead = Reader { rest: self.rest, line: 0 };
        ahead.name().is_some() && {
            ahead.skip(true);
            ahead.rest.starts_with("::=")
        }
    }

    fn alternatives(&mut self, lark: &mut String, depth: usize) -> Result<()> {
        if depth > DEPTH_MAX {
            return Err(Error::input(format!("groups of a grammar may be {DEPTH_MAX} deep at most")));
        }
        loop {
            self.sequence(lark, depth)?;
            self.skip(true);
            if !self.take("|") {
                return Ok(());
            }
            lark.push_str(" |");
            self.skip(true);
        }
    }

    fn sequence(&mut self, lark: &mut String, depth: usize) -> Result<()> {
        let mut items = 0;
        loop {
            self.skip(true);
            let mut item = String::new();
            match self.rest.chars().next() {
                Some('"') => item = self.string()?,
                Some('[') => item = self.class()?,
                Some('.') => {
                    self.advance(1);
                    item.push_str("/(?s:.)/");
                }
                Some('(') => {
                    self.advance(1);
                    item.push('(');
                    self.alternatives(&mut item, depth + 1)?;
                    if !self.take(")") {
                        return Err(self.wrong("`)`"));
                    }
                    item.push(')');
                }
                Some(c) if (c.is_ascii_alphanumeric() || c == '_' || c == '-') && !self.at_rule() => {
                    item = rule(self.name().unwrap_or_default());
                }
                _ => break,
            }
            self.skip(false);
            self.repetition(&mut item)?;
            write!(lark, " {item}").expect("a string takes all text");
            items += 1;
        }
        if items == 0 {
            lark.push_str(" \"\"");
        }
        Ok(())
    }

    fn repetition(&mut self, item: &mut String) -> Result<()> {
        match self.rest.chars().next() {
            Some(c @ ('*' | '+' | '?')) => {
                self.advance(1);
                item.push(c);
            }
            Some('{') => {
                let end = self.rest.find('}').ok_or_else(|| self.wrong("`}`"))?;
                let inner = self.advance(end + 1)[1..end].replace(' ', "");
                let number = |text: &str| text.parse::<u32>().ok().filter(|count| *count <= 10_000);
                let bounds = match inner.split_once(',') {
                    None => number(&inner).map(|count| format!("{{{count}}}")),
                    Some((least, "")) => number(least).map(|least| format!("{{{least},}}")),
                    Some(("", most)) => number(most).map(|most| format!("{{0,{most}}}")),
                    Some((least, most)) => match (number(least), number(most)) {
                        (Some(least), Some(most)) if least <= most => Some(format!("{{{least},{most}}}")),
                        _ => None,
                    },
                };
                item.push_str(&bounds.ok_or_else(|| self.wrong("a number of times, up to 10000,"))?);
            }
            _ => {}
        }
        Ok(())
    }

    /// One character of a string or class, escapes read.
    fn character(&mut self) -> Result<char> {
        let c = self.rest.chars().next().ok_or_else(|| self.wrong("a character"))?;
        self.advance(c.len_utf8());
        if c != '\\' {
            return Ok(c);
        }
        let kind = self.rest.chars().next().ok_or_else(|| self.wrong("an escape"))?;
        let digits = match kind {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            'n' | 'r' | 't' | '"' | '[' | ']' | '\\' | '-' | '^' | '/' | '.' => {
                self.advance(1);
                return Ok(match kind {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    c => c,
                });
            }
            _ => return Err(self.wrong("one of the escapes n, r, t, x, u, U, \", [, ] and \\")),
        };
        self.advance(1);
        let code = self.rest.get(..digits).and_then(|hex| u32::from_str_radix(hex, 16).ok()).and_then(char::from_u32);
        let code = code.ok_or_else(|| self.wrong(&format!("{digits} hexadecimal digits of a character")))?;
        self.advance(digits);
        Ok(code)
    }

    fn string(&mut self) -> Result<String> {
        self.advance(1);
        let mut text = String::new();
        while !self.take("\"") {
            text.push(self.character()?);
        }
        Ok(serde_json::Value::from(text).to_string())
    }

    fn class(&mut self) -> Result<String> {
        self.advance(1);
        let mut class = String::from(if self.take("^") { "/[^" } else { "/[" });
        let escaped =
            |class: &mut String, c: char| write!(class, "\\u{{{:x}}}", u32::from(c)).expect("a string takes all");
        let mut some = false;
        while !self.take("]") {
            let first = self.character()?;
            escaped(&mut class, first);
            some = true;
            if self.rest.starts_with('-') && !self.rest.starts_with("-]") {
                self.advance(1);
                let last = self.character()?;
                if last < first {
                    return Err(self.wrong("a range of rising characters"));
                }
                class.push('-');
                escaped(&mut class, last);
            }
        }
        if !some {
            return Err(self.wrong("a character of the class"));
        }
        class.push_str("]/");
        Ok(class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(gbnf: &str, expected: std::result::Result<&str, &str>) {
        match (to_lark(gbnf), expected) {
            (Ok(lark), Ok(expected)) => assert_eq!(lark, expected, "{gbnf}"),
            (Err(error), Err(expected)) => assert_eq!(error.what(), expected, "{gbnf}"),
            (found, _) => panic!("{gbnf}: {found:?}"),
        }
    }

    #[test]
    fn rules_keep_their_meaning() {
        check(
            "root ::= \"a\" | b-c\nb-c ::= [x-z]+ # end",
            Ok("start: rule_root\nrule_root: \"a\" | rule_b_c\nrule_b_c: /[\\u{78}-\\u{7a}]/+\n"),
        );
        check(
            "# begin\nroot ::= (\"\\n\" |\n  [^\"\\\\\\x0a-]{2,} .?)*\n",
            Ok("start: rule_root\nrule_root: ( \"\\n\" | /[^\\u{22}\\u{5c}\\u{a}\\u{2d}]/{2,} /(?s:.)/?)*\n"),
        );
        check("root ::= | \"x\"{3}", Ok("start: rule_root\nrule_root: \"\" | \"x\"{3}\n"));
        check("root ::= aB\naB ::= \"\"", Ok("start: rule_root\nrule_root: rule_a_42_\nrule_a_42_: \"\"\n"));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (gbnf, expected) in [
            ("rot ::= \"x\"", "the grammar has no rule `root`"),
            ("root ::= \"x", "line 1 of the grammar: a character is expected, not the end"),
            ("root ::= \"x\"\n\n= y", "line 3 of the grammar: a rule's name is expected, not `=`"),
            ("root ::= (\"x\"", "line 1 of the grammar: `)` is expected, not the end"),
            ("root ::=\n [z-a]", "line 2 of the grammar: a range of rising characters is expected, not `]`"),
            (
                "root ::= \"\\q\"",
                "line 1 of the grammar: one of the escapes n, r, t, x, u, U, \", [, ] and \\ is expected, not `q`",
            ),
            (
                "root ::= \"x\"{99999}",
                "line 1 of the grammar: a number of times, up to 10000, is expected, not the end",
            ),
        ] {
            check(gbnf, Err(expected));
        }
    }
}
