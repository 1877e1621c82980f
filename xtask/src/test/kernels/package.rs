//! Debian's kernels, out of their packages: the image and the modules that the tests need.
//!
//! apt is asked with a state of its own (lists, status, cache, sources) under `target/kernels`, for one release each; what it
//! fetches is verified by Debian's keyring as ever. Never installs anything, and never reads or writes this host's state.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::{process, setup};

/// The package that depends on a release's current kernel.
const META: &str = "linux-image-amd64";

/// The modules that the tests need; what they depend on comes along.
const MODULES: [&str; 1] = ["veth"];

/// The keys that Debian's archive is signed with.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An unpacked kernel.
pub(super) struct Kernel {
    /// The release that it comes from.
    pub(super) release: &'static str,
    /// Where it lies, alone.
    pub(super) directory: PathBuf,
}

impl Kernel {
    /// The image to boot.
    pub(super) fn image(&self) -> PathBuf {
        self.directory.join("vmlinuz")
    }

    /// The modules, in the order in which they must be loaded.
    pub(super) fn modules(&self) -> Result<Vec<PathBuf>> {
        files(&self.directory.join("modules"))
    }
}

/// The kernel of a release: the one that was fetched before, or the current one.
pub(super) fn get(release: &'static str, newest: bool) -> Result<Kernel> {
    let place = process::binaries("kernels")?.join(release);
    fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
    let before = unpacked(&place)?;
    if let Some(directory) = &before
        && !newest
    {
        return Ok(Kernel { release, directory: directory.clone() });
    }
    let directory = fetch(release, &place).with_context(|| format!("cannot get the kernel of Debian {release}"))?;
    if let Some(before) = before.filter(|before| *before != directory) {
        fs::remove_dir_all(&before).with_context(|| format!("cannot remove {}", before.display()))?;
    }
    Ok(Kernel { release, directory })
}

/// The directory of an unpacked kernel is named after the package's version, and gets that name last.
fn unpacked(place: &Path) -> Result<Option<PathBuf>> {
    let is_version = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(|first: char| first.is_ascii_digit()) && !name.ends_with(PART)
    };
    Ok(files(place)?.into_iter().rfind(is_version))
}

/// How the name of a directory ends that is still being filled.
const PART: &str = ".part";

fn fetch(release: &str, place: &Path) -> Result<PathBuf> {
    let apt = Apt::new(release, place)?;
    let (package, version) = apt.current_kernel()?;
    let (done, part) = (place.join(&version), place.join(format!("{version}{PART}")));
    if done.exists() {
        return Ok(done);
    }
    empty(&part)?;
    process::run(apt.command("apt-get").args(["download", &package]).current_dir(&part))?;
    let deb = files(&part)?.pop().with_context(|| format!("apt has not left a package in {}", part.display()))?;
    let root = part.join("root");
    process::run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&root))?;
    let image = files(&root.join("boot"))?;
    let image =
        image.iter().find(|file| file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"vmlinuz-")));
    let image = image.with_context(|| format!("{package} holds no image"))?;
    fs::rename(image, part.join("vmlinuz")).context("cannot move the image")?;
    take_modules(&root, &part.join("modules"))?;
    fs::remove_dir_all(&root).context("cannot remove the rest of the package")?;
    fs::remove_file(&deb).context("cannot remove the package")?;
    fs::rename(&part, &done).with_context(|| format!("cannot name {}", done.display()))?;
    Ok(done)
}

/// apt with everything of its own, for one release.
struct Apt {
    config: PathBuf,
}

impl Apt {
    /// Fetches the lists of the release and of its security archive, where there still is one.
    fn new(release: &str, place: &Path) -> Result<Self> {
        let own = place.join("apt");
        for directory in ["state/lists/partial", "cache/archives/partial"] {
            let directory = own.join(directory);
            fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        }
        let apt = Self { config: own.join("apt.conf") };
        fs::write(&apt.config, config(&own)).context("cannot write apt's configuration")?;
        fs::write(own.join("status"), "").context("cannot write apt's status")?;
        let archives = setup::debian_archives()?;
        let update = |sources: &str| {
            fs::write(own.join("sources.list"), sources).context("cannot write apt's sources")?;
            process::run(apt.command("apt-get").args(["update", "-o", "APT::Update::Error-Mode=any"]))
        };
        let main = source(&archives.main, release);
        let with_security =
            archives.security.map(|archive| main.clone() + &source(&archive, &format!("{release}-security")));
        match with_security.as_deref().map(update) {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                eprintln!("kernels: {error}; doing without the security archive of {release}");
                update(&main)?;
            }
            None => update(&main)?,
        }
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.config).env("LC_ALL", "C");
        command
    }

    /// The package of the release's current kernel, and its version.
    fn current_kernel(&self) -> Result<(String, String)> {
        let shown = process::ask(self.command("apt-cache").args(["show", "--no-all-versions", META]))?;
        parse_dependency(&shown).with_context(|| format!("{META} does not say which kernel it stands for:\n{shown}"))
    }
}

/// The user that apt drops to cannot write into a target directory.
fn config(own: &Path) -> String {
    let own = own.display();
    format!(
        "Dir::State \"{own}/state\";\n\
         Dir::State::status \"{own}/status\";\n\
         Dir::Cache \"{own}/cache\";\n\
         Dir::Etc::sourcelist \"{own}/sources.list\";\n\
         Dir::Etc::sourceparts \"/dev/null\";\n\
         Dir::Etc::preferences \"/dev/null\";\n\
         Dir::Etc::preferencesparts \"/dev/null\";\n\
         APT::Architecture \"amd64\";\n\
         APT::Sandbox::User \"root\";\n"
    )
}

fn source(archive: &str, suite: &str) -> String {
    format!("deb [arch=amd64 lang=none target=Packages signed-by={KEYRING}] {archive} {suite} main\n")
}

/// Reads `Depends: linux-image-6.1.0-56-amd64 (= 6.1.192-2)`.
fn parse_dependency(shown: &str) -> Option<(String, String)> {
    let depends = shown.lines().find_map(|line| line.strip_prefix("Depends: "))?;
    let dependency = depends.split(", ").find(|dependency| dependency.starts_with("linux-image-"))?;
    let (package, version) = dependency.split_once(" (= ")?;
    Some((package.to_owned(), version.strip_suffix(')')?.to_owned()))
}

/// Copies the modules, each after those that it depends on.
fn take_modules(root: &Path, to: &Path) -> Result<()> {
    empty(to)?;
    let mut all = Vec::new();
    for modules in [root.join("lib/modules"), root.join("usr/lib/modules")] {
        if modules.is_dir() {
            walk(&modules, &mut all)?;
        }
    }
    let mut taken = Vec::new();
    for module in MODULES {
        take_module(module, &all, to, &mut taken)?;
    }
    Ok(())
}

fn take_module(name: &str, all: &[PathBuf], to: &Path, taken: &mut Vec<String>) -> Result<()> {
    if taken.iter().any(|known| known == name) {
        return Ok(());
    }
    let file = all.iter().find(|file| module_name(file).as_deref() == Some(name));
    let file = file.with_context(|| format!("the package has no module {name}"))?;
    let module = if file.extension().is_some_and(|end| end == "xz") {
        let output = Command::new("xz").arg("-dc").arg(file).output().context("cannot start xz")?;
        ensure!(output.status.success(), "xz -dc {}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
        output.stdout
    } else {
        fs::read(file).with_context(|| format!("cannot read {}", file.display()))?
    };
    for needed in dependencies(&module) {
        take_module(&needed, all, to, taken)?;
    }
    let place = to.join(format!("{:02}-{name}.ko", taken.len()));
    fs::write(&place, module).with_context(|| format!("cannot write {}", place.display()))?;
    taken.push(name.to_owned());
    Ok(())
}

/// The name of the module in a file; the kernel does not tell `-` from `_`.
fn module_name(file: &Path) -> Option<String> {
    let name = file.file_name()?.to_str()?;
    let name = name.strip_suffix(".xz").unwrap_or(name).strip_suffix(".ko")?;
    Some(name.replace('-', "_"))
}

/// What a module says it depends on: a zero-terminated `depends=a,b` in its `.modinfo`.
fn dependencies(module: &[u8]) -> Vec<String> {
    let mut strings = module.split(|&byte| byte == 0);
    let listed = strings.find_map(|string| string.strip_prefix(b"depends=")).unwrap_or_default();
    let listed = String::from_utf8_lossy(listed);
    listed.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

fn walk(directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for path in files(directory)? {
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() { walk(&path, found)? } else { found.push(path) }
    }
    Ok(())
}

/// What is in a directory, by name.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let read = || fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<_>>();
    let mut files: Vec<_> = read().with_context(|| format!("cannot read {}", directory.display()))?;
    files.sort();
    Ok(files)
}

/// An empty directory, whatever was there before.
fn empty(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            bail!("cannot remove {}: {error}", directory.display());
        }
        _ => fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_meta_package_names_the_kernel_and_its_version() {
        let shown = "Package: linux-image-amd64\nVersion: 6.12.118-1\n\
                     Depends: linux-image-6.12.118+deb13-amd64 (= 6.12.118-1)\nSection: kernel\n";
        let expected = ("linux-image-6.12.118+deb13-amd64".to_owned(), "6.12.118-1".to_owned());
        assert_eq!(parse_dependency(shown), Some(expected));
        assert_eq!(parse_dependency("Package: linux-image-amd64\n"), None);
        assert_eq!(parse_dependency(""), None);
    }

    #[test]
    fn a_module_is_known_by_its_name_packed_or_not() {
        let name = |path: &str| module_name(Path::new(path));
        assert_eq!(name("/lib/modules/5.10/kernel/drivers/net/veth.ko").as_deref(), Some("veth"));
        assert_eq!(name("kernel/net/8021q/8021q.ko.xz").as_deref(), Some("8021q"));
        assert_eq!(name("xt-foo.ko").as_deref(), Some("xt_foo"));
        assert_eq!(name("modules.order"), None);
    }

    #[test]
    fn a_module_tells_what_it_depends_on() {
        assert_eq!(dependencies(b"\x7fELF\0license=GPL\0depends=garp,mrp-x\0name=8021q\0"), ["garp", "mrp_x"]);
        assert!(dependencies(b"license=GPL\0depends=\0name=veth\0").is_empty());
        assert!(dependencies(b"").is_empty());
    }
}
