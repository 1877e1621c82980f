//! What a guest has in its memory: process 1, the test executables, a few programs of this host, and their libraries.
//!
//! Written in the format that the kernel unpacks at boot (`newc`, Documentation/driver-api/early-userspace/buffer-format.rst).
//! Never becomes a file system of this host.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::Executable;
use super::package::Kernel;
use crate::process;

/// Process 1.
const INIT: &str = include_str!("init.sh");

/// The programs that process 1 and the cells of the tests run.
const PROGRAMS: [&str; 6] = ["sh", "mount", "insmod", "ip", "sleep", "cp"];

/// Directories that are empty at first.
const DIRECTORIES: [&str; 8] = ["dev", "etc", "mnt", "proc", "run", "sys", "tmp", "var"];

/// Everything but the modules.
#[derive(Clone)]
pub(super) struct Userland(Archive);

/// Collects what is the same for every kernel.
pub(super) fn userland(executables: &[Executable]) -> Result<Userland> {
    let mut archive = Archive::default();
    for directory in DIRECTORIES {
        archive.directory(Path::new(directory));
    }
    archive.console();
    archive.file(Path::new("init"), INIT.as_bytes());
    let mut libraries = BTreeSet::new();
    for program in PROGRAMS {
        let path = process::program(program).with_context(|| format!("there is no {program} here"))?;
        libraries.extend(libraries_of(&path)?);
        archive.copy(&Path::new("bin").join(program), &path)?;
    }
    let mut list = String::new();
    for executable in executables {
        libraries.extend(libraries_of(&executable.path)?);
        archive.file(&Path::new("tests").join(executable.name), &stripped(executable)?);
        list += &format!("{} {}\n", executable.name, executable.arguments.join(" "));
    }
    archive.file(Path::new("tests/list"), list.as_bytes());
    for library in libraries {
        archive.copy(library.strip_prefix("/").unwrap_or(&library), &library)?;
    }
    Ok(Userland(archive))
}

impl Userland {
    /// The whole, as the kernel takes it.
    pub(super) fn with_modules(&self, kernel: &Kernel) -> Result<Vec<u8>> {
        let mut archive = self.0.clone();
        archive.directory(Path::new("modules"));
        for module in kernel.modules()? {
            archive.copy(&Path::new("modules").join(module.file_name().unwrap_or_default()), &module)?;
        }
        Ok(archive.finish())
    }
}

/// An executable without its debug information, which is nine tenths of it and slow to unpack.
fn stripped(executable: &Executable) -> Result<Vec<u8>> {
    let place = process::binaries("kernels")?.join(executable.name).with_extension("stripped");
    let mut strip = Command::new("strip");
    process::ask(strip.args(["--strip-debug", "-o"]).arg(&place).arg(&executable.path))?;
    fs::read(&place).with_context(|| format!("cannot read {}", place.display()))
}

/// The libraries that a program is linked to, the loader included.
fn libraries_of(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = process::ask(Command::new("ldd").arg(program).env("LC_ALL", "C"))?;
    ensure!(!listed.contains("not found"), "{} lacks a library:\n{listed}", program.display());
    Ok(parse_libraries(&listed))
}

/// Reads ldd: `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)` or `/lib64/ld-linux-x86-64.so.2 (0x…)`.
fn parse_libraries(listed: &str) -> Vec<PathBuf> {
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    listed.lines().filter_map(path).collect()
}

const FILE: u32 = 0o100_755;
const DIRECTORY: u32 = 0o040_755;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive in the making.
#[derive(Clone, Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    directories: BTreeSet<PathBuf>,
}

impl Archive {
    fn file(&mut self, name: &Path, content: &[u8]) {
        if let Some(parent) = name.parent() {
            self.directory(parent);
        }
        self.entry(name, FILE, (0, 0), content);
    }

    /// A file with the content of one of this host's; of a link's target, if it is a link.
    fn copy(&mut self, name: &Path, from: &Path) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.file(name, &content);
        Ok(())
    }

    /// A directory and those above it, unless they are there.
    fn directory(&mut self, name: &Path) {
        if name.as_os_str().is_empty() || self.directories.contains(name) {
            return;
        }
        if let Some(parent) = name.parent() {
            self.directory(parent);
        }
        self.directories.insert(name.to_owned());
        self.entry(name, DIRECTORY, (0, 0), &[]);
    }

    /// What process 1 has for its input and output until it knows better.
    fn console(&mut self) {
        self.entry(Path::new("dev/console"), CHARACTER_DEVICE, (5, 1), &[]);
    }

    fn entry(&mut self, name: &Path, mode: u32, (major, minor): (u32, u32), content: &[u8]) {
        self.entries += 1;
        let name = name.as_os_str().as_encoded_bytes();
        // Sizes beyond 32 bits have no place in the format; the guest's memory is smaller than that.
        let (size, name_size) = (content.len() as u32, name.len() as u32 + 1);
        // inode, mode, owner, group, links, time, size, device (2), special device (2), size of the name, checksum
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name);
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    /// Names and contents end at a multiple of four.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry(Path::new("TRAILER!!!"), 0, (0, 0), &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_laid_out_as_the_kernel_reads_it() {
        let mut archive = Archive::default();
        archive.file(Path::new("a/b"), b"hello");
        let bytes = archive.finish();
        // Header of 110 bytes, name with its zero, padding; then the content and padding.
        let directory = b"070701\
            00000001000041ed00000000000000000000000100000000000000000000000000000000000000000000000000000002\
            00000000a\0";
        assert_eq!(&bytes[..directory.len()], directory);
        let file = &bytes[112..];
        assert_eq!(&file[..14], b"07070100000002");
        assert_eq!(&file[54..62], b"00000005");
        assert_eq!(&file[110..124], b"a/b\0\0\0hello\0\0\0");
        assert_eq!(&bytes[bytes.len() - 14..], b"TRAILER!!!\0\0\0\0");
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn a_directory_is_there_once_and_before_what_it_holds() {
        let mut archive = Archive::default();
        archive.file(Path::new("usr/lib/one"), b"");
        archive.file(Path::new("usr/lib/two"), b"");
        assert_eq!(archive.entries, 4);
        assert_eq!(archive.directories.len(), 2);
    }

    #[test]
    fn the_libraries_of_a_program_are_listed_with_its_loader() {
        let listed = "\tlinux-vdso.so.1 (0x00007ffd8f9f2000)\n\
                      \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f8a3ca00000)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x00007f8a3cd2e000)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(parse_libraries(listed), expected);
        assert!(parse_libraries("\tstatically linked\n").is_empty());
    }
}
