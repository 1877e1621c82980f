//! One connection: the engine's inputs from the socket, the clock and the DNS lists, and its outputs to the socket, the
//! ledger, the log and the MTA.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{sleep_until, timeout};
use tracing::{debug, warn};

use crate::clock::Now;
use crate::dnsbl;
use crate::handoff::{self, HandedOff, HandoffError};
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
const LINGER_BYTES: usize = 64 * 1024;

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
    let Some((stream, arrival, tlvs)) = met(&daemon, &live, stream, tagged).await else { return };
    let key = daemon.key(arrival.client.ip());
    let ended = match daemon.limits.admit(key) {
        Ok(_slot) => {
            let id = arrival.id;
            let mut lists = Lists::default();
            // Boxed: inline there would be room for it in each function that it goes through.
            let session = Box::new(daemon.begin(&live, arrival));
            let ended = screen(&daemon, live, stream, session, &mut lists, &tlvs).await;
            if let Some(check) = lists.left() {
                super::lists::follow(Arc::clone(&daemon), key, id, check);
            }
            ended
        }
        Err(full) => Box::pin(refuse(&daemon, stream, &arrival, full)).await,
    };
    if let Err(error) = ended {
        debug!("a connection broke: {error}");
    }
}

/// Finds out who it is; `None`: nobody who could be served.
async fn met(daemon: &Daemon, live: &Live, stream: TcpStream, tagged: bool) -> Option<(TcpStream, Arrival, Vec<Tlv>)> {
    let (stream, visit) = door::open(daemon, live, stream).await?;
    Some((stream, daemon.arrival(live, &visit, tagged), visit.tlvs))
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
    mut session: Box<Session>,
    lists: &mut Lists,
    tlvs: &[Tlv],
) -> io::Result<()> {
    let mut stream = ClientStream::Plain(stream);
    loop {
        let (mut next, mut said) = (Next::Wait, Bytes::new());
        while let Some(output) = session.poll_output() {
            match carry_out(daemon, &live, &mut session, lists, output) {
                None => {}
                Some(Asked::Send(reply)) => join(&mut said, reply),
                Some(Asked::Next(asked)) => next = asked,
            }
        }
        write(&mut stream, &said).await?;
        match next {
            Next::Close => return Box::pin(linger(stream)).await,
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
            Next::HandOff(handoff) => {
                match Box::pin(hand_off(daemon, &live, session.arrival(), tlvs, &handoff)).await {
                    Ok(handed_off) => {
                        // The relay may last for hours; a late answer is not to wait for its end.
                        if let Some(check) = std::mem::take(lists).left() {
                            let Arrival { id, client, .. } = session.arrival();
                            super::lists::follow(Arc::clone(daemon), daemon.key(client.ip()), *id, check);
                        }
                        daemon.handed_off(&live, session.arrival());
                        drop(live);
                        drop(session);
                        return Box::pin(relay(stream, handed_off)).await;
                    }
                    Err(refusal) => session.handle(Now::read(), Input::HandoffFailed(refusal)),
                }
            }
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

/// Boxed by the caller, like the relay: it takes more room than everything before, and most sessions never come here.
async fn hand_off(
    daemon: &Daemon,
    live: &Live,
    arrival: &Arrival,
    tlvs: &[Tlv],
    handoff: &Handoff,
) -> Result<HandedOff, Option<Bytes>> {
    let mut header = Header { tlvs: tlvs.to_vec(), ..Header::for_client(arrival.client, arrival.server) };
    if let Some(tls) = handoff.tls {
        // What a proxy before us says of the client's TLS is about another layer than the one that ends here.
        header.tlvs.retain(|tlv| tlv.kind != TlvKind::SSL);
        header.tlvs.push(Tlv::tls(tls.protocol, tls.cipher));
    }
    let result = handoff::hand_off(&live.config.backend, &header, handoff).await;
    daemon.mta_answered(result.as_ref().err());
    result.map_err(|error| match error {
        HandoffError::Refused { reply } => Some(reply),
        HandoffError::Away { .. } => None,
    })
}

async fn relay(mut stream: ClientStream, handed_off: HandedOff) -> io::Result<()> {
    handoff::copy(&mut stream, handed_off).await
}

async fn refuse(daemon: &Daemon, stream: TcpStream, arrival: &Arrival, full: Full) -> io::Result<()> {
    let mut stream = ClientStream::Plain(stream);
    let reply = daemon.too_many(arrival, full);
    write(&mut stream, reply.as_bytes()).await?;
    linger(stream).await
}

/// Replies that follow each other go out together, in one segment if they fit into one.
fn join(said: &mut Bytes, reply: Bytes) {
    *said = if said.is_empty() { reply } else { [&said[..], &reply[..]].concat().into() };
}

async fn write(stream: &mut ClientStream, bytes: &[u8]) -> io::Result<()> {
    let left = &bytes[stream.send_now(bytes)?..];
    // Boxed: nearly always the socket takes a reply at once.
    if left.is_empty() { Ok(()) } else { Box::pin(write_in_time(stream, left)).await }
}

async fn write_in_time(stream: &mut ClientStream, bytes: &[u8]) -> io::Result<()> {
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
    stream.shutdown().await?;
    let until_it_closes = async {
        let mut left = LINGER_BYTES;
        while stream.readable().await.is_ok() {
            match thrown_away(&mut stream) {
                Ok(0) => return,
                Ok(count) => left = left.saturating_sub(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The client has gone, which is all that is waited for.
                Err(_) => return,
            }
            if left == 0 {
                return;
            }
        }
    };
    // What comes is of no concern any more, nor is whether it ends in time.
    let _ = timeout(LINGER, until_it_closes).await;
    Ok(())
}

/// Reads without looking, into a buffer that lives only for this call.
fn thrown_away(stream: &mut ClientStream) -> io::Result<usize> {
    stream.try_read(&mut [0; 4096])
}
