//! Converts one model file, to look at the outcome with other programs:
//! `convert FILE.gguf FOLDER`, `convert FILE.pt FOLDER`, `convert FOLDER FILE.gguf f32|f16|bf16|q8_0`.

use narthex_base::{Error, Result};
use narthex_formats::{
    gguf::{About, Stored, from_hugging_face, to_hugging_face},
    pickle::to_safetensors,
};
use std::path::Path;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [from, to] if from.ends_with(".gguf") => println!("{:#?}", to_hugging_face(Path::new(from), Path::new(to))?),
        [from, to] => println!("{:#?}", to_safetensors(Path::new(from), Path::new(to))?),
        [from, to, stored] => {
            let stored = match *stored {
                "f32" => Stored::F32,
                "f16" => Stored::F16,
                "bf16" => Stored::BF16,
                "q8_0" => Stored::Q8_0,
                other => return Err(Error::usage(format!("`{other}` is no type of weights"))),
            };
            from_hugging_face(Path::new(from), Path::new(to), stored, &About::default())?;
        }
        _ => return Err(Error::usage("one of the forms above is meant")),
    }
    Ok(())
}
