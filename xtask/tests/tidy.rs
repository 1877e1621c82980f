//! The house rules, as far as a machine can check them. Each failure says where and what to do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What may stand at the top of the repository; the crates and README.md are fixed.
const TOP: [&str; 17] = [
    ".cargo",
    ".ci",
    ".clippy.toml",
    ".gitignore",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "docs",
    "packaging",
    "rustfmt.toml",
    "screener",
    "screener-ebpf",
    "tests",
    "xtask",
];

/// Beyond this many lines a file is perhaps two things.
const LONGEST_FILE: usize = 600;

/// Files that are longer all the same, with the reason.
const LONG_FILES: [(&str, &str); 0] = [];

struct File {
    name: String,
    text: String,
}

impl File {
    fn is_rust(&self) -> bool {
        self.name.ends_with(".rs")
    }

    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(number, line)| (number + 1, line))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_owned()
}

/// What git tracks or would track.
fn files() -> Vec<File> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(root());
    let listed = git.output().expect("git is needed to list the files");
    assert!(listed.status.success(), "git ls-files failed; is this a checkout?");
    let names = String::from_utf8(listed.stdout).expect("file names are UTF-8");
    let read = |name: &str| {
        let text = fs::read_to_string(root().join(name)).ok()?;
        Some(File { name: name.to_owned(), text })
    };
    names.lines().filter_map(read).collect()
}

/// Fails with every complaint of a rule at once.
fn check(rule: impl Fn(&File) -> Vec<String>) {
    let complaints: Vec<String> = files().iter().flat_map(rule).collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// A rule about single lines of Rust.
fn check_lines(applies: impl Fn(&str) -> bool, complaint: impl Fn(&str) -> Option<&'static str>) {
    check(|file| {
        if !file.is_rust() || !applies(&file.name) {
            return Vec::new();
        }
        let found = file.lines().filter_map(|(number, line)| Some((number, complaint(line)?)));
        found.map(|(number, what)| format!("{}:{number}: {what}", file.name)).collect()
    });
}

/// This file names what it forbids.
fn is_elsewhere(name: &str) -> bool {
    name != "xtask/tests/tidy.rs"
}

fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

#[test]
fn the_top_level_is_what_was_agreed() {
    check(|file| {
        let top = file.name.split('/').next().unwrap_or_default();
        let known = TOP.contains(&top);
        if known { Vec::new() } else { vec![format!("{}: does not belong at the top level", file.name)] }
    });
}

#[test]
fn files_are_small_and_begin_by_saying_what_they_hold() {
    check(|file| {
        let mut complaints = Vec::new();
        if !file.is_rust() {
            return complaints;
        }
        let lines = file.text.lines().count();
        if lines > LONGEST_FILE && !LONG_FILES.iter().any(|(name, _)| *name == file.name) {
            complaints.push(format!("{}: {lines} lines: which two things is it?", file.name));
        }
        if !file.text.starts_with("//!") {
            complaints.push(format!("{}:1: begin with a `//!` comment: what it holds, what it never does", file.name));
        }
        complaints
    });
}

#[test]
fn text_has_no_stray_blanks() {
    check(|file| {
        let mut complaints = Vec::new();
        for (number, line) in file.lines() {
            if line != line.trim_end() {
                complaints.push(format!("{}:{number}: remove the blanks at the end", file.name));
            }
            if file.is_rust() && line.contains('\t') {
                complaints.push(format!("{}:{number}: write spaces, not a tab", file.name));
            }
        }
        if !file.text.is_empty() && !file.text.ends_with('\n') {
            complaints.push(format!("{}: end the last line", file.name));
        }
        complaints
    });
}

#[test]
fn nothing_is_left_undone_or_skipped_in_silence() {
    check_lines(is_elsewhere, |line| {
        let words = ["#[ignore", "todo!(", "unimplemented!("];
        if words.iter().any(|word| code(line).contains(word)) {
            return Some("finish it, or take it out");
        }
        let marked = ["TODO", "FIXME", "XXX"].iter().find_map(|mark| line.split_once(&format!("// {mark}")));
        marked.is_some_and(|(_, rest)| !rest.starts_with('(')).then_some("give the reason: // TODO(reason)")
    });
}

#[test]
fn the_engine_sees_no_socket_no_task_no_clock_and_no_store() {
    const FORBIDDEN: [&str; 12] = [
        "tokio",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        "std::fs",
        "SystemTime",
        "Now::read",
        "crate::ledger",
        "crate::kernel",
        "crate::serve",
        "crate::dnsbl",
        "tracing",
    ];
    check_lines(
        |name| name.starts_with("screener/src/session/"),
        |line| {
            FORBIDDEN.iter().any(|word| code(line).contains(word)).then_some("the engine has no I/O: pass it in or out")
        },
    );
    // The tests' rig makes up a beginning of time; the engine itself never asks for it.
    check_lines(
        |name| name.starts_with("screener/src/session/") && !name.contains("/tests/"),
        |line| code(line).contains("Instant::now").then_some("the engine has no clock: the time is passed in"),
    );
}

#[test]
fn only_the_kernel_room_knows_aya() {
    check_lines(
        |name| name.starts_with("screener/src/") && !name.starts_with("screener/src/kernel/"),
        |line| {
            let used = ["aya::", "aya_log", "use aya"].iter().any(|word| code(line).contains(word));
            used.then_some("ask kernel/ for it: nobody else uses aya")
        },
    );
}

#[test]
fn only_the_share_room_knows_redis() {
    check_lines(
        |name| name.starts_with("screener/src/") && !name.starts_with("screener/src/share/"),
        |line| code(line).contains("redis::").then_some("ask share/ for it: nobody else uses redis"),
    );
}

#[test]
fn the_packet_parser_knows_no_map() {
    check_lines(
        |name| name.starts_with("screener-ebpf/src/parse"),
        |line| {
            let used = ["aya", "#[map]", "helpers"].iter().any(|word| code(line).contains(word));
            used.then_some("the parser reads bytes and nothing else")
        },
    );
}

#[test]
fn no_address_becomes_a_metric_label() {
    check_lines(
        |name| name == "screener/src/observe/metrics.rs",
        |line| {
            let used = ["IpAddr", "SocketAddr", "ClientKey"].iter().any(|word| code(line).contains(word));
            used.then_some("a label for each client is a label without bound")
        },
    );
}

#[test]
fn every_crate_has_the_workspaces_lints() {
    check(|file| {
        // A package with a workspace of its own has none to inherit from.
        let inherits = file.text.contains("[lints]\nworkspace = true") || file.text.contains("\n[workspace]\n");
        let missing = file.name.ends_with("/Cargo.toml") && !inherits;
        if missing { vec![format!("{}: add [lints] workspace = true", file.name)] } else { Vec::new() }
    });
}
