//! `narthex quantize` in a build that does not have it.

use super::super::absent;
use crate::style::Style;
use narthex_base::Result;

pub use super::super::Anything as Quantize;

pub fn run(_: &Quantize, _: Style) -> Result<()> {
    absent("quantize", "run")
}
