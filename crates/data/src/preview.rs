//! A source as it was understood: its columns with their types, its first rows, and how many rows it has. Writes
//! nothing.

use crate::{
    bad_rows::Tally,
    documents::{Record, json_of},
    query,
    spec::{DataOutput, FilterSettings, Normalize, PrepareSpec, SourceSpec, Split, SplitBy},
    table::{ROW, Table},
};
use narthex_base::{Observer, Result};
use std::sync::Arc;

/// What a source looks like.
#[derive(Clone, Debug, PartialEq)]
pub struct Preview {
    /// The columns by name, with the type that a transform sees.
    pub columns: Vec<(String, String)>,
    /// The first rows.
    pub rows: Vec<Record>,
    /// Rows in all, broken ones left out.
    pub count: u64,
    /// Broken rows.
    pub bad: u64,
    /// Where some of them are, and what is wrong with them.
    pub bad_examples: Vec<String>,
}

/// Reads a source as a `data` step would.
///
/// # Errors
/// If a file can't be read, or the observer interrupts.
pub fn preview(source: &SourceSpec, rows: usize, observer: Observer) -> Result<Preview> {
    let tally = Arc::new(Tally::new(u64::MAX));
    let table = Arc::new(Table::discover(0, source, &tally, observer)?);
    let columns = table.schema.fields().iter().filter(|field| field.name() != ROW);
    let columns = columns.map(|field| (field.name().clone(), crate::table::type_name(field.data_type()))).collect();
    let spec = PrepareSpec {
        source: vec![source.clone()],
        transform: None,
        output: DataOutput::Rows,
        normalize: Normalize::None,
        filters: Vec::new(),
        filter: FilterSettings::default(),
        near_duplicates: None,
        deduplicate: false,
        split: Split { by: SplitBy::Position, validation_fraction: 0.0, seed: 0 },
        max_bad_rows: u64::MAX,
    };
    let (mut first, mut count) = (Vec::new(), 0);
    query::run(&spec, &[table], &tally, 0, observer, &mut |batch| {
        let schema = batch.schema();
        for row in 0..batch.num_rows().min(rows.saturating_sub(first.len())) {
            let cells = schema.fields().iter().zip(batch.columns()).filter(|(field, _)| field.name() != ROW);
            first.push(cells.map(|(field, column)| (field.name().clone(), json_of(column, row))).collect());
        }
        count += batch.num_rows() as u64;
        Ok(())
    })?;
    let total = tally.total();
    Ok(Preview { columns, rows: first, count, bad: total.bad, bad_examples: total.examples })
}
