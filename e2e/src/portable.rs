//! Scenarios for any cluster that a kubeconfig leads to: what pods show of Sluice by their own logs and by commands in
//! them, with images from public registries and without access to any node. Entry point: [`run()`]; `docs/e2e.md` tells
//! the rest.

mod agents;
mod birth;
mod changes;
mod install;
mod policies;
mod removal;
mod run;
mod scene;
mod services;
mod talk;
mod venue;

pub use install::{Image, Overlay};
pub use run::{Plan, run};
pub use venue::Venue;
