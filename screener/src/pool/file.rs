//! What is kept of the pools over a restart: the last good members, and the pass that they share.
//!
//! Holds the file's form, its reading and its writing in one step. Never judges what stands in it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::clock::UnixTime;
use crate::pass::{Stamps, Test};

const VERSION: u32 = 1;

/// The file.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    version: u32,
    pools: Vec<KeptPool>,
}

/// One pool in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct KeptPool {
    pub(super) domain: String,
    pub(super) members: Vec<IpNet>,
    /// When they were looked up.
    pub(super) learned: UnixTime,
    /// Until when each test counts as passed, in the order of the tests; zero: never.
    #[serde(default)]
    pub(super) until: [u64; Test::COUNT],
    /// Who passed last.
    #[serde(default)]
    pub(super) passed_by: Option<IpAddr>,
}

/// The file cannot be used.
#[derive(Debug, Error)]
pub(super) enum FileError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} was damaged ({why}) and now lies at {}", path.display(), aside.display())]
    Damaged { path: PathBuf, why: String, aside: PathBuf },
}

/// Reads the file; where there is none, nothing is kept. A damaged one is set aside.
pub(super) fn read(path: &Path) -> Result<Vec<KeptPool>, FileError> {
    let io = |source| FileError::Io { path: path.to_owned(), source };
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io(error)),
    };
    let kept = serde_json::from_slice::<Kept>(&bytes).map_err(|error| error.to_string());
    match kept {
        Ok(Kept { version: VERSION, pools }) => Ok(pools),
        Ok(Kept { version, .. }) => damaged(path, format!("it has version {version}, this daemon knows {VERSION}")),
        Err(why) => damaged(path, why),
    }
}

fn damaged(path: &Path, why: String) -> Result<Vec<KeptPool>, FileError> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged");
    let aside = PathBuf::from(aside);
    fs::rename(path, &aside).map_err(|source| FileError::Io { path: path.to_owned(), source })?;
    Err(FileError::Damaged { path: path.to_owned(), why, aside })
}

/// Writes the file: whoever reads it finds the old one or the new one, whole.
pub(super) fn write(path: &Path, pools: Vec<KeptPool>) -> Result<(), FileError> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let write = || {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(parent)?;
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec_pretty(&Kept { version: VERSION, pools })?)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(parent)?.sync_all()
    };
    write().map_err(|source| {
        // A full disk has no use for a half of it.
        let _ = fs::remove_file(&new);
        FileError::Io { path: path.to_owned(), source }
    })
}

pub(super) fn until(stamps: &Stamps) -> [u64; Test::COUNT] {
    Test::ALL.map(|test| stamps.get(test).map_or(0, |until| until.0))
}

pub(super) fn stamps(until: [u64; Test::COUNT]) -> Stamps {
    let mut stamps = Stamps::default();
    for (test, until) in Test::ALL.into_iter().zip(until) {
        stamps.set(test, (until != 0).then_some(UnixTime(until)));
    }
    stamps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_comes_back_and_damage_is_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("below/pools.json");
        assert_eq!(read(&path).unwrap(), []);
        let pool = KeptPool {
            domain: "example.com".to_owned(),
            members: vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
            learned: UnixTime(7),
            until: until(&Stamps::all_until(UnixTime(99))),
            passed_by: Some("192.0.2.1".parse().unwrap()),
        };
        write(&path, vec![pool.clone()]).unwrap();
        assert_eq!(read(&path).unwrap(), std::slice::from_ref(&pool));
        assert_eq!(stamps(pool.until), Stamps::all_until(UnixTime(99)));
        for damage in [&b"{\"version\":1,\"pools\":[{"[..], b"", b"{\"version\":2,\"pools\":[]}"] {
            fs::write(&path, damage).unwrap();
            let error = read(&path).unwrap_err();
            assert!(matches!(&error, FileError::Damaged { aside, .. } if aside.exists()), "{error}");
            assert_eq!(read(&path).unwrap(), [], "the daemon starts anew");
        }
    }
}
