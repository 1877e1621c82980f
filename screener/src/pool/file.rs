//! What is kept of the pools over a restart: the last good members, and the pass that they share.
//!
//! Holds the file's form. Never judges what stands in it.

use std::io::Write as _;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::clock::UnixTime;
use crate::kept::{self, KeptError};
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

/// Reads the file; where there is none, nothing is kept. A damaged one is set aside.
pub(super) fn read(path: &Path) -> Result<Vec<KeptPool>, KeptError> {
    let read = kept::read(path, |bytes| match serde_json::from_slice(bytes).map_err(|error| error.to_string())? {
        Kept { version: VERSION, pools } => Ok(pools),
        Kept { version, .. } => Err(format!("it has version {version}, this daemon knows {VERSION}")),
    });
    read.map(Option::unwrap_or_default)
}

/// Writes the file: whoever reads it finds the old one or the new one, whole.
pub(super) fn write(path: &Path, pools: Vec<KeptPool>) -> Result<(), KeptError> {
    kept::write(path, |file| file.write_all(&serde_json::to_vec_pretty(&Kept { version: VERSION, pools })?))
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
    use std::fs;

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
            assert!(matches!(&error, KeptError::Damaged { aside, .. } if aside.exists()), "{error}");
            assert_eq!(read(&path).unwrap(), [], "the daemon starts anew");
        }
    }
}
