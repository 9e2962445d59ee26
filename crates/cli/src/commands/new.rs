//! `narthex new`

use super::program;
use crate::arguments::New;
use narthex_base::Result;

pub fn run(args: &New) -> Result<()> {
    narthex_run::scaffold(&args.name)?;
    let folder = args.name.display();
    noteln!("made {folder}/narthex.toml and {folder}/data/sample.txt");
    noteln!("next: {} run {folder}", program());
    Ok(())
}
