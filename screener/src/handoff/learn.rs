//! Asking the MTA what it offers, so that the engine can offer the same in its place.

use crate::config::Backend;
use crate::proxy::Header;
use crate::session::Features;

use super::HandoffError;
use super::mta::Mta;

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
    mta.send_line(b"QUIT").await?;
    mta.reply().await?;
    Ok(Learned { banner, features })
}
