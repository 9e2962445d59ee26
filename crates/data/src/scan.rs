//! A table as DataFusion reads it: batch by batch, its files anew for each scan. Knows no columns.

use crate::{bad_rows::Tally, batches::BatchReader, table::Table};
use datafusion::{
    arrow::datatypes::SchemaRef,
    catalog::streaming::StreamingTable,
    error::DataFusionError,
    execution::TaskContext,
    physical_plan::{SendableRecordBatchStream, stream::RecordBatchStreamAdapter, streaming::PartitionStream},
};
use narthex_base::{Error, Result};
use std::sync::Arc;

/// A table for DataFusion; every scan reads the files anew.
pub(crate) fn provider(table: Arc<Table>, tally: Arc<Tally>) -> Result<StreamingTable> {
    let schema = table.schema.clone();
    StreamingTable::try_new(schema, vec![Arc::new(Scan { table, tally })])
        .map_err(|error| Error::internal("cannot make a table of the source").cause(error))
}

/// One reading of a table's files.
#[derive(Debug)]
struct Scan {
    table: Arc<Table>,
    tally: Arc<Tally>,
}

impl PartitionStream for Scan {
    fn schema(&self) -> &SchemaRef {
        &self.table.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let reader = BatchReader::new(self.table.clone(), self.tally.clone());
        let tally = self.tally.clone();
        let batches = futures::stream::unfold(reader, move |mut reader| {
            let tally = tally.clone();
            async move {
                // Reading does not wait for anything, so it must let others have a turn.
                tokio::task::yield_now().await;
                let batch = reader.next()?.map_err(|error| {
                    tally.fail(error);
                    DataFusionError::Execution("reading the source failed".into())
                });
                Some((batch, reader))
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(self.table.schema.clone(), batches))
    }
}
