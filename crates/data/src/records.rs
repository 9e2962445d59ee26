//! Rows of a query to records: their columns by name, as JSON. Knows Arrow's simple types; which columns mean what is
//! decided elsewhere.

use crate::{
    documents::{Item, Record, as_strings, normalized},
    query::describe,
    spec::Normalize,
};
use datafusion::arrow::{
    array::{Array, ArrayRef, BooleanArray, RecordBatch},
    compute::cast,
    datatypes::DataType,
};
use narthex_base::{Error, Result};
use serde_json::{Number, Value};

/// The number of a row in its table, which says nothing of the row.
const ROW: &str = "row";

/// The rows of a batch. A row of nulls and white space alone is empty.
pub(crate) fn records(batch: &RecordBatch) -> Result<Vec<Item>> {
    let mut columns = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if field.name() == ROW {
            continue;
        }
        let values = values(column).ok_or_else(|| {
            Error::input(format!("the column `{}` is {}", field.name(), column.data_type()))
                .cause(format!("the rows have {}", describe(&batch.schema())))
                .help("rows hold text, numbers and booleans: leave the column out or convert it in the transform")
        })?;
        columns.push((field.name().clone(), values));
    }
    let row = |row: usize| {
        let record: Record = columns.iter().map(|(name, values)| (name.clone(), values[row].clone())).collect();
        let is_blank = |value: &Value| value.is_null() || value.as_str().is_some_and(|text| text.trim().is_empty());
        if record.values().all(is_blank) { Item::Empty } else { Item::Record(record) }
    };
    Ok((0..batch.num_rows()).map(row).collect())
}

/// A column's values; none for a type that is not simple.
fn values(column: &ArrayRef) -> Option<Vec<Value>> {
    if let Some(texts) = as_strings(column) {
        let value = |row| if texts.is_valid(row) { Value::from(texts.value(row)) } else { Value::Null };
        return Some((0..texts.len()).map(value).collect());
    }
    if let Some(switches) = column.as_any().downcast_ref::<BooleanArray>() {
        let value = |row| if switches.is_valid(row) { Value::from(switches.value(row)) } else { Value::Null };
        return Some((0..switches.len()).map(value).collect());
    }
    if !column.data_type().is_numeric() {
        return None;
    }
    let texts = as_strings(&cast(column, &DataType::Utf8).ok()?)?;
    let value = |row| {
        let number = texts.is_valid(row).then(|| texts.value(row).parse::<Number>().ok()).flatten();
        // What is no number in JSON, such as an infinity, is as good as missing.
        number.map_or(Value::Null, Value::Number)
    };
    Some((0..texts.len()).map(value).collect())
}

/// The same with its texts normalised.
pub(crate) fn normalized_record(mut record: Record, normalize: Normalize) -> Record {
    for value in record.values_mut() {
        if let Value::String(text) = value {
            *text = normalized(std::mem::take(text), normalize);
        }
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::{
        array::{Float64Array, Int64Array, StringArray, TimestampSecondArray},
        datatypes::{Field, Schema},
    };
    use serde_json::json;
    use std::sync::Arc;

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        let fields: Vec<Field> =
            columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
        let columns = columns.into_iter().map(|(_, column)| column).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    }

    #[test]
    fn rows_become_records() {
        let made = batch(vec![
            ("row", Arc::new(Int64Array::from(vec![0, 1, 2]))),
            ("text", Arc::new(StringArray::from(vec![Some("e\u{301}"), Some(" "), None]))),
            ("size", Arc::new(Float64Array::from(vec![Some(1.5), None, None]))),
            ("count", Arc::new(Int64Array::from(vec![Some(7), Some(8), None]))),
            ("new", Arc::new(BooleanArray::from(vec![Some(true), None, None]))),
        ]);
        let found: Vec<Value> = records(&made)
            .unwrap()
            .into_iter()
            .map(|item| match item {
                Item::Record(record) => normalized_record(record, Normalize::Nfc).into(),
                other => json!(format!("{other:?}")),
            })
            .collect();
        assert_eq!(
            found,
            [
                json!({"text": "é", "size": 1.5, "count": 7, "new": true}),
                json!({"text": " ", "size": null, "count": 8, "new": null}),
                json!("Empty"),
            ]
        );
        let dates = batch(vec![("at", Arc::new(TimestampSecondArray::from(vec![0])))]);
        assert!(records(&dates).unwrap_err().what().contains("`at` is"));
    }
}
