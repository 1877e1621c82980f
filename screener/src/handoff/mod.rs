//! Giving a connection to the MTA: saying who the client is, the replay of what it has said, the copying of bytes
//! afterwards; or the client's own socket. And the MTA's EHLO features.
//!
//! Decides nothing about a client, and never looks into what it copies: DATA is never re-framed.

mod learn;
mod mta;
mod pass;
mod relay;
mod stream;

use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

pub use learn::{Learned, demands_tls, learn};
pub use relay::copy;

use crate::config::{Backend, BackendAddress, HandoffMethod};
use crate::proxy::{Header, Origin};
use crate::session::{Features, Handoff};

use mta::Mta;

/// "Must issue a STARTTLS command first" (RFC 3207 section 4).
const MUST_START_TLS: u16 = 530;

/// How long a handoff may take in all, whatever each step takes: a client may give up on the reply to a recipient after five
/// minutes (RFC 5321 section 4.5.3.2.3), and is to hear from us before.
const WHOLE: Duration = Duration::from_secs(240);

/// Where a client is after a handoff.
#[derive(Debug)]
pub enum Outcome {
    /// The MTA has the client's own socket. Ours is to be closed and nothing else: no shutdown, which would reach the client.
    Given,
    /// The MTA is where the client is, and the session goes on by way of us.
    Reached(HandedOff),
}

/// The MTA, brought to where the client is.
#[derive(Debug)]
pub struct HandedOff {
    /// What the MTA said last: the reply that the client waits for.
    pub reply: Bytes,
    /// What it offered this client, if that was asked: [`Learned::features`] should be the same.
    pub offer: Option<Features>,
    /// The connection to the MTA, for [`copy`].
    mta: Mta,
}

/// Why a handoff did not come about.
#[derive(Debug, Error)]
pub enum HandoffError {
    /// The MTA cannot be reached, does not answer, or breaks off.
    #[error("the MTA at {backend} {doing}: {source}{advice}")]
    Away {
        /// Which MTA.
        backend: BackendAddress,
        /// What it was doing, e.g. `does not accept connections`.
        doing: &'static str,
        /// The failed call's error.
        source: std::io::Error,
        /// What to do, where that can be told: begins with a semicolon.
        advice: &'static str,
    },
    /// The MTA answered, and refused something before the last line of the replay.
    #[error("the MTA answered {}", String::from_utf8_lossy(reply).trim_end())]
    Refused {
        /// Its reply, as on the wire.
        reply: Bytes,
    },
    /// The MTA wants TLS of a client that has it with us. The client must not hear that: there is nothing it could do.
    #[error(
        "the MTA at {backend} demands TLS of what is handed to it ({}): switch that off for this door alone (Postfix, in \
         master.cf: -o smtpd_tls_security_level=none), TLS ends in the daemon", String::from_utf8_lossy(reply).trim_end()
    )]
    DemandsTls {
        /// Which MTA.
        backend: BackendAddress,
        /// Its reply, as on the wire.
        reply: Bytes,
    },
}

impl HandoffError {
    fn away(backend: &BackendAddress, doing: &'static str, source: std::io::Error) -> Self {
        Self::Away { backend: backend.clone(), doing, advice: advice(backend, &source), source }
    }
}

/// What to do about an error that says too little by itself.
fn advice(backend: &BackendAddress, error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind;
    match (backend, error.kind(), error.raw_os_error()) {
        (_, _, Some(libc::EMFILE | libc::ENFILE | libc::ETOOMANYREFS)) => {
            "; descriptors are short: raise LimitNOFILE, or limits.connections is too high"
        }
        (BackendAddress::Unix(_), ErrorKind::NotFound, _) => {
            "; the MTA does not run, or has no such socket (for \"postfix-pass\" master.cf needs `smtpd pass - - n - - smtpd`)"
        }
        (BackendAddress::Unix(_), ErrorKind::PermissionDenied, _) => {
            "; only the MTA's user and root may go there: run the daemon as root, or give it CAP_DAC_OVERRIDE"
        }
        (BackendAddress::Unix(_), ErrorKind::ConnectionRefused, _) => "; the MTA does not run",
        (BackendAddress::Unix(_), ErrorKind::TimedOut, _) => {
            "; all its processes are busy: raise the process limit of the service in master.cf, or default_process_limit"
        }
        _ => "",
    }
}

/// Connects to the MTA, says by `header` who the client is, and replays; or gives it the client's own `socket`, where the
/// method allows it and neither side has said anything yet that only we know. `socket` is for a client whose bytes are
/// those on the wire: none under TLS.
///
/// A client that has had the first line of a greeting from us is not given away: if the MTA refused it, the greeting would
/// begin with 220 and end with another code.
///
/// # Errors
/// When the MTA is away, or refuses the client before the replay's end.
pub async fn hand_off(
    backend: &Backend,
    header: &Header,
    handoff: &Handoff,
    socket: Option<BorrowedFd<'_>>,
) -> Result<Outcome, HandoffError> {
    let untouched = handoff.replay.is_empty() && handoff.pending.is_empty() && !handoff.teaser_sent;
    let handing = async {
        match (&backend.address, socket) {
            (BackendAddress::Unix(service), Some(socket))
                if backend.handoff == HandoffMethod::PostfixPass && untouched =>
            {
                mta::give(backend, service, socket, header).await.map(|()| Outcome::Given)
            }
            _ => reach(backend, header, handoff).await.map(Outcome::Reached),
        }
    };
    tokio::time::timeout(WHOLE, handing).await.unwrap_or_else(|_| {
        Err(HandoffError::away(&backend.address, "takes too long in all", std::io::ErrorKind::TimedOut.into()))
    })
}

async fn reach(backend: &Backend, header: &Header, handoff: &Handoff) -> Result<HandedOff, HandoffError> {
    let mut mta = Mta::open(backend, header).await?;
    let mut reply = mta.reply().await?;
    if reply.code() != 220 {
        return Err(HandoffError::Refused { reply: reply.into_wire() });
    }
    let mut offer = None;
    let mut sent = 0;
    for (number, line) in handoff.replay.iter().enumerate() {
        if sent <= number {
            // The MTA says after EHLO whether the rest may come at once.
            let at_once = number > 0 && offer.is_some() && reply.offers("PIPELINING");
            sent = if at_once { handoff.replay.len() } else { number + 1 };
            mta.send_lines(&handoff.replay[number..sent]).await?;
        }
        reply = mta.reply().await?;
        if handoff.tls.is_some() && reply.code() == MUST_START_TLS {
            return Err(HandoffError::DemandsTls { backend: backend.address.clone(), reply: reply.into_wire() });
        }
        let is_last = number + 1 == handoff.replay.len();
        if !is_last && !reply.is_positive() {
            return Err(HandoffError::Refused { reply: reply.into_wire() });
        }
        if number == 0 && line.len() >= 4 && line[..4].eq_ignore_ascii_case(b"EHLO") {
            offer = Some(Features::from_mta(reply.lines().skip(1)));
        }
    }
    mta.send(&handoff.pending).await?;
    Ok(HandedOff { reply: reply.into_wire(), offer, mta })
}

/// What goes before everything else: the header in the form that a handoff method asks for; empty where it asks for none.
fn announcement(method: HandoffMethod, header: &Header) -> Vec<u8> {
    match (method, header.origin) {
        (HandoffMethod::ProxyV2, _) => header.v2(),
        // The version has a word for "no client", UNKNOWN, but Postfix refuses it: we are our own client then.
        (HandoffMethod::ProxyV1, Origin::Local) => {
            let ourselves = (Ipv4Addr::LOCALHOST, 65535).into();
            Header::for_client(ourselves, (Ipv4Addr::LOCALHOST, 25).into()).v1()
        }
        (HandoffMethod::ProxyV1, _) => header.v1(),
        // The client has been named with the descriptor.
        (HandoffMethod::PostfixPass | HandoffMethod::None, _) => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
