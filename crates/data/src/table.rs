//! A source as a table: which columns it has, found out from its files. Knows columns and files; rows and batches are
//! read elsewhere.

use crate::{
    bad_rows::{Counts, Tally},
    files,
    rows::{Column, FileRows, Kind, Row, no_such_column},
    spec::{Format, SourceSpec},
};
use datafusion::{
    arrow::datatypes::{DataType, Field, Schema, SchemaRef},
    parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder,
};
use narthex_base::{Error, Observer, Result};
use serde_json::Value;
use std::{collections::HashMap, path::Path, sync::Arc};

/// The column that numbers the rows of a source, from 0.
pub(crate) const ROW: &str = "row";
/// Columns whose values must be strings.
const STRINGS: [&str; 4] = ["text", "user", "assistant", "system"];
/// Keys that may differ between the JSON objects of one source.
const MAX_COLUMNS: usize = 1024;
/// Whole numbers up to here all have a double of their own.
const EXACT_MAX: u64 = 1 << 53;
/// Objects between two looks at the observer while columns are found out.
const CHECK_OBJECTS: usize = 1000;

/// A source with its columns known.
#[derive(Debug)]
pub(crate) struct Table {
    /// The source's place in the specification.
    pub index: usize,
    pub spec: SourceSpec,
    pub columns: Columns,
    /// All columns, and `row` at the end.
    pub schema: SchemaRef,
}

/// The columns of a source, in order.
#[derive(Debug)]
pub(crate) enum Columns {
    /// Made from rows.
    Rows(Vec<Column>),
    /// Taken from Parquet: name in the table, name in the file.
    Parquet(Vec<(String, String)>),
}

impl Table {
    /// Finds out a source's columns: from the header, from all JSON objects, or from Parquet's schema.
    pub(crate) fn discover(index: usize, spec: &SourceSpec, tally: &Tally, observer: Observer) -> Result<Self> {
        if spec.files.is_empty() {
            return Err(Error::input(format!("the source `{}` has no files", spec.name)).help("set its `files`"));
        }
        let (columns, fields) = match spec.format {
            Format::Parquet => parquet_columns(spec)?,
            _ => {
                let found = match spec.format {
                    Format::Text => vec![("text".to_string(), Kind::Text)],
                    Format::Jsonl => json_columns(index, spec, tally, observer)?,
                    _ => headers(spec)?,
                };
                let columns = mapped(spec, found)?;
                let fields =
                    columns.iter().map(|column| Field::new(&column.name, data_type(column.kind), true)).collect();
                (Columns::Rows(columns), fields)
            }
        };
        let mut fields: Vec<Field> = fields;
        if fields.iter().any(|field| field.name() == ROW) {
            return Err(Error::input(format!(
                "the source `{}` has a column `{ROW}`, which is the row's number",
                spec.name
            ))
            .help(format!("give it another name: `columns = {{ other_name = \"{ROW}\" }}`")));
        }
        fields.push(Field::new(ROW, DataType::UInt64, false));
        Ok(Self { index, spec: spec.clone(), columns, schema: Arc::new(Schema::new(fields)) })
    }

    /// How often the source's files are read, for progress.
    pub(crate) fn readings(&self) -> u64 {
        if self.spec.format == Format::Jsonl { 2 } else { 1 }
    }

    /// `name (column: type, …)`, for messages.
    pub(crate) fn describe(&self) -> String {
        let columns: Vec<String> = self
            .schema
            .fields()
            .iter()
            .map(|field| format!("{}: {}", field.name(), type_name(field.data_type())))
            .collect();
        format!("{} ({})", self.spec.name, columns.join(", "))
    }

    /// Whether there is a column of this name.
    pub(crate) fn has(&self, column: &str) -> bool {
        self.schema.field_with_name(column).is_ok()
    }
}

fn data_type(kind: Kind) -> DataType {
    match kind {
        Kind::Text | Kind::Json => DataType::Utf8View,
        Kind::Boolean => DataType::Boolean,
        Kind::Integer | Kind::Wide => DataType::Int64,
        Kind::Number => DataType::Float64,
    }
}

/// A type in the words of users.
pub(crate) fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8View => "text".into(),
        DataType::Boolean => "boolean".into(),
        DataType::Int64 | DataType::UInt64 => "integer".into(),
        DataType::Float64 => "number".into(),
        other => other.to_string(),
    }
}

/// Renames mapped columns. Columns that a mapping uses or hides go; the others stay.
fn mapped(spec: &SourceSpec, found: Vec<(String, Kind)>) -> Result<Vec<Column>> {
    if spec.format == Format::Text
        && let Some(wrong) = spec.columns.values().find(|from| *from != "text")
    {
        return Err(no_such_column(&spec.files[0], wrong, &["text".to_string()]));
    }
    let kind_of = |name: &str, found: Kind| match name {
        name if STRINGS.contains(&name) => Kind::Text,
        "messages" | "tools" => Kind::Json,
        _ => found,
    };
    let stays = |name: &String| !spec.columns.contains_key(name) && !spec.columns.values().any(|from| from == name);
    let kept = found.iter().filter(|(name, _)| stays(name)).map(|(name, kind)| Column {
        name: name.clone(),
        from: name.clone(),
        kind: kind_of(name, *kind),
        mapped: false,
    });
    let renamed = spec.columns.iter().map(|(name, from)| {
        let kind = found.iter().find(|(known, _)| known == from).map_or(Kind::Text, |(_, kind)| *kind);
        Column { name: name.clone(), from: from.clone(), kind: kind_of(name, kind), mapped: true }
    });
    Ok(kept.chain(renamed).collect())
}

fn headers(spec: &SourceSpec) -> Result<Vec<(String, Kind)>> {
    let mut names: Vec<(String, Kind)> = Vec::new();
    for path in &spec.files {
        let done = Arc::default();
        let rows = FileRows::new(path, spec, files::open(path, &done)?)?;
        for name in rows.header() {
            if !names.iter().any(|(known, _)| known == name) {
                names.push((name.clone(), Kind::Text));
            }
        }
    }
    Ok(names)
}

/// The keys of all objects in the order they first appear, each with the kind that fits all its values.
fn json_columns(index: usize, spec: &SourceSpec, tally: &Tally, observer: Observer) -> Result<Vec<(String, Kind)>> {
    let mut columns: Vec<(String, Option<Kind>)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut objects = 0_usize;
    for path in &spec.files {
        let mut rows = FileRows::new(path, spec, files::open(path, &tally.bytes_done)?)?;
        while let Some(object) = rows.next_object()? {
            if objects.is_multiple_of(CHECK_OBJECTS) {
                observer.check()?;
            }
            objects += 1;
            for (name, value) in object {
                let place = *places.entry(name).or_insert_with_key(|name| {
                    columns.push((name.clone(), None));
                    columns.len() - 1
                });
                columns[place].1 = join(columns[place].1, &value);
            }
            if columns.len() > MAX_COLUMNS {
                return Err(Error::input(format!("the JSON objects have more than {MAX_COLUMNS} different keys"))
                    .at(path.display(), None)
                    .help("put free keys into an object of their own, so that it becomes one column"));
            }
        }
    }
    if objects == 0 {
        // Without one good row there are no columns to ask for: what is wrong with the rows is the better answer.
        report_broken(index, spec, tally)?;
    }
    Ok(columns.into_iter().map(|(name, kind)| (name, kind.unwrap_or(Kind::Text))).collect())
}

/// Where the row of this number, counted from 1 over all good rows of all sources, stands: `file:line`, or the row of a
/// Parquet file. The files are read again.
pub(crate) fn nth_row(tables: &[Arc<Table>], number: u64) -> Option<String> {
    let mut left = number;
    for table in tables {
        let Columns::Rows(columns) = &table.columns else {
            return match table.spec.files.as_slice() {
                [one] => Some(format!("{}: row {left}", one.display())),
                _ => None,
            };
        };
        for path in &table.spec.files {
            let mut rows = FileRows::new(path, &table.spec, files::open(path, &Arc::default()).ok()?).ok()?;
            while let Some(row) = rows.next(columns).ok()? {
                left -= u64::from(matches!(row, Row::Cells(_)));
                if left == 0 {
                    return Some(format!("{}:{}", path.display(), rows.line()));
                }
            }
        }
    }
    None
}

/// Counts the broken rows of a source that has no others.
fn report_broken(index: usize, spec: &SourceSpec, tally: &Tally) -> Result<()> {
    let mut counts = Counts::default();
    for path in &spec.files {
        let mut rows = FileRows::new(path, spec, files::open(path, &tally.bytes_done)?)?;
        while let Some(row) = rows.next(&[])? {
            counts.rows += 1;
            if let Row::Bad(line, bad) = row {
                counts.bad(format_args!("{}:{line}", path.display()), &bad);
            }
        }
    }
    tally.report(index, &counts)
}

/// The kind that fits the values so far and this one.
fn join(known: Option<Kind>, value: &Value) -> Option<Kind> {
    let kind = match value {
        Value::Null => return known,
        Value::String(_) => Kind::Text,
        Value::Bool(_) => Kind::Boolean,
        Value::Number(number) if number.as_i64().is_some_and(|whole| whole.unsigned_abs() <= EXACT_MAX) => {
            Kind::Integer
        }
        Value::Number(number) if number.is_i64() => Kind::Wide,
        // Beyond what an integer column holds: as it is written.
        Value::Number(number) if number.is_u64() => Kind::Json,
        Value::Number(_) => Kind::Number,
        Value::Array(_) | Value::Object(_) => Kind::Json,
    };
    Some(match known {
        None => kind,
        Some(known) if known == kind => kind,
        Some(Kind::Integer | Kind::Wide) if matches!(kind, Kind::Integer | Kind::Wide) => Kind::Wide,
        Some(Kind::Integer | Kind::Number) if matches!(kind, Kind::Integer | Kind::Number) => Kind::Number,
        Some(_) => Kind::Json,
    })
}

/// Opens a Parquet file's metadata.
pub(crate) fn open_parquet(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<std::fs::File>> {
    let file = std::fs::File::open(path).map_err(|error| Error::io("cannot open", path, error))?;
    ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| damaged_parquet(path, error))
}

pub(crate) fn damaged_parquet(path: &Path, error: impl std::fmt::Display) -> Error {
    Error::input("the Parquet file is cut off or damaged")
        .at(path.display(), None)
        .cause(error)
        .help("fetch or write the file again")
}

/// Texts of all kinds become one type, so that files of different writers fit together.
fn common_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8View,
        DataType::Dictionary(_, value) if matches!(**value, DataType::Utf8 | DataType::LargeUtf8) => DataType::Utf8View,
        other => other.clone(),
    }
}

fn parquet_columns(spec: &SourceSpec) -> Result<(Columns, Vec<Field>)> {
    let mut found: Vec<(String, DataType)> = Vec::new();
    for path in &spec.files {
        let schema = open_parquet(path)?.schema().clone();
        let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
        if let Some(from) = spec.columns.values().find(|from| !names.contains(from)) {
            return Err(no_such_column(path, from, &names));
        }
        for field in schema.fields() {
            let data_type = common_type(field.data_type());
            match found.iter().find(|(name, _)| name == field.name()) {
                None => found.push((field.name().clone(), data_type)),
                Some((_, known)) if *known == data_type => {}
                Some((name, known)) => {
                    return Err(Error::input(format!("the column `{name}` has different types"))
                        .at(path.display(), None)
                        .cause(format!("it is {data_type} here, and {known} in an earlier file"))
                        .help("make two sources of these files and cast in the transform"));
                }
            }
        }
    }
    let stays = |name: &String| !spec.columns.contains_key(name) && !spec.columns.values().any(|from| from == name);
    let kept = found.iter().filter(|(name, _)| stays(name)).map(|(name, _)| (name.clone(), name.clone()));
    let renamed = spec.columns.iter().map(|(name, from)| (name.clone(), from.clone()));
    let columns: Vec<(String, String)> = kept.chain(renamed).collect();
    let type_of =
        |from: &String| found.iter().find(|(name, _)| name == from).map_or(DataType::Null, |(_, kind)| kind.clone());
    let fields = columns.iter().map(|(name, from)| Field::new(name, type_of(from), true)).collect();
    Ok((Columns::Parquet(columns), fields))
}
