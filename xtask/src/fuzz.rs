//! `cargo xtask fuzz`: builds the targets of `fuzz/` for libFuzzer (<https://llvm.org/docs/LibFuzzer.html>) and lets
//! them search. The stable compiler can instrument; what it can't is the address sanitizer, which code without `unsafe`
//! has no need of.

use std::{fs, path::Path, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::{
    apt,
    toolchain::{Toolchain, output, succeed},
};

/// What is fuzzed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// Bytes that are read as manifests.
    Manifests,
    /// Clusters, judged by all evaluators.
    Verdicts,
    /// Sequences of events.
    Changes,
}

/// Edges, comparisons and the tables that libFuzzer looks them up in, as cargo-fuzz has them.
const FLAGS: [&str; 8] = [
    "--cfg",
    "fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

impl Target {
    const fn name(self) -> &'static str {
        match self {
            Self::Manifests => "manifests",
            Self::Verdicts => "verdicts",
            Self::Changes => "changes",
        }
    }

    /// The most bytes of an input that are worth trying.
    const fn length(self) -> u32 {
        match self {
            Self::Manifests => 4096,
            Self::Verdicts | Self::Changes => 130,
        }
    }
}

/// Each of these targets, or each that there is, for so many seconds. What was found interesting is kept in
/// `fuzz/corpus`, an input that fails in `fuzz/artifacts`.
pub(crate) fn run(toolchain: &Toolchain, targets: &[Target], seconds: u32) -> Result<ExitCode> {
    if !Path::new("/usr/bin/c++").exists() {
        println!("to be installed now: g++, for libFuzzer");
        apt::require(&["g++"])?;
        apt::install(&["g++"])?;
    }
    let version = output(toolchain.command("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    // with a target, build scripts and procedural macros are built without the flags
    let mut build = toolchain.cargo();
    let folder = toolchain.target().join("fuzz");
    build.args(["build", "--release", "--manifest-path", "fuzz/Cargo.toml", "--features", "link", "--target-dir"]);
    build.arg(&folder);
    succeed(build.args(["--target", host]).env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}")))?;
    for target in if targets.is_empty() { Target::value_variants() } else { targets } {
        let name = target.name();
        let corpus = toolchain.root.join("fuzz/corpus").join(name);
        let artifacts = toolchain.root.join("fuzz/artifacts").join(name);
        for folder in [&corpus, &artifacts] {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        println!("{name}: {seconds} s");
        let program = folder.join(host).join("release").join(name);
        let mut fuzz = toolchain.command(program);
        fuzz.args(["-timeout=60", "-print_final_stats=1"]);
        fuzz.arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={}", target.length()));
        fuzz.arg(format!("-artifact_prefix={}/", artifacts.display())).arg(&corpus);
        if matches!(target, Target::Manifests) {
            fuzz.arg("cases/connections");
        }
        succeed(&mut fuzz)?;
    }
    Ok(ExitCode::SUCCESS)
}
