//! Whether what was written has the form that the configuration's types give: known keys, types, ranges. It finds the place
//! of a mistake and words it for people; it knows no single key.

use crate::{
    config::{Bound, Bounds, Form, Key, Table, bare, grouped},
    error::nearest,
};
use std::ops::Range;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// The help where there is nothing better to say.
pub(super) const SCHEMA_HELP: &str = "`narthex config schema` prints what may be written";

/// What does not fit, and where.
#[derive(Debug)]
pub(super) struct Mismatch {
    pub(super) span: Range<usize>,
    pub(super) what: String,
    pub(super) help: String,
}

/// What a value is written as.
type Written<'a> = Spanned<DeValue<'a>>;

/// Holds a table against its form.
///
/// # Errors
/// The first thing that does not fit.
pub(super) fn table(form: &Table, written: &Written) -> Result<(), Mismatch> {
    let DeValue::Table(entries) = written.get_ref() else {
        let what = format!("this must be a table, not {}", kind_of(written));
        return Err(Mismatch { span: written.span(), what, help: SCHEMA_HELP.into() });
    };
    entries_of(form, entries, written.span())
}

fn entries_of(form: &Table, entries: &DeTable, span: Range<usize>) -> Result<(), Mismatch> {
    for (name, written) in entries.iter() {
        match form.key(name.get_ref()) {
            Some(key) => value(&key.form, key, written)?,
            None => return Err(unknown(form, name)),
        }
    }
    match form.keys.iter().find(|key| key.is_required && !entries.contains_key(key.name.as_str())) {
        Some(Key { name, .. }) => {
            Err(Mismatch { span, what: format!("the key `{name}` is missing"), help: format!("add `{name} = …`") })
        }
        None => Ok(()),
    }
}

/// A key that there is not: what was meant may also stand one table deeper.
fn unknown(form: &Table, name: &Spanned<std::borrow::Cow<str>>) -> Mismatch {
    let here: Vec<&str> = form.names().collect();
    let deeper = form.subtables().flat_map(|(_, table)| table.names());
    let meant = match nearest(name.get_ref(), here.iter().copied().chain(deeper)) {
        Some(near) if here.contains(&near) => format!("did you mean `{near}`? "),
        Some(near) => {
            let holders: Vec<String> = form
                .subtables()
                .filter(|(_, table)| table.key(near).is_some())
                .map(|(n, _)| format!("`{n}`"))
                .collect();
            format!("did you mean `{near}` in {}? ", holders.join(" or "))
        }
        None => String::new(),
    };
    let mut help = format!("{meant}keys here: {}", here.join(", "));
    if meant.is_empty() {
        for (holder, table) in form.subtables() {
            help += &format!("; in `{holder}`: {}", table.names().collect::<Vec<_>>().join(", "));
        }
    }
    Mismatch { span: name.span(), what: format!("unknown key `{}`", name.get_ref()), help }
}

/// Holds the value of a key against its form.
fn value(form: &Form, key: &Key, written: &Written) -> Result<(), Mismatch> {
    match (form, written.get_ref()) {
        (Form::Text(_), DeValue::String(_)) | (Form::Switch, DeValue::Boolean(_)) => Ok(()),
        (Form::Whole(bounds), DeValue::Integer(number)) => {
            let read = i128::from_str_radix(number.as_str(), number.radix());
            within(bounds, key, read.map_or(f64::NAN, |number| number as f64), &number.to_string(), written)
        }
        (Form::Number(bounds), DeValue::Integer(number)) => {
            let read = i128::from_str_radix(number.as_str(), number.radix());
            within(bounds, key, read.map_or(f64::NAN, |number| number as f64), &number.to_string(), written)
        }
        (Form::Number(bounds), DeValue::Float(number)) => {
            within(bounds, key, number.as_str().parse().unwrap_or(f64::NAN), number.as_str(), written)
        }
        (Form::OneOf(values), found) => one_of(values, key, found, written),
        (Form::List(form), DeValue::Array(items)) => {
            if items.is_empty() && key.hint.is_some() {
                return Err(mismatch(key, written, format!("`{}` is empty", key.name)));
            }
            items.iter().try_for_each(|item| value(form, key, item))
        }
        (Form::Table(form), DeValue::Table(entries)) => entries_of(form, entries, written.span()),
        (Form::Named(form), DeValue::Table(entries)) => entries
            .iter()
            .try_for_each(|(name, item)| value(form, &Key { name: name.get_ref().to_string(), ..key.clone() }, item)),
        (Form::Either(forms), _) => {
            let mut results = forms.iter().map(|form| (form, value(form, key, written)));
            if results.any(|(_, result)| result.is_ok()) {
                return Ok(());
            }
            // A list with a wrong entry is meant as a list.
            match forms.iter().find(|form| matches!((form, written.get_ref()), (Form::List(_), DeValue::Array(_)))) {
                Some(list) => value(list, key, written),
                None => Err(of_other_type(form, key, written)),
            }
        }
        _ => Err(of_other_type(form, key, written)),
    }
}

fn one_of(values: &[serde_json::Value], key: &Key, found: &DeValue, written: &Written) -> Result<(), Mismatch> {
    let text = match found {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => number.to_string(),
        _ => return Err(of_other_type(&Form::OneOf(values.to_vec()), key, written)),
    };
    let known: Vec<String> = values.iter().map(bare).collect();
    if known.contains(&text) && values.iter().any(|v| v.is_string()) == matches!(found, DeValue::String(_)) {
        return Ok(());
    }
    let list = known.join(", ");
    if !matches!(found, DeValue::String(_)) {
        return Err(mismatch(key, written, format!("`{}` is {text}, not one of: {list}", key.name)));
    }
    let mut wrong = mismatch(key, written, format!("`{text}` is not one of: {list}"));
    if let Some(near) = nearest(&text, known.iter().map(String::as_str)) {
        wrong.help = format!("did you mean `{near}`?");
    }
    Err(wrong)
}

fn within(bounds: &Bounds, key: &Key, number: f64, shown: &str, written: &Written) -> Result<(), Mismatch> {
    let name = &key.name;
    if !number.is_finite() {
        return Err(mismatch(key, written, format!("`{name}` is {shown}, which is no finite number")));
    }
    if bounds.hold(number) {
        return Ok(());
    }
    let what = match (bounds.least, bounds.most) {
        (Some(least), Some(most)) => {
            format!("`{name}` is {shown}, outside {} to {}", grouped(least.value), grouped(most.value))
        }
        (Some(Bound { value: 0.0, inclusive: false }), None) => format!("`{name}` is not positive"),
        (Some(Bound { value: 0.0, inclusive: true }), None) => format!("`{name}` is negative"),
        (Some(_), None) if number == 0.0 => format!("`{name}` is 0"),
        (Some(least), None) => format!("`{name}` is {shown}, less than {}", grouped(least.value)),
        (None, Some(most)) => format!("`{name}` is {shown}, more than {}", grouped(most.value)),
        (None, None) => return Ok(()),
    };
    Err(mismatch(key, written, what))
}

fn mismatch(key: &Key, written: &Written, what: String) -> Mismatch {
    Mismatch { span: written.span(), what, help: key.hint.clone().unwrap_or_else(|| SCHEMA_HELP.into()) }
}

fn of_other_type(form: &Form, key: &Key, written: &Written) -> Mismatch {
    let mut wrong = mismatch(key, written, format!("`{}` must be {}, not {}", key.name, asked(form), kind_of(written)));
    if let (Form::Whole(_) | Form::Number(_) | Form::Switch, DeValue::String(text)) = (form, written.get_ref())
        && DeValue::parse(text).is_ok_and(|parsed| value(form, key, &parsed).is_ok())
    {
        wrong.help = format!("leave the quotes out: `{} = {text}`", key.name);
    }
    wrong
}

/// What a form asks for, in words.
fn asked(form: &Form) -> String {
    match form {
        Form::Text("string") => "a string".into(),
        Form::Text(kind) => format!("a string: an {kind}"),
        Form::Whole(_) => "a whole number".into(),
        Form::Number(_) => "a number".into(),
        Form::Switch => "true or false".into(),
        Form::OneOf(values) => format!("one of: {}", values.iter().map(bare).collect::<Vec<_>>().join(", ")),
        Form::List(_) => "a list".into(),
        Form::Table(_) | Form::Named(_) => "a table".into(),
        Form::Either(forms) => forms.iter().map(asked).collect::<Vec<_>>().join(" or "),
    }
}

/// What was written, in words.
fn kind_of(written: &Written) -> &'static str {
    match written.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{QuantizeStep, Source, TrainStep, TuneStep};

    fn check(form: &Table, text: &str, what: &str, help: &str) {
        let parsed = DeTable::parse(text).expect("valid TOML");
        let span = parsed.span();
        let found = table(form, &Spanned::new(span, DeValue::Table(parsed.into_inner())));
        match (found, what) {
            (Ok(()), "") => {}
            (Ok(()), _) => panic!("{text} passes, but `{what}` is wanted"),
            (Err(wrong), _) => {
                assert_eq!(wrong.what, what, "{text}");
                assert!(wrong.help.contains(help), "{text}: wanted `{help}` in `{}`", wrong.help);
            }
        }
    }

    #[test]
    fn mistakes_are_worded_for_people() {
        let [train, tune, quantize, source] =
            [Table::of::<TrainStep>(), Table::of::<TuneStep>(), Table::of::<QuantizeStep>(), Table::of::<Source>()];
        for (text, what, help) in [
            ("data = 't'\nschedule = { steps = 5, lr = 1, warmup = 0 }", "", ""),
            ("schedule = { steps = 5 }", "the key `data` is missing", "add `data = …`"),
            ("data = 't'\nschedule = { steps = '8' }", "`steps` must be a whole number, not a string", "`steps = 8`"),
            (
                "data = 't'\nschedule = { steps = 5.5 }",
                "`steps` must be a whole number, not a number with a fraction",
                "say how",
            ),
            ("data = 't'\nschedule = { steps = -5 }", "`steps` is -5, less than 1", "say how many"),
            ("data = 't'\nschedule = { steps = 0 }", "`steps` is 0", "say how many"),
            ("data = 't'\nschedule = { lr = 0 }", "`lr` is not positive", "1e-3"),
            ("data = 't'\nschedule = { lr = inf }", "`lr` is inf, which is no finite number", "1e-3"),
            ("data = 't'\nschedule = { weight_decay = -1 }", "`weight_decay` is negative", "0.01"),
            ("data = 't'\nschedule = { beta1 = 1 }", "`beta1` is 1, outside 0 to 1", "0.9"),
            ("data = 't'\nschedule = { context = 1 }", "`context` is 1, outside 2 to 1,048,576", "128"),
            ("data = 't'\nschedule = { warmup = -1 }", "`warmup` is negative", "schema"),
            (
                "data = 't'\nschedule = { device = 'tpu' }",
                "`tpu` is not one of: cpu, cuda, rocm, vulkan, metal, wgpu",
                "",
            ),
            (
                "data = 't'\nschedule = { decay = 'cosin' }",
                "`cosin` is not one of: cosine, wsd",
                "did you mean `cosine`?",
            ),
            ("data = 't'\nschedule = { decay = 1 }", "`decay` is 1, not one of: cosine, wsd", ""),
            ("data = 't'\nschedule = 5", "`schedule` must be a table, not a whole number", ""),
            ("data = 't'\ndocument_mask = 1", "`document_mask` must be true or false, not a whole number", ""),
            ("data = 't'\nlrr = 1", "unknown key `lrr`", "did you mean `lr` in `schedule`?"),
            ("data = 't'\nlearning_rate = 1", "unknown key `learning_rate`", "in `schedule`: steps, batch_size"),
        ] {
            check(&train, text, what, help);
        }
        let targets = "`q_prj` is not one of: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj";
        check(&tune, "model = 'm'\ndata = 't'\nlora = { targets = ['q_prj'] }", targets, "did you mean `q_proj`?");
        check(&tune, "model = 'm'\ndata = 't'\nlora = { targets = [] }", "`targets` is empty", "at least one");
        check(&tune, "model = 'm'\ndata = 't'\ndropot = 1", "unknown key `dropot`", "in `lora` or `schedule`?");
        check(
            &quantize,
            "model = 'm'\nto = 'int4'\ngroup = 48",
            "`group` is 48, not one of: 32, 64, 128",
            "64 is usual",
        );
        check(&source, "path = ['a', 'b']", "", "");
        check(&source, "path = 5", "`path` must be a string or a list, not a whole number", "");
        check(&source, "path = ['a', 5]", "`path` must be a string, not a whole number", "");
        check(&source, "path = 'a'\ncolumns = { text = 5 }", "`text` must be a string, not a whole number", "");
    }
}
