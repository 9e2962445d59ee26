//! What chat templates expect from Python and Jinja2: `json.dumps`, `strftime`, `raise_exception`, methods of strings,
//! and filters and tests where the template engine's own differ. Knows template values, but no messages.

use crate::repr::{float_repr, formatted, text_of};
use minijinja::{
    Environment, Error, ErrorKind, State, Value,
    value::{Kwargs, Tuple, ValueKind, from_args},
};
use std::fmt::{self, Write};

/// What a template said with `raise_exception`.
#[derive(Debug)]
pub(crate) struct Raised(pub String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// `raise_exception(message)`.
pub(crate) fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
}

/// Makes an environment's filters, tests and functions those of Jinja2 with transformers' settings.
pub(crate) fn add_to(environment: &mut Environment) {
    environment.add_filter("tojson", tojson);
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter("int", int);
    environment.add_filter("float", |value: &Value, default: Option<f64>| {
        let number = match value.kind() {
            ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
            ValueKind::String => value.as_str().and_then(|text| text.trim().parse().ok()),
            _ => f64::try_from(value.clone()).ok(),
        };
        number.unwrap_or(default.unwrap_or(0.0))
    });
    environment.add_filter("center", |value: &Value, width: Option<usize>| {
        let text = text_of(value)?;
        string_method(&text, "center", &[Value::from(width.unwrap_or(80))]).map(Option::unwrap_or_default)
    });
    environment.add_filter("truncate", truncate);
    environment.add_filter("indent", indent);
    environment.add_filter("string", |value: &Value| text_of(value));
    environment.add_filter("format", formatted);
    environment.add_filter("upper", |value: &Value| Ok::<_, Error>(text_of(value)?.to_uppercase()));
    environment.add_filter("lower", |value: &Value| Ok::<_, Error>(text_of(value)?.to_lowercase()));
    environment.add_filter("trim", |value: &Value, characters: Option<String>| -> Result<String, Error> {
        let text = text_of(value)?;
        Ok(match characters {
            Some(characters) => text.trim_matches(|c| characters.contains(c)).to_string(),
            None => text.trim().to_string(),
        })
    });
    environment.add_filter("replace", |value: &Value, old: String, new: String, count: Option<usize>| {
        let text = text_of(value)?;
        Ok::<_, Error>(count.map_or_else(|| text.replace(&old, &new), |count| text.replacen(&old, &new, count)))
    });
    environment.add_filter("capitalize", |value: &Value| Ok::<_, Error>(capitalized(&text_of(value)?)));
    environment.add_filter("title", |value: &Value| {
        let text = text_of(value)?;
        let word = |c: char| c.is_whitespace() || "-({[<".contains(c);
        Ok::<_, Error>(text.split_inclusive(word).map(capitalized).collect::<String>())
    });
    for name in ["e", "escape"] {
        environment.add_filter(name, |value: &Value| Ok::<_, Error>(Value::from_safe_string(escape(&text_of(value)?))));
    }
    environment.add_filter("safe", |value: &Value| Ok::<_, Error>(Value::from_safe_string(text_of(value)?)));
    environment.add_filter("wordcount", |text: String| word_count(&text));
    environment.add_function("raise_exception", raise_exception);
    // Nothing can be iterated over; an undefined name can, and is empty.
    environment.add_test("iterable", |value: &Value| {
        !matches!(value.kind(), ValueKind::None | ValueKind::Bool | ValueKind::Number | ValueKind::Plain)
    });
    environment.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::String | ValueKind::Undefined)
    });
    environment.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);
}

/// Markup's `escape`.
fn escape(text: &str) -> String {
    let pairs = [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("'", "&#39;"), ("\"", "&#34;")];
    pairs.into_iter().fold(text.to_string(), |text, (plain, escaped)| text.replace(plain, escaped))
}

fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_uppercase().collect::<String>());
    first.unwrap_or_default() + &characters.as_str().to_lowercase()
}

/// Jinja2's `indent`.
fn indent(
    text: String,
    width: Option<Value>,
    first: Option<bool>,
    blank: Option<bool>,
    options: Kwargs,
) -> Result<String, Error> {
    let width = width.or(options.get("width")?).unwrap_or_else(|| Value::from(4));
    let first = first.or(options.get("first")?).unwrap_or(false);
    let blank = blank.or(options.get("blank")?).unwrap_or(false);
    options.assert_all_used()?;
    let space = match width.as_str() {
        Some(text) => text.to_string(),
        None => " ".repeat(width.as_usize().unwrap_or_default()),
    };
    let mut out = if first { space.clone() } else { String::new() };
    for (at, line) in text.split('\n').enumerate() {
        if at > 0 {
            out.push('\n');
            out.push_str(if blank || !line.is_empty() { &space } else { "" });
        }
        out.push_str(line);
    }
    Ok(out)
}

/// Jinja2's `default`: for what is undefined, and with `boolean` also for what is false.
fn default(
    value: &Value,
    default_value: Option<Value>,
    boolean: Option<bool>,
    options: Kwargs,
) -> Result<Value, Error> {
    let default_value = default_value.or(options.get("default_value")?).unwrap_or_else(|| Value::from(""));
    let boolean = boolean.or(options.get("boolean")?).unwrap_or(false);
    options.assert_all_used()?;
    let wanted = value.is_undefined() || (boolean && !value.is_true());
    Ok(if wanted { default_value } else { value.clone() })
}

/// Jinja2's `int`: what is no number is the default.
fn int(value: &Value, default: Option<Value>, base: Option<u32>, options: Kwargs) -> Result<Value, Error> {
    let default = match default {
        Some(default) => default,
        None => options.get::<Option<Value>>("default")?.unwrap_or_else(|| Value::from(0)),
    };
    let base = base.or(options.get("base")?).unwrap_or(10);
    options.assert_all_used()?;
    if let Some(text) = value.as_str() {
        let text = text.trim().replace('_', "");
        // A base of 0 is told by the text itself.
        let (base, text) = match (base, text.get(..2)) {
            (0 | 16, Some("0x" | "0X")) => (16, text[2..].to_string()),
            (0 | 8, Some("0o" | "0O")) => (8, text[2..].to_string()),
            (0 | 2, Some("0b" | "0B")) => (2, text[2..].to_string()),
            (0, _) => (10, text),
            _ => (base.clamp(2, 36), text),
        };
        let whole = i64::from_str_radix(&text, base).ok();
        let number = || text.parse::<f64>().ok().filter(|number| number.is_finite()).map(|number| number as i64);
        return Ok(whole.or_else(number).map_or(default, Value::from));
    }
    match value.kind() {
        ValueKind::Number if value.is_integer() => Ok(value.clone()),
        ValueKind::Number => {
            let number = f64::try_from(value.clone())?;
            Ok(if number.is_finite() { Value::from(number as i128) } else { default })
        }
        ValueKind::Bool => Ok(Value::from(i64::from(value.is_true()))),
        _ => Ok(default),
    }
}

/// Jinja2's `truncate`. What is no text is left as it is.
fn truncate(
    value: Value,
    length: Option<usize>,
    killwords: Option<bool>,
    end: Option<String>,
    options: Kwargs,
) -> Result<Value, Error> {
    let length = length.or(options.get("length")?).unwrap_or(255);
    let killwords = killwords.or(options.get("killwords")?).unwrap_or(false);
    let end = end.or(options.get("end")?).unwrap_or_else(|| "...".into());
    let leeway = options.get::<Option<usize>>("leeway")?.unwrap_or(5);
    options.assert_all_used()?;
    let Some(text) = value.as_str() else { return Ok(value) };
    let characters: Vec<char> = text.chars().collect();
    if characters.len() <= length + leeway {
        return Ok(value);
    }
    let kept: String = characters[..length.saturating_sub(end.chars().count())].iter().collect();
    if killwords {
        return Ok(Value::from(kept + &end));
    }
    let whole = kept.rsplit_once(' ').map_or(kept.as_str(), |(before, _)| before);
    Ok(Value::from(format!("{whole}{end}")))
}

/// Runs of letters, digits and underscores.
fn word_count(text: &str) -> usize {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).count()
}

/// Methods of Python's values that the engine does not know.
pub(crate) fn unknown_method(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str()
        && let Some(found) = string_method(text, method, args)?
    {
        return Ok(found);
    }
    if value.kind() == ValueKind::Seq && method == "index" {
        let (wanted,): (&Value,) = from_args(args)?;
        let at = value.try_iter()?.position(|item| item == *wanted);
        return at.map(Value::from).ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "value is not in list"));
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
}

fn string_method(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let parts = |before: &str, separator: &str, after: &str| {
        Value::from(Tuple::from([before, separator, after].map(Value::from)))
    };
    let not_found = || Error::new(ErrorKind::InvalidOperation, "substring not found");
    let in_characters = |at: usize| Value::from(text[..at].chars().count());
    let padding = |args: &[Value]| -> Result<(usize, char), Error> {
        let (width, fill): (usize, Option<String>) = from_args(args)?;
        let fill = fill.and_then(|fill| fill.chars().next()).unwrap_or(' ');
        Ok((width.saturating_sub(text.chars().count()), fill))
    };
    let repeated = |fill: char, count: usize| std::iter::repeat_n(fill, count).collect::<String>();
    Ok(Some(match method {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            let kept = if suffix.is_empty() { text } else { text.strip_suffix(suffix).unwrap_or(text) };
            Value::from(kept)
        }
        "partition" => {
            let (separator,): (&str,) = from_args(args)?;
            match text.split_once(separator) {
                Some((before, after)) => parts(before, separator, after),
                None => parts(text, "", ""),
            }
        }
        "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            match text.rsplit_once(separator) {
                Some((before, after)) => parts(before, separator, after),
                None => parts("", "", text),
            }
        }
        "rsplit" => {
            let (separator, most, options): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
            let separator = separator.filter(|separator| !separator.is_none());
            let most = most.or(options.get("maxsplit")?).unwrap_or(-1);
            options.assert_all_used()?;
            Value::from_iter(
                rsplit(text, separator.as_ref().and_then(Value::as_str), most).into_iter().map(Value::from),
            )
        }
        "index" => {
            let (wanted,): (&str,) = from_args(args)?;
            in_characters(text.find(wanted).ok_or_else(not_found)?)
        }
        "rindex" => {
            let (wanted,): (&str,) = from_args(args)?;
            in_characters(text.rfind(wanted).ok_or_else(not_found)?)
        }
        "zfill" => {
            let (width,): (usize,) = from_args(args)?;
            let zeros = repeated('0', width.saturating_sub(text.chars().count()));
            let (sign, digits) = if text.starts_with(['+', '-']) { text.split_at(1) } else { ("", text) };
            Value::from(format!("{sign}{zeros}{digits}"))
        }
        "ljust" => {
            let (count, fill) = padding(args)?;
            Value::from(format!("{text}{}", repeated(fill, count)))
        }
        "rjust" => {
            let (count, fill) = padding(args)?;
            Value::from(format!("{}{text}", repeated(fill, count)))
        }
        "center" => {
            let (count, fill) = padding(args)?;
            let width = count + text.chars().count();
            // CPython puts the odd one to the left where the width is odd.
            let left = count / 2 + (count & width & 1);
            Value::from(format!("{}{text}{}", repeated(fill, left), repeated(fill, count - left)))
        }
        "title" => {
            let mut after_letter = false;
            let changed = text.chars().flat_map(|c| -> Vec<char> {
                let begins = !std::mem::replace(&mut after_letter, c.is_alphabetic());
                if begins { c.to_uppercase().collect() } else { c.to_lowercase().collect() }
            });
            Value::from(changed.collect::<String>())
        }
        "swapcase" => {
            let swapped = text.chars().flat_map(|c| -> Vec<char> {
                if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() }
            });
            Value::from(swapped.collect::<String>())
        }
        "casefold" => Value::from(text.to_lowercase().replace('ß', "ss")),
        "expandtabs" => {
            let (size,): (Option<usize>,) = from_args(args)?;
            Value::from(text.replace('\t', &" ".repeat(size.unwrap_or(8))))
        }
        _ => return Ok(None),
    }))
}

/// Python's `str.rsplit`.
fn rsplit<'a>(text: &'a str, separator: Option<&str>, most: i64) -> Vec<&'a str> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let mut parts = Vec::new();
    let mut rest = text;
    match separator {
        Some(separator) => {
            while parts.len() < most
                && let Some((before, after)) = rest.rsplit_once(separator)
            {
                parts.push(after);
                rest = before;
            }
            parts.push(rest);
        }
        None => {
            rest = rest.trim();
            while !rest.is_empty() {
                match rest.rsplit_once(char::is_whitespace).filter(|_| parts.len() < most) {
                    Some((before, after)) => {
                        parts.push(after);
                        rest = before.trim_end();
                    }
                    None => {
                        parts.push(rest);
                        break;
                    }
                }
            }
        }
    }
    parts.reverse();
    parts
}

/// The filter `tojson` of transformers: `json.dumps(value, ensure_ascii=False, indent=…,
/// separators=…, sort_keys=…)`.
pub(crate) fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let (item, key) = match separators.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => return Err(Error::new(ErrorKind::InvalidOperation, "separators must be two strings")),
        None if indent.is_some() => (",".into(), ": ".into()),
        None => (", ".into(), ": ".into()),
    };
    let sort_keys = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    let ascii = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    options.assert_all_used()?;
    let mut json = Dump { out: String::new(), indent, item, key, sort_keys, ascii };
    json.value(value, 0)?;
    Ok(json.out)
}

struct Dump {
    out: String,
    indent: Option<usize>,
    item: String,
    key: String,
    sort_keys: bool,
    ascii: bool,
}

impl Dump {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => write!(self.out, "{value}").expect("a string takes all"),
            ValueKind::Number => {
                let number = f64::try_from(value.clone())?;
                self.out.push_str(&float_repr(number));
            }
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.nested('[', ']', items.len(), depth, |json, i| json.value(&items[i], depth + 1))?;
            }
            ValueKind::Map => {
                let mut entries = Vec::new();
                for key in value.try_iter()? {
                    entries.push((key.to_string(), value.get_item(&key)?));
                }
                if self.sort_keys {
                    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
                }
                self.nested('{', '}', entries.len(), depth, |json, i| {
                    json.string(&entries[i].0);
                    let key = json.key.clone();
                    json.out.push_str(&key);
                    json.value(&entries[i].1, depth + 1)
                })?;
            }
            kind => return Err(Error::new(ErrorKind::InvalidOperation, format!("{kind} is not JSON serializable"))),
        }
        Ok(())
    }

    fn nested(
        &mut self,
        open: char,
        close: char,
        len: usize,
        depth: usize,
        mut write: impl FnMut(&mut Self, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.push(open);
        for i in 0..len {
            if i > 0 {
                let item = self.item.clone();
                self.out.push_str(&item);
            }
            self.line(depth + 1);
            write(self, i)?;
        }
        if len > 0 {
            self.line(depth);
        }
        self.out.push(close);
        Ok(())
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = self.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for character in text.chars() {
            match character {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                other if other < ' ' || (self.ascii && !other.is_ascii()) => {
                    for unit in other.encode_utf16(&mut [0; 2]) {
                        write!(self.out, "\\u{unit:04x}").expect("a string takes all");
                    }
                }
                other => self.out.push(other),
            }
        }
        self.out.push('"');
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// `strftime` of a Unix time (seconds, UTC) in the C locale, for Python's directives and `-` (no padding).
pub(crate) fn strftime(format: &str, unix_seconds: u64) -> Result<String, Error> {
    let (days, seconds) = (unix_seconds / 86_400, unix_seconds % 86_400);
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let day_of_year = days - days_before_year(year) + 1;
    let mut out = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let mut directive = characters.next();
        let padded = directive != Some('-');
        if !padded {
            directive = characters.next();
        }
        let (number, width) = match directive {
            Some('Y') => (year, 4),
            Some('y') => (year % 100, 2),
            Some('m') => (month, 2),
            Some('d') => (day, 2),
            Some('H') => (hour, 2),
            Some('I') => ((hour + 11) % 12 + 1, 2),
            Some('M') => (minute, 2),
            Some('S') => (second, 2),
            Some('j') => (day_of_year, 3),
            Some('G') => (iso_week(days).0, 4),
            Some('V') => (iso_week(days).1, 2),
            // Weeks that begin on Sunday and on Monday, counted from the first such day of the year.
            Some('U') => ((day_of_year + 6 - weekday(days)) / 7, 2),
            Some('W') => ((day_of_year + 6 - (weekday(days) + 6) % 7) / 7, 2),
            Some('C') => (year / 100, 2),
            Some('w') => (weekday(days), 1),
            Some('u') => ((weekday(days) + 6) % 7 + 1, 1),
            Some('s') => (unix_seconds, 1),
            Some('f') => (0, 6),
            other => {
                match other {
                    Some('c') => out.push_str(&strftime("%a %b %e %H:%M:%S %Y", unix_seconds)?),
                    Some('x' | 'D') => out.push_str(&strftime("%m/%d/%y", unix_seconds)?),
                    Some('X' | 'T') => out.push_str(&strftime("%H:%M:%S", unix_seconds)?),
                    Some('F') => out.push_str(&strftime("%Y-%m-%d", unix_seconds)?),
                    Some('R') => out.push_str(&strftime("%H:%M", unix_seconds)?),
                    Some('r') => out.push_str(&strftime("%I:%M:%S %p", unix_seconds)?),
                    Some('z') => out.push_str("+0000"),
                    Some('n') => out.push('\n'),
                    Some('t') => out.push('\t'),
                    Some('B') => out.push_str(MONTHS[month as usize - 1]),
                    Some('b' | 'h') => out.push_str(&MONTHS[month as usize - 1][..3]),
                    Some('A') => out.push_str(DAYS[weekday(days) as usize]),
                    Some('a') => out.push_str(&DAYS[weekday(days) as usize][..3]),
                    Some('p') => out.push_str(if hour < 12 { "AM" } else { "PM" }),
                    Some('e') => write!(out, "{day:2}").expect("a string takes all"),
                    Some('Z') => out.push_str("UTC"),
                    Some('%') => out.push('%'),
                    _ => {
                        let what = format!("strftime_now does not know the format `{format}`");
                        return Err(Error::new(ErrorKind::InvalidOperation, what));
                    }
                }
                continue;
            }
        };
        let width = if padded { width } else { 0 };
        write!(out, "{number:0width$}").expect("a string takes all");
    }
    Ok(out)
}

/// From Sunday, 0.
fn weekday(days: u64) -> u64 {
    (days + 4) % 7
}

/// Year and week of ISO 8601: those of the week's Thursday.
fn iso_week(days: u64) -> (u64, u64) {
    let thursday = days + 3 - (weekday(days) + 6) % 7;
    let (year, ..) = civil_from_days(thursday);
    (year, (thursday - days_before_year(year)) / 7 + 1)
}

fn days_before_year(year: u64) -> u64 {
    let past = year - 1;
    past * 365 + past / 4 - past / 100 + past / 400 - 719_162
}

/// Year, month (from 1) and day (from 1) of a day counted from 1970-01-01 (Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms", 2013).
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_as_python_writes_them() {
        // datetime.fromtimestamp(t, UTC).strftime(format) in Python 3.12.
        for (seconds, format, expected) in [
            (0, "%Y-%m-%d %H:%M:%S %A %j", "1970-01-01 00:00:00 Thursday 001"),
            (951_782_400, "%d %b %Y", "29 Feb 2000"),
            (1_735_689_599, "%B %-d, %Y %I:%M %p %j", "December 31, 2024 11:59 PM 366"),
            (1_709_251_200, "%a %e %y%% %-m", "Fri  1 24% 3"),
            (4_102_444_800, "%Y %Z", "2100 UTC"),
            (
                1_735_689_599,
                "%c|%x|%X|%U|%W|%w|%u|%f|%D|%T|%F|%z|%s",
                "Tue Dec 31 23:59:59 2024|12/31/24|23:59:59|52|53|2|2|000000|12/31/24|23:59:59|2024-12-31|+0000|1735689599",
            ),
            (1_735_516_800, "%G-%V %C %h %R %r %j", "2025-01 20 Dec 00:00 12:00:00 AM 365"),
            (1_609_459_200, "%G-%V %U %W", "2020-53 00 00"),
        ] {
            assert_eq!(strftime(format, seconds).unwrap(), expected);
        }
        assert!(strftime("%Q", 0).is_err());
        assert!(strftime("100%", 0).is_err());
    }
}
