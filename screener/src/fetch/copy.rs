//! The last good copy of a feed's list: what the daemon begins with when it starts, with or without a network.
//!
//! Holds the file's form. Never judges what stands in it. A file is text: a line of
//! JSON about the source, a line a prefix with the time since which it is listed, and a last line with their number and a sum
//! over all before it, so that damage of any kind is seen.

use std::fs::{self, File, FileTimes};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::SystemTime;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Validators;
use crate::clock::UnixTime;
use crate::kept::{self, KeptError};

const VERSION: u32 = 1;

/// What is known of a list beside its prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    version: u32,
    /// Where it came from. May hold a key, as the file does.
    pub source: String,
    /// Whether it permits; else it denies.
    pub permits: bool,
    /// When it was taken.
    pub taken: UnixTime,
    /// By what the server knows it.
    #[serde(flatten)]
    pub validators: Validators,
}

/// A copy as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// What is known of it.
    pub head: Head,
    /// The prefixes in order, each with the time since which it is listed.
    pub entries: Vec<(IpNet, UnixTime)>,
    /// When the source last said that this is its list: the file's time.
    pub checked: UnixTime,
}

impl Head {
    /// About a list.
    pub fn new(source: String, permits: bool, taken: UnixTime, validators: Validators) -> Self {
        Self { version: VERSION, source, permits, taken, validators }
    }

    /// Writes the file: whoever reads it finds the old one or the new one, whole.
    ///
    /// # Errors
    /// When the disk does not take it; the old one stays.
    pub fn write(
        &self,
        path: &Path,
        entries: impl Iterator<Item = (IpNet, UnixTime)>,
        checked: UnixTime,
    ) -> Result<(), KeptError> {
        kept::write(path, |file| {
            self.fill(BufWriter::new(&mut *file), entries)?;
            set_time(file, checked)
        })
    }

    fn fill(&self, out: impl Write, entries: impl Iterator<Item = (IpNet, UnixTime)>) -> io::Result<()> {
        let mut out = Summed { out, sum: Sum::default() };
        serde_json::to_writer(&mut out, self)?;
        let mut count = 0_usize;
        for (prefix, since) in entries {
            write!(out, "\n{prefix} {}", since.0)?;
            count += 1;
        }
        write!(out, "\nend {count} ")?;
        let Summed { mut out, sum } = out;
        writeln!(out, "{:016x}", sum.0)?;
        out.flush()
    }
}

impl Copied {
    /// Reads a file; `None`: there is none. A damaged one is set aside.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn read(path: &Path) -> Result<Option<Self>, KeptError> {
        let Some((head, entries)) = kept::read(path, parse)? else { return Ok(None) };
        let modified = fs::metadata(path).and_then(|metadata| metadata.modified()).map_err(KeptError::io(path))?;
        let checked = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        Ok(Some(Self { head, entries, checked: UnixTime(checked) }))
    }

    /// Notes that the source has said again that this is its list.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn touch(path: &Path, checked: UnixTime) -> Result<(), KeptError> {
        let touched = File::options().write(true).open(path).and_then(|file| set_time(&file, checked));
        touched.map_err(KeptError::io(path))
    }
}

fn set_time(file: &File, at: UnixTime) -> io::Result<()> {
    let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(at.0);
    file.set_times(FileTimes::new().set_modified(at))
}

fn parse(bytes: &[u8]) -> Result<(Head, Vec<(IpNet, UnixTime)>), String> {
    let whole = bytes.strip_suffix(b"\n").ok_or("its end is missing")?;
    let (rest, sum) = whole.split_at_checked(whole.len().saturating_sub(16)).ok_or("its end is missing")?;
    let mut real = Sum::default();
    real.add(rest);
    if sum != format!("{:016x}", real.0).as_bytes() {
        return Err("its sum is wrong".to_owned());
    }
    let text = std::str::from_utf8(rest).map_err(|error| error.to_string())?;
    let mut lines = text.lines();
    let head: Head = serde_json::from_str(lines.next().unwrap_or_default()).map_err(|error| error.to_string())?;
    if head.version != VERSION {
        return Err(format!("it has version {}, this daemon knows {VERSION}", head.version));
    }
    let end = lines.next_back().unwrap_or_default();
    let entry = |line: &str| {
        let (prefix, since) = line.split_once(' ')?;
        Some((prefix.parse().ok()?, UnixTime(since.parse().ok()?)))
    };
    let entries: Option<Vec<_>> = lines.map(entry).collect();
    let entries = entries.ok_or("a line is no prefix with a time")?;
    if end.trim_end() != format!("end {}", entries.len()) {
        return Err("the number of its prefixes is wrong".to_owned());
    }
    Ok((head, entries))
}

/// FNV-1a: it finds damage; nobody is kept from forging a file that only root can write.
struct Sum(u64);

impl Default for Sum {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

struct Summed<W> {
    out: W,
    sum: Sum,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.sum.add(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_comes_back_and_damage_of_any_kind_is_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("feeds/drop.list");
        assert_eq!(Copied::read(&path).unwrap(), None);
        let validators = Validators { etag: Some("\"a b\"".to_owned()), last_modified: None };
        let head = Head::new("cidr https://a.example/list?key=x".to_owned(), false, UnixTime(7), validators);
        let entries: Vec<_> =
            ["192.0.2.0/24", "198.51.100.7/32", "2001:db8::/32"].map(|net| (net.parse().unwrap(), UnixTime(5))).into();
        head.write(&path, entries.iter().copied(), UnixTime(99)).unwrap();
        let copied = Copied { head: head.clone(), entries, checked: UnixTime(99) };
        assert_eq!(Copied::read(&path).unwrap(), Some(copied.clone()));
        Copied::touch(&path, UnixTime(123)).unwrap();
        assert_eq!(Copied::read(&path).unwrap(), Some(Copied { checked: UnixTime(123), ..copied }));

        let good = fs::read(&path).unwrap();
        for cut in 0..good.len() {
            assert!(parse(&good[..cut]).is_err(), "cut off at {cut}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(parse(&bad).is_err(), "a bit at {at}");
        }
        fs::write(&path, &good[..good.len() - 9]).unwrap();
        let error = Copied::read(&path).unwrap_err();
        assert!(matches!(&error, KeptError::Damaged { aside, .. } if aside.exists()), "{error}");
        assert_eq!(Copied::read(&path).unwrap(), None, "the daemon starts anew");
        assert!(Copied::touch(&path, UnixTime(1)).is_err());

        head.write(&path, std::iter::empty(), UnixTime(99)).unwrap();
        assert_eq!(Copied::read(&path).unwrap().unwrap().entries, []);
    }
}
