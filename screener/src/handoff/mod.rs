//! Giving a connection to the MTA: the PROXY header that names the client, the replay of what it has said, the copying
//! of bytes afterwards, and the MTA's EHLO features.
//!
//! Decides nothing about a client, and never looks into what it copies: DATA is never re-framed.

mod learn;
mod mta;
mod relay;

use std::net::Ipv4Addr;

use bytes::Bytes;
use thiserror::Error;

pub use learn::{Learned, learn};
pub use relay::copy;

use crate::config::{Backend, BackendAddress, HandoffMethod};
use crate::proxy::{Header, Origin};
use crate::session::Handoff;

use mta::Mta;

/// The MTA, brought to where the client is.
#[derive(Debug)]
pub struct HandedOff {
    /// What the MTA said last: the reply that the client waits for.
    pub reply: Bytes,
    /// The connection to the MTA, for [`copy`].
    mta: Mta,
}

/// Why a handoff did not come about.
#[derive(Debug, Error)]
pub enum HandoffError {
    /// The MTA cannot be reached, does not answer, or breaks off.
    #[error("the MTA at {backend} {doing}: {source}")]
    Away {
        /// Which MTA.
        backend: BackendAddress,
        /// What it was doing, e.g. `does not accept connections`.
        doing: &'static str,
        /// The failed call's error.
        source: std::io::Error,
    },
    /// The MTA answered, and refused something before the last line of the replay.
    #[error("the MTA answered {}", String::from_utf8_lossy(reply).trim_end())]
    Refused {
        /// Its reply, as on the wire.
        reply: Bytes,
    },
}

/// Connects to the MTA, says by `header` who the client is, and replays.
///
/// # Errors
/// When the MTA is away, or refuses the client before the replay's end.
pub async fn hand_off(backend: &Backend, header: &Header, handoff: &Handoff) -> Result<HandedOff, HandoffError> {
    let mut mta = Mta::connect(&backend.address).await?;
    mta.send(&announcement(backend.handoff, header)).await?;
    let mut reply = mta.reply().await?;
    if reply.code() != 220 {
        return Err(HandoffError::Refused { reply: reply.into_wire() });
    }
    let mut lines = handoff.replay.iter().peekable();
    while let Some(line) = lines.next() {
        mta.send_line(line).await?;
        reply = mta.reply().await?;
        if lines.peek().is_some() && !reply.is_positive() {
            return Err(HandoffError::Refused { reply: reply.into_wire() });
        }
    }
    mta.send(&handoff.pending).await?;
    Ok(HandedOff { reply: reply.into_wire(), mta })
}

/// What goes before everything else: the header in the form that a handoff method asks for; empty where it asks for none.
fn announcement(method: HandoffMethod, header: &Header) -> Vec<u8> {
    match (method, header.origin) {
        // `config/unbuilt.rs` refuses to pass descriptors; a version 2 header is what Postfix takes best without.
        (HandoffMethod::ProxyV2 | HandoffMethod::PostfixPass, _) => header.v2(),
        // The version has a word for "no client", UNKNOWN, but Postfix refuses it: we are our own client then.
        (HandoffMethod::ProxyV1, Origin::Local) => {
            let ourselves = (Ipv4Addr::LOCALHOST, 65535).into();
            Header::for_client(ourselves, (Ipv4Addr::LOCALHOST, 25).into()).v1()
        }
        (HandoffMethod::ProxyV1, _) => header.v1(),
        (HandoffMethod::None, _) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_of_our_own_is_announced_in_a_form_that_postfix_takes() {
        let local = Header::local();
        assert_eq!(announcement(HandoffMethod::ProxyV1, &local), b"PROXY TCP4 127.0.0.1 127.0.0.1 65535 25\r\n");
        assert_eq!(announcement(HandoffMethod::ProxyV2, &local)[12..], [0x20, 0, 0, 0]);
        assert!(announcement(HandoffMethod::None, &local).is_empty());
    }
}
