//! What `torch.save` writes: a zip file, or the older bare sequence of pickles, that holds tensors by name. Read with
//! an unpickler that knows a fixed list of names and runs nothing.

mod archive;
mod convert;
mod legacy;
mod machine;
mod state;

pub use convert::{Converted, to_safetensors};
pub use state::{StateDict, StateTensor, read_state_dict};
