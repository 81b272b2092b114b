//! The TC programs: each packet at a pod's veth is judged by the tables that `enforcer` keeps.
//!
//! A packet's way, file by file: `parse` turns it into a [`packet::Packet`]; `flow::follows` is the fast path, one
//! look-up; `slow::judge` is everything else, and calls on the rest.
#![no_std]
#![no_main]
// Inline assembly for BPF is unstable; the whole target is, and needs the same switch.
#![feature(asm_experimental_arch)]

mod address;
mod count;
mod ends;
mod frame;
mod hooks;
mod maps;
mod packet;
mod parse;
mod runtime;
mod settings;
mod verdict;
mod verifier;

mod exempt;
mod flow;
mod fragment;
mod held;
mod judge;
mod quote;
mod report;
mod resolve;
mod slow;
mod source;

use crate::count::Operation;

/// Nothing is counted here; `counted.rs` is the same program with it.
#[inline(always)]
fn note(_operation: Operation) {}
