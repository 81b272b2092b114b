//! Class `prog`: the packet program, judged by test run.

fn main() {}
