//! Whatever bytes are read as manifests, nothing panics, and what comes out of them means the same to all evaluators.
#![no_main]

#[path = "../../policy-compiler/tests/generate/mod.rs"]
#[expect(dead_code, reason = "property tests use more of it")]
mod generate;
#[path = "../../policy-compiler/tests/properties/judges.rs"]
#[expect(dead_code, reason = "property tests use more of it")]
mod judges;

use judges::Judges;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let remotes = ["10.0.0.1", "10.0.1.1", "192.0.2.1", "fd00::1", "2001:db8::1"];
    let remotes = remotes.map(|address| address.parse().expect("an address"));
    for file in ["f.yaml", "f.json"] {
        Judges::read(file, bytes, remotes.to_vec()).agree().unwrap_or_else(|error| panic!("{file}: {error}"));
    }
});
