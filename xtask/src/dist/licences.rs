//! The licences of the crates that are linked into the executable: whoever hands the executable on has to hand these on with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::process;

/// The crates of ours whose code is in the executable.
const OURS: [&str; 2] = ["screener", "screener-ebpf"];

/// How the names of licences begin.
const NAMES: [&str; 6] = ["license", "licence", "copying", "copyright", "notice", "unlicense"];

/// What is above the list. The compiler's own library is no crate that cargo knows.
const HEAD: &str = "\
What is linked into /usr/sbin/screener and is not Screener's own: the Rust standard library (MIT OR Apache-2.0, the Rust project's
contributors), and these crates, each with its version and licence. Their texts follow, each once, with the crates that come with it.

";

/// The list of crates, and the text of each licence.
///
/// # Errors
/// When cargo does not know the crates, or one says nothing of its licence.
pub(super) fn collect() -> Result<String> {
    let mut cargo = process::cargo("metadata");
    cargo.args(["--locked", "--offline", "--format-version=1", "--filter-platform"]);
    cargo.arg(format!("{}-unknown-linux-gnu", std::env::consts::ARCH));
    let metadata: Value = serde_json::from_str(&process::ask(&mut cargo)?).context("what cargo says of the crates")?;
    let mut text = HEAD.to_owned();
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for linked in crates(&metadata)? {
        let Crate { name, version, licence, directory } = linked;
        text += &format!("{name} {version}: {licence}\n");
        for file in texts_in(Path::new(directory))? {
            texts.entry(file).or_default().push(format!("{name} {version}"));
        }
    }
    for (licence, crates) in texts {
        text += &format!("\n{}\n{}\n\n{}\n", "-".repeat(78), crates.join(", "), licence.trim_end());
    }
    Ok(text)
}

/// A crate of somebody else's.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Crate<'a> {
    name: &'a str,
    version: &'a str,
    licence: &'a str,
    directory: &'a str,
}

/// What ours depend on, and what that depends on, and so on; what only builds or tests it is not in the executable.
fn crates(metadata: &Value) -> Result<BTreeSet<Crate<'_>>> {
    let list = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
    let packages = metadata["packages"].as_array().context("no packages")?;
    let nodes = list(&metadata["resolve"]["nodes"]);
    let ours = packages.iter().filter(|package| OURS.iter().any(|name| package["name"] == *name));
    let mut waiting: Vec<Value> = ours.map(|package| package["id"].clone()).collect();
    ensure!(waiting.len() == OURS.len(), "cargo does not know {}", OURS.join(" and "));
    let mut seen = BTreeSet::new();
    let mut found = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        if !seen.insert(id.to_string()) {
            continue;
        }
        let package = packages.iter().find(|package| package["id"] == id).context("a crate without a package")?;
        let word = |key: &str| package[key].as_str();
        if word("source").is_some() {
            let name = word("name").context("a crate without a name")?;
            let licence = word("license").or(word("license_file"));
            found.insert(Crate {
                name,
                version: word("version").unwrap_or_default(),
                licence: licence.with_context(|| format!("{name} says nothing of its licence: may it be linked?"))?,
                directory: word("manifest_path").and_then(|path| path.rsplit_once('/')).context("no place")?.0,
            });
        }
        let node = nodes.iter().find(|node| node["id"] == id).context("a crate that was not resolved")?;
        let linked = |dependency: &Value| list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
        waiting.extend(list(&node["deps"]).into_iter().filter(linked).map(|dependency| dependency["pkg"].clone()));
    }
    Ok(found)
}

/// The licences that lie in a crate, with what it has taken in from elsewhere.
fn texts_in(directory: &Path) -> Result<Vec<String>> {
    let mut find = Command::new("find");
    let mut files: Vec<String> =
        process::ask(find.arg(directory).args(["-maxdepth", "4", "-type", "f"]))?.lines().map(str::to_owned).collect();
    files.sort();
    let texts = files.iter().filter(|file| is_licence(file));
    texts.map(|file| Ok(String::from_utf8_lossy(&fs::read(file).with_context(|| file.clone())?).into_owned())).collect()
}

fn is_licence(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or_default().to_lowercase();
    // `LICENSE-APACHE-2.0` has an ending that is none.
    let is_text = name.rsplit_once('.').is_none_or(|(_, end)| ["md", "txt", "apache", "mit", "0"].contains(&end));
    is_text && NAMES.iter().any(|begin| name.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn package(name: &str, source: Option<&str>, licence: Option<&str>) -> Value {
        let manifest_path = format!("/crates/{name}/Cargo.toml");
        json!({"id": name, "name": name, "version": "1.0.0", "source": source, "license": licence, "manifest_path": manifest_path})
    }

    fn metadata(licence: Option<&str>) -> Value {
        let dependency = |name: &str, kind: Option<&str>| json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
        json!({
            "packages": [
                package("screener", None, None),
                package("screener-ebpf", None, None),
                package("direct", Some("registry"), licence),
                package("deep", Some("registry"), Some("MIT")),
                package("only-tests", Some("registry"), None),
            ],
            "resolve": {"nodes": [
                {"id": "screener", "deps": [dependency("direct", None), dependency("only-tests", Some("dev"))]},
                {"id": "screener-ebpf", "deps": []},
                {"id": "direct", "deps": [dependency("deep", None)]},
                {"id": "deep", "deps": [dependency("direct", None)]},
            ]},
        })
    }

    #[test]
    fn what_is_linked_is_listed_and_what_only_tests_is_not() {
        let metadata = metadata(Some("ISC"));
        let found = crates(&metadata).unwrap();
        let names: Vec<_> = found.iter().map(|linked| (linked.name, linked.licence, linked.directory)).collect();
        assert_eq!(names, [("deep", "MIT", "/crates/deep"), ("direct", "ISC", "/crates/direct")]);
    }

    #[test]
    fn a_crate_without_a_licence_is_refused_by_its_name() {
        let refused = crates(&metadata(None)).unwrap_err().to_string();
        assert!(refused.contains("direct"), "{refused}");
    }

    #[test]
    fn licences_are_known_by_their_names() {
        for name in
            ["LICENSE", "LICENSE-MIT", "licence.md", "LICENSE-APACHE-2.0", "COPYING", "NOTICE.txt", "c/UNLICENSE"]
        {
            assert!(is_licence(&format!("/crates/x/{name}")), "{name}");
        }
        for name in ["license.rs", "README.md", "licenses.toml", "src/lib.rs"] {
            assert!(!is_licence(&format!("/crates/x/{name}")), "{name}");
        }
    }
}
