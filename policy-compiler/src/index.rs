//! What lets an event cost what it changes: labels as bitmaps of who has them, selectors found by what they ask for, and
//! everything that occurs often stored once.

pub(crate) mod candidates;
pub(crate) mod interner;
pub(crate) mod labels;
pub(crate) mod population;
pub(crate) mod selector;
pub(crate) mod slab;
