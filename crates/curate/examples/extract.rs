//! Main text of pages: reads paths of HTML files from standard input, one a line, extracts their text on one thread,
//! and prints for each a line of JSON with `path` and `text`, or `refused`; the last line says pages and megabytes a
//! second, reading of files apart. `bench/data/extract.py` compares it with trafilatura.

use narthex_curate::extract::{Options, extract};
use serde_json::json;
use std::{error::Error, fs, time::Instant};

fn main() -> Result<(), Box<dyn Error>> {
    let paths = std::io::stdin().lines().collect::<Result<Vec<_>, _>>()?;
    let options = Options::default();
    // What the first page pays is the tables.
    let _ = extract(b"<div class=post id=content><p>A first page.</p></div>", &options);
    let (mut seconds, mut bytes) = (0.0, 0);
    for path in &paths {
        let page = fs::read(path).map_err(|error| format!("cannot read {path}: {error}"))?;
        bytes += page.len();
        let start = Instant::now();
        let extracted = extract(&page, &options);
        seconds += start.elapsed().as_secs_f64();
        match extracted {
            Ok(page) => println!("{}", json!({"path": path, "text": page.text})),
            Err(refusal) => println!("{}", json!({"path": path, "refused": refusal.name()})),
        }
    }
    println!("{}", json!({"pages_s": paths.len() as f64 / seconds, "mb_s": bytes as f64 / 1e6 / seconds}));
    Ok(())
}
