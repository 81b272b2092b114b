//! A test that no verdict depends on the time of day, which may jump: what keeps enforcement reads it nowhere, and the
//! agent where it shows it to people. Intervals are measured by monotonic clocks, flows by the kernel's jiffies.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Crates that run on a node.
const CRATES: [&str; 6] = ["controller", "enforcer", "enforcer-abi", "enforcer-ebpf", "policy-compiler", "sluice-cni"];

/// Ways of reading it.
const READS: [&str; 6] =
    ["SystemTime::now", "Timestamp::now", "Zoned::now", "REALTIME", "gettimeofday", "bpf_ktime_get_tai_ns"];

/// Where it is read, and what for.
const SHOWN: [&str; 4] = [
    // when a state was told
    "controller/src/http/export.rs",
    // the time of a Kubernetes Event
    "controller/src/notice.rs",
    // the time of a record and of a line in the log
    "controller/src/report.rs",
    // a metric
    "controller/src/source/api/watch.rs",
];

fn rust_files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn the_time_of_day_is_shown_and_nothing_else() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for name in CRATES {
        rust_files(&root.join(name).join("src"), &mut files);
    }
    assert!(files.len() > 100, "only {} files are looked at", files.len());
    let reads = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        READS.iter().any(|read| text.contains(read))
    };
    let here = Path::new("controller/src/wall_clock.rs");
    let mut found: Vec<&Path> =
        files.iter().filter(|path| reads(path)).map(|path| path.strip_prefix(root).unwrap()).collect();
    found.retain(|path| *path != here);
    found.sort_unstable();
    assert_eq!(found, SHOWN.map(Path::new));
}
