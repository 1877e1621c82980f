//! The certificate in the daemon's life: looked at on a schedule, told of when it changes, shown in `status`.
//!
//! Never touches a session: each takes the certificate that stands when it says STARTTLS, and keeps it.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::clock::{Now, UnixTime};
use crate::control::api;
use crate::tls::{Identity, Keeper};

use super::daemon::Daemon;

/// How often the files are looked at: two calls of stat(2). A change is taken at the second look that sees it.
const LOOK: Duration = Duration::from_secs(5);

/// Says how it stands at the start, and goes on looking.
pub(super) fn begin(daemon: &Arc<Daemon>) {
    let mut told = Told::default();
    told.tell(&daemon.live().tls);
    tokio::spawn(watch(Arc::clone(daemon), told));
}

async fn watch(daemon: Arc<Daemon>, mut told: Told) {
    let mut reloaded = daemon.reloaded.subscribe();
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            // That has read the files.
            Ok(()) = reloaded.changed() => {}
            () = daemon.retired.cancelled() => return,
        }
        let keeper = Arc::clone(&daemon.live().tls);
        let worker = Arc::clone(&keeper);
        // The files may lie on a disk that is slow, or not there.
        let looked = tokio::task::spawn_blocking(move || worker.look(Now::read().unix)).await;
        if let Err(error) = looked {
            warn!("the certificate cannot be looked at: {error}");
        }
        told.tell(&keeper);
    }
}

/// What the log has said last.
#[derive(Default)]
struct Told {
    introduction: Option<String>,
    refused: Option<String>,
    warned: bool,
}

impl Told {
    /// Says what is new.
    fn tell(&mut self, keeper: &Keeper) {
        let introduction = keeper.identity().map(|identity| introduction(&identity));
        if introduction != self.introduction {
            match &introduction {
                Some(text) => info!("{text}"),
                None => info!("STARTTLS is left to the MTA"),
            }
            self.introduction = introduction;
        }
        let refused = keeper.trouble().map(|why| refused(keeper, &why));
        if let Some(text) = refused.as_ref().filter(|_| refused != self.refused) {
            warn!("{text}");
        }
        self.refused = refused;
        let warning = warning_of(keeper, Now::read().unix);
        if let Some(text) = warning.as_ref().filter(|_| !self.warned) {
            warn!("{text}");
        }
        self.warned = warning.is_some();
    }
}

fn introduction(identity: &Identity) -> String {
    let Identity { names, issuer, not_after, .. } = identity;
    format!("STARTTLS with the certificate for {}, issued by {issuer}, good until {not_after}", names.join(", "))
}

fn refused(keeper: &Keeper, why: &str) -> String {
    let meanwhile = match keeper.identity() {
        Some(current) => format!("the one in use stays, good until {}", current.not_after),
        None => "STARTTLS is left to the MTA until there is a good one".to_owned(),
    };
    format!("the certificate of [tls] is refused: {why}; {meanwhile}")
}

fn warning_of(keeper: &Keeper, now: UnixTime) -> Option<String> {
    keeper.identity().and_then(|identity| identity.time_warning(now))
}

/// What is not as it should be, each with its kind.
pub(super) fn conditions(keeper: &Keeper, now: UnixTime) -> Vec<(&'static str, String)> {
    let refused = keeper.trouble().map(|why| ("tls", refused(keeper, &why)));
    refused.into_iter().chain(warning_of(keeper, now).map(|text| ("tls_expiry", text))).collect()
}

/// For `status`; `None`: there is no `[tls]` section.
pub(super) fn shown(keeper: &Keeper, now: UnixTime) -> Option<api::Tls> {
    let files = keeper.files()?;
    let identity = keeper.identity();
    let of = |value: fn(&Identity) -> String| identity.as_deref().map(value);
    Some(api::Tls {
        certificate: files.certificate.clone(),
        names: identity.as_ref().map(|identity| identity.names.clone()).unwrap_or_default(),
        issuer: of(|identity| identity.issuer.clone()),
        not_after: of(|identity| identity.not_after.to_string()),
        not_after_unix: identity.as_ref().map(|identity| identity.not_after.0),
        days_left: identity.as_ref().map(|identity| identity.days_left(now).unwrap_or(0)),
        refused: keeper.trouble(),
    })
}
