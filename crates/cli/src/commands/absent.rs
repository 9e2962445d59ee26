//! The verbs that this build does not have: they are known, take whatever they are given, and say so. Each stands
//! here as in the file of its name, so that what calls it need not know which build it is.

use clap::Args;
use narthex_base::{Error, Result};

/// Whatever a verb is given.
#[derive(Args)]
pub struct Anything {
    #[arg(value_name = "…", hide = true, num_args = 0.., trailing_var_arg = true, allow_hyphen_values = true)]
    _given: Vec<String>,
}

/// The error of a verb that a build without this feature does not have.
fn absent<T>(verb: &str, feature: &str) -> Result<T> {
    Err(Error::usage(format!("this build of narthex has no `{verb}`"))
        .cause(format!("it was built without the feature `{feature}`"))
        .help(format!("use a build that has all parts, or make one: `cargo build --release --features {feature}`")))
}

/// What makes and checks artifacts.
#[cfg(not(feature = "run"))]
pub mod without_run {
    use super::{Result, absent};
    use crate::style::Style;
    use narthex_base::{License, config::Kind};
    use narthex_hub::Download;
    use narthex_ledger::{Artifact, Ledger};
    use narthex_shelf::PulledFrom;
    use std::path::Path;

    pub mod new {
        pub use super::super::Anything as New;

        pub fn run(_: &New) -> super::Result<()> {
            super::absent("new", "run")
        }
    }

    pub mod plan {
        pub use super::super::Anything as PlanArguments;

        pub fn run(_: &PlanArguments) -> super::Result<()> {
            super::absent("plan", "run")
        }
    }

    pub mod run {
        pub use super::super::{Anything as Run, Anything as Step};

        pub fn run(_: &Run, _: super::Style) -> super::Result<()> {
            super::absent("run", "run")
        }

        pub fn run_kind(kind: &super::Kind, _: &Step, _: super::Style) -> super::Result<()> {
            super::absent(kind.name, "run")
        }
    }

    pub mod data_inspect {
        pub use super::super::Anything as Inspect;

        pub fn run(_: &Inspect, _: super::Style) -> super::Result<()> {
            super::absent("data inspect", "run")
        }
    }

    pub mod data_show {
        pub use super::super::Anything as Show;

        pub fn run(_: &Show, _: super::Style) -> super::Result<()> {
            super::absent("data show", "run")
        }
    }

    pub mod recheck {
        pub use super::super::{Anything as Reproduce, Anything as Verify};

        pub fn reproduce(_: &Reproduce, _: super::Style) -> super::Result<()> {
            super::absent("reproduce", "run")
        }

        pub fn verify(_: &Verify, _: super::Style) -> super::Result<()> {
            super::absent("verify", "run")
        }
    }

    pub mod quantize;

    pub mod bench_train {
        pub use super::super::Anything as BenchTrain;

        pub fn train(_: &BenchTrain) -> super::Result<()> {
            super::absent("bench train", "run")
        }
    }

    pub mod pull_data {
        use super::{Artifact, Download, Ledger, License, Path, PulledFrom, Result, absent};

        pub fn is_possible() -> Result<()> {
            absent("pull hf:datasets/…", "run")
        }

        pub fn take(
            _: &Ledger,
            _: (&Path, &str),
            _: Download,
            _: &str,
            _: Option<License>,
            _: &PulledFrom,
        ) -> Result<Artifact> {
            absent("pull hf:datasets/…", "run")
        }
    }
}

/// What answers over HTTP, and vectors by the same means.
#[cfg(not(feature = "serve"))]
pub mod without_serve {
    use super::{Result, absent};
    use crate::style::Style;

    pub mod embed {
        pub use super::super::Anything as Embed;

        pub fn run(_: &Embed) -> super::Result<()> {
            super::absent("embed", "serve")
        }
    }

    pub mod classify {
        pub use super::super::Anything as Classify;

        pub fn run(_: &Classify) -> super::Result<()> {
            super::absent("classify", "serve")
        }
    }

    pub mod route {
        pub use super::super::Anything as Route;

        pub fn run(_: &Route) -> super::Result<()> {
            super::absent("route", "serve")
        }
    }

    pub mod serve {
        pub use super::super::{Anything as Batch, Anything as Serve};
        use std::path::Path;

        pub fn run(_: &Serve) -> super::Result<()> {
            super::absent("serve", "serve")
        }

        pub fn batch(_: &Batch, _: super::Style) -> super::Result<()> {
            super::absent("batch", "serve")
        }

        #[cfg(feature = "run")]
        pub fn serve_reference(_: &Path, _: &str, _: u16) -> super::Result<()> {
            super::absent("serve", "serve")
        }
    }
}
