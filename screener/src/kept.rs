//! Small files that outlive the daemon: read as a whole, set aside where they were damaged, replaced in one step.
//!
//! Holds these steps and what may go wrong in them. Never knows what stands in a file.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// The file cannot be used.
#[derive(Debug, Error)]
pub enum KeptError {
    /// The system does not give or take it.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what was written.
    #[error("{} was damaged ({why}) and now lies at {}", path.display(), aside.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How that shows.
        why: String,
        /// Where it lies now.
        aside: PathBuf,
    },
}

impl KeptError {
    /// Of a step that the system refused.
    pub fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

/// Reads a file; `None`: there is none. What `parse` does not understand is set aside.
///
/// # Errors
/// When it cannot be used.
pub fn read<T>(path: &Path, parse: impl FnOnce(&[u8]) -> Result<T, String>) -> Result<Option<T>, KeptError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(KeptError::io(path)(error)),
    };
    match parse(&bytes) {
        Ok(parsed) => Ok(Some(parsed)),
        Err(why) => {
            let aside = beside(path, ".damaged");
            fs::rename(path, &aside).map_err(KeptError::io(path))?;
            Err(KeptError::Damaged { path: path.to_owned(), why, aside })
        }
    }
}

/// Writes a file, which only its owner may read: whoever reads it finds the old one or the new one, whole.
///
/// # Errors
/// When the disk does not take it; the old one stays.
pub fn write(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), KeptError> {
    let new = beside(path, ".new");
    let write = || {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(parent)?;
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        fill(&mut file)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(parent)?.sync_all()
    };
    write().map_err(|error| {
        // A full disk has no use for a half of it.
        let _ = fs::remove_file(&new);
        KeptError::io(path)(error)
    })
}

fn beside(path: &Path, more: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(more);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_there_as_a_whole_or_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("below/file");
        let text =
            |path: &Path| read(path, |bytes| String::from_utf8(bytes.to_vec()).map_err(|error| error.to_string()));
        assert_eq!(text(&path).unwrap(), None);
        write(&path, |file| file.write_all(b"one")).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let broken = |file: &mut File| file.write_all(b"tw").and(Err(io::Error::other("the disk is full")));
        let error = write(&path, broken).unwrap_err().to_string();
        assert_eq!(error, format!("{}: the disk is full", path.display()));
        assert_eq!(text(&path).unwrap().as_deref(), Some("one"));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "a half of it is left");
        write(&path, |file| file.write_all(b"\xff")).unwrap();
        assert!(matches!(text(&path), Err(KeptError::Damaged { aside, .. }) if aside.exists()));
        assert_eq!(text(&path).unwrap(), None);
    }
}
