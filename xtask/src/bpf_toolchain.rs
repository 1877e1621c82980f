//! Finds the compiler and the linker that build the kernel half.
//!
//! Two kinds of programs need the same answer: build scripts (`bpf_object.rs`, in the daemon's and the lab's), which build
//! with them, and `cargo xtask`, which installs what is missing and lints with them. So this file depends on `std` alone
//! and the build scripts take it in with `#[path]`: a library target of xtask as build-dependency would put xtask's own
//! dependencies into every build of the daemon, also a packager's.
//!
//! The ladder:
//! 1. `SCREENER_BPF_RUSTC` names the compiler: that one and no other.
//! 2. A compiler that has `core` prebuilt for the BPF target (Debian's `rustc-web` with `libstd-rust-web-dev-bpf`): the one
//!    cargo runs with, rustup's, `/usr/bin/rustc`, `rustc` on `PATH`. Prebuilt ones come first wherever they are
//!    found: they are stable releases, and what they built yesterday they build today.
//! 3. A nightly with its own library source (`rust-src`), which builds `core` itself.
//!
//! The linker is `BPF_LINKER`, else `bpf-linker` in `target/tools/bin` (where `cargo xtask setup` puts it), else on `PATH`.
//! It reads the compiler's LLVM bitcode, so its LLVM must not be older than the compiler's.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The environment variables that the answer depends on.
pub(crate) const ENVIRONMENT: [&str; 4] = [COMPILER, LINKER, "RUSTC", "RUSTUP_HOME"];

/// Names the one compiler to use for the kernel half.
pub(crate) const COMPILER: &str = "SCREENER_BPF_RUSTC";

/// Names the `bpf-linker` to use.
pub(crate) const LINKER: &str = "BPF_LINKER";

/// The ways out when nothing was found, printed with each error.
const WAYS_OUT: &str = "\
Ways out, any one of them:
  cargo xtask setup    installs all of it (Debian, Ubuntu, or a rustup nightly)
  Debian by hand       apt-get install rustc-web libstd-rust-web-dev-bpf llvm-NN-dev
                       LLVM_PREFIX=/usr/lib/llvm-NN cargo install bpf-linker --version 0.13.0 --locked \\
                           --no-default-features --features llvm-NN
                       (NN is the major in \"LLVM version\" of /usr/bin/rustc -vV)
  rustup by hand       rustup toolchain install nightly --profile minimal --component rust-src
                       cargo install bpf-linker --version 0.13.0 --locked
  built elsewhere      SCREENER_BPF_OBJECT=/path/to/screener.bpf.o
SCREENER_BPF_RUSTC and BPF_LINKER name a compiler and a linker that are somewhere else.";

/// A compiler and a linker that fit each other.
#[derive(Clone, Debug)]
pub(crate) struct Toolchain {
    /// The compiler.
    pub(crate) compiler: Compiler,
    /// The `bpf-linker`.
    pub(crate) linker: PathBuf,
    /// `bpfel-unknown-none` or `bpfeb-unknown-none`.
    pub(crate) target: String,
}

/// A compiler that can build for the BPF target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compiler {
    /// The path of `rustc`.
    pub(crate) rustc: PathBuf,
    /// The release, for example `1.96.0` or `1.97.0-nightly`.
    pub(crate) release: String,
    /// The LLVM major in it.
    pub(crate) llvm: u32,
    /// Where `core` for the BPF target comes from.
    pub(crate) core: Core,
}

/// Where `core` for the BPF target comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Core {
    /// It lies in the compiler's target directory.
    Prebuilt,
    /// Cargo builds it out of the compiler's own library source: nightly only.
    FromSource,
}

/// Why there is no toolchain; its text is for a person and says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    finding: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot build the kernel half of Screener: {}\n{WAYS_OUT}", self.finding)
    }
}

impl std::error::Error for Missing {}

/// The BPF target with the byte order of the machine that will run the programs.
pub(crate) fn target(big_endian: bool) -> &'static str {
    if big_endian { "bpfeb-unknown-none" } else { "bpfel-unknown-none" }
}

/// Finds a compiler and a linker that fit each other.
///
/// `root` is the workspace's directory and `oldest` the workspace's `rust-version`.
///
/// # Errors
/// [`Missing`] when the ladder has no rung that holds.
pub(crate) fn find(root: &Path, target: &str, oldest: &str) -> Result<Toolchain, Missing> {
    let linker = find_linker(root)?;
    let linker_llvm = linker_llvm(&linker)?;
    let compilers = find_compilers(target, oldest)?;
    let fits = |compiler: &&Compiler| linker_llvm.is_none_or(|llvm| llvm >= compiler.llvm);
    match compilers.iter().find(fits) {
        Some(compiler) => Ok(Toolchain { compiler: compiler.clone(), linker, target: target.to_owned() }),
        None => Err(misfit(&compilers, &linker, linker_llvm)),
    }
}

/// Every compiler that can build for `target`, the best one first; never empty.
///
/// # Errors
/// [`Missing`] with what was looked at and what each lacks.
pub(crate) fn find_compilers(target: &str, oldest: &str) -> Result<Vec<Compiler>, Missing> {
    let (mut found, mut seen, mut rejected) = (Vec::new(), Vec::new(), String::new());
    for rustc in candidates() {
        match Compiler::probe(&rustc, target, oldest) {
            Ok((compiler, sysroot)) if !seen.contains(&sysroot) => {
                seen.push(sysroot);
                found.push(compiler);
            }
            Ok(_) => {}
            Err(lack) => rejected.push_str(&format!("\n  {}: {lack}", rustc.display())),
        }
    }
    found.sort_by_key(|compiler| compiler.core == Core::FromSource);
    if found.is_empty() {
        let rejected = if rejected.is_empty() { "\n  no rustc at all".to_owned() } else { rejected };
        return Err(Missing { finding: format!("no Rust compiler here builds for {target}. Looked at:{rejected}") });
    }
    Ok(found)
}

/// The `bpf-linker` to use.
///
/// # Errors
/// [`Missing`] when it is in none of the places it could be in.
pub(crate) fn find_linker(root: &Path) -> Result<PathBuf, Missing> {
    if let Some(named) = given(LINKER) {
        return if named.is_file() {
            Ok(named)
        } else {
            Err(Missing { finding: format!("{LINKER} names {}, which is not a file", named.display()) })
        };
    }
    let ours = tools(root).join("bin/bpf-linker");
    if ours.is_file() {
        return Ok(ours);
    }
    on_path("bpf-linker")
        .ok_or_else(|| Missing { finding: format!("bpf-linker is neither {} nor on PATH", ours.display()) })
}

/// The LLVM major that a `bpf-linker` is linked to, or none when it carries its own (it doesn't tell which).
///
/// # Errors
/// [`Missing`] when the linker does not start, for example because its LLVM was removed by an upgrade.
pub(crate) fn linker_llvm(linker: &Path) -> Result<Option<u32>, Missing> {
    if let Err(why) = output(Command::new(linker).arg("--version")) {
        return Err(Missing { finding: format!("{} does not run: {why}", linker.display()) });
    }
    Ok(output(Command::new("ldd").arg(linker)).ok().and_then(|libraries| llvm_of_libraries(&libraries)))
}

/// Where `cargo xtask setup` puts tools, whatever target directory cargo is told to use.
pub(crate) fn tools(root: &Path) -> PathBuf {
    root.join("target/tools")
}

/// A program on `PATH`.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file())
}

impl Toolchain {
    /// A `cargo` that compiles for the BPF target with this toolchain and with nothing of the caller's build flags.
    ///
    /// `arch` is the architecture whose registers the programs read (`x86_64`, `aarch64`, ...); it is that of the machine that
    /// will run them. The target directory must not be the caller's: cargo would wait for itself.
    pub(crate) fn cargo(&self, verb: &str, arch: &str, target_dir: &Path) -> Command {
        let mut cargo = Command::new(self.cargo_program());
        for (name, _) in env::vars_os().filter(|(name, _)| steers_a_build(name)) {
            cargo.env_remove(name);
        }
        cargo
            .arg(verb)
            .args(["--package", "screener-ebpf", "--release", "--locked", "--target", &self.target])
            .arg("--target-dir")
            .arg(target_dir)
            // A build directory in the user's configuration would be one that the outer cargo holds the lock of.
            .env("CARGO_BUILD_BUILD_DIR", target_dir)
            .env("CARGO_ENCODED_RUSTFLAGS", rustflags(arch))
            // Thin LTO is for the daemon; bpf-linker links and optimises all bitcode as one module anyway.
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("RUSTC", &self.compiler.rustc)
            // Empty means none, also against the user's configuration; removing them would not.
            .env("RUSTC_WRAPPER", "")
            .env("RUSTC_WORKSPACE_WRAPPER", "")
            .env(format!("CARGO_TARGET_{}_LINKER", self.target.to_uppercase().replace('-', "_")), &self.linker);
        match self.compiler.core {
            // Opens aya-ebpf's one unstable feature (`asm_experimental_arch`) to that crate alone.
            Core::Prebuilt => cargo.env("RUSTC_BOOTSTRAP", "aya_ebpf"),
            Core::FromSource => cargo.args(["-Z", "build-std=core"]),
        };
        cargo
    }

    /// `-Z build-std` is for the cargo of the same nightly; a prebuilt `core` goes with any cargo.
    fn cargo_program(&self) -> OsString {
        let own = self.compiler.rustc.with_file_name("cargo");
        if self.compiler.core == Core::FromSource && own.is_file() {
            own.into()
        } else {
            env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
        }
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Compiler { rustc, release, llvm, core } = &self.compiler;
        let core = match core {
            Core::Prebuilt => "prebuilt core",
            Core::FromSource => "core built from source",
        };
        write!(f, "{} {release} (LLVM {llvm}, {core}) with {}", rustc.display(), self.linker.display())
    }
}

impl Compiler {
    /// Asks a compiler what it is; answers with its sysroot too, which tells one compiler under two names.
    fn probe(rustc: &Path, target: &str, oldest: &str) -> Result<(Self, PathBuf), String> {
        let version = output(Command::new(rustc).arg("-vV"))?;
        let release = field(&version, "release").ok_or("rustc -vV prints no release")?.to_owned();
        let llvm = llvm_major(&version).ok_or("rustc -vV prints no LLVM version")?;
        if !is_at_least(&release, oldest) {
            return Err(format!("{release} is older than {oldest}"));
        }
        let print = ["--print", "sysroot", "--print", "target-libdir", "--target", target];
        let places = output(Command::new(rustc).args(print))?;
        let mut places = places.lines().map(PathBuf::from);
        let (Some(sysroot), Some(libdir)) = (places.next(), places.next()) else {
            return Err("rustc prints no sysroot".to_owned());
        };
        let core = if holds_core(&libdir) {
            Core::Prebuilt
        } else if !release.contains("-nightly") {
            return Err(format!("{release}, no prebuilt core for {target} (and not a nightly)"));
        } else if sysroot.join("lib/rustlib/src/rust/library/Cargo.lock").is_file() {
            Core::FromSource
        } else {
            return Err(format!("{release}, no prebuilt core for {target} and no rust-src to build it from"));
        };
        Ok((Self { rustc: rustc.to_owned(), release, llvm, core }, sysroot))
    }
}

/// The compilers to ask, the best place first.
fn candidates() -> Vec<PathBuf> {
    if let Some(named) = given(COMPILER) {
        return vec![named];
    }
    let mut all = Vec::new();
    all.extend(given("RUSTC").filter(|rustc| rustc.is_absolute()));
    all.extend(rustup_compilers());
    all.extend(Some(PathBuf::from("/usr/bin/rustc")).filter(|rustc| rustc.is_file()));
    all.extend(on_path("rustc"));
    let mut unique: Vec<PathBuf> = Vec::new();
    for rustc in all {
        if !unique.contains(&rustc) {
            unique.push(rustc);
        }
    }
    unique
}

/// The `rustc` of each toolchain that rustup has, in the order of their names.
fn rustup_compilers() -> Vec<PathBuf> {
    let home = given("RUSTUP_HOME").or_else(|| Some(env::home_dir()?.join(".rustup")));
    let Some(Ok(toolchains)) = home.map(|home| fs::read_dir(home.join("toolchains"))) else {
        return Vec::new();
    };
    // The real path: rustup links one toolchain under several names.
    let rustc = |toolchain: fs::DirEntry| fs::canonicalize(toolchain.path().join("bin/rustc")).ok();
    let mut found: Vec<PathBuf> = toolchains.flatten().filter_map(rustc).collect();
    found.sort();
    found.dedup();
    found
}

/// A path from the environment; empty is not set.
fn given(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn holds_core(libdir: &Path) -> bool {
    let is_core = |name: &OsStr| name.to_string_lossy().starts_with("libcore-");
    fs::read_dir(libdir).is_ok_and(|files| files.flatten().any(|file| is_core(&file.file_name())))
}

fn misfit(compilers: &[Compiler], linker: &Path, llvm: Option<u32>) -> Missing {
    let mut finding = format!(
        "{} reads bitcode up to LLVM {} and the compilers here write a newer one:",
        linker.display(),
        llvm.unwrap_or_default()
    );
    for Compiler { rustc, release, llvm, .. } in compilers {
        finding.push_str(&format!("\n  {}: {release}, LLVM {llvm}", rustc.display()));
    }
    Missing { finding }
}

/// The flags of the BPF build: the cfg that picks the register layout, debug information because bpf-linker makes
/// BTF of it, and abort because there is nothing to unwind to.
fn rustflags(arch: &str) -> String {
    let arch = if arch.starts_with("riscv64") { "riscv64" } else { arch };
    let cfg = format!("--cfg=bpf_target_arch=\"{arch}\"");
    [cfg.as_str(), "-Cdebuginfo=2", "-Clink-arg=--btf", "-Cpanic=abort"].join("\x1f")
}

/// Whether a variable of the caller's would change the BPF build: all of cargo's but those that say where crates come
/// from and how cargo prints, and the compiler's own.
fn steers_a_build(name: &OsStr) -> bool {
    const KEPT: [&str; 7] =
        ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_", "CARGO_TERM_", "CARGO_LOG"];
    const OURS: [&str; 9] = [
        "RUSTC",
        "RUSTC_BOOTSTRAP",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTDOC",
        "RUSTDOCFLAGS",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
        "AYA_BPF_TARGET_ARCH",
    ];
    let name = name.to_string_lossy();
    let kept = KEPT.iter().any(|prefix| name.starts_with(prefix));
    OURS.contains(&name.as_ref()) || (name.starts_with("CARGO_") && !kept)
}

/// What a command prints, or the first line of its complaint.
fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(complaint.lines().next().unwrap_or("it failed").to_owned())
}

/// The value of a `name: value` line of `rustc -vV`.
fn field<'a>(version: &'a str, name: &str) -> Option<&'a str> {
    version.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// The LLVM major in what `rustc -vV` prints.
pub(crate) fn llvm_major(version: &str) -> Option<u32> {
    field(version, "LLVM version")?.split('.').next()?.parse().ok()
}

/// The LLVM major in what `ldd` prints of a program: `libLLVM.so.22.1` or, before LLVM 18, `libLLVM-17.so.1`.
fn llvm_of_libraries(libraries: &str) -> Option<u32> {
    let (_, rest) = libraries.split_once("libLLVM")?;
    let digits: String = rest.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Whether a release (`1.97.0-nightly`, a package's `1.96.0+dfsg1-1`) is not older than another.
pub(crate) fn is_at_least(release: &str, oldest: &str) -> bool {
    number(release) >= number(oldest)
}

/// The first two numbers of a release, to compare.
fn number(release: &str) -> (u32, u32) {
    let mut parts = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\n\
                          binary: rustc\nhost: x86_64-unknown-linux-gnu\nrelease: 1.96.0\nLLVM version: 22.1.8\n";

    #[test]
    fn the_llvm_major_is_read_from_the_compiler() {
        assert_eq!(llvm_major(DEBIAN), Some(22));
        assert_eq!(llvm_major("rustc 1.96.0\nrelease: 1.96.0\n"), None);
    }

    #[test]
    fn the_release_is_its_own_line_and_not_the_first_one() {
        assert_eq!(field(DEBIAN, "release"), Some("1.96.0"));
    }

    #[test]
    fn the_linkers_llvm_is_read_from_either_name_of_the_library() {
        let new = "\tlibLLVM.so.22.1 => /usr/lib/llvm-22/lib/libLLVM.so.22.1 (0x00007f2baac00000)\n";
        assert_eq!(llvm_of_libraries(new), Some(22));
        assert_eq!(llvm_of_libraries("\tlibLLVM-17.so.1 => /lib/libLLVM-17.so.1 (0x0)\n"), Some(17));
        assert_eq!(llvm_of_libraries("\tlibc.so.6 => /lib/libc.so.6 (0x0)\n"), None);
    }

    #[test]
    fn releases_compare_as_numbers() {
        assert!(is_at_least("1.100.0-nightly", "1.95"));
        assert!(is_at_least("1.96.0+dfsg1-1~deb12u2", "1.95"));
        assert!(is_at_least("1.95.0", "1.95"));
        assert!(!is_at_least("1.94.1", "1.95"));
    }

    #[test]
    fn build_flags_of_the_caller_are_cleared_and_its_registry_settings_are_kept() {
        for name in
            ["RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_MAKEFLAGS", "CARGO_PROFILE_RELEASE_STRIP", "CARGO_TARGET_DIR"]
        {
            assert!(steers_a_build(OsStr::new(name)), "{name}");
        }
        for name in ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_REGISTRIES_CRATES_IO_PROTOCOL", "PATH", "RUSTUP_HOME"] {
            assert!(!steers_a_build(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn an_error_names_every_way_out() {
        let text = Missing { finding: "no compiler".to_owned() }.to_string();
        for way in ["cargo xtask setup", "libstd-rust-web-dev-bpf", "rust-src", "SCREENER_BPF_OBJECT"] {
            assert!(text.contains(way), "{way}");
        }
    }
}
