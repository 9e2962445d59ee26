//! Colour and plain tables. `NO_COLOR` is honoured; nothing is coloured when stderr is not a terminal.

use crate::output::plain;
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
        noteln!("{} {}", self.paint("1;31", "error:"), plain(error.what()));
        if let Some(place) = error.place() {
            noteln!("{} {}", self.paint("1", "   at:"), plain(&place.to_string()));
        }
        for cause in error.causes() {
            noteln!("{} {}", self.paint("1", "cause:"), plain(&cause.to_string()));
        }
        if let Some(help) = error.help_text() {
            noteln!("{} {}", self.paint("1;36", " help:"), plain(help));
        }
    }
}

/// Columns of the terminal; none where stdout and stderr are no terminals.
pub fn terminal_width() -> Option<usize> {
    let size = terminal_size::terminal_size_of(std::io::stderr());
    size.or_else(|| terminal_size::terminal_size_of(std::io::stdout())).map(|(width, _)| usize::from(width.0))
}

/// Columns padded to their widest cell, two spaces between; the first row is the head. On a terminal that is too narrow
/// for it, long cells take several lines.
pub fn table(rows: &[Vec<String>]) -> String {
    let terminal = std::io::stdout().is_terminal().then(terminal_width).flatten();
    table_within(rows, terminal.unwrap_or(usize::MAX))
}

/// Cells are not made narrower than this.
const CELL_MIN: usize = 12;

fn table_within(rows: &[Vec<String>], limit: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let mut widths: Vec<usize> = (0..columns).map(width).collect();
    // The widest give way first, a letter at a time.
    let whole = |widths: &[usize]| widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1);
    while whole(&widths) > limit {
        match widths.iter_mut().max() {
            Some(widest) if *widest > CELL_MIN => *widest -= 1,
            _ => break,
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells: Vec<Vec<String>> = row.iter().zip(&widths).map(|(cell, width)| wrapped(cell, *width)).collect();
        for line in 0..cells.iter().map(Vec::len).max().unwrap_or(0) {
            let parts = cells.iter().zip(&widths).map(|(cell, width)| {
                let part = cell.get(line).map_or("", String::as_str);
                format!("{part:<width$}")
            });
            text += parts.collect::<Vec<_>>().join("  ").trim_end();
            text.push('\n');
        }
    }
    text
}

/// Lines of at most this many letters, broken at spaces where there are some.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let (mut lines, mut left) = (Vec::new(), text);
    while let Some((end, _)) = left.char_indices().nth(width) {
        let space = left[..end].rfind(' ').filter(|space| !left[..*space].trim().is_empty());
        let (line, rest) = left.split_at(space.unwrap_or(end));
        lines.push(line.to_string());
        left = rest.trim_start_matches(' ');
    }
    lines.push(left.to_string());
    lines
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

/// 3.2 s, 4 min 05 s, 3 h 10 min, 12 days, 3,400 years
pub fn seconds(seconds: f64) -> String {
    const DAY: f64 = 86_400.0;
    if seconds >= 730.0 * DAY {
        return format!("{} years", grouped(seconds / (365.25 * DAY)));
    }
    if seconds >= 3.0 * DAY {
        return format!("{} days", grouped(seconds / DAY));
    }
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
        for (value, expected) in
            [(3.21, "3.2 s"), (245.0, "4 min 05 s"), (7260.0, "2 h 01 min"), (1e6, "12 days"), (1e12, "31,688 years")]
        {
            assert_eq!(seconds(value), expected);
        }
    }

    #[test]
    fn tables_are_aligned() {
        let rows = [vec!["a".into(), "bb".into()], vec!["ccc".into(), "d".into()]];
        assert_eq!(table(&rows), "a    bb\nccc  d\n");
        let rows = [
            vec!["step".into(), "result".into(), "why".into()],
            vec!["data".into(), "7,473 documents".into(), "0123456789abcdefghij".into()],
        ];
        let narrow = "step  result        why\ndata  7,473         0123456789ab\n      documents     cdefghij\n";
        assert_eq!(table_within(&rows, 32), narrow);
        assert_eq!(table_within(&rows, 20), narrow, "no cell is made narrower than it can be read");
    }
}
