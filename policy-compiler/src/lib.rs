//! Compiles Kubernetes network policies to bitmap and LPM tables, and explains every verdict. Pure: objects and events
//! in, table writes and explanations out; no I/O, no clock, no async.
//!
//! The way through it: [`files`] and [`convert`] turn text and API objects into the [`model`]; a [`Compiler`] takes the
//! model's [`Event`]s and answers with [`Changes`]; [`explain`] says why a connection is judged as it is; [`mod@reference`]
//! is the slow reading of the API's documentation that the tables are held against.
#![forbid(unsafe_code)]

pub mod change;
mod class;
pub mod cluster;
pub mod compiler;
mod content_id;
pub mod contents;
pub mod convert;
pub mod diagnostic;
pub mod explain;
pub mod files;
mod front_end;
pub mod generate;
mod index;
pub mod manifest;
pub mod model;
pub mod plan;
mod port;
pub mod reach;
pub mod reference;
mod table;
pub mod walk;

pub use change::{Changes, PodTables, PodUpdate, Report, Step, TableUse};
pub use cluster::Cluster;
pub use compiler::{Compiler, Cursor, Options, TableCursor};
pub use contents::Contents;
pub use model::Event;
pub use plan::plan;
