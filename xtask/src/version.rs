//! What the build is called: by the workspace's version and the commit that it is of. The package, the tarball and
//! `screener --version` say the same.

use std::process::Command;

use anyhow::{Context, Result};

use crate::process;

/// A version and its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    /// As Debian orders versions: what is on the way to `0.1.0` (`0.1.0~git…`) comes before it, a later commit after an earlier one.
    pub(crate) name: String,
    /// When the commit was made, in seconds since 1970: the time of everything in a package (`SOURCE_DATE_EPOCH`).
    pub(crate) epoch: String,
}

impl Version {
    /// Of the checkout.
    ///
    /// # Errors
    /// When it is none, or git is not there.
    pub(crate) fn of_checkout() -> Result<Self> {
        let commit = git(&["log", "-1", "--abbrev=10", "--date=format-local:%Y%m%d.%H%M%S", "--format=%ct %cd %h %D"])
            .context("a build is named after its commit")?;
        let changes = git(&["status", "--porcelain"])?;
        Self::of(env!("CARGO_PKG_VERSION"), commit.trim_end(), !changes.is_empty()).context("git log says nothing")
    }

    /// By the commit's time, its date, its name and what refers to it.
    fn of(release: &str, commit: &str, is_changed: bool) -> Option<Self> {
        let mut words = commit.splitn(4, ' ');
        let (epoch, date, commit) = (words.next()?, words.next()?, words.next()?);
        let is_release = words.next().unwrap_or_default().split(", ").any(|name| name == format!("tag: v{release}"));
        let name = match (is_release, is_changed) {
            (true, false) => release.to_owned(),
            (_, false) => format!("{release}~git{date}.{commit}"),
            (_, true) => format!("{release}~git{date}.{commit}.changed"),
        };
        Some(Self { name, epoch: epoch.to_owned() })
    }
}

fn git(arguments: &[&str]) -> Result<String> {
    let mut git = Command::new("git");
    // A question: nothing is written, also no index.
    git.args(arguments).current_dir(process::root()).env("TZ", "UTC").env("GIT_OPTIONAL_LOCKS", "0");
    process::ask(&mut git)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_the_release_or_what_is_on_the_way_to_it() {
        let name = |commit: &str, is_changed| Version::of("0.1.0", commit, is_changed).map(|version| version.name);
        let commit = "1795692000 20261126.114000 9ccd1f8abc HEAD -> main, origin/main";
        assert_eq!(name(commit, false).as_deref(), Some("0.1.0~git20261126.114000.9ccd1f8abc"));
        assert_eq!(name(commit, true).as_deref(), Some("0.1.0~git20261126.114000.9ccd1f8abc.changed"));
        let tagged = "1795692000 20261126.114000 9ccd1f8abc HEAD -> main, tag: v0.1.0";
        assert_eq!(name(tagged, false).as_deref(), Some("0.1.0"));
        // Not what the tag stands for.
        assert_eq!(name(tagged, true).as_deref(), Some("0.1.0~git20261126.114000.9ccd1f8abc.changed"));
        assert_eq!(name("1795692000 20261126.114000 9ccd1f8abc tag: v0.1.0-rc1", false), name(commit, false));
        assert_eq!(name("", false), None);
    }
}
