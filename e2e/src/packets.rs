//! Evaluator 3 (DESIGN section 8): packets as data, judged by the real program through `BPF_PROG_TEST_RUN`.
//!
//! A [`case::Case`] is read from `cases/packets/`; [`run::Run`] carries out its steps on a [`program::Program`], whose
//! maps it fills with what the compiler says of the case's objects. [`frame`] and [`payload`] make the bytes.
//!
//! What test runs can't show on the kernels of today: packets past a few kilobytes, and packets whose headers are not
//! in the linear part (the kernel takes one page of linear data). Those are left to the veths.

pub mod case;
pub mod connection;
pub mod context;
pub mod devices;
mod event;
pub mod frame;
mod judge;
pub mod objects;
pub mod payload;
pub mod pool;
pub mod program;
pub mod run;
pub mod step;
pub mod tables;
