//! The vocabulary of Narthex: artifacts, licences, lineage, plans, events and errors.
//!
//! This crate does no IO, holds no tensors and knows no async. Everything in it can be
//! built, compared and printed in a test without touching the machine.

pub mod artifact;
mod caller;
pub mod chat;
pub mod component;
pub mod config;
pub mod declared;
pub mod digest;
pub mod error;
pub mod event;
pub mod figure;
pub mod hub_license;
pub mod license;
pub mod lineage;
pub mod pair;
pub mod papers;
pub mod plan;
pub mod random;
pub mod text_file;

pub use artifact::{ArtifactKind, Checkpoint, FileEntry, Manifest, Parent, Passed, Recipe, ShardDigests};
pub use caller::Caller;
pub use chat::{Conversation, FunctionCall, Message, MessageContent, Part, Role, ToolCall, ToolKind};
pub use component::{Component, ComponentKind, Content, Evidence, Maker};
pub use declared::DeclaredOrigin;
pub use digest::Digest;
pub use error::{Error, ErrorKind, Result};
pub use event::{Event, Observer};
pub use figure::{Better, Figure, Unit};
pub use license::License;
pub use lineage::{LineageNode, Presence, Provenance};
pub use pair::{Answers, Pair};
pub use papers::{Papers, papers};
pub use plan::Plan;
