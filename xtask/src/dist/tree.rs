//! What lies where on a host: the one list of it. The Debian package and the tarball hold the same files.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::licences;
use crate::process;

/// The executable's place.
pub(super) const EXECUTABLE: &str = "usr/sbin/screener";

/// The configuration's place: it is the operator's once it is there.
pub(super) const CONFIGURATION: &str = "etc/screener/screener.toml";

/// Where documents are.
pub(super) const DOCUMENTS: &str = "usr/share/doc/screener";

/// What installs a tarball; a package has dpkg for that.
pub(super) const INSTALLER: &str = "install.sh";

/// Files of the repository, their places and modes. A configuration may hold the key of a DNS list.
const FILES: [(&str, &str, u32); 9] = [
    ("packaging/screener.service", "usr/lib/systemd/system/screener.service", 0o644),
    ("packaging/screener.socket", "usr/lib/systemd/system/screener.socket", 0o644),
    ("packaging/screener.sysusers", "usr/lib/sysusers.d/screener.conf", 0o644),
    ("packaging/screener.toml", CONFIGURATION, 0o640),
    ("packaging/install.sh", INSTALLER, 0o755),
    ("packaging/debian/copyright", "usr/share/doc/screener/copyright", 0o644),
    ("LICENSE-APACHE", "usr/share/doc/screener/LICENSE-APACHE", 0o644),
    ("LICENSE-MIT", "usr/share/doc/screener/LICENSE-MIT", 0o644),
    ("README.md", "usr/share/doc/screener/README.md", 0o644),
];

/// Shells, and where each looks for completions.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/screener"),
    ("zsh", "usr/share/zsh/vendor-completions/_screener"),
    ("fish", "usr/share/fish/vendor_completions.d/screener.fish"),
];

/// A directory that holds the files of a host.
pub(super) struct Tree {
    above: PathBuf,
    name: String,
}

impl Tree {
    /// Lays out the files for this executable, from nothing.
    ///
    /// # Errors
    /// When the executable is none, or a file is missing.
    pub(super) fn lay(above: &Path, name: &str, binary: &Path) -> Result<Self> {
        match fs::remove_dir_all(above) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", above.display()));
            }
            _ => {}
        }
        let tree = Self { above: above.to_owned(), name: name.to_owned() };
        let from = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        tree.put(EXECUTABLE, &from(binary)?, 0o755)?;
        let executable = tree.path(EXECUTABLE);
        for (shell, place) in COMPLETIONS {
            let script = process::ask(Command::new(&executable).args(["completions", shell]))?;
            tree.put(place, script.as_bytes(), 0o644)?;
        }
        // After it has run: what is no program would be a riddle to strip.
        process::run(Command::new("strip").arg("--strip-unneeded").arg(&executable))?;
        let root = process::root();
        for (file, place, mode) in FILES {
            tree.put(place, &from(&root.join(file))?, mode)?;
        }
        let pages = root.join("docs");
        for page in fs::read_dir(&pages).with_context(|| format!("cannot list {}", pages.display()))? {
            let page = page?;
            let place = format!("{DOCUMENTS}/docs/{}", page.file_name().display());
            tree.put(&place, &from(&page.path())?, 0o644)?;
        }
        let changes = from(&root.join("CHANGELOG.md"))?;
        for (name, text) in [("changelog", changes), ("crates", licences::collect()?.into_bytes())] {
            let place = format!("{DOCUMENTS}/{name}");
            tree.put(&place, &text, 0o644)?;
            process::run(Command::new("gzip").arg("-9n").arg(tree.path(&place)))?;
        }
        Ok(tree)
    }

    /// Writes a file, and makes the directories above it.
    pub(super) fn put(&self, place: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let path = self.path(place);
        let mut parents: Vec<&Path> =
            path.ancestors().skip(1).take_while(|parent| parent.starts_with(&self.above)).collect();
        parents.reverse();
        // Whatever the umask is.
        for parent in parents.into_iter().filter(|parent| !parent.is_dir()).collect::<Vec<_>>() {
            fs::create_dir_all(parent)
                .and_then(|()| fs::set_permissions(parent, fs::Permissions::from_mode(0o755)))
                .with_context(|| format!("cannot make {}", parent.display()))?;
        }
        fs::write(&path, bytes)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Takes a file out.
    pub(super) fn remove(&self, place: &str) -> Result<()> {
        let path = self.path(place);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
    }

    /// Every file, as a path from the root of the host, sorted.
    pub(super) fn files(&self) -> Result<Vec<String>> {
        let mut find = Command::new("find");
        find.args([".", "-type", "f", "-printf", "%P\\n"]).current_dir(self.root());
        let mut files: Vec<String> = process::ask(&mut find)?.lines().map(str::to_owned).collect();
        files.sort();
        ensure!(!files.is_empty(), "{} is empty", self.root().display());
        Ok(files)
    }

    /// Where a file is.
    pub(super) fn path(&self, place: &str) -> PathBuf {
        self.root().join(place)
    }

    /// The directory that stands for the root of a host.
    pub(super) fn root(&self) -> PathBuf {
        self.above.join(&self.name)
    }

    /// The directory above that, in which there is nothing else.
    pub(super) fn above(&self) -> &Path {
        &self.above
    }

    /// The name of the directory.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}
