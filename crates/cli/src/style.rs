//! Colour and plain tables. `NO_COLOR` is honoured; nothing is coloured when stderr is not a terminal.

use narthex_base::Error;
use std::io::IsTerminal;

/// How stderr is written to.
#[derive(Clone, Copy)]
pub struct Style {
    /// Whether to colour.
    pub colour: bool,
    /// Whether stderr is a terminal.
    pub terminal: bool,
}

impl Style {
    pub fn detect() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colour: terminal && !no_colour, terminal }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    pub fn warning(self, message: &str) {
        noteln!("{} {message}", self.paint("33", "warning:"));
    }

    /// `error:`, `at:`, `cause:` and `help:` lines on stderr.
    pub fn print_error(self, error: &Error) {
        noteln!("{} {}", self.paint("1;31", "error:"), error.what());
        if let Some(place) = error.place() {
            noteln!("{} {place}", self.paint("1", "   at:"));
        }
        for cause in error.causes() {
            noteln!("{} {cause}", self.paint("1", "cause:"));
        }
        if let Some(help) = error.help_text() {
            noteln!("{} {help}", self.paint("1;36", " help:"));
        }
    }
}

/// Columns padded to their widest cell, two spaces between; the first row is the head.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// 1,234,567
pub fn grouped(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0.0 { format!("-{text}") } else { text }
}

/// Whole numbers grouped, others to four digits.
pub fn figure(value: f64) -> String {
    if value.fract() == 0.0 { grouped(value) } else { format!("{value:.4}") }
}

/// 12.3 MB
pub fn bytes(count: u64) -> String {
    let mut size = count as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if size < 1000.0 {
            return if unit == "B" { format!("{count} B") } else { format!("{size:.1} {unit}") };
        }
        size /= 1000.0;
    }
    format!("{size:.1} TB")
}

/// 3.2 s, 4 min 05 s
pub fn seconds(seconds: f64) -> String {
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    if whole < 3600 {
        format!("{} min {:02} s", whole / 60, whole % 60)
    } else {
        format!("{} h {:02} min", whole / 3600, whole / 60 % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        for (value, expected) in
            [(0.0, "0"), (999.0, "999"), (1000.0, "1,000"), (1234567.0, "1,234,567"), (1.5, "1.5000")]
        {
            assert_eq!(figure(value), expected);
        }
        for (value, expected) in [(12, "12 B"), (1234, "1.2 kB"), (5_600_000, "5.6 MB")] {
            assert_eq!(bytes(value), expected);
        }
        for (value, expected) in [(3.21, "3.2 s"), (245.0, "4 min 05 s"), (7260.0, "2 h 01 min")] {
            assert_eq!(seconds(value), expected);
        }
    }

    #[test]
    fn tables_are_aligned() {
        let rows = [vec!["a".into(), "bb".into()], vec!["ccc".into(), "d".into()]];
        assert_eq!(table(&rows), "a    bb\nccc  d\n");
    }
}
