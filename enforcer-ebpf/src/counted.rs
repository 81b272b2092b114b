//! The same programs as `main.rs` makes of these modules, and a count of what they ask of their maps, because the goals for
//! the first packet are counts. Loaded by tests and by the benchmark only, and never attached to anything.
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

use aya_ebpf::{macros::map, maps::Array};

use crate::count::Operation;

/// How often each operation was done, in the order of [`Operation`], since user space has written zeros.
#[map]
static OPERATIONS: Array<u64> = Array::with_max_entries(8, 0);

#[inline(always)]
fn note(operation: Operation) {
    if let Some(count) = OPERATIONS.get_ptr_mut(operation as u32) {
        // SAFETY: an element of an array, which never goes away. One packet at a time is counted.
        unsafe { *count += 1 };
    }
}
