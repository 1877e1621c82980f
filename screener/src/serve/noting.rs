//! What a session leaves behind in its client's history: gathered while it goes on, noted as one thing when it is over or the
//! MTA's.
//!
//! Never holds anything for a client that only waits, and never writes to the ledger before the end: thousands of clients wait at
//! a time, and most of them come once.

use crate::clock::Now;
use crate::feed::StaticAction;
use crate::ledger::{Ended, Finding, Listed, Refused, SessionNote, What};
use crate::observe;
use crate::pass::Test;
use crate::session::{Arrival, Decision, Event, Outcome, Standing};

use super::daemon::Daemon;

/// What one session has left so far.
#[derive(Debug, Default)]
pub(super) struct Notes(Option<Box<Gathered>>);

#[derive(Debug, Default)]
struct Gathered {
    events: Vec<(What, String)>,
    /// What a refused client was told.
    reply: String,
    decision: Option<Decision>,
    /// The MTA has it.
    taken: bool,
}

impl Notes {
    fn gathered(&mut self) -> &mut Gathered {
        self.0.get_or_insert_default()
    }

    /// Something happened; `line` is what the log says of it.
    pub(super) fn event(&mut self, arrival: &Arrival, event: &Event, line: String) {
        if let Event::Reject { reply, .. } = event {
            self.gathered().reply.clone_from(reply);
        }
        if let Some(what) = history_of(event) {
            self.gathered().events.push((what, detail(line, arrival)));
        }
    }

    /// It was decided; `said` is what goes out to the client with that.
    pub(super) fn decided(&mut self, decision: &Decision, said: &[u8]) {
        let gathered = self.gathered();
        if decision.outcome == Outcome::Refused && gathered.reply.is_empty() {
            gathered.reply = last_refusal(said);
        }
        gathered.decision = Some(decision.clone());
    }

    /// The MTA has taken it.
    pub(super) fn taken(&mut self) {
        self.gathered().taken = true;
    }

    /// Everything as one.
    fn sum_up(self, arrival: &Arrival, now: Now, entry: Option<Finding>) -> SessionNote {
        let Gathered { mut events, reply, decision, taken } =
            self.0.map_or_else(Gathered::default, |gathered| *gathered);
        if arrival.tagged {
            events.insert(0, (What::Tagged, String::new()));
        }
        let decided = decision.as_ref().map(|decision| decision.outcome);
        let outcome = match decided {
            _ if taken => Ended::HandedOff,
            Some(Outcome::HandedOff) => Ended::NotTaken,
            Some(Outcome::Deferred) => Ended::Deferred,
            Some(Outcome::Refused) => Ended::Refused,
            Some(Outcome::Limited) => Ended::Limited,
            Some(Outcome::Left) | None => Ended::Left,
        };
        let name = decision.as_ref().and_then(|decision| decision.said.helo.clone());
        let refused = decision.filter(|_| outcome == Ended::Refused).map(|decision| Refused {
            at: now.unix,
            since: now.unix,
            times: 1,
            evidence: entry.into_iter().chain(findings(&decision)).collect(),
            reply,
            name: decision.said.helo,
            sender: decision.said.sender,
            recipients: decision.said.recipients,
        });
        SessionNote {
            began: arrival.id.began(),
            ended: now.unix,
            server: arrival.server,
            outcome,
            name,
            refused,
            events,
        }
    }
}

impl Daemon {
    /// Notes what a session leaves behind, once.
    pub(super) fn noted(&self, arrival: &Arrival, notes: Notes) {
        // Nothing is remembered of nobody.
        if matches!(arrival.standing, Standing::Unnamed { .. }) {
            return;
        }
        let denied = matches!(arrival.standing, Standing::Denied | Standing::Tarpitted);
        let entry = if denied { self.entry_against(arrival) } else { None };
        let note = notes.sum_up(arrival, Now::read(), entry);
        self.ledger.note_session(self.key(arrival.client.ip()), note);
    }

    /// The static entry that speaks against a client, as evidence.
    fn entry_against(&self, arrival: &Arrival) -> Option<Finding> {
        let statics = self.statics();
        let found = statics.lookup(arrival.client.ip())?;
        let StaticAction::Deny(action) = found.action else { return None };
        let comment = found.comment.map_or_else(String::new, |comment| format!(" ({comment})"));
        let reason = format!("{} of {} from {}{comment}", action.name(), found.prefix, found.source);
        Some(Finding { test: "deny".to_owned(), weight: 1, reason, lists: Vec::new() })
    }
}

fn findings(decision: &Decision) -> impl Iterator<Item = Finding> {
    decision.evidence.iter().map(|evidence| {
        let report = decision.dnsbl.as_ref().filter(|_| evidence.test == Test::Dnsbl);
        let hits = report.iter().flat_map(|report| &report.hits);
        Finding {
            test: evidence.test.name().to_owned(),
            weight: evidence.weight,
            reason: evidence.reason.clone(),
            lists: hits.map(|hit| Listed { list: hit.list.clone(), weight: hit.weight }).collect(),
        }
    })
}

/// The last reply among these lines, if it is a refusal.
fn last_refusal(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    text.lines().next_back().filter(|line| line.starts_with(['4', '5'])).unwrap_or_default().to_owned()
}

/// What of an event belongs into the client's history; `None`: nothing that would be asked for later, or what the contact itself
/// tells.
fn history_of(event: &Event) -> Option<What> {
    Some(match event {
        Event::Pregreet(..) | Event::EarlyHello(..) => What::Pregreet,
        Event::DnsblRank(_) => What::Dnsbl,
        Event::Pipelining(..) => What::Pipelining,
        Event::NonSmtpCommand(..) => What::NonSmtpCommand,
        Event::BareNewline(_) => What::BareNewline,
        Event::CountLimit(_) | Event::LengthLimit(_) => What::CommandLimit,
        Event::TimeLimit(_) => What::TimedOut,
        Event::TlsFailed(_) => What::TlsFailed,
        Event::Reject { reply, .. } if reply.starts_with('4') => What::Deferred,
        Event::Reject { .. } | Event::Denylisted => What::Refused,
        Event::PassNew | Event::PassOld => What::Passed,
        Event::Linked(..) => What::Linked,
        Event::Hangup(..) => What::Hangup,
        Event::Limited(_) => What::Limited,
        Event::Tarpit => What::Tarpitted,
        Event::Connect
        | Event::Allowlisted
        | Event::AllowlistVeto
        | Event::Disconnect
        | Event::DataWithoutRcpt(_)
        | Event::TlsEstablished(_)
        | Event::KeywordsWithheld(_)
        | Event::TarpitFull => return None,
    })
}

/// The log line without the client's own address and port, and without the session's name: the history stands under the address
/// already, and without the rest the same thing again is the same event. The last reply is kept with the refusal, as it was sent.
fn detail(mut line: String, arrival: &Arrival) -> String {
    line = line.replace(&format!("; session={}", arrival.id), "");
    let endpoint = observe::endpoint(arrival.client);
    while let Some(at) = line.find(&endpoint) {
        let before = &line[..at];
        let start = [" from ", " for ", " "].iter().find_map(|word| before.strip_suffix(word)).unwrap_or(before).len();
        line.replace_range(start..at + endpoint.len(), "");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixTime;
    use crate::session::{DnsblHit, DnsblReport, Evidence, Said, SessionId};

    fn arrival() -> Arrival {
        Arrival { id: SessionId(1_000 << 16 | 7), ..Arrival::of_a_stranger() }
    }

    fn refusal() -> Decision {
        let hit = DnsblHit { list: "bl.example".to_owned(), weight: 4, ..DnsblHit::default() };
        Decision {
            outcome: Outcome::Refused,
            evidence: vec![Evidence { test: Test::Dnsbl, weight: 4, reason: "listed".into(), remedy: "ask".into() }],
            dnsbl: Some(DnsblReport { score: 4, hits: vec![hit], ..DnsblReport::default() }),
            tls: None,
            said: Said { helo: Some("spam.example".to_owned()), sender: None, recipients: 1, commands: 3 },
            lasted: std::time::Duration::ZERO,
            failed: crate::pass::TestSet::EMPTY,
            exceeded: false,
        }
    }

    #[test]
    fn a_client_that_only_waits_holds_a_word() {
        assert_eq!(size_of::<Notes>(), size_of::<usize>());
    }

    #[test]
    fn a_refusal_is_kept_with_its_evidence_and_the_reply() {
        let mut notes = Notes::default();
        let line =
            format!("NOQUEUE: reject: RCPT from [203.0.113.5]:34209: 550 5.7.1 blocked; session={}", arrival().id);
        let (reply, helo) = ("550 5.7.1 blocked".to_owned(), "spam.example".into());
        let event = Event::Reject { reply, from: "a@b".into(), to: "c@d".into(), proto: "ESMTP", helo };
        notes.event(&arrival(), &Event::Connect, String::new());
        notes.event(&arrival(), &event, line);
        notes.decided(&refusal(), b"");
        let now = Now { unix: UnixTime(1_006), ..Now::read() };
        let note = notes.sum_up(&arrival(), now, None);
        assert_eq!((note.began, note.ended, note.outcome), (UnixTime(1_000), UnixTime(1_006), Ended::Refused));
        assert_eq!(note.name.as_deref(), Some("spam.example"));
        assert_eq!(note.events, [(What::Refused, "NOQUEUE: reject: RCPT: 550 5.7.1 blocked".to_owned())]);
        let refused = note.refused.unwrap();
        assert_eq!((refused.reply.as_str(), refused.recipients), ("550 5.7.1 blocked", 1));
        assert_eq!(refused.evidence[0].lists, [Listed { list: "bl.example".to_owned(), weight: 4 }]);
    }

    #[test]
    fn the_last_words_of_a_drop_are_the_reply_and_a_greeting_is_none() {
        let dropped = |said: &[u8]| {
            let mut notes = Notes::default();
            notes.decided(&refusal(), said);
            notes.sum_up(&arrival(), Now::read(), None).refused.unwrap().reply
        };
        assert_eq!(dropped(b"220 mx ESMTP\r\n521 5.5.1 Protocol error\r\n"), "521 5.5.1 Protocol error");
        assert_eq!(dropped(b"220 mx ESMTP\r\n"), "");
    }

    #[test]
    fn what_the_mta_did_not_take_was_not_handed_off() {
        let end = |decision: Option<Decision>, taken: bool| {
            let mut notes = Notes::default();
            if let Some(decision) = decision {
                notes.decided(&decision, b"");
            }
            if taken {
                notes.taken();
            }
            notes.sum_up(&arrival(), Now::read(), None).outcome
        };
        let handed_off = Decision { outcome: Outcome::HandedOff, ..refusal() };
        assert_eq!(end(Some(handed_off.clone()), true), Ended::HandedOff);
        assert_eq!(end(Some(handed_off), false), Ended::NotTaken);
        assert_eq!(end(None, false), Ended::Left);
    }
}
