//! One error for the whole workspace: what is wrong, where, why, and what to do about it.
//! How it is coloured and printed is the front end's business.

use std::{fmt, io, path::Path};

/// The result of anything that can fail in Narthex.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whose problem it is; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The input is wrong or the thing failed: exit code 1.
    Input,
    /// The command line is wrong: exit code 2.
    Usage,
    /// Our own fault: exit code 2.
    Internal,
    /// The user interrupted; state is saved: exit code 130.
    Interrupted,
}

/// What is wrong (lower case, no final full stop), where, why, and a fix that can be pasted.
#[derive(Debug)]
pub struct Error(Box<Report>);

#[derive(Debug)]
struct Report {
    kind: ErrorKind,
    what: String,
    place: Option<(String, Option<usize>)>,
    causes: Vec<String>,
    help: Option<String>,
}

impl Error {
    fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self(Box::new(Report { kind, what: what.into(), place: None, causes: vec![], help: None }))
    }

    /// The input is wrong, or the thing asked for failed.
    pub fn input(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Input, what)
    }

    /// The command line asks for something that does not exist.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, what)
    }

    /// A bug in Narthex.
    pub fn internal(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, what)
    }

    /// The user interrupted.
    pub fn interrupted(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Interrupted, what)
    }

    /// An operation on a file failed: `Error::io("cannot read", path, error)`.
    pub fn io(what: &str, path: impl AsRef<Path>, error: io::Error) -> Self {
        let path = path.as_ref().display();
        let report = Self::input(format!("{what} {path}")).cause(&error);
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => report
                .help("free some space (`narthex gc` lists what can go), then run the same command again: finished steps are kept"),
            io::ErrorKind::NotFound => report.help("check the path: nothing is there"),
            io::ErrorKind::PermissionDenied => report.help(format!("check the permissions: `ls -ld {path}`")),
            _ => report,
        }
    }

    /// Adds the file, and the line counted from 1 where it is known.
    pub fn at(mut self, file: impl fmt::Display, line: impl Into<Option<usize>>) -> Self {
        self.0.place = Some((file.to_string(), line.into()));
        self
    }

    /// Adds a reason, outermost first.
    pub fn cause(mut self, cause: impl fmt::Display) -> Self {
        self.0.causes.push(cause.to_string());
        self
    }

    /// Adds the fix.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.0.help = Some(help.into());
        self
    }

    /// Puts a wider statement in front; the former statement becomes the first cause.
    pub fn context(mut self, what: impl Into<String>) -> Self {
        let former = std::mem::replace(&mut self.0.what, what.into());
        self.0.causes.insert(0, former);
        self
    }

    /// Whose problem it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What is wrong.
    pub fn what(&self) -> &str {
        &self.0.what
    }

    /// `file:line`, or `file`, where known.
    pub fn place(&self) -> Option<String> {
        self.0.place.as_ref().map(|(file, line)| match line {
            Some(line) => format!("{file}:{line}"),
            None => file.clone(),
        })
    }

    /// The reasons, outermost first.
    pub fn causes(&self) -> &[String] {
        &self.0.causes
    }

    /// The fix, where one is known.
    pub fn help_text(&self) -> Option<&str> {
        self.0.help.as_deref()
    }

    /// The process exit code for this error.
    pub fn exit_code(&self) -> u8 {
        match self.0.kind {
            ErrorKind::Input => 1,
            ErrorKind::Usage | ErrorKind::Internal => 2,
            ErrorKind::Interrupted => 130,
        }
    }
}

/// `error:`, `cause:` and `help:` lines, as the terminal shows them without colour.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what())?;
        if let Some(place) = self.place() {
            write!(f, "\n   at: {place}")?;
        }
        for cause in self.causes() {
            write!(f, "\ncause: {cause}")?;
        }
        if let Some(help) = self.help_text() {
            write!(f, "\n help: {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// The candidate nearest to a misspelt word, if one is near enough to be meant.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| {
            // What was begun and not finished counts as near.
            let lower = candidate.to_lowercase();
            let begun = word.len() >= 3 && lower.starts_with(&word);
            (if begun { 1 } else { edit_distance(&word, &lower) }, candidate)
        })
        .filter(|(distance, candidate)| *distance <= candidate.len().max(word.len()) / 3 + 1)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance in characters.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_error_cause_help() {
        let error =
            Error::input("unknown key `lerning_rate`").at("narthex.toml", 12).cause("a").help("did you mean `lr`?");
        assert_eq!(
            error.to_string(),
            "error: unknown key `lerning_rate`\n   at: narthex.toml:12\ncause: a\n help: did you mean `lr`?"
        );
        assert_eq!(error.exit_code(), 1);
        let wider = error.context("cannot read the project");
        assert_eq!(wider.what(), "cannot read the project");
        assert_eq!(wider.causes(), ["unknown key `lerning_rate`", "a"]);
    }

    #[test]
    fn full_disk_says_what_to_do() {
        let error = Error::io("cannot write", "x", io::Error::from(io::ErrorKind::StorageFull));
        assert!(error.help_text().unwrap().contains("free some space"));
    }

    #[test]
    fn nearest_word() {
        for (word, expected) in [("vocab", Some("vocab_size")), ("transfrom", Some("transform")), ("zzzzzzzz", None)] {
            assert_eq!(nearest(word, ["vocab_size", "transform", "from"]), expected, "{word}");
        }
    }
}
