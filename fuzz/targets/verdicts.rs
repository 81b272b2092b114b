//! On any cluster, reference, tables and explanations agree.
#![no_main]

mod choices;
#[path = "../../policy-compiler/tests/generate/mod.rs"]
#[expect(dead_code, reason = "property tests use more of it")]
mod generate;
#[path = "../../policy-compiler/tests/properties/judges.rs"]
mod judges;

use generate::{cluster, policy};
use judges::Judges;
use libfuzzer_sys::fuzz_target;
use serde_json::json;

// the first chunk is a cluster, the others are policies beside those that it has
fuzz_target!(|bytes: &[u8]| {
    let mut chunks = choices::chunks(bytes);
    let Some(mut objects) = chunks.next().and_then(|chunk| choices::value(&cluster(), chunk)) else { return };
    let policy = policy();
    for (number, mut more) in chunks.filter_map(|chunk| choices::value(&policy, chunk)).enumerate() {
        more["metadata"]["name"] = json!(format!("more-{number}"));
        objects.0.push(more);
    }
    Judges::of(&objects).agree().unwrap_or_else(|error| panic!("{error}\n{objects:?}"));
});
