//! One connection: the engine's inputs from the socket, the clock and the DNS lists, and its outputs to the socket, the
//! ledger, the log and the MTA.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};
use tracing::{debug, warn};

use crate::clock::Now;
use crate::dnsbl;
use crate::handoff::{self, HandedOff, HandoffError, Outcome};
use crate::proxy::{Header, Tlv, TlvKind};
use crate::session::{Arrival, Decision, DnsblReport, Event, Handoff, Input, Output, Session, Sibling, Standing};

use super::daemon::Daemon;
use super::door::{self, Visit};
use super::limits::{Most, Pace, Slot, TarpitPlace};
use super::links::{self, Links};
use super::live::Live;
use super::noting::Notes;
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
    HandOff(Box<Leaving>),
    Close,
}

/// A client on its way to the MTA.
struct Leaving {
    handoff: Handoff,
    /// What is still to be told of it: that can be done while the MTA is at work, so the client does not wait for it.
    untold: Vec<Tale>,
}

/// Something to tell.
enum Tale {
    Event(Event),
    Decision(Decision),
}

impl Tale {
    fn tell(&self, daemon: &Daemon, live: &Live, notes: &mut Notes, arrival: &Arrival) {
        match self {
            Self::Event(event) => daemon.tell(notes, arrival, event),
            Self::Decision(decision) => {
                notes.decided(decision, b"");
                daemon.decided(live, arrival, decision);
            }
        }
    }
}

/// Screens a connection, and relays it if it is handed over.
#[allow(clippy::manual_async_fn, reason = "an async fn has room for each argument twice")]
pub(super) fn connection(daemon: Arc<Daemon>, stream: TcpStream, tagged: bool) -> impl Future<Output = ()> {
    async move {
        let live = daemon.live();
        let Some((stream, visit)) = door::open(&daemon, &live, stream).await else { return };
        let stream = ClientStream::Plain(stream);
        let (mut talk, mut slot) = Talk::begin(&daemon, live, visit, tagged);
        let ended = screen(&mut talk, stream).await;
        talk.leave_lists();
        // The relay may last for hours, and needs nothing of this.
        drop(talk);
        let ended = match ended {
            Ok(After::Relay(relay)) => Box::pin(relay.run()).await,
            Ok(After::Linger(stream)) => {
                // The client has heard the last of us: if it comes again at once, this one does not stand in its way.
                if let Some(slot) = &mut slot {
                    slot.leave_client();
                }
                Box::pin(linger(stream)).await
            }
            Ok(After::Nothing) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            debug!("a connection broke: {error}");
        }
    }
}

/// Everything that a session holds beside its socket, in one place: were it in the futures, each through which it goes would
/// have room for all of it, and the thousands of clients that wait would pay for that.
struct Talk {
    daemon: Arc<Daemon>,
    /// For the whole of the tests: a reload meanwhile changes nothing for this client.
    live: Arc<Live>,
    session: Session,
    lists: Lists,
    /// What is kept of the session.
    notes: Notes,
    /// What a proxy before us said of the client.
    tlvs: Vec<Tlv>,
    /// What all sessions are told.
    pace: watch::Receiver<Pace>,
    /// In the tarpit, until the session ends.
    place: Option<TarpitPlace>,
}

/// What is asked of the DNS about a client.
#[derive(Default)]
struct Lists {
    /// The lists: what is open there.
    check: Option<Box<dnsbl::Check>>,
    /// Whether a late answer of theirs would matter.
    granted: bool,
    /// What is known, and asked, of its other address; few clients have one. Boxed: for the others it costs a word.
    links: Option<Box<Links>>,
}

/// An answer.
enum News {
    /// Of the lists; `None`: there is no more to come.
    Lists(Option<DnsblReport>),
    /// About the other address.
    Sibling(Option<Box<Sibling>>),
}

impl Talk {
    /// Begins; without a slot with a client that met a ceiling, which is only told so.
    fn begin(daemon: &Arc<Daemon>, live: Arc<Live>, visit: Visit, tagged: bool) -> (Box<Self>, Option<Slot>) {
        let arrival = daemon.arrival(&live, &visit, tagged);
        let most = Most::of(&live.config.limits, arrival.standing == Standing::Permitted);
        let mut pace = daemon.limits.pace();
        let (session, slot) = match daemon.limits.admit(daemon.key(arrival.client.ip()), most) {
            Ok(slot) => {
                let now = *pace.borrow_and_update();
                if now == Pace::Ending {
                    // It begins, and hears it at once.
                    pace.mark_changed();
                }
                (daemon.begin(&live, Arrival { stressed: now == Pace::Stressed, ..arrival }), Some(slot))
            }
            Err(ceiling) => (daemon.turn_away(&live, arrival, ceiling), None),
        };
        let (daemon, lists, notes, tlvs) = (Arc::clone(daemon), Lists::default(), Notes::default(), visit.tlvs);
        (Box::new(Self { daemon, live, session, lists, notes, tlvs, pace, place: None }), slot)
    }

    /// Carries out everything that the engine asks for. What is to be said to the client comes back, and what is next.
    fn carry_out(&mut self) -> (Next, Bytes) {
        let (mut next, mut said) = (Next::Wait, Bytes::new());
        let (later, mut untold) = (self.session.is_leaving(), Vec::new());
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Send(reply) => join(&mut said, reply),
                Output::StartTls => next = Next::StartTls,
                Output::Handoff(handoff) => {
                    next = Next::HandOff(Box::new(Leaving { handoff, untold: std::mem::take(&mut untold) }));
                }
                Output::Close => next = Next::Close,
                Output::AskDnsbl => {
                    let client = self.session.arrival().client.ip();
                    self.lists.check = self.live.lists.as_ref().map(|lists| Box::new(lists.start(client)));
                    // What the cache knows is known at once.
                    if let Some(check) = &self.lists.check {
                        self.session.handle(Now::read(), Input::Dnsbl(check.report()));
                    }
                }
                Output::AskSibling(name) => {
                    let links = Links::ask(&self.daemon, &self.live, self.session.arrival(), name);
                    if !self.lists.links.insert(Box::new(links)).is_open() {
                        self.session.handle(Now::read(), Input::Sibling(None));
                    }
                }
                Output::AskTarpit => {
                    self.place = self.daemon.tarpit(&self.live);
                    self.session.handle(Now::read(), Input::Tarpit(self.place.is_some()));
                }
                Output::Greeted => self.daemon.metrics.greeted(),
                Output::Withdraw(test) => self.daemon.withdraw(self.session.arrival(), test),
                Output::Grant(stamps) => {
                    self.lists.granted = true;
                    if let Some(links) = &self.lists.links {
                        links.passed(&self.daemon, &self.live, self.session.arrival());
                    }
                    self.daemon.grant(&self.live, self.session.arrival(), stamps);
                }
                Output::Log(event) if later => untold.push(Tale::Event(event)),
                Output::Decided(decision) if later => untold.push(Tale::Decision(decision)),
                Output::Log(event) => self.daemon.tell(&mut self.notes, self.session.arrival(), &event),
                Output::Decided(decision) => {
                    self.notes.decided(&decision, &said);
                    self.daemon.decided(&self.live, self.session.arrival(), &decision);
                }
            }
        }
        untold.iter().for_each(|tale| tale.tell(&self.daemon, &self.live, &mut self.notes, self.session.arrival()));
        (next, said)
    }

    /// The session is over, or the MTA's. What is still open at the lists is followed by a task of its own: an answer could
    /// speak against a pass that the client got, and counts in any case.
    fn leave_lists(&mut self) {
        let Lists { check, granted, .. } = std::mem::take(&mut self.lists);
        let Some(check) = check.filter(|check| !check.is_over()) else { return };
        let Arrival { id, client, .. } = self.session.arrival();
        if granted {
            super::lists::follow(Arc::clone(&self.daemon), client.ip(), *id, *check);
        } else {
            super::lists::hear_out(&self.daemon, *check);
        }
    }

    /// The session is over, or the MTA's: what it leaves behind is noted. Called once, before anything that takes long.
    fn leave_notes(&mut self) {
        self.daemon.noted(self.session.arrival(), std::mem::take(&mut self.notes));
    }

    fn tell(&mut self, input: Input<'_>) {
        self.session.handle(Now::read(), input);
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Lists(Some(report)) => self.tell(Input::Dnsbl(report)),
            News::Lists(None) => self.lists.check = None,
            News::Sibling(sibling) => self.tell(Input::Sibling(sibling.map(|sibling| *sibling))),
        }
    }

    /// Reset, timed out, no route any more, a TLS record that cannot be read, an end without `close_notify`: whatever it is,
    /// the client is gone.
    fn lost(&mut self, error: &io::Error) {
        debug!("lost connection: {error}");
        self.tell(Input::Eof);
    }
}

/// What is left to do when the tests are over.
enum After {
    Nothing,
    /// The last word is to arrive.
    Linger(ClientStream),
    Relay(Box<Relay>),
}

/// Plays the session to its end, or to where the MTA takes over.
#[allow(clippy::manual_async_fn, reason = "an async fn has room for each argument twice")]
fn screen(talk: &mut Talk, mut stream: ClientStream) -> impl Future<Output = io::Result<After>> {
    async move {
        loop {
            let next = {
                let (next, said) = talk.carry_out();
                if let Err(error) = write(&mut stream, &said).await {
                    talk.lost(&error);
                    talk.carry_out();
                    talk.leave_notes();
                    return Err(error);
                }
                next
            };
            match next {
                Next::Close => {
                    talk.leave_notes();
                    return Ok(After::Linger(stream));
                }
                Next::StartTls => match Box::pin(start_tls(talk, stream)).await {
                    Some(after) => stream = after,
                    None => {
                        // What the session leaves behind; there is nobody left to send anything to.
                        talk.carry_out();
                        talk.leave_notes();
                        return Ok(After::Nothing);
                    }
                },
                Next::HandOff(leaving) => match Box::pin(hand_off(talk, &stream, &leaving)).await {
                    Ok(outcome) => {
                        talk.daemon.handed_off(&mut talk.notes);
                        talk.leave_notes();
                        return Ok(match outcome {
                            Outcome::Given => After::Nothing,
                            Outcome::Reached(handed_off) => After::Relay(Box::new(Relay { stream, handed_off })),
                        });
                    }
                    Err(Unserved::Mta(refusal)) => talk.tell(Input::HandoffFailed(refusal)),
                    Err(Unserved::ClientGone) => talk.tell(Input::Eof),
                },
                Next::Wait => wait(talk, &mut stream).await,
            }
        }
    }
}

/// The handshake, until it is done, has failed, or the engine has had enough of it: then the connection is gone. Boxed by
/// the caller: it is larger than everything else of a session, and most never come here.
async fn start_tls(talk: &mut Talk, stream: ClientStream) -> Option<ClientStream> {
    let Some(identity) = talk.live.tls.identity() else {
        // The engine offers STARTTLS only where there is one, and it does not go away.
        talk.tell(Input::TlsFailed("no certificate".to_owned()));
        return Some(stream);
    };
    let handshake = stream.start_tls(Arc::clone(&identity.config));
    tokio::pin!(handshake);
    loop {
        let deadline = talk.session.deadline();
        tokio::select! {
            result = &mut handshake => {
                let (stream, input) = match result {
                    Ok((stream, agreed)) => (stream, Input::TlsUp(agreed)),
                    Err(HandshakeFailed { why, stream }) => (stream, Input::TlsFailed(why)),
                };
                talk.tell(input);
                return Some(stream);
            }
            news = next_news(&mut talk.lists) => talk.hear(news),
            () = sleep_until(deadline.map_or_else(far_away, Into::into)), if deadline.is_some() => {
                talk.tell(Input::Tick);
                if talk.session.is_over() {
                    return None;
                }
            }
        }
    }
}

/// Waits for whatever comes first and gives it to the engine. On a busy machine much may have come when this task's turn
/// comes: then what the client did is heard before any answer and before the clock, or who is an early talker would be
/// a matter of chance.
#[allow(clippy::manual_async_fn, reason = "an async fn has room for each argument twice")]
fn wait(talk: &mut Talk, stream: &mut ClientStream) -> impl Future<Output = ()> {
    async move {
        let deadline = talk.session.deadline();
        tokio::select! {
            biased;
            ready = stream.readable() => match ready {
                Ok(()) => {
                    read(talk, stream, ClientStream::try_read);
                    // A client that never stops talking does not stop the clock.
                    tick_if_due(talk);
                }
                Err(error) => talk.lost(&error),
            },
            news = next_news(&mut talk.lists) => {
                look(talk, stream);
                talk.hear(news);
            }
            () = sleep_until(deadline.map_or_else(far_away, Into::into)), if deadline.is_some() => {
                look(talk, stream);
                // What was read may have moved the deadline.
                tick_if_due(talk);
            }
            // Its sender lives as long as the daemon.
            _ = talk.pace.changed() => {
                look(talk, stream);
                let pace = *talk.pace.borrow_and_update();
                talk.tell(match pace {
                    Pace::Usual => Input::Stress(false),
                    Pace::Stressed => Input::Stress(true),
                    Pace::Ending => Input::Shutdown,
                });
            }
        }
    }
}

fn tick_if_due(talk: &mut Talk) {
    if talk.session.deadline().is_some_and(|due| due <= std::time::Instant::now()) {
        talk.tell(Input::Tick);
    }
}

/// Hears what the client has said though tokio does not know of it yet.
fn look(talk: &mut Talk, stream: &mut ClientStream) {
    read(talk, stream, |stream, room| stream.read_now(room));
}

/// Hears what `receive` finds. The buffer lives only for this call: a client that waits in silence costs none.
fn read(
    talk: &mut Talk,
    stream: &mut ClientStream,
    receive: impl FnOnce(&mut ClientStream, &mut [u8]) -> io::Result<usize>,
) {
    let mut chunk = [0; 4096];
    let received = receive(stream, &mut chunk);
    // In this order: what is acknowledged after the look only hides something.
    if talk.session.asks_for_delivery() && stream.is_delivered() {
        talk.tell(Input::Delivered);
    }
    match received {
        Ok(0) => talk.tell(Input::Eof),
        Ok(count) => talk.tell(Input::Bytes(&chunk[..count])),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) => talk.lost(&error),
    }
}

/// The next answer of the DNS; never, when nothing is asked.
async fn next_news(lists: &mut Lists) -> News {
    if lists.check.is_none() && !lists.links.as_ref().is_some_and(|links| links.is_open()) {
        return std::future::pending().await;
    }
    // Boxed, so that it takes no room where nothing is asked.
    Box::pin(async {
        tokio::select! {
            report = next_report(&mut lists.check) => News::Lists(report),
            sibling = links::answer(&mut lists.links) => News::Sibling(sibling),
        }
    })
    .await
}

/// The next news from the DNS lists; `None` when there is none to come; never, when they are not asked.
async fn next_report(lists: &mut Option<Box<dnsbl::Check>>) -> Option<DnsblReport> {
    let Some(check) = lists else { return std::future::pending().await };
    check.next_report().await
}

fn far_away() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(86_400)
}

/// Why a handoff came to nothing.
enum Unserved {
    /// The MTA is away, or said this.
    Mta(Option<Bytes>),
    /// The client has reset the connection: a slow MTA need not go on for it.
    ClientGone,
}

/// Boxed by the caller, like the relay: it takes more room than everything before it, and most sessions never come here.
async fn hand_off(talk: &mut Talk, stream: &ClientStream, leaving: &Leaving) -> Result<Outcome, Unserved> {
    let Talk { daemon, live, session, notes, tlvs, .. } = talk;
    let Leaving { handoff, untold } = leaving;
    let arrival = session.arrival();
    let mut header = Header { tlvs: tlvs.clone(), ..Header::for_client(arrival.client, arrival.server) };
    if let Some(tls) = handoff.tls {
        // What a proxy before us says of the client's TLS is about another layer than the one that ends here.
        header.tlvs.retain(|tlv| tlv.kind != TlvKind::SSL);
        header.tlvs.push(Tlv::tls(tls.protocol, tls.cipher));
    }
    // Under TLS the bytes on the wire are not the client's.
    let socket = stream.plain().map(AsFd::as_fd);
    let handing = handoff::hand_off(&live.config.backend, &header, handoff, socket);
    tokio::pin!(handing);
    // So far that the MTA has something to do.
    let begun = std::future::poll_fn(|cx| Poll::Ready(handing.as_mut().poll(cx))).await;
    untold.iter().for_each(|tale| tale.tell(daemon, live, notes, arrival));
    let mut result = match begun {
        Poll::Ready(result) => result,
        Poll::Pending => tokio::select! {
            result = &mut handing => result,
            () = stream.reset() => return Err(Unserved::ClientGone),
        },
    };
    if let Ok(Outcome::Reached(handed_off)) = &mut result {
        // First of all: the client waits for it. A connection that is broken shows in the relay.
        let sent = stream.send_now(&handed_off.reply).unwrap_or(0);
        handed_off.reply.advance(sent);
    }
    daemon.mta_answered(result.as_ref().err());
    if let Ok(Outcome::Reached(HandedOff { offer: Some(offer), .. })) = &result {
        daemon.mta_offered(offer);
    }
    result.map_err(|error| match error {
        HandoffError::Refused { reply } => Unserved::Mta(Some(reply)),
        HandoffError::Away { .. } | HandoffError::DemandsTls { .. } => Unserved::Mta(None),
    })
}

/// What is left of a session when the MTA has it.
struct Relay {
    stream: ClientStream,
    handed_off: HandedOff,
}

impl Relay {
    async fn run(mut self: Box<Self>) -> io::Result<()> {
        handoff::copy(&mut self.stream, self.handed_off).await
    }
}

/// Replies that follow each other go out together, in one segment if they fit into one.
fn join(said: &mut Bytes, reply: Bytes) {
    *said = if said.is_empty() { reply } else { [&said[..], &reply[..]].concat().into() };
}

async fn write(stream: &mut ClientStream, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
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
    // Under TLS there is a word to it, for which a client that has stopped reading leaves no room.
    timeout(LINGER, stream.shutdown()).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client that waits may take in each of the two places that hold it: 15,000 of them wait at a time.
    /// With what tokio adds, a task takes a multiple of 128 bytes.
    const MOST_TASK: usize = 616;
    const MOST_TALK: usize = 680;

    fn size_of_future<A, B, C, F: Future>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_waiting_client_stays_small() {
        let task = size_of_future(connection);
        assert!(task <= MOST_TASK, "the task of a connection takes {task} bytes: box what is rare in it");
        let talk = size_of::<Talk>();
        assert!(talk <= MOST_TALK, "what a session holds takes {talk} bytes: box what is rare in it");
    }
}
