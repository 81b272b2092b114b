//! What a person sees in a terminal: text folded to its width and coloured; what is piped is neither.

#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

use std::{
    fs::File,
    io::Read as _,
    process::{Command, Stdio},
};

use nix::pty::{Winsize, openpty};

const SHOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop");

fn policyctl(args: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_policyctl"));
    command.args(args.split(' ')).current_dir(SHOP).env_remove("POLICYCTL_NAMESPACE").env_remove("NO_COLOR");
    command
}

/// What is shown in a terminal of so many columns.
fn seen(args: &str, columns: u16, colour: bool) -> String {
    let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(Some(&size), None).unwrap();
    let mut command = policyctl(args);
    if !colour {
        command.env("NO_COLOR", "1");
    }
    command.stdout(Stdio::from(terminal.slave.try_clone().unwrap())).stderr(Stdio::from(terminal.slave));
    let mut child = command.spawn().unwrap();
    // it holds the terminal's end
    drop(command);
    let mut seen = Vec::new();
    // Linux says so when nobody has the other end any more
    let end = File::from(terminal.master).read_to_end(&mut seen).unwrap_err();
    assert_eq!(end.raw_os_error(), Some(nix::libc::EIO));
    child.wait().unwrap();
    String::from_utf8(seen).unwrap().replace("\r\n", "\n")
}

fn piped(args: &str) -> String {
    let output = policyctl(args).output().unwrap();
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
}

const COMMANDS: [&str; 13] = [
    "explain -f k8s shop/deploy/wbe shop/db-0:postgres",
    "explain -f k8s shop/deploy/web shop/sts/db",
    "exposure -f k8s",
    "effective -f k8s shop/db-0",
    "lint -f k8s",
    "conformance cases-off",
    "test -f k8s shop.test.yaml",
    "diff k8s new",
    "graph -f k8s",
    "who -o wide -f k8s shop/svc/db",
    "matrix -f k8s --ports TCP/5432 --no-nodes",
    "can -f k8s -f bad shop/deploy/web shop/db-0:5432",
    "can -f nowhere/at/all/where/a/folder/has/a/very/long/name shop/deploy/web shop/sts/db:5432",
];

#[test]
fn lines_are_as_wide_as_the_terminal() {
    let bare = |text: &str| {
        let mut letters: Vec<char> = text.chars().filter(|letter| !letter.is_whitespace()).collect();
        // the cells of a row are not one after the other
        letters.sort_unstable();
        letters
    };
    for command in COMMANDS {
        let wide = piped(command);
        for columns in [60, 80, 100, 200] {
            let text = seen(command, columns, false);
            let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= usize::from(columns), "{command}: {widest} of {columns}\n{text}");
            assert_eq!(bare(&text), bare(&wide), "{command} at {columns}:\n{text}");
        }
        // stderr comes first there
        let lines = |text: &str| {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort_unstable();
            lines
        };
        assert_eq!(lines(&seen(command, 400, false)), lines(&wide), "{command}");
    }
}

#[test]
fn colour_is_for_terminals_and_leaves_the_words() {
    for command in COMMANDS {
        let (plain, coloured) = (seen(command, 80, false), seen(command, 80, true));
        assert!(!plain.contains('\x1b') && !piped(command).contains('\x1b'), "{command}");
        let mut bare = String::new();
        for (number, part) in coloured.split('\x1b').enumerate() {
            bare.push_str(if number == 0 { part } else { part.split_once('m').unwrap().1 });
        }
        assert_eq!(bare, plain, "{command}");
    }
    assert!(seen(COMMANDS[0], 80, true).starts_with("\x1b[31mDENIED\x1b[0m"));
}

#[test]
fn what_programs_read_is_never_folded() {
    for format in ["json", "yaml", "jsonl", "name", "csv", "md"] {
        let command = format!("list -f k8s -o {format}");
        assert_eq!(seen(&command, 40, true), piped(&command), "{format}");
    }
}

#[test]
fn a_grid_that_is_too_wide_comes_in_parts() {
    let text = seen("matrix -f k8s --ports TCP/5432", 40, false);
    let rows = text.lines().filter(|line| line.starts_with("shop/db-0 ")).count();
    assert!(rows == 1, "{text}");
    let text = seen("matrix -f k8s --ports TCP/5432 --ip a-name-that-takes-my-room=8.8.8.8", 40, false);
    assert!(text.contains("servers 1 to 10 of") && text.contains("servers 11 to 11 of"), "{text}");
    let (whole, rows) =
        (piped("matrix -f k8s --ports TCP/5432 --ip a-name-that-takes-my-room=8.8.8.8"), ["shop/db-0 ", "node/n1 "]);
    for row in rows {
        let of = |text: &str| -> String {
            let lines = text.lines().filter(|line| line.starts_with(row));
            lines.map(|line| line.rsplit(' ').next().unwrap()).collect()
        };
        assert_eq!(of(&text), of(&whole), "{text}");
    }
}

#[test]
fn at_eighty_columns() {
    for (name, command) in [("explain", COMMANDS[0]), ("exposure", COMMANDS[2]), ("conformance", COMMANDS[5])] {
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(format!("eighty_{name}"), seen(command, 80, false));
        });
    }
    let help = seen("explain --help", 80, false);
    assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
}
