//! Tables that are asked one question after the other, in SQL that only reads. Knows neither who asks nor how rows are
//! shown.

use crate::{
    bad_rows::Tally,
    documents::{Record, json_of},
    query,
    spec::{DataOutput, FilterSettings, Normalize, PrepareSpec, SourceSpec, Split, SplitBy},
    table::Table,
};
use narthex_base::{Error, Observer, Result};
use std::sync::Arc;

/// Tables that can be asked.
pub struct Tables {
    specs: Vec<SourceSpec>,
    tables: Vec<Arc<Table>>,
}

/// What a question gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    /// The names of the columns, in order; of an answer without rows there are none.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<Record>,
    /// Whether there are more than were asked for.
    pub is_cut: bool,
}

impl Tables {
    /// Finds out which columns each has.
    ///
    /// # Errors
    /// If a file cannot be read, or is none of the format that its table says.
    pub fn open(specs: Vec<SourceSpec>, observer: Observer) -> Result<Self> {
        let tally = Tally::new(u64::MAX);
        let tables = specs.iter().enumerate();
        let tables = tables.map(|(index, spec)| Table::discover(index, spec, &tally, observer).map(Arc::new));
        Ok(Self { tables: tables.collect::<Result<_>>()?, specs })
    }

    /// A line for each table: `name (column: type, …)`.
    pub fn describe(&self) -> String {
        self.tables.iter().map(|table| table.describe()).collect::<Vec<_>>().join("\n")
    }

    /// The rows of a SELECT statement, `rows_max` at most.
    ///
    /// # Errors
    /// If it is none, changes something, depends on chance, or cannot be run, and the observer's interrupt.
    pub fn ask(&self, sql: &str, rows_max: usize, observer: Observer) -> Result<Rows> {
        let spec = PrepareSpec {
            source: self.specs.clone(),
            transform: Some(sql.into()),
            output: DataOutput::Rows,
            normalize: Normalize::None,
            filters: Vec::new(),
            filter: FilterSettings::default(),
            near_duplicates: None,
            deduplicate: false,
            split: Split { by: SplitBy::Position, validation_fraction: 0.0, seed: 0 },
            max_bad_rows: u64::MAX,
        };
        let tally = Arc::new(Tally::new(u64::MAX));
        let mut found = Rows { columns: vec![], rows: vec![], is_cut: false };
        let asked = query::run(&spec, &self.tables, &tally, 0, observer, &mut |batch| {
            let schema = batch.schema();
            found.columns = schema.fields().iter().map(|field| field.name().clone()).collect();
            for row in 0..batch.num_rows() {
                if found.rows.len() == rows_max {
                    found.is_cut = true;
                    // Nobody wants the rest: this ends the query.
                    return Err(Error::interrupted("there are rows enough"));
                }
                let cells = schema.fields().iter().zip(batch.columns());
                found.rows.push(cells.map(|(field, column)| (field.name().clone(), json_of(column, row))).collect());
            }
            Ok(())
        });
        match asked {
            Err(error) if !found.is_cut => Err(error),
            _ => Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Format, TextRows};
    use serde_json::json;
    use std::{collections::BTreeMap, fs};

    fn tables(folder: &std::path::Path) -> Tables {
        let file = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let spec = |name: &str, file| SourceSpec {
            quotes: None,
            name: name.into(),
            files: vec![file],
            format: Format::Csv,
            rows: TextRows::File,
            columns: BTreeMap::new(),
        };
        let orders = spec("orders", file("o.csv", "id,customer,total\n1,a,10\n2,b,20\n3,a,5\n"));
        let customers = spec("customers", file("c.csv", "id,city\na,Rome\nb,Oslo\n"));
        Tables::open(vec![orders, customers], Observer::silent()).unwrap()
    }

    #[test]
    fn questions_over_several_tables() {
        let folder = tempfile::tempdir().unwrap();
        let tables = tables(folder.path());
        assert!(tables.describe().starts_with("orders (id: "), "{}", tables.describe());
        let sql = "select c.city, sum(cast(o.total as bigint)) as total from orders o join customers c on c.id = o.customer \
                   group by c.city order by c.city";
        let found = tables.ask(sql, 10, Observer::silent()).unwrap();
        let rows: Vec<serde_json::Value> = found.rows.into_iter().map(serde_json::Value::Object).collect();
        assert_eq!(rows, [json!({"city": "Oslo", "total": 20}), json!({"city": "Rome", "total": 15})]);
        assert_eq!((found.columns, found.is_cut), (vec!["city".to_string(), "total".into()], false));
        let cut = tables.ask("select id from orders order by id", 2, Observer::silent()).unwrap();
        assert_eq!((cut.rows.len(), cut.is_cut), (2, true));
    }

    #[test]
    fn what_is_more_than_reading_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let tables = tables(folder.path());
        let out = folder.path().join("out.csv");
        let copy = format!("copy orders to '{}'", out.display());
        for sql in [
            "drop table orders",
            "create table x as select * from orders",
            "insert into orders values (4, 'c', 1)",
            copy.as_str(),
            "set datafusion.execution.batch_size = 1",
            "create external table f stored as csv location '/etc/passwd'",
            "select * from '/etc/passwd'",
            "select 1; select 2",
            "select random()",
            "",
        ] {
            assert!(tables.ask(sql, 10, Observer::silent()).is_err(), "{sql}");
        }
        assert!(!out.exists());
    }
}
