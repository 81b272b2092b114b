//! Policy cases: policies as data, each with the connections that they allow and refuse. [`load`] reads them from
//! `cases/connections`; an [`Evaluator`] judges one side of a connection; [`Case::check`] holds it to the case.
//!
//! `cases/README.md` describes the files.

mod case;
mod connection;
mod expand;
mod line;
mod ordered;
mod reference;
mod sockets;
mod stage;
mod tables;

pub use case::{Case, folder, load};
pub use connection::{Connection, End, Evaluator, Expected, Mismatch, Side, Transport};
pub use line::Family;
pub use reference::Reference;
pub use sockets::Arena;
pub use tables::Tables;
