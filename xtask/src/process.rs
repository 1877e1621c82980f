//! Where things are, and running other programs: each command is printed before it runs, as a shell would take it.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// The workspace's directory.
pub(crate) fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// Where cargo puts the binaries of a profile: beside xtask's own, whatever target directory it was told to use.
pub(crate) fn binaries(profile: &str) -> Result<PathBuf> {
    let own = env::current_exe().context("cannot tell where xtask itself is")?;
    let target = own.ancestors().nth(2).with_context(|| format!("{} is not in a target directory", own.display()))?;
    Ok(target.join(profile))
}

/// The cargo that runs xtask, in the workspace's directory.
pub(crate) fn cargo(verb: &str) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.arg(verb).current_dir(root());
    cargo
}

/// Prints a command and runs it with the terminal's input and output.
///
/// # Errors
/// When it cannot be started or does not succeed.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    echo(command);
    let status = command.status().with_context(|| format!("cannot start {}", shown(command)))?;
    ensure!(status.success(), "{}: {status}", shown(command));
    Ok(())
}

/// Becomes the command: a Ctrl-C reaches it and nobody else, and its exit code is ours.
pub(crate) fn replace_self(command: &mut Command) -> Result<()> {
    echo(command);
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", command.get_program().display()))
}

/// What a command prints; it is a question, so it is not printed itself.
///
/// # Errors
/// When it cannot be started, or with its own complaint when it does not succeed.
pub(crate) fn ask(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {}", shown(command)))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}\n{}", shown(command), output.status, complaint.trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Prints a command.
pub(crate) fn echo(command: &Command) {
    eprintln!("+ {}", shown(command));
}

/// Prints a command that reads a file.
pub(crate) fn echo_with_input(command: &Command, input: &Path) {
    eprintln!("+ {} <{}", shown(command), quoted(input.as_os_str()));
}

/// Whether this is root.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Fails unless this is root, with the command to run instead.
pub(crate) fn require_root(verb: &str, why: &str) -> Result<()> {
    ensure!(is_root(), "cargo xtask {verb} needs root: {why}. Run\n    sudo -E env \"PATH=$PATH\" cargo xtask {verb}");
    Ok(())
}

/// Where a program is, also when the directories of the administrator are not on `PATH`.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let administrators = || ["/usr/sbin", "/sbin"].iter().map(|directory| Path::new(directory).join(name));
    crate::bpf_toolchain::on_path(name).or_else(|| administrators().find(|file| file.is_file()))
}

/// Whether a program is installed.
pub(crate) fn is_installed(name: &str) -> bool {
    program(name).is_some()
}

/// A command as one would type it.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    // Cargo comes with its full path, and that is noise.
    let program = match program.file_name() {
        Some(name) if name == "cargo" => name,
        _ => program.as_os_str(),
    };
    let variables =
        command.get_envs().filter_map(|(name, value)| Some(format!("{}={}", name.display(), quoted(value?))));
    let words = [program].into_iter().chain(command.get_args()).map(quoted);
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

/// A word as the shell takes it for one.
pub(crate) fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./:,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_one_would_type_it() {
        let mut command = Command::new("/root/.cargo/bin/cargo");
        command.env("LLVM_PREFIX", "/usr/lib/llvm-22").args(["install", "a b", "it's"]);
        assert_eq!(shown(&command), r"LLVM_PREFIX=/usr/lib/llvm-22 cargo install 'a b' 'it'\''s'");
    }

    #[test]
    fn a_removed_variable_is_not_shown() {
        let mut command = Command::new("true");
        command.env_remove("CARGO_TARGET_DIR");
        assert_eq!(shown(&command), "true");
    }
}
