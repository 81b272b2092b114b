//! `policyctl conformance` where it writes expectations down, and where these are wrong.

#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

mod schema;

use std::{fs, path::Path, process::Command};

use tempfile::TempDir;

const SHOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop");

/// Runs it in a folder of cases: stdout, stderr and exit status.
fn said(folder: &TempDir, args: &str) -> (String, String, i32) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_policyctl"));
    let output = command.args(args.split(' ')).current_dir(folder.path()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code().unwrap())
}

/// One case with the objects of the shop and nothing expected yet.
fn shop() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let case = folder.path().join("shop");
    fs::create_dir(&case).unwrap();
    for entry in fs::read_dir(Path::new(SHOP).join("k8s")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), case.join(entry.file_name())).unwrap();
    }
    folder
}

#[test]
fn what_matrix_says_is_expected_as_it_is() {
    let folder = shop();
    let (matrix, ..) = said(&folder, "matrix -f shop --ports TCP/5432,UDP/53 --ip out=8.8.8.8 -o json");
    for (file, text) in [
        ("expected.json", matrix.clone()),
        ("expected.yaml", said(&folder, "matrix -f shop --ports TCP/5432,UDP/53 --ip out=8.8.8.8 -o yaml").0),
    ] {
        fs::write(folder.path().join("shop").join(file), text).unwrap();
        let (text, errors, status) = said(&folder, "conformance .");
        assert_eq!((status, &*errors), (0, ""), "{text}");
        assert!(text.starts_with("ok      shop  "), "{text}");
        fs::remove_file(folder.path().join("shop").join(file)).unwrap();
    }
    let (_, _, status) = said(&folder, "conformance . --write --ports TCP/5432,UDP/53 --ip out=8.8.8.8");
    assert_eq!(status, 0);
    let written = fs::read_to_string(folder.path().join("shop/expected.json")).unwrap();
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(value(&written), value(&matrix));
    assert_eq!(schema::faults("Matrix", &value(&written)), [""; 0]);
}

/// Each cell of a matrix, made another verdict, is found by its name, and it alone.
#[test]
fn each_cell_counts() {
    let folder = shop();
    let path = folder.path().join("shop/expected.json");
    let (matrix, ..) = said(&folder, "matrix -f shop --ports TCP/5432 --no-nodes -o json");
    let matrix: serde_json::Value = serde_json::from_str(&matrix).unwrap();
    let ends: Vec<_> = matrix["ends"].as_array().unwrap().iter().map(|end| end["id"].as_str().unwrap()).collect();
    let rows = &matrix["families"]["IPv4"][0]["rows"];
    let mut tried = 0;
    for (client, row) in rows.as_array().unwrap().iter().enumerate() {
        for (server, letter) in row.as_str().unwrap().chars().enumerate().filter(|(_, letter)| *letter != '~') {
            let other = if letter == '.' { "X" } else { "." };
            // nothing keeps a pod from itself
            let other = if letter == '=' { "X" } else { other };
            let mut changed = row.as_str().unwrap().to_owned();
            changed.replace_range(server..=server, other);
            let mut document = matrix.clone();
            document["families"]["IPv4"][0]["rows"][client] = changed.into();
            fs::write(&path, document.to_string()).unwrap();
            let (report, _, status) = said(&folder, "conformance -o csv .");
            let start = format!("shop,{},{},IPv4,TCP,5432,", ends[client], ends[server]);
            assert!(status == 1 && report.lines().count() == 2 && report.contains(&start), "{start}: {report}");
            tried += 1;
        }
    }
    assert!(tried > 50, "{tried}");
}

#[test]
fn what_is_found_is_written_where_something_else_is_expected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("front.yaml");
    let text = fs::read_to_string(Path::new(SHOP).join("cases/front.yaml")).unwrap();
    // one cell that agrees in other words, one that is not known, and two that are wrong
    fs::write(&path, text.replace("[=.X, X=X, X??]", "[=XX, .=X, X??]")).unwrap();
    assert_eq!(said(&folder, "conformance front.yaml -q").2, 1);
    let (report, _, status) = said(&folder, "conformance front.yaml --write");
    assert_eq!(status, 0, "{report}");
    let written = fs::read_to_string(&path).unwrap();
    let rows: Vec<_> = written.lines().filter_map(|line| line.trim().strip_prefix("- ")).collect();
    assert!(rows.ends_with(&["=.X", "B=X", "X??"]), "{written}");
    let objects = |text: &str| text.split_once("---\n").unwrap().1.to_owned();
    assert_eq!(objects(&written), objects(&text));
    let (report, _, status) = said(&folder, "conformance front.yaml");
    assert_eq!(status, 0, "{report}");
}

#[test]
fn wrong_expectations_are_named() {
    #[track_caller]
    fn check(from: &str, to: &str, words: &str) {
        let folder = tempfile::tempdir().unwrap();
        let text = fs::read_to_string(Path::new(SHOP).join("cases/front.yaml")).unwrap();
        assert!(text.contains(from), "{from}");
        fs::write(folder.path().join("front.yaml"), text.replacen(from, to, 1)).unwrap();
        let (report, errors, status) = said(&folder, "conformance .");
        assert!(
            status == 2 && report.starts_with("FAILED  front.yaml  ") && report.contains(words),
            "{report}{errors}"
        );
    }
    check("policyctl/v1", "policyctl/v2", "write apiVersion: policyctl/v1 and kind: Matrix");
    check("id: a/back", "id: a/front", "a/front is there twice");
    check("kind: IP", "kind: Address", "write Pod, Node or IP");
    check("[203.0.113.7]", "[]", "ip/out is an IP; write ip/NAME, and its address in ips");
    check("[203.0.113.7]", "[203.0.113]", "invalid IP address");
    check("IPv4", "IPv5", "\"IPv5\" is none; write IPv4 or IPv6");
    check("protocol: TCP", "protocol: tcp", "unknown variant `tcp`");
    check("port: 8080", "port: 0", "there is no port 0");
    check("port: 8080", "port: 80800", "invalid u16 at line 10");
    check("[=.X, X=X, X??]", "[=.X, X=X]", "families.IPv4[0].rows: 2 rows for 3 ends");
    check("[=.X, X=X, X??]", "[=.X, X=X, X?]", "that of ip/out has 2 letters for 3 ends");
    check("[=.X, X=X, X??]", "[=.x, X=X, X??]", "'x' in that of a/front is no verdict");
    check("families:", "famillies:", "famillies");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("expected.json"), "{").unwrap();
    assert_eq!(said(&folder, "conformance .").2, 2);
    fs::write(folder.path().join("expected.yaml"), "{").unwrap();
    let (_, errors, status) = said(&folder, "conformance .");
    assert!(status == 2 && errors.contains("are both there; leave one"), "{errors}");
}
