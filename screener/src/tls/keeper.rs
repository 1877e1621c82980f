//! Keeping the certificate current while the daemon runs: whoever renews it replaces two files, at some time, in some order.
//!
//! A session takes the certificate that stands when it says STARTTLS and keeps it. One that is bad never takes the place of
//! one that is good.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;

use super::{Identity, TlsError};
use crate::clock::UnixTime;
use crate::config;

/// The certificate of one `[tls]` section, or of none.
#[derive(Debug, Default)]
pub struct Keeper {
    files: Option<config::Tls>,
    current: ArcSwapOption<Identity>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How the files stood when they were last read.
    read: Option<Stamp>,
    /// How they stood at the last look.
    seen: Option<Stamp>,
    /// What was wrong with them when they were last read.
    trouble: Option<String>,
}

/// Both files, as far as a change of content, owner or mode shows; `None`: it cannot be seen.
type Stamp = [Option<(u64, u64, u64, i64, i64)>; 2];

/// What a look has brought.
#[derive(Debug)]
pub enum News {
    /// Another certificate stands.
    Taken(Arc<Identity>),
    /// The files have changed and are bad; whatever stood before still does.
    Refused(TlsError),
}

impl Keeper {
    /// At the start. With bad files the keeper has no certificate yet ([`Keeper::trouble`] says why), and a later look may
    /// find one. Without `[tls]` it never has one.
    pub fn begin(files: Option<&config::Tls>, now: UnixTime) -> Self {
        let keeper = Self { files: files.cloned(), ..Self::default() };
        keeper.reread(now);
        keeper
    }

    /// For a configuration that is loaded anew; blocks for as long as reading the files takes. With the same paths it stays this keeper, and has read the files again: what
    /// was wrong with them is in [`Keeper::trouble`]. With others it is a new one.
    ///
    /// # Errors
    /// When other files are named and they are bad.
    pub fn follow(self: &Arc<Self>, files: Option<&config::Tls>, now: UnixTime) -> Result<Arc<Self>, TlsError> {
        if self.files.as_ref() == files {
            self.reread(now);
            return Ok(Arc::clone(self));
        }
        let keeper = Self { files: files.cloned(), ..Self::default() };
        match keeper.reread(now) {
            Some(News::Refused(error)) => Err(error),
            Some(News::Taken(_)) | None => Ok(Arc::new(keeper)),
        }
    }

    /// Looks whether the files have changed, and reads them once they stand as they stood at the look before: whoever writes
    /// two files is not to be met between them. Blocks for as long as reading them takes.
    pub fn look(&self, now: UnixTime) -> Option<News> {
        let stamp = stamp(self.files.as_ref()?);
        {
            let mut state = self.state();
            if state.read == Some(stamp) {
                state.seen = None;
                return None;
            }
            if state.seen.replace(stamp) != Some(stamp) {
                return None;
            }
        }
        self.reread(now)
    }

    /// Reads the files now.
    fn reread(&self, now: UnixTime) -> Option<News> {
        let files = self.files.as_ref()?;
        // Before they are read: what is written meanwhile is a change.
        let stamp = stamp(files);
        let loaded = Identity::load(files).and_then(|identity| self.judge(files, identity, now));
        let mut state = self.state();
        (state.read, state.seen) = (Some(stamp), None);
        match loaded {
            Ok(identity) => {
                let identity = Arc::new(identity);
                self.current.store(Some(Arc::clone(&identity)));
                state.trouble = None;
                Some(News::Taken(identity))
            }
            Err(error) => {
                state.trouble = Some(error.to_string());
                Some(News::Refused(error))
            }
        }
    }

    /// An expired certificate is better than none, and worse than one that is good.
    fn judge(&self, files: &config::Tls, identity: Identity, now: UnixTime) -> Result<Identity, TlsError> {
        let stands = self.identity().is_some_and(|current| current.days_left(now).is_some());
        if stands && identity.days_left(now).is_none() {
            return Err(TlsError::Expired { path: files.certificate.clone(), since: identity.not_after });
        }
        Ok(identity)
    }

    /// The certificate for the next handshake; once there is one there always is.
    pub fn identity(&self) -> Option<Arc<Identity>> {
        self.current.load_full()
    }

    /// Whether STARTTLS can be carried out.
    pub fn is_ready(&self) -> bool {
        self.current.load().is_some()
    }

    /// The files, if there is a `[tls]` section.
    pub fn files(&self) -> Option<&config::Tls> {
        self.files.as_ref()
    }

    /// What is wrong with the files as they stand.
    pub fn trouble(&self) -> Option<String> {
        self.state().trouble.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change of it is one assignment: a panic elsewhere does not leave half of one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamp(files: &config::Tls) -> Stamp {
    let of = |path: &Path| {
        let seen = fs::metadata(path).ok()?;
        Some((seen.dev(), seen.ino(), seen.size(), seen.ctime(), seen.ctime_nsec()))
    };
    [of(&files.certificate), of(&files.key)]
}

#[cfg(test)]
mod tests;
