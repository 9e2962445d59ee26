//! Where the program writes: data to stdout, all else to stderr. A reader that has gone or a full disk is no reason to
//! panic: what was asked for is done all the same, and [`finish`] says at the end what could not be written. Knows no
//! commands.

use narthex_base::{Error, Result};
use std::{
    borrow::Cow,
    fmt::Arguments,
    io::{self, ErrorKind, IsTerminal, Write},
    ops::ControlFlow,
    sync::{Mutex, PoisonError},
};

/// What became of stdout: the first error of writing to it. After that nothing more is written.
static FAILURE: Mutex<Option<io::Error>> = Mutex::new(None);

/// Writes data to stdout.
macro_rules! out {
    ($($part:tt)*) => { $crate::output::data(format_args!($($part)*)) };
}

/// Writes a line of data to stdout.
macro_rules! outln {
    () => { $crate::output::data(format_args!("\n")) };
    ($($part:tt)*) => { $crate::output::data(format_args!("{}\n", format_args!($($part)*))) };
}

/// Tells people something, on stderr.
macro_rules! note {
    ($($part:tt)*) => { $crate::output::remark(format_args!($($part)*)) };
}

/// Tells people a line, on stderr.
macro_rules! noteln {
    () => { $crate::output::remark(format_args!("\n")) };
    ($($part:tt)*) => { $crate::output::remark(format_args!("{}\n", format_args!($($part)*))) };
}

/// What `out!` and `outln!` call.
pub fn data(text: Arguments) {
    attempt(|| io::stdout().write_fmt(text));
}

/// What `note!` and `noteln!` call. Where nobody listens on stderr, there is nobody to tell so.
pub fn remark(text: Arguments) {
    _ = io::stderr().write_all(text.to_string().as_bytes());
}

/// Writes to stdout what a model says, at once. Breaks where it is not worth computing more, since it reaches nobody.
pub fn stream(text: &str) -> ControlFlow<()> {
    attempt(|| {
        let mut stdout = io::stdout().lock();
        let text = if stdout.is_terminal() { plain(text) } else { text.into() };
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
    });
    if is_lost() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// A text of somebody else's, with what would command a terminal, or turn the direction of writing, shown instead of
/// done: it could overwrite what a person is asked to approve.
pub fn plain(text: &str) -> Cow<'_, str> {
    let commands = |c: char| {
        (c.is_control() && !matches!(c, '\n' | '\t'))
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(commands) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if commands(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown.into()
}

/// Whether what is written to stdout is lost: its reader has gone, or its disk is full.
pub fn is_lost() -> bool {
    FAILURE.lock().unwrap_or_else(PoisonError::into_inner).is_some()
}

/// What became of the command, together with what became of its output. A reader that has gone, as `head` does, has had
/// enough: that is no error.
///
/// # Errors
/// That of the command; else if its output could not be written.
pub fn finish(outcome: Result<()>) -> Result<()> {
    attempt(|| io::stdout().flush());
    outcome?;
    match FAILURE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error::io("cannot write to", "stdout", error)),
        _ => Ok(()),
    }
}

/// Does something with stdout unless it is lost already, and notes if it is from now on.
pub fn attempt(write: impl FnOnce() -> io::Result<()>) {
    let mut failure = FAILURE.lock().unwrap_or_else(PoisonError::into_inner);
    if failure.is_none() {
        *failure = write().err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_commands_a_terminal_is_shown() {
        for (text, expected) in [
            ("plain\ttext\nä 漢 🦀", "plain\ttext\nä 漢 🦀"),
            ("\u{1b}[2Kover", "\\u{1b}[2Kover"),
            ("a\u{7}\u{7f}\u{9b}2K", "a\\u{7}\\u{7f}\\u{9b}2K"),
            ("exe\u{202e}txt", "exe\\u{202e}txt"),
            ("over\rwritten", "over\\rwritten"),
        ] {
            assert_eq!(plain(text), expected);
        }
    }
}
