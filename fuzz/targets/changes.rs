//! Any sequence of events ends where a fresh compilation does, and between any two writes every packet is judged as before
//! or as after.
#![no_main]

mod choices;
#[path = "../../policy-compiler/tests/compiler/direct.rs"]
mod direct;
#[path = "../../policy-compiler/tests/compiler/generate.rs"]
mod generate;
#[path = "../../policy-compiler/tests/compiler/kernel.rs"]
#[expect(dead_code, reason = "property tests use more of it")]
mod kernel;
#[path = "../../policy-compiler/tests/compiler/sequence.rs"]
mod sequence;
#[path = "../../policy-compiler/tests/compiler/world.rs"]
mod world;

use libfuzzer_sys::fuzz_target;
use policy_compiler::Event;
use proptest::strategy::{BoxedStrategy, Strategy as _};

/// What a sequence may begin with, and go on with.
fn kinds() -> [(BoxedStrategy<Vec<Event>>, BoxedStrategy<Event>); 4] {
    let one = |event: Event| vec![event];
    [
        (generate::event().prop_map(one).boxed(), generate::event().boxed()),
        (generate::service_event().prop_map(one).boxed(), generate::service_event().boxed()),
        (generate::two_tables().boxed(), generate::move_or_service().boxed()),
        (generate::behind_a_service().boxed(), generate::relabelled_or_service().boxed()),
    ]
}

// the first byte is the kind of sequence, the first chunk how it begins; each other chunk is an event, and its first byte
// whether it comes with the one before
fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let (first, next) = &kinds()[usize::from(*kind % 4)];
    let mut chunks = choices::chunks(bytes);
    let Some(first) = chunks.next().and_then(|chunk| choices::value(first, chunk)) else { return };
    let mut batches = vec![first];
    for chunk in chunks {
        let Some(event) = choices::value(next, chunk) else { continue };
        match batches.last_mut() {
            Some(batch) if chunk[0] % 2 == 0 => batch.push(event),
            _ => batches.push(vec![event]),
        }
    }
    sequence::run(batches.clone()).unwrap_or_else(|error| panic!("{error}\n{batches:#?}"));
});
