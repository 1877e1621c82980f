//! One connection: the engine's inputs from the socket, the clock and the DNS lists, and its outputs to the socket, the
//! ledger, the log and the MTA.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep_until, timeout};
use tracing::{debug, warn};

use crate::clock::Now;
use crate::dnsbl;
use crate::handoff::{self, HandedOff, HandoffError, Outcome};
use crate::proxy::{Header, Tlv, TlvKind};
use crate::session::{Arrival, DnsblReport, Handoff, Input, Output, Session};

use super::daemon::Daemon;
use super::door;
use super::limits::Full;
use super::live::Live;
use super::stream::{ClientStream, HandshakeFailed};

/// How long a client may take to read a reply. Replies are short: one that does not fit into the socket's buffer comes from
/// a client that has stopped reading.
const WRITE_TIME: Duration = Duration::from_secs(30);
/// How long, and for how much, a client that was refused is listened to after the last word, so that the word arrives: a
/// socket closed with unread input resets the connection.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 64 * 1024;

/// What becomes of the connection next.
enum Next {
    Wait,
    StartTls,
    HandOff(Handoff),
    Close,
}

/// Screens a connection, and relays it if it is handed over.
pub(super) async fn connection(daemon: Arc<Daemon>, stream: TcpStream, tagged: bool) {
    // For the whole of the tests: a reload meanwhile changes nothing for this client.
    let live = daemon.live();
    let Some((stream, visit)) = door::open(&daemon, &live, stream).await else { return };
    let arrival = daemon.arrival(&live, &visit, tagged);
    let slot = daemon.limits.admit(daemon.key(arrival.client.ip()));
    let ended = match slot {
        Ok(_slot) => {
            let session = daemon.begin(&live, arrival);
            let mut lists = Lists::default();
            let arrival = session.arrival().clone();
            let ended = screen(&daemon, live, stream, session, &mut lists, &visit.tlvs).await;
            if let Some(check) = lists.left() {
                super::lists::follow(Arc::clone(&daemon), &arrival, check);
            }
            ended
        }
        Err(full) => refuse(&daemon, stream, &arrival, full).await,
    };
    if let Err(error) = ended {
        debug!("a connection broke: {error}");
    }
}

/// The DNS lists of a session: what is open there, and whether a late answer would matter.
#[derive(Default)]
struct Lists {
    check: Option<dnsbl::Check>,
    granted: bool,
}

impl Lists {
    /// The questions that are still open, if the client got a pass that an answer could speak against.
    fn left(self) -> Option<dnsbl::Check> {
        self.check.filter(|check| self.granted && !check.is_over())
    }
}

async fn screen(
    daemon: &Arc<Daemon>,
    live: Arc<Live>,
    stream: TcpStream,
    mut session: Session,
    lists: &mut Lists,
    tlvs: &[Tlv],
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = ClientStream::Plain(stream);
    loop {
        let mut next = Next::Wait;
        while let Some(output) = session.poll_output() {
            match carry_out(daemon, &live, &mut session, lists, output) {
                None => {}
                Some(Asked::Send(reply)) => write(&mut stream, &reply).await?,
                Some(Asked::Next(asked)) => next = asked,
            }
        }
        match next {
            Next::Close => return linger(stream).await,
            Next::StartTls => match Box::pin(start_tls(&live, stream, &mut session, &mut lists.check)).await {
                Some(after) => stream = after,
                None => {
                    // What the session leaves behind; there is nobody left to send anything to.
                    while let Some(output) = session.poll_output() {
                        carry_out(daemon, &live, &mut session, lists, output);
                    }
                    return Ok(());
                }
            },
            Next::HandOff(handoff) => match hand_off(daemon, &live, &stream, session.arrival(), tlvs, &handoff).await {
                Ok(outcome) => {
                    // The relay may last for hours; a late answer is not to wait for its end.
                    if let Some(check) = std::mem::take(lists).left() {
                        super::lists::follow(Arc::clone(daemon), session.arrival(), check);
                    }
                    daemon.handed_off(&live, session.arrival());
                    drop(live);
                    return match outcome {
                        Outcome::Given => Ok(()),
                        Outcome::Reached(handed_off) => relay(stream, session, handed_off).await,
                    };
                }
                Err(refusal) => session.handle(Now::read(), Input::HandoffFailed(refusal)),
            },
            Next::Wait => wait(daemon, &mut stream, &mut session, &mut lists.check).await,
        }
    }
}

/// What an output asks of the connection.
enum Asked {
    Send(Bytes),
    Next(Next),
}

/// Carries out an output as far as it does not concern the connection.
fn carry_out(daemon: &Daemon, live: &Live, session: &mut Session, lists: &mut Lists, output: Output) -> Option<Asked> {
    match output {
        Output::Send(reply) => return Some(Asked::Send(reply)),
        Output::StartTls => return Some(Asked::Next(Next::StartTls)),
        Output::Handoff(handoff) => return Some(Asked::Next(Next::HandOff(handoff))),
        Output::Close => return Some(Asked::Next(Next::Close)),
        Output::AskDnsbl => {
            lists.check = live.lists.as_ref().map(|lists| lists.start(session.arrival().client.ip()));
            // What the cache knows is known at once.
            if let Some(check) = &lists.check {
                session.handle(Now::read(), Input::Dnsbl(check.report()));
            }
        }
        Output::Grant(stamps) => {
            lists.granted = true;
            daemon.grant(session.arrival(), stamps);
        }
        Output::Log(event) => daemon.tell(session.arrival(), &event),
        Output::Decided(decision) => daemon.decided(session.arrival(), &decision),
    }
    None
}

/// The handshake, until it is done, has failed, or the engine has had enough of it: then the connection is gone. Boxed by
/// the caller: it is larger than everything else of a session, and most never come here.
async fn start_tls(
    live: &Live,
    stream: ClientStream,
    session: &mut Session,
    lists: &mut Option<dnsbl::Check>,
) -> Option<ClientStream> {
    let Some(identity) = live.tls.identity() else {
        // The engine offers STARTTLS only where there is one, and it does not go away.
        session.handle(Now::read(), Input::TlsFailed("no certificate".to_owned()));
        return Some(stream);
    };
    let handshake = stream.start_tls(Arc::clone(&identity.config));
    tokio::pin!(handshake);
    loop {
        let deadline = session.deadline();
        tokio::select! {
            result = &mut handshake => {
                let (stream, input) = match result {
                    Ok((stream, agreed)) => (stream, Input::TlsUp(agreed)),
                    Err(HandshakeFailed { why, stream }) => (stream, Input::TlsFailed(why)),
                };
                session.handle(Now::read(), input);
                return Some(stream);
            }
            report = next_report(lists) => hear(session, lists, report),
            () = sleep_until(deadline.map_or_else(far_away, Into::into)), if deadline.is_some() => {
                session.handle(Now::read(), Input::Tick);
                if session.is_over() {
                    return None;
                }
            }
        }
    }
}

/// Waits for whatever comes first and gives it to the engine.
async fn wait(daemon: &Daemon, stream: &mut ClientStream, session: &mut Session, lists: &mut Option<dnsbl::Check>) {
    let deadline = session.deadline();
    tokio::select! {
        ready = stream.readable() => match ready {
            Ok(()) => read(stream, session),
            Err(error) => lost(session, &error),
        },
        report = next_report(lists) => hear(session, lists, report),
        () = sleep_until(deadline.map_or_else(far_away, Into::into)), if deadline.is_some() => {
            session.handle(Now::read(), Input::Tick);
        }
        () = daemon.going_down.cancelled() => session.handle(Now::read(), Input::Shutdown),
    }
}

/// News from the DNS lists; `None`: there is no more to come.
fn hear(session: &mut Session, lists: &mut Option<dnsbl::Check>, report: Option<DnsblReport>) {
    match report {
        Some(report) => session.handle(Now::read(), Input::Dnsbl(report)),
        None => *lists = None,
    }
}

/// The buffer lives only for this call: a client that waits in silence costs none.
fn read(stream: &mut ClientStream, session: &mut Session) {
    let mut chunk = [0; 4096];
    match stream.try_read(&mut chunk) {
        Ok(0) => session.handle(Now::read(), Input::Eof),
        Ok(count) => session.handle(Now::read(), Input::Bytes(&chunk[..count])),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) => lost(session, &error),
    }
}

/// Reset, timed out, no route any more, a TLS record that cannot be read, an end without `close_notify`: whatever it is, the
/// client is gone.
fn lost(session: &mut Session, error: &io::Error) {
    debug!("lost connection: {error}");
    session.handle(Now::read(), Input::Eof);
}

/// The next news from the DNS lists; `None` when there is none to come; never, when they are not asked.
async fn next_report(lists: &mut Option<dnsbl::Check>) -> Option<DnsblReport> {
    let Some(check) = lists else { return std::future::pending().await };
    check.next_report().await
}

fn far_away() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(86_400)
}

async fn hand_off(
    daemon: &Daemon,
    live: &Live,
    stream: &ClientStream,
    arrival: &Arrival,
    tlvs: &[Tlv],
    handoff: &Handoff,
) -> Result<Outcome, Option<Bytes>> {
    let mut header = Header { tlvs: tlvs.to_vec(), ..Header::for_client(arrival.client, arrival.server) };
    if let Some(tls) = handoff.tls {
        // What a proxy before us says of the client's TLS is about another layer than the one that ends here.
        header.tlvs.retain(|tlv| tlv.kind != TlvKind::SSL);
        header.tlvs.push(Tlv::tls(tls.protocol, tls.cipher));
    }
    // Under TLS the bytes on the wire are not the client's.
    let socket = stream.plain().map(AsFd::as_fd);
    // Boxed: this is the largest part of a session's state, and most sessions never come here.
    let handing = Box::pin(handoff::hand_off(&live.config.backend, &header, handoff, socket));
    let result = handing.await;
    daemon.mta_answered(result.as_ref().err());
    if let Ok(Outcome::Reached(HandedOff { offer: Some(offer), .. })) = &result {
        daemon.mta_offered(offer);
    }
    result.map_err(|error| match error {
        HandoffError::Refused { reply } => Some(reply),
        HandoffError::Away { .. } | HandoffError::DemandsTls { .. } => None,
    })
}

async fn relay(mut stream: ClientStream, session: Session, handed_off: HandedOff) -> io::Result<()> {
    drop(session);
    Box::pin(handoff::copy(&mut stream, handed_off)).await?;
    Ok(())
}

async fn refuse(daemon: &Daemon, stream: TcpStream, arrival: &Arrival, full: Full) -> io::Result<()> {
    let mut stream = ClientStream::Plain(stream);
    let reply = daemon.too_many(arrival, full);
    write(&mut stream, reply.as_bytes()).await?;
    linger(stream).await
}

async fn write(stream: &mut ClientStream, bytes: &[u8]) -> io::Result<()> {
    let writing = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    timeout(WRITE_TIME, writing).await.unwrap_or_else(|_| {
        warn!("a client has stopped reading: connection closed");
        Err(io::ErrorKind::TimedOut.into())
    })
}

async fn linger(mut stream: ClientStream) -> io::Result<()> {
    // Under TLS there is a word to it, for which a client that has stopped reading leaves no room.
    timeout(LINGER, stream.shutdown()).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    let mut rest = stream.take(LINGER_BYTES);
    // What comes is thrown away, and an error only means that the client has gone.
    let _ = timeout(LINGER, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
    Ok(())
}
