//! What every phase of a session shares, and the ways in which a session ends.
//!
//! Every reply of ours leaves through [`Core::send`]: there it gets the operator's footer, and there it is slowed down.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::clock::Now;
use crate::pass::Test;

use super::dialogue::Dialogue;
use super::event::{Ceiling, Decision, Event, Evidence, Moment, Outcome, Said};
use super::lattice::Lattice;
use super::link::Link;
use super::lists;
use super::reply::{self, Refusal, Reply};
use super::tarpit::Slow;
use super::{Action, AfterTests, Arrival, DnsblReport, Features, Handoff, Output, Phase, Policy, Standing, TlsSession};

/// How long a deep test that was failed under `ignore` counts as passed, so that a client that has to come again gets in:
/// postscreen's shortest TTL (reference/postscreen.md section 2.4).
const GRACE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Core {
    pub(super) policy: Arc<Policy>,
    pub(super) features: Arc<Features>,
    pub(super) arrival: Arrival,
    pub(super) lattice: Lattice,
    pub(super) evidence: Vec<Evidence>,
    /// What the DNS lists have said, once they were asked.
    pub(super) lists: Option<Box<DnsblReport>>,
    /// The reply to each RCPT once a test has failed under `enforce`: the first failure's.
    pub(super) refusal: Option<Box<Refusal>>,
    pub(super) input: BytesMut,
    pub(super) output: VecDeque<Output>,
    pub(super) teaser_sent: bool,
    /// It owed no test when it came, and gets none.
    pub(super) welcome: bool,
    /// What is known of the client's other address.
    pub(super) link: Link,
    /// Since the handshake, if there was one.
    pub(super) tls: Option<Box<TlsSession>>,
    /// Something was sent that the client may not have yet.
    pub(super) undelivered: bool,
    /// In the tarpit: what is to be said slowly.
    pub(super) slow: Option<Box<Slow>>,
    /// When the session began.
    pub(super) began: Instant,
    /// The moment of the input that is being taken.
    pub(super) now: Now,
    /// Before or behind the greeting, and since when.
    pub(super) moment: (Moment, Instant),
    /// What the client has said of itself.
    pub(super) said: Said,
    /// The client has failed by the DNS lists before all of them had answered, and the log does not say so yet.
    pub(super) untold: bool,
    /// The client has sent more than it may.
    exceeded: bool,
    /// Something was remembered in this session.
    granted: bool,
    decided: bool,
}

impl Core {
    pub(super) fn new(policy: Arc<Policy>, features: Arc<Features>, arrival: Arrival, now: Now) -> Self {
        Self {
            lattice: Lattice::new(&policy, &arrival, now.unix),
            policy,
            features,
            arrival,
            evidence: Vec::new(),
            lists: None,
            refusal: None,
            input: BytesMut::new(),
            output: VecDeque::new(),
            teaser_sent: false,
            welcome: false,
            link: Link::default(),
            tls: None,
            undelivered: false,
            slow: None,
            began: now.instant,
            now,
            moment: (Moment::BeforeHandshake, now.instant),
            said: Said::default(),
            untold: false,
            exceeded: false,
            granted: false,
            decided: false,
        }
    }

    pub(super) fn log(&mut self, event: Event) {
        // A health check comes every few seconds; mail that comes without an address is worth a line.
        if self.is_unnamed() && !matches!(event, Event::Reject { .. }) {
            return;
        }
        self.exceeded |= matches!(event, Event::CountLimit(_) | Event::LengthLimit(_));
        self.output.push_back(Output::Log(event));
    }

    /// Sends a reply of ours.
    pub(super) fn send(&mut self, reply: &Reply) {
        let reply = reply.clone().softened(&self.policy);
        let wire = reply.wire(&self.policy, self.arrival.client, self.now.unix);
        self.send_wire(wire);
    }

    /// Sends what is on no account to be changed: the MTA's own words, or a reply of ours that is complete.
    pub(super) fn send_wire(&mut self, wire: Bytes) {
        self.undelivered = true;
        let over = self.now.instant >= self.session_end();
        match &mut self.slow {
            Some(slow) if !over => slow.say(&wire, self.now.instant),
            // There is no time left to say it slowly in.
            _ => {
                self.hurry();
                self.output.push_back(Output::Send(wire));
            }
        }
    }

    /// Whether a reply is going out slowly.
    pub(super) fn is_speaking(&self) -> bool {
        self.slow.as_ref().is_some_and(|slow| slow.is_speaking())
    }

    /// Whether STARTTLS is to be had now, from us or from the MTA. A handshake cannot be made slowly: not in the tarpit.
    pub(super) fn offers_tls(&self) -> bool {
        let wanted = !self.policy.replies.withholds("STARTTLS") && self.slow.is_none();
        wanted && self.tls.is_none() && (self.arrival.terminates_tls || self.features.offers("STARTTLS"))
    }

    /// Whether there is no client behind the connection that could be screened.
    pub(super) fn is_unnamed(&self) -> bool {
        matches!(self.arrival.standing, Standing::Unnamed { .. })
    }

    /// Whether EHLO offers a keyword.
    pub(super) fn offers(&self, keyword: &str) -> bool {
        self.features.offers(keyword) && !self.policy.replies.withholds(keyword)
    }

    /// Keeps what the client sends before it is looked at. False: more than it may send, and not kept.
    pub(super) fn hear(&mut self, bytes: &[u8]) -> bool {
        let fits = self.input.len() + bytes.len() <= self.policy.early_input;
        if fits {
            self.input.extend_from_slice(bytes);
        }
        fits
    }

    /// When the session has to be over, or handed over.
    pub(super) fn session_end(&self) -> Instant {
        self.began + self.policy.session_time
    }

    /// Logs the end; what is still to be told of the client stands before it.
    pub(super) fn disconnect(&mut self) {
        lists::tell(self);
        self.log(Event::Disconnect);
    }

    /// Ends the session from our side.
    pub(super) fn close(&mut self) -> Phase {
        self.decide(if self.is_refused() { Outcome::Refused } else { Outcome::Left });
        if self.is_speaking() {
            return Phase::Leaving;
        }
        self.output.push_back(Output::Close);
        Phase::Closed
    }

    /// The client has left.
    pub(super) fn hang_up(&mut self, now: Now) -> Phase {
        let (moment, since) = self.moment;
        self.log(Event::Hangup(now.instant - since, moment));
        self.disconnect();
        self.close()
    }

    /// Refuses and closes at once. After a teaser the greeting is ended lawfully first: `220-` may only be followed by
    /// `220` (RFC 5321 section 4.2.1).
    pub(super) fn drop_with(&mut self, refusal: &Refusal) -> Phase {
        if self.teaser_sent {
            self.send_banner();
        }
        let reply = reply::dropped(refusal, &self.arrival);
        self.send(&reply);
        self.decide(Outcome::Refused);
        self.disconnect();
        self.close()
    }

    /// Says something final that is nobody's fault, and closes.
    pub(super) fn end_with(&mut self, reply: &Reply) -> Phase {
        if self.teaser_sent {
            self.send_banner();
        }
        self.send(reply);
        self.disconnect();
        self.close()
    }

    /// Sends the client away that met a ceiling.
    pub(super) fn turn_away(&mut self, ceiling: Ceiling) -> Phase {
        self.log(Event::Limited(ceiling));
        self.decide(Outcome::Limited);
        self.end_with(&reply::limited(ceiling))
    }

    /// The last line of the greeting.
    pub(super) fn send_banner(&mut self) {
        self.teaser_sent = false;
        let banner = reply::banner(&self.policy);
        self.send(&banner);
    }

    /// A test has failed. Returns what its action is, having noted the refusal it leads to.
    pub(super) fn fail(&mut self, test: Test, refusal: &Refusal, evidence: Evidence) -> Action {
        let action = match self.policy.action(test) {
            // It has failed often enough to be kept busy with it.
            Action::Enforce | Action::Drop if self.arrival.slow => Action::Tarpit,
            action => action,
        };
        self.lattice.fail(test, action == Action::Ignore);
        self.evidence.push(evidence);
        // What a list says is something that the sender's postmaster can act on, and wins.
        let better = self.refusal.is_none() || test == Test::Dnsbl;
        if matches!(action, Action::Enforce | Action::Tarpit) && better {
            self.refusal = Some(Box::new(refusal.clone()));
        }
        if self.granted && action != Action::Ignore {
            self.output.push_back(Output::Withdraw(test));
        }
        // Who is there already cannot get deeper into it, and is refused at its first recipient.
        if action == Action::Tarpit && self.slow.is_some() { Action::Enforce } else { action }
    }

    /// A test that was passed counts for this session only, after all: what was remembered of it does not hold.
    pub(super) fn take_back(&mut self, test: Test) {
        if self.lattice.forget(test) && self.granted {
            self.output.push_back(Output::Withdraw(test));
        }
    }

    /// Whether the client is to come again instead of going to the MTA, although it has failed nothing: always on an
    /// address without passes, and elsewhere when it has gone through tests that need the dialogue; unless another address of
    /// its own has.
    pub(super) fn defers(&self) -> bool {
        let deferred = self.policy.after_tests == AfterTests::Defer && !self.welcome && !self.is_linked();
        deferred || self.is_unnamed()
    }

    /// Whether a client without a pass never reaches the MTA here.
    pub(super) fn vetoes(&self) -> bool {
        self.defers() && !self.arrival.may_pass
    }

    /// Whether the client may not be given to the MTA: a test failed under an action that forbids it.
    pub(super) fn is_refused(&self) -> bool {
        self.refusal.is_some()
    }

    /// Everything that was due is decided and nothing failed: grants what was passed.
    pub(super) fn conclude(&mut self, outcome: Outcome) {
        // Nothing is remembered of nobody.
        if self.decided || self.is_unnamed() {
            return;
        }
        let comes_again = (outcome == Outcome::Deferred).then(|| self.now.unix.plus(GRACE));
        // Who was not tested has earned nothing.
        let earned = if self.welcome { None } else { self.lattice.earned(&self.arrival, comes_again) };
        if let Some(stamps) = earned {
            if self.lattice.counts_as_passed() {
                self.log(if self.lattice.was_new() { Event::PassNew } else { Event::PassOld });
            }
            self.granted = true;
            self.output.push_back(Output::Grant(stamps));
        }
        self.decide(outcome);
    }

    pub(super) fn decide(&mut self, outcome: Outcome) {
        if !self.decided && !self.is_unnamed() {
            self.decided = true;
            lists::tell(self);
            let evidence = std::mem::take(&mut self.evidence);
            let dnsbl = self.lists.as_deref().cloned();
            let said = self.said.clone();
            self.output.push_back(Output::Decided(Decision {
                outcome,
                evidence,
                dnsbl,
                tls: self.tls.as_deref().copied(),
                said,
                lasted: self.now.instant - self.began,
                failed: self.lattice.blamed(),
                exceeded: self.exceeded,
            }));
        }
    }

    /// The client owes no test: it is the MTA's at once, unless it could have no TLS there although we have a certificate.
    /// Then it gets it here, and goes to the MTA with its first recipient.
    pub(super) fn welcome(&mut self, now: Now) -> Phase {
        if self.arrival.terminates_tls && !self.features.offers("STARTTLS") {
            self.welcome = true;
            return Dialogue::enter(self, now);
        }
        self.decide(Outcome::HandedOff);
        self.hand_off(Vec::new(), None)
    }

    pub(super) fn hand_off(&mut self, replay: Vec<Bytes>, back: Option<Dialogue>) -> Phase {
        // A copy: if the handoff fails, the dialogue goes on with it.
        let pending = Bytes::copy_from_slice(&self.input);
        let (teaser_sent, tls) = (self.teaser_sent, self.tls.as_deref().copied());
        self.output.push_back(Output::Handoff(Handoff { replay, teaser_sent, pending, tls }));
        Phase::HandingOff(back)
    }

    pub(super) fn handoff_failed(&mut self, back: Option<Dialogue>, refusal: Option<Bytes>, now: Now) -> Phase {
        match (back, refusal) {
            // By this code the MTA closes, and so do we (RFC 5321 section 3.8): an open connection would be a lie.
            (Some(_), Some(own_words)) if own_words.starts_with(b"421") => {
                self.send_wire(own_words);
                self.disconnect();
                self.close()
            }
            // The client waits for the reply to the line that began the handoff.
            (Some(dialogue), refusal) => {
                match refusal {
                    Some(own_words) => self.send_wire(own_words),
                    None => self.send(&reply::MTA_AWAY),
                }
                dialogue.resume(self, now)
            }
            (None, None) => {
                self.log(Event::Limited(Ceiling::Server));
                self.end_with(&reply::limited(Ceiling::Server))
            }
            (None, Some(own_words)) => {
                if self.teaser_sent {
                    self.send_banner();
                }
                self.send_wire(own_words);
                self.disconnect();
                self.close()
            }
        }
    }
}
