//! The transform: one SQL query over the sources, run by DataFusion within this process. Knows
//! tables and queries; what the rows mean is decided elsewhere.

use crate::{
    bad_rows::Tally,
    functions,
    in_order::InOrder,
    page_functions,
    scan::provider,
    spec::{DataOutput, PrepareSpec},
    table::Table,
};
use datafusion::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    common::{TableReference, tree_node::TreeNodeRecursion},
    error::DataFusionError,
    execution::context::SQLOptions,
    logical_expr::LogicalPlan,
    physical_plan::SendableRecordBatchStream,
    prelude::{SessionConfig, SessionContext},
};
use futures::StreamExt;
use narthex_base::{Error, Observer, Result};
use std::{
    sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    },
    time::Duration,
};

/// Time between two looks at the observer.
const TICK: Duration = Duration::from_millis(100);
/// The name of the only source.
const ONLY: &str = "source";
/// Batches that are read before the last one is taken.
const BATCHES_AHEAD: usize = 2;
/// Planning recurses; a thread of its own gives it room.
const STACK_BYTES: usize = 32 << 20;

/// Runs the transform (or the default query of each source) and hands over its batches in order.
///
/// # Errors
/// Those of the query, of reading, of `take`, and the observer's interrupt.
pub(crate) fn run(
    spec: &PrepareSpec,
    tables: &[Arc<Table>],
    tally: &Arc<Tally>,
    total_bytes: u64,
    observer: Observer,
    take: &mut dyn FnMut(&RecordBatch) -> Result<()>,
) -> Result<()> {
    let work = |batches: SyncSender<RecordBatch>| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(|error| Error::internal("cannot start the query's runtime").cause(error))?;
        runtime.block_on(async {
            let context = session(tables, tally)?;
            for sql in queries(spec, tables)? {
                let stream = plan(&context, &sql, tables).await?;
                pump(stream, &sql, tables, tally, total_bytes, observer, &batches).await?;
            }
            Ok(())
        })
    };
    std::thread::scope(|scope| {
        // While one batch is judged the next ones are read.
        let (sender, batches) = sync_channel(BATCHES_AHEAD);
        let thread = std::thread::Builder::new().name("query".into()).stack_size(STACK_BYTES);
        let thread = thread
            .spawn_scoped(scope, || work(sender))
            .map_err(|error| Error::internal("cannot start a thread").cause(error))?;
        let taken = batches.iter().try_for_each(|batch| take(&batch));
        // Whoever still reads learns that nobody wants more.
        drop(batches);
        let asked = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        taken.and(asked)
    })
}

fn session(tables: &[Arc<Table>], tally: &Arc<Tally>) -> Result<SessionContext> {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    functions::register(&context);
    page_functions::register(&context);
    for table in tables {
        let mut names = vec![table.spec.name.as_str()];
        if tables.len() == 1 && names[0] != ONLY {
            names.push(ONLY);
        }
        for name in names {
            let scanned = Arc::new(provider(table.clone(), tally.clone())?);
            context
                .register_table(TableReference::bare(name), scanned)
                .map_err(|error| Error::input(format!("`{name}` can't be a table's name")).cause(error))?;
        }
    }
    Ok(context)
}

/// The transform, or what is taken from each source without one.
fn queries(spec: &PrepareSpec, tables: &[Arc<Table>]) -> Result<Vec<String>> {
    if let Some(sql) = &spec.transform {
        return Ok(vec![sql.clone()]);
    }
    let query = |table: &Arc<Table>| {
        let columns = match spec.output {
            DataOutput::Documents if table.has("text") => "text",
            DataOutput::Chat if table.has("messages") && table.has("tools") => "messages, tools",
            DataOutput::Chat if table.has("messages") => "messages",
            DataOutput::Chat if table.has("user") && table.has("assistant") => match table.has("system") {
                true => "\"system\", \"user\", assistant",
                false => "\"user\", assistant",
            },
            DataOutput::Pairs if table.has("chosen") && table.has("rejected") => match table.has("prompt") {
                true => "prompt, chosen, rejected",
                false => "chosen, rejected",
            },
            DataOutput::Rows => "*",
            DataOutput::Documents => {
                return Err(lacking(table, "`text`", "columns = { text = \"NAME\" }"));
            }
            DataOutput::Chat => {
                let fix = "columns = { user = \"NAME\", assistant = \"NAME\" }";
                return Err(lacking(table, "`messages`, or `user` and `assistant`", fix));
            }
            DataOutput::Pairs => {
                let fix = "columns = { chosen = \"NAME\", rejected = \"NAME\" }";
                return Err(lacking(table, "`chosen` and `rejected`", fix));
            }
        };
        Ok(format!("select {columns} from \"{}\"", table.spec.name.replace('"', "\"\"")))
    };
    tables.iter().map(query).collect()
}

fn lacking(table: &Table, what: &str, fix: &str) -> Error {
    // Only the number of the row: the files say nothing.
    if table.schema.fields().len() == 1 {
        return Error::input(format!("the source `{}` is empty", table.spec.name))
            .at(table.spec.files[0].display(), None)
            .help("its files hold no rows: check the path, or how they were written");
    }
    Error::input(format!("the source `{}` has no column {what}", table.spec.name))
        .cause(format!("it has {}", table.describe()))
        .help(format!("name the column: `{fix}`, or write a `transform`"))
}

async fn plan(context: &SessionContext, sql: &str, tables: &[Arc<Table>]) -> Result<SendableRecordBatchStream> {
    let fail = |error: DataFusionError| query_error(&error, sql, tables);
    let logical = context.state().create_logical_plan(sql).await.map_err(fail)?;
    let only_reads = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    if let Err(error) = only_reads.verify_plan(&logical) {
        let what = Error::input("the query may only be a SELECT").cause(message(&error));
        return Err(what
            .cause(format!("the query is: {sql}"))
            .help("files are read through sources, and written by the step"));
    }
    refuse_chance(&logical, sql).map_err(fail)??;
    let frame = context.execute_logical_plan(logical).await.map_err(fail)?;
    let physical = frame.create_physical_plan().await.and_then(InOrder::rewrite).map_err(fail)?;
    physical.execute(0, context.task_ctx()).map_err(fail)
}

/// A query whose rows differ from run to run can't be reproduced.
fn refuse_chance(plan: &LogicalPlan, sql: &str) -> Result<Result<()>, DataFusionError> {
    let mut found = None;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            if expression.is_volatile() {
                found.get_or_insert_with(|| expression.to_string());
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(match found {
        None => Ok(()),
        Some(expression) => Err(Error::input("the query gives other rows each time")
            .cause(format!("`{expression}` depends on chance"))
            .cause(format!("the query is: {sql}"))
            .help("order or choose by a column, for instance `row`")),
    })
}

/// Drains the query, reporting progress and looking for an interrupt meanwhile.
async fn pump(
    mut stream: SendableRecordBatchStream,
    sql: &str,
    tables: &[Arc<Table>],
    tally: &Arc<Tally>,
    total_bytes: u64,
    observer: Observer<'_>,
    batches: &SyncSender<RecordBatch>,
) -> Result<()> {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = ticks.tick() => observer.progress(tally.bytes_done().min(total_bytes), total_bytes, "bytes", "reading"),
            batch = stream.next() => match batch {
                None => return Ok(()),
                // The receiver is gone only where it has an error of its own.
                Some(Ok(batch)) => batches.send(batch).map_err(|_| Error::interrupted("nobody wants the rest"))?,
                Some(Err(error)) => {
                    return Err(tally.take_failure().unwrap_or_else(|| query_error(&error, sql, tables)));
                }
            },
        }
        observer.check()?;
    }
}

fn message(error: &DataFusionError) -> String {
    error.find_root().strip_backtrace()
}

fn query_error(error: &DataFusionError, sql: &str, tables: &[Arc<Table>]) -> Error {
    let known: Vec<String> = tables.iter().map(|table| table.describe()).collect();
    let also = if tables.len() == 1 { format!(", also named {ONLY}") } else { String::new() };
    Error::input("the query can't be run")
        .cause(message(error))
        .cause(format!("the query is: {sql}"))
        .help(format!("these tables can be queried: {}{also}", known.join("; ")))
}

/// `name: type, …` of a query's result, for messages.
pub(crate) fn describe(schema: &SchemaRef) -> String {
    let columns: Vec<String> =
        schema.fields().iter().map(|field| format!("{}: {}", field.name(), field.data_type())).collect();
    columns.join(", ")
}
