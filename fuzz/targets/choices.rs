//! Fuzzed bytes as values of the property tests' strategies: each chunk is the seed of one value, so that what libFuzzer
//! changes, inserts or leaves out is one object or event among others. Entry points: [`value`], [`chunks`].

use proptest::{
    strategy::{Strategy, ValueTree as _},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

/// The bytes of a seed.
const CHUNK: usize = 4;
/// What is tried is short: long sequences say no more, and take long.
const MOST: usize = 32;

/// The seeds.
pub(crate) fn chunks(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.chunks(CHUNK).take(MOST)
}

/// What the strategy makes of a seed; `None` if it rejects it.
pub(crate) fn value<S: Strategy>(strategy: &S, chunk: &[u8]) -> Option<S::Value> {
    let mut seed = [0; 32];
    seed[..chunk.len()].copy_from_slice(chunk);
    let config = Config { failure_persistence: None, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    strategy.new_tree(&mut TestRunner::new_with_rng(config, rng)).ok().map(|tree| tree.current())
}
