//! Sources and data steps of a project as tables that an agent asks in SQL. Knows the project and what a tool asks for;
//! how a query is run is the data crate's business.

use narthex_agent::Tool;
use narthex_base::Result;
use narthex_tools::sql::SqlTool;
use std::{path::Path, sync::Arc};

/// The tool that asks the tables which the settings name.
///
/// # Errors
/// If there is no such table, it cannot be read, or this build has no DataFusion.
#[cfg(not(feature = "run"))]
pub(super) fn sql_tool(_: &Path, name: &str, _: &SqlTool) -> Result<Vec<Arc<dyn Tool>>> {
    Err(narthex_base::Error::input(format!("this build cannot ask tables, as the tool `{name}` does"))
        .help("build it with the feature `run`"))
}

#[cfg(feature = "run")]
pub(super) use with_data::sql_tool;

#[cfg(feature = "run")]
mod with_data {
    use super::*;
    use crate::commands::{base_options, open_options};
    use futures::future::BoxFuture;
    use narthex_base::{Error, Observer};
    use narthex_run::{Project, Rows, Tables, look::tables};
    use narthex_tools::sql::{Query, sql};
    use serde_json::Value;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// The tool that asks the tables which the settings name.
    ///
    /// # Errors
    /// If there is no such table, or it cannot be read.
    pub fn sql_tool(root: &Path, name: &str, settings: &SqlTool) -> Result<Vec<Arc<dyn Tool>>> {
        let project = Project::open(root, &open_options(base_options(&[])))?;
        let tables = tables(&project, &settings.tables, Observer::silent())
            .map_err(|error| error.context(format!("the tool `{name}` cannot be made")))?;
        let columns = tables.describe();
        sql(name, settings, &columns, Arc::new(Asked(Arc::new(tables))))
    }

    /// Tables that are asked on a thread of their own.
    struct Asked(Arc<Tables>);

    /// Ends the query when nobody waits for it any more.
    struct Ends(Arc<AtomicBool>);

    impl Drop for Ends {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    impl Query for Asked {
        fn query(&self, sql: &str, rows_max: usize) -> BoxFuture<'static, std::result::Result<String, String>> {
            let (tables, sql) = (self.0.clone(), sql.to_string());
            let ends = Ends(Arc::default());
            let interrupt = ends.0.clone();
            Box::pin(async move {
                let ask = move || tables.ask(&sql, rows_max, Observer::new(&|_| {}, &interrupt));
                let asked = tokio::task::spawn_blocking(ask).await;
                drop(ends);
                let rows = asked.map_err(|error| format!("the query broke: {error}"))?;
                rows.map(|rows| shown(&rows)).map_err(|error| told(&error))
            })
        }
    }

    /// An error with its reasons, for a model that may mend its query.
    fn told(error: &Error) -> String {
        let causes = error.causes().iter().map(|cause| format!("\n{cause}")).collect::<String>();
        let help = error.help_text().map(|help| format!("\n{help}")).unwrap_or_default();
        format!("{}{causes}{help}", error.what())
    }

    /// Rows as JSON, one a line.
    fn shown(found: &Rows) -> String {
        let Rows { columns, rows, is_cut } = found;
        if rows.is_empty() {
            return "no rows".into();
        }
        let lines = rows.iter().map(|row| Value::Object(row.clone()).to_string() + "\n");
        let more = if *is_cut { "[there are more rows: add conditions, sums or a LIMIT]\n" } else { "" };
        format!("columns: {}\n{}{more}", columns.join(", "), lines.collect::<String>())
    }
}
