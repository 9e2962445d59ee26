//! The error that names what a config asks for and this version cannot do. Knows no keys.

use narthex_base::Error;

/// An error that names what a config asks for.
pub(crate) fn unsupported(key: &str, wanted: &str, known: &str) -> Error {
    Error::input(format!("config.json asks for {key} = {wanted}, which is not supported"))
        .help(format!("supported: {known}"))
}
