//! `cargo xtask setup`: installs what is missing, by purpose, and never removes anything.
//!
//! Each purpose first asks the cheapest question that tells whether it is served (is the program there, does the ladder of
//! `bpf_toolchain` hold), so a second run takes a moment and touches no network. Other verbs ask for the purposes they
//! need themselves.

mod apt;
mod linker;
mod unpack;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

pub(crate) use self::apt::debian_archives;
pub(crate) use self::unpack::Tree;
use crate::bpf_toolchain::{self, Compiler, Core, Toolchain};
use crate::process;

/// Install what is missing to build, test and lint (Debian, Ubuntu, or rustup alone)
///
/// Removes no package and starts no service. Prints each command before it runs it.
#[derive(Args)]
pub(crate) struct Setup {
    /// Only the system's packages: the part that needs root
    #[arg(long)]
    packages: bool,
}

/// What has to be there to run the lab: a program and the package that brings it.
const LAB: [(&str, &str); 18] = [
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("postfix", "postfix"),
    ("rbldnsd", "rbldnsd"),
    ("unbound", "unbound"),
    ("haproxy", "haproxy"),
    ("curl", "curl"),
    ("openssl", "openssl"),
    ("ssh", "openssh-client"),
    ("nft", "nftables"),
    ("ipset", "ipset"),
    // The store that several hosts share, and what tells where it is.
    ("redis-server", "redis-server"),
    ("redis-sentinel", "redis-sentinel"),
    ("redis-cli", "redis-tools"),
    // Senders of mail. Python: Debian's, whatever else is on the path.
    ("msmtp", "msmtp"),
    ("swaks", "swaks"),
    ("/usr/bin/python3", "python3"),
    // The journal.
    ("/usr/lib/systemd/systemd-journald", "systemd"),
];

/// What swaks needs for TLS and for IPv6: a module of Perl's and the package that brings it.
const PERL: [(&str, &str); 2] =
    [("Net::SSLeay", "libnet-ssleay-perl"), ("IO::Socket::INET6", "libio-socket-inet6-perl")];

/// What is not installed but unpacked: the name of the tree in which the lab finds it, and its package. MTAs that Debian does
/// not install beside Postfix (of Exim's two daemons only the heavy one knows the PROXY protocol), and fail2ban, which would
/// begin to watch this machine's logs.
const UNPACKED: [(&str, &str); 4] = [
    ("exim", "exim4-daemon-heavy"),
    ("opensmtpd", "opensmtpd"),
    ("sendmail", "sendmail-bin"),
    ("fail2ban", "fail2ban"),
];

/// What the lab deploys by: the program, its tree and its package. Installed it would wait for strangers from the next boot on.
const SSH_SERVER: (&str, &str, &str) = ("sshd", "openssh", "openssh-server");

/// What boots other kernels: the program, and the package that brings it.
const QEMU: (&str, &str) = ("qemu-system-x86_64", "qemu-system-x86");

/// What else has to be there to run tests on other kernels: a program and the package that brings it.
const KERNELS: [(&str, &str); 5] =
    [("ip", "iproute2"), ("insmod", "kmod"), ("mount", "mount"), ("strip", "binutils"), ("xz", "xz-utils")];

/// What the kernel half is measured beside.
const RIVALS: [(&str, &str); 3] = [("nft", "nftables"), ("ipset", "ipset"), ("ip6tables", "iptables")];

/// One more of them, where the release has it: the bench does without, and says so.
const XDP_FILTER: (&str, &str) = ("xdp-filter", "xdp-tools");

/// Debian's compiler with a prebuilt `core` for the BPF target. It follows the browsers' needs in the security archive, so
/// it is newer than Debian's own.
const COMPILER: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];

/// Clippy for that compiler.
const CLIPPY: &str = "rust-web-clippy";

impl Setup {
    pub(crate) fn run(&self) -> Result<()> {
        let done = if self.packages {
            vec![for_build_packages()?, for_lab()?, for_kernels()?, for_bench()?, kernel_clippy()?]
        } else {
            vec![for_build()?, for_lab()?, for_kernels()?, for_bench()?, for_lint()?]
        };
        let packages = if self.packages { " (packages)" } else { "" };
        match done.contains(&Done::Installed) {
            true => eprintln!("setup: done{packages}"),
            false => eprintln!("setup: everything is there{packages}"),
        }
        Ok(())
    }
}

/// Whether there was anything to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// Everything was there.
    Nothing,
    /// Something was installed.
    Installed,
}

impl Done {
    fn and(self, other: Self) -> Self {
        if self == Self::Nothing { other } else { self }
    }
}

/// What compiles the kernel half: a compiler for the BPF target and `bpf-linker`.
///
/// # Errors
/// When something is missing and cannot be installed here; the text says what to do instead.
pub(crate) fn for_build() -> Result<Done> {
    if bpf_toolchain().is_ok() && !linker::is_outdated() {
        return Ok(Done::Nothing);
    }
    linker::install(&compiler()?)?;
    // What was installed must be what the build will find.
    bpf_toolchain()?;
    Ok(Done::Installed)
}

/// The part of [`for_build`] that the system's packages are.
fn for_build_packages() -> Result<Done> {
    if bpf_toolchain().is_ok() && !linker::is_outdated() {
        return Ok(Done::Nothing);
    }
    linker::llvm(&compiler()?)?;
    Ok(Done::Installed)
}

/// The servers and tools of the lab.
///
/// # Errors
/// When one is missing and cannot be installed here.
pub(crate) fn for_lab() -> Result<Done> {
    let mut done = programs("the lab", &LAB)?;
    let is_missing = |module: &str| process::ask(Command::new("perl").args([&format!("-M{module}"), "-e1"])).is_err();
    let modules = PERL.iter().filter(|(module, _)| is_missing(module)).map(|(_, package)| *package);
    done = done.and(packages("the lab", &modules.collect::<Vec<_>>())?);
    for (name, package) in UNPACKED {
        done = done.and(unpack::ensure_tree(name, &[package])?);
    }
    let (program, name, package) = SSH_SERVER;
    if !process::is_installed(program) {
        done = done.and(unpack::ensure_tree(name, &[package])?);
    }
    Ok(done)
}

/// What boots Debian's kernels and runs tests on them. The kernels themselves are no part of this system.
///
/// # Errors
/// When something is missing and cannot be installed here.
pub(crate) fn for_kernels() -> Result<Done> {
    let who = "the tests on other kernels";
    let done = programs(who, &KERNELS)?;
    let (program, package) = QEMU;
    if process::is_installed(program) || Tree::named(program).holds(&[package]) {
        return Ok(done);
    }
    if apt::is_here() {
        apt::refresh()?;
        // A machine that has tools of another qemu's would lose them.
        if !apt::would_remove(&[package])?.is_empty() {
            return unpack::ensure_tree(program, &[package]);
        }
    }
    Ok(done.and(programs(who, &[QEMU])?))
}

/// qemu, as [`for_kernels`] has brought it: the system's, or else the unpacked one.
pub(crate) fn qemu() -> (PathBuf, Option<Tree>) {
    match process::program(QEMU.0) {
        Some(installed) => (installed, None),
        None => {
            let tree = Tree::named(QEMU.0);
            (tree.join("usr/bin").join(QEMU.0), Some(tree))
        }
    }
}

/// What builds libFuzzer.
///
/// # Errors
/// When it is missing and cannot be installed here.
pub(crate) fn for_fuzz() -> Result<Done> {
    programs("the fuzz targets", &[("c++", "g++")])
}

/// The rivals of the bench.
///
/// # Errors
/// When one is missing and cannot be installed here; xdp-filter may be.
pub(crate) fn for_bench() -> Result<Done> {
    let done = programs("the bench", &RIVALS)?;
    if process::is_installed(XDP_FILTER.0) || !apt::is_here() {
        return Ok(done);
    }
    apt::refresh()?;
    match apt::candidate(XDP_FILTER.1)? {
        Some(_) => programs("the bench", &[XDP_FILTER]),
        None => Ok(done),
    }
}

/// Installs the packages of those programs that are missing.
fn programs(who: &str, wanted: &[(&str, &str)]) -> Result<Done> {
    let missing = wanted.iter().filter(|(program, _)| !process::is_installed(program));
    packages(who, &missing.map(|(_, package)| *package).collect::<Vec<_>>())
}

/// Installs packages.
fn packages(who: &str, missing: &[&str]) -> Result<Done> {
    if missing.is_empty() {
        return Ok(Done::Nothing);
    }
    let names = missing.join(", ");
    ensure!(apt::is_here(), "{who} need {names}; install that with this system's package manager");
    apt::install(missing).with_context(|| format!("cannot install what {who} need"))?;
    Ok(Done::Installed)
}

/// rustfmt and clippy for cargo's compiler, and clippy for the kernel half's where it is a package.
///
/// # Errors
/// When a component is missing and rustup cannot bring it.
pub(crate) fn for_lint() -> Result<Done> {
    let kernel = kernel_clippy()?;
    let components = [("fmt", "rustfmt"), ("clippy", "clippy")];
    // rustup has a `cargo-fmt` for every toolchain; only running it tells whether the component is there.
    let is_missing = |verb: &str| process::ask(process::cargo(verb).arg("--version")).is_err();
    let missing = components.into_iter().filter(|(verb, _)| is_missing(verb));
    let missing: Vec<&str> = missing.map(|(_, component)| component).collect();
    if missing.is_empty() {
        return Ok(kernel);
    }
    let instead = format!("lint needs {} of the compiler that cargo runs with", missing.join(" and "));
    if !process::is_installed("rustup") {
        bail!("{instead}, and there is no rustup to add them: install them from where this cargo came from");
    }
    let mut rustup = Command::new("rustup");
    process::run(rustup.args(["component", "add"]).args(&missing))
        .with_context(|| format!("{instead}, and rustup cannot bring them here"))?;
    Ok(Done::Installed)
}

/// The toolchain that the build will use.
pub(crate) fn bpf_toolchain() -> Result<Toolchain> {
    Ok(bpf_toolchain::find(process::root(), target(), OLDEST)?)
}

/// The clippy that belongs to a compiler, beside it.
pub(crate) fn clippy_of(compiler: &Compiler) -> Option<PathBuf> {
    let clippy = compiler.rustc.with_file_name("clippy-driver");
    let version = process::ask(Command::new(&clippy).args(["--rustc", "-vV"])).ok()?;
    version.contains(&format!("release: {}\n", compiler.release)).then_some(clippy)
}

/// The workspace's `rust-version`: no older compiler builds it.
const OLDEST: &str = env!("CARGO_PKG_RUST_VERSION");

fn target() -> &'static str {
    bpf_toolchain::target(cfg!(target_endian = "big"))
}

/// A compiler for the BPF target, installed if there is none.
fn compiler() -> Result<Compiler> {
    if let Ok(found) = bpf_toolchain::find_compilers(target(), OLDEST) {
        return best(found);
    }
    match install_packaged_compiler()? {
        None => {}
        Some(why) if process::is_installed("rustup") => {
            eprintln!("setup: {why}; taking a nightly from rustup instead");
            let arguments = ["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"];
            process::run(Command::new("rustup").args(arguments))
                .context("rustup cannot bring a nightly here, and without it nothing compiles the kernel half")?;
        }
        Some(why) => bail!("{why}, and there is no rustup to bring a nightly: install rustup and run this again"),
    }
    best(bpf_toolchain::find_compilers(target(), OLDEST)?)
}

fn best(found: Vec<Compiler>) -> Result<Compiler> {
    found.into_iter().next().context("the ladder found no compiler")
}

/// Installs Debian's compiler, or tells why that is not the way here.
fn install_packaged_compiler() -> Result<Option<String>> {
    let names = COMPILER.join(" and ");
    if !apt::is_here() {
        return Ok(Some("there is no apt".to_owned()));
    }
    apt::refresh()?;
    for package in COMPILER {
        match apt::candidate(package)? {
            None => return Ok(Some(format!("this release has no package {package}"))),
            Some(version) if !bpf_toolchain::is_at_least(&version, OLDEST) => {
                return Ok(Some(format!("this release's {package} {version} is older than {OLDEST}")));
            }
            Some(_) => {}
        }
    }
    let removed = apt::would_remove(&COMPILER)?;
    if !removed.is_empty() {
        return Ok(Some(format!("{names} would remove {}", removed.join(", "))));
    }
    apt::install(&COMPILER)?;
    Ok(None)
}

/// Installs clippy for Debian's compiler. Where that is not possible the lint does without, and says so.
fn kernel_clippy() -> Result<Done> {
    let packaged = |compiler: &Compiler| compiler.core == Core::Prebuilt && compiler.rustc.starts_with("/usr/bin");
    let compiler = bpf_toolchain::find_compilers(target(), OLDEST).ok().and_then(|found| best(found).ok());
    match compiler {
        Some(compiler) if packaged(&compiler) && clippy_of(&compiler).is_none() && apt::is_here() => {}
        _ => return Ok(Done::Nothing),
    }
    if apt::candidate(CLIPPY)?.is_none() || !apt::would_remove(&[CLIPPY])?.is_empty() {
        return Ok(Done::Nothing);
    }
    apt::install(&[CLIPPY])?;
    Ok(Done::Installed)
}
