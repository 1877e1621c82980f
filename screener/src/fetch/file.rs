//! A list in a file of this host.
//!
//! Holds the look at it. Never takes a file that somebody is writing at the moment: it is looked at again.

use std::fs::{Metadata, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{FetchError, MOST_BYTES, text, too_long};

/// A file that was written to less than so long ago may not be whole.
const SETTLED: Duration = Duration::from_secs(1);

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        let (device, inode, size) = (metadata.dev(), metadata.ino(), metadata.size());
        Self { device, inode, size, modified: (metadata.mtime(), metadata.mtime_nsec()) }
    }
}

/// What a look at a file found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Looked {
    /// What was there before.
    Same,
    /// Somebody is writing.
    Unsettled,
    /// A list.
    List(String, Stamp),
}

/// Looks at a file, and reads it if it is another one than `known`. Blocks.
///
/// # Errors
/// When it cannot be read, or is too long.
pub fn look(path: &Path, known: Option<Stamp>) -> Result<Looked, FetchError> {
    let unreadable = |error: std::io::Error| FetchError::Away(format!("cannot read {}: {error}", path.display()));
    // Whatever it is, opening it waits for nobody: a pipe would, for a writer.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(FetchError::Away(format!("{} is no file", path.display())));
    }
    let stamp = Stamp::of(&metadata);
    if known == Some(stamp) {
        return Ok(Looked::Same);
    }
    let age = metadata.modified().map_err(unreadable)?;
    // A clock that was set back makes a file of the future, which is as good as an old one.
    if SystemTime::now().duration_since(age).is_ok_and(|age| age < SETTLED) {
        return Ok(Looked::Unsettled);
    }
    let mut bytes = Vec::new();
    (&file).take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(FetchError::Answered(too_long()));
    }
    if Stamp::of(&file.metadata().map_err(unreadable)?) != stamp {
        return Ok(Looked::Unsettled);
    }
    Ok(Looked::List(text(bytes), stamp))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_pipe_is_no_file_and_holds_nobody_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
        assert!(look(&path, None).unwrap_err().to_string().ends_with("is no file"));
    }

    #[test]
    fn a_file_is_read_when_it_is_another_one_and_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("list");
        let error = look(&path, None).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot read {}: No such file", path.display())), "{error}");
        assert!(look(directory.path(), None).unwrap_err().to_string().ends_with("is no file"));
        std::fs::write(&path, "192.0.2.1\n").unwrap();
        assert_eq!(look(&path, None), Ok(Looked::Unsettled), "it was written a moment ago");
        let back = |seconds| {
            let file = File::options().write(true).open(&path).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
        };
        back(60);
        let Ok(Looked::List(text, stamp)) = look(&path, None) else { panic!("no list") };
        assert_eq!(text, "192.0.2.1\n");
        assert_eq!(look(&path, Some(stamp)), Ok(Looked::Same));
        std::fs::write(&path, b"192.0.2.2\xff").unwrap();
        back(60);
        let Ok(Looked::List(text, _)) = look(&path, Some(stamp)) else { panic!("no list") };
        assert_eq!(text, "192.0.2.2\u{fffd}");
        File::create(&path).unwrap().set_len(MOST_BYTES + 1).unwrap();
        back(60);
        assert!(
            matches!(look(&path, Some(stamp)), Err(FetchError::Answered(why)) if why.contains("longer than 64 MiB"))
        );
    }
}
