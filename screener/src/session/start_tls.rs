//! STARTTLS, where a certificate is at hand: the pause in the dialogue while the handshake goes on outside the engine.
//!
//! Nothing that was said before the handshake counts after it (RFC 3207 section 4.2): the client says EHLO again. What it
//! sent behind STARTTLS was thrown away when the command was carried out (CVE-2011-0411).

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::clock::Now;

use super::dialogue::Dialogue;
use super::event::Event;
use super::state::Core;
use super::{Input, Output, Phase, lists};

/// How long a handshake may take, unless a command may take even less. It needs two round trips and some computing;
/// a client that stalls in it holds more memory than one that waits for its greeting.
const HANDSHAKE_TIME: Duration = Duration::from_secs(60);

/// What a client and we have agreed on, in OpenSSL's words, which mail logs and the PROXY protocol use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TlsSession {
    /// E.g. `TLSv1.3`.
    pub protocol: &'static str,
    /// E.g. `TLS_AES_256_GCM_SHA384` or `ECDHE-RSA-AES128-GCM-SHA256`.
    pub cipher: &'static str,
    /// How many bits the cipher's key has.
    pub bits: u16,
    /// E.g. `X25519`; `None`: not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_exchange: Option<&'static str>,
}

/// The handshake.
#[derive(Debug)]
pub(super) struct StartingTls {
    dialogue: Dialogue,
    began: Instant,
}

impl StartingTls {
    pub(super) fn enter(core: &mut Core, dialogue: Dialogue, now: Now) -> Phase {
        core.output.push_back(Output::StartTls);
        Phase::StartingTls(Self { dialogue, began: now.instant })
    }

    pub(super) fn deadline(&self, core: &Core) -> Instant {
        let time = HANDSHAKE_TIME.min(core.policy.command_time.at(core.arrival.stressed));
        (self.began + time).min(core.session_end())
    }

    pub(super) fn handle(self, core: &mut Core, now: Now, input: Input<'_>) -> Phase {
        match input {
            Input::TlsUp(session) => {
                core.log(Event::TlsEstablished(session));
                core.tls = Some(Box::new(session));
                // The client has read the last reply, or there had been no handshake.
                core.undelivered = false;
                self.dialogue.begin_anew(now)
            }
            Input::TlsFailed(why) => Self::failed(core, now, why),
            Input::Eof => Self::failed(core, now, "lost connection".to_owned()),
            Input::Tick if now.instant >= self.deadline(core) => {
                let limit = (now.instant - self.began).as_secs();
                core.log(Event::TlsFailed(format!("not finished within {limit} s")));
                core.log(Event::TimeLimit("STARTTLS".to_owned()));
                // There are no words for it: a plain-text reply would stand in the middle of the handshake.
                core.disconnect();
                core.close()
            }
            Input::Dnsbl(report) => {
                lists::hear_late(core, report);
                Phase::StartingTls(self)
            }
            // The daemon's going down can be told when the handshake is over, or the deadline ends it.
            _ => Phase::StartingTls(self),
        }
    }

    /// Most senders come again without TLS: this is no evidence against them.
    fn failed(core: &mut Core, now: Now, why: String) -> Phase {
        core.log(Event::TlsFailed(why));
        core.hang_up(now)
    }
}
