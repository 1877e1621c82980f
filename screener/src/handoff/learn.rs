//! Asking the MTA what it offers, so that the engine can offer the same in its place.

use crate::config::Backend;
use crate::proxy::Header;
use crate::session::Features;

use super::mta::Mta;
use super::{HandoffError, MUST_START_TLS};

/// What the MTA says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    /// The first line of its greeting, without the code.
    pub banner: String,
    /// What it offers, less what the engine withholds.
    pub features: Features,
}

/// Connects as ourselves, says EHLO and leaves.
///
/// # Errors
/// When the MTA is away or refuses us.
pub async fn learn(backend: &Backend, hostname: &str) -> Result<Learned, HandoffError> {
    let (mut mta, learned) = greet(backend, hostname).await?;
    mta.send_line(b"QUIT").await?;
    mta.reply().await?;
    Ok(learned)
}

/// Whether the MTA takes a mail in plain text, as far as MAIL shows.
///
/// # Errors
/// As [`learn`].
pub async fn demands_tls(backend: &Backend, hostname: &str) -> Result<bool, HandoffError> {
    let (mut mta, _) = greet(backend, hostname).await?;
    mta.send_line(b"MAIL FROM:<>").await?;
    let demands = mta.reply().await?.code() == MUST_START_TLS;
    mta.send_line(b"QUIT").await?;
    mta.reply().await?;
    Ok(demands)
}

/// Up to the reply to EHLO.
async fn greet(backend: &Backend, hostname: &str) -> Result<(Mta, Learned), HandoffError> {
    let mut mta = Mta::open(backend, &Header::local()).await?;
    let greeting = mta.reply().await?;
    if greeting.code() != 220 {
        return Err(HandoffError::Refused { reply: greeting.into_wire() });
    }
    let banner = greeting.lines().next().unwrap_or_default().to_owned();
    mta.send_line(format!("EHLO {hostname}").as_bytes()).await?;
    let offer = mta.reply().await?;
    if !offer.is_positive() {
        return Err(HandoffError::Refused { reply: offer.into_wire() });
    }
    let features = Features::from_mta(offer.lines().skip(1));
    Ok((mta, Learned { banner, features }))
}
