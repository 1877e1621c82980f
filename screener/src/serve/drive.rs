//! One connection: the engine's inputs from the socket, the clock and the DNS lists, and its outputs to the socket, the
//! ledger, the log and the MTA.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};
use tracing::{debug, warn};

use crate::clock::Now;
use crate::dnsbl;
use crate::handoff::{self, HandedOff, HandoffError};
use crate::session::{Arrival, Handoff, Input, Output, Session, Standing};

use super::daemon::Daemon;
use super::delivered;
use super::limits::{Most, TarpitPlace};
use super::live::Live;

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
    HandOff(Handoff),
    Close,
}

/// Screens a connection, and relays it if it is handed over.
pub(super) async fn connection(daemon: Arc<Daemon>, stream: TcpStream, tagged: bool) {
    // For the whole of the tests: a reload meanwhile changes nothing for this client.
    let live = daemon.live();
    let arrival = match daemon.arrival(&live, &stream, tagged) {
        Ok(arrival) => arrival,
        // It has gone before it could be looked at.
        Err(error) => return debug!("a connection without an end: {error}"),
    };
    let most = Most::of(&live.config.limits, arrival.standing == Standing::Permitted);
    let slot = daemon.limits.admit(daemon.key(arrival.client.ip()), most);
    let mut held = Held { lists: Lists::default(), stress: daemon.limits.stress(), place: None };
    let session = match &slot {
        Ok(_) => {
            let stressed = *held.stress.borrow_and_update();
            daemon.begin(&live, Arrival { stressed, ..arrival })
        }
        Err(ceiling) => daemon.turn_away(&live, arrival, *ceiling),
    };
    let arrival = session.arrival().clone();
    let ended = screen(&daemon, live, stream, session, &mut held).await;
    if let Some(check) = held.lists.left() {
        super::lists::follow(Arc::clone(&daemon), &arrival, check);
    }
    if let Err(error) = ended {
        debug!("a connection broke: {error}");
    }
}

/// What a session holds beside its socket.
struct Held {
    lists: Lists,
    stress: watch::Receiver<bool>,
    place: Option<TarpitPlace>,
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
    mut stream: TcpStream,
    mut session: Session,
    held: &mut Held,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let mut next = Next::Wait;
        while let Some(output) = session.poll_output() {
            match output {
                Output::Send(reply) => write(&mut stream, &reply).await?,
                Output::AskDnsbl => {
                    held.lists.check = live.lists.as_ref().map(|lists| lists.start(session.arrival().client.ip()));
                    // What the cache knows is known at once.
                    if let Some(check) = &held.lists.check {
                        session.handle(Now::read(), Input::Dnsbl(check.report()));
                    }
                }
                Output::AskTarpit => {
                    held.place = daemon.tarpit(&live);
                    session.handle(Now::read(), Input::Tarpit(held.place.is_some()));
                }
                Output::Grant(stamps) => {
                    held.lists.granted = true;
                    daemon.grant(session.arrival(), stamps);
                }
                Output::Log(event) => daemon.tell(session.arrival(), &event),
                Output::Decided(decision) => daemon.decided(session.arrival(), &decision),
                Output::Handoff(handoff) => next = Next::HandOff(handoff),
                Output::Close => next = Next::Close,
            }
        }
        match next {
            Next::Close => return linger(stream).await,
            Next::HandOff(handoff) => match hand_off(daemon, &live, session.arrival(), &handoff).await {
                Ok(handed_off) => {
                    // The relay may last for hours; a late answer is not to wait for its end.
                    if let Some(check) = std::mem::take(&mut held.lists).left() {
                        super::lists::follow(Arc::clone(daemon), session.arrival(), check);
                    }
                    daemon.handed_off(&live, session.arrival());
                    drop(live);
                    return relay(stream, session, handed_off).await;
                }
                Err(refusal) => session.handle(Now::read(), Input::HandoffFailed(refusal)),
            },
            Next::Wait => wait(daemon, &stream, &mut session, held).await?,
        }
    }
}

/// Waits for whatever comes first and gives it to the engine.
async fn wait(daemon: &Daemon, stream: &TcpStream, session: &mut Session, held: &mut Held) -> io::Result<()> {
    let deadline = session.deadline();
    tokio::select! {
        ready = stream.readable() => {
            ready?;
            return read(stream, session);
        }
        report = next_report(&mut held.lists.check) => {
            if let Some(report) = report {
                session.handle(Now::read(), Input::Dnsbl(report));
            } else {
                held.lists.check = None;
            }
        }
        () = sleep_until(deadline.map_or_else(far_away, Into::into)), if deadline.is_some() => {
            session.handle(Now::read(), Input::Tick);
        }
        // Its sender lives as long as the daemon.
        _ = held.stress.changed() => {
            let stressed = *held.stress.borrow_and_update();
            session.handle(Now::read(), Input::Stress(stressed));
        }
        () = daemon.going_down.cancelled() => session.handle(Now::read(), Input::Shutdown),
    }
    Ok(())
}

/// The buffer lives only for this call: a client that waits in silence costs none.
fn read(stream: &TcpStream, session: &mut Session) -> io::Result<()> {
    let mut chunk = [0; 4096];
    let received = stream.try_read(&mut chunk);
    // In this order: what is acknowledged after the look only hides something.
    if session.asks_for_delivery() && delivered::to_client(stream)? {
        session.handle(Now::read(), Input::Delivered);
    }
    match received {
        Ok(0) => session.handle(Now::read(), Input::Eof),
        Ok(count) => session.handle(Now::read(), Input::Bytes(&chunk[..count])),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => session.handle(Now::read(), Input::Eof),
        Err(error) => return Err(error),
    }
    Ok(())
}

/// The next news from the DNS lists; `None` when there is none to come; never, when they are not asked.
async fn next_report(lists: &mut Option<dnsbl::Check>) -> Option<crate::session::DnsblReport> {
    let Some(check) = lists else { return std::future::pending().await };
    check.next_report().await
}

fn far_away() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(86_400)
}

async fn hand_off(
    daemon: &Daemon,
    live: &Live,
    arrival: &Arrival,
    handoff: &Handoff,
) -> Result<HandedOff, Option<Bytes>> {
    // Boxed: this is the largest part of a session's state, and most sessions never come here.
    let handing = Box::pin(handoff::hand_off(&live.config.backend, arrival.client, arrival.server, handoff));
    let result = handing.await;
    daemon.mta_answered(result.as_ref().err());
    result.map_err(|error| match error {
        HandoffError::Refused { reply } => Some(reply),
        HandoffError::Away { .. } => None,
    })
}

async fn relay(mut stream: TcpStream, session: Session, handed_off: HandedOff) -> io::Result<()> {
    drop(session);
    Box::pin(handoff::copy(&mut stream, handed_off)).await?;
    Ok(())
}

async fn write(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    timeout(WRITE_TIME, stream.write_all(bytes)).await.unwrap_or_else(|_| {
        warn!("a client has stopped reading: connection closed");
        Err(io::ErrorKind::TimedOut.into())
    })
}

async fn linger(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut rest = stream.take(LINGER_BYTES);
    // What comes is thrown away, and an error only means that the client has gone.
    let _ = timeout(LINGER, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
    Ok(())
}
