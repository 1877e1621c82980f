//! What is known about one client, put together for whoever asks: is it on the list, why, since when, what did it do, and what
//! will happen when it comes again. And the erasing of that.
//!
//! Holds the sentences. Decides nothing: what a session would meet is asked of the same places as a session asks.

use std::net::IpAddr;
use std::sync::Arc;

use crate::client::ClientKey;
use crate::clock::{Now, UnixTime};
use crate::config::Tagged;
use crate::control::api_explain::{self, Explanation, ForgetRequest, Forgotten};
use crate::control::{Refusal, api_offender, api_pool};
use crate::feed::{DenyAction, Match, StaticAction};
use crate::ledger::{Contact, Event, Finding, History, Origin, Pass, Refused, What};
use crate::pass::{Stamps, Test};
use crate::session::AfterTests;

use super::answers::{entry, stamp};
use super::daemon::{Daemon, Mode};
use super::live::Live;

impl Daemon {
    /// For `explain`.
    pub(super) fn explained(&self, address: IpAddr) -> Explanation {
        let (key, live) = (self.key(address), self.live());
        let pass = self.ledger.pass(key);
        let valid_until = pass.as_ref().and_then(|pass| self.valid_until(pass));
        let history = self.ledger.history(key);
        let let_through = self.let_through(key, history.as_ref());
        let pool = self.membership_shown(address);
        let offender = self.offender(address);
        let statics = self.statics();
        let found = statics.lookup(address.to_canonical());
        let deny = found.as_ref().and_then(|found| match found.action {
            StaticAction::Permit => None,
            StaticAction::Deny(action) => Some(action),
        });
        // A tagged client is let in and screened; a dry run changes nothing.
        let verdict = match (&found, deny) {
            (Some(_), None) => "permit",
            (_, Some(DenyAction::Drop | DenyAction::Reject)) => "deny",
            (_, Some(DenyAction::Tag)) if offender.as_ref().is_none_or(|offender| offender.until.is_none()) => "screen",
            _ if valid_until.is_some() || pool.as_ref().is_some_and(|pool| pool.passed_until.is_some()) => "pass",
            // What is static, and a pass, outrank the offence ladder; members of a pool do not climb.
            _ if pool.is_none() && offender.as_ref().is_some_and(|offender| offender.until.is_some()) => "deny",
            _ => "screen",
        };
        let told = Told {
            daemon: self,
            live: &live,
            key,
            found: found.as_ref(),
            deny,
            pass: pass.as_ref(),
            pool: pool.as_ref(),
            offender: offender.as_ref().filter(|_| pool.is_none()),
            valid_until,
            history: history.as_ref(),
        };
        let (answer, next) = told.sentences(address);
        let mut summary = format!("{answer} {next}");
        if let Some(happened) = happened(history.as_ref(), let_through) {
            summary = format!("{summary} {happened}");
        }
        let last_seen = history.as_ref().map(|history| history.last_seen).max(let_through);
        let known = history.as_ref();
        Explanation {
            client: key.to_string(),
            network: key.network(self.key_length),
            on_list: matches!(verdict, "permit" | "pass"),
            verdict: verdict.to_owned(),
            action: deny,
            answer,
            next,
            summary,
            hits: found.as_ref().map_or(0, |found| found.hits),
            entry: found.as_ref().map(entry),
            tag: deny == Some(DenyAction::Tag),
            pass: pass.as_ref().map(|pass| self.pass_shown(key, pass)),
            linked: known.and_then(linked),
            first_seen: known.map(|history| history.first_seen).or(let_through).map(stamp),
            last_seen: last_seen.map(stamp),
            let_through: let_through.map(stamp),
            last_used: pass.as_ref().and_then(|_| self.last_used(key)).map(stamp),
            sessions: known.map_or(0, |history| history.sessions),
            handed_off: known.map_or(0, |history| history.handed_off),
            connected: self.limits.of(key),
            names: known.iter().flat_map(|history| &history.names).map(named).collect(),
            contacts: known.iter().flat_map(|history| &history.contacts).map(|it| contact(&live, it)).collect(),
            refusals: known.iter().flat_map(|history| &history.refusals).map(refused).collect(),
            drops: known.iter().flat_map(|history| &history.drops).map(dropped).collect(),
            events: known.iter().flat_map(|history| &history.events).map(happening).collect(),
            pool: pool.clone(),
            offender: offender.clone(),
        }
    }

    /// When the kernel last let a client through by its pass.
    fn let_through(&self, key: ClientKey, history: Option<&History>) -> Option<UnixTime> {
        let by_kernel = self.kernel.as_ref().and_then(|kernel| kernel.pass_last_used(key).ok().flatten());
        by_kernel.max(history.and_then(|history| history.let_through))
    }

    /// When a client's pass was last used: by the kernel, or by a session that was handed over.
    pub(super) fn last_used(&self, key: ClientKey) -> Option<UnixTime> {
        let history = self.ledger.history(key);
        let served = history.as_ref().and_then(|history| {
            let served = history.contacts.iter().filter(|it| it.outcome == crate::ledger::Ended::HandedOff);
            served.map(|it| it.at).max()
        });
        self.let_through(key, history.as_ref()).max(served)
    }

    /// For `forget`. Waits for the disk.
    pub(super) fn forgotten(self: &Arc<Self>, request: &ForgetRequest) -> Result<Forgotten, Refusal> {
        let (address, key) = (request.address.to_canonical(), self.key(request.address));
        let history = self.ledger.history(key);
        let mut erased = Vec::new();
        if self.ledger.forget(key)
            && let Some(history) = history
        {
            let sessions = counted(history.sessions, "session");
            let (first, last) = (stamp(history.first_seen), stamp(history.last_seen));
            erased.push(format!("what it did from {first} to {last}, {sessions}"));
        }
        // Without it the next look at the kernel's passes would bring it back.
        let used = self.kernel.as_ref().and_then(|kernel| kernel.forget_pass_use(key).ok()).unwrap_or(false);
        if used {
            erased.push("when the kernel last let it through".to_owned());
        }
        if request.pass && self.pass_taken(address).had {
            erased.push("its pass".to_owned());
        }
        if erased.is_empty() {
            return Err(Refusal::Missing(format!("nothing is known of {key}")));
        }
        let not_written = self.ledger.flush().err().map(|error| error.to_string());
        let (client, network) = (key.to_string(), key.network(self.key_length).to_string());
        Ok(Forgotten { client, network, erased, remains: self.remains_of(address, key), not_written })
    }

    /// What else here holds a client's address.
    fn remains_of(&self, address: IpAddr, key: ClientKey) -> Vec<String> {
        let mut remains = Vec::new();
        if self.ledger.pass(key).is_some() {
            remains.push("its pass: `screener forget --pass` or `screener pass del` takes it away".to_owned());
        }
        let connected = self.limits.of(key);
        if connected > 0 {
            remains.push(format!(
                "{} that it has now: what they do is noted when they end",
                counted(connected as u64, "session")
            ));
        }
        if self.live.load().config.ledger.shared.is_some() {
            remains.push(
                "with the other hosts of ledger.shared: their own histories (`screener forget` there), for 90 days that its pass \
                 was taken away, and for three that it was taken off the offence ladder, so that neither comes back"
                    .to_owned(),
            );
        }
        let network = key.network(self.key_length);
        let pools = self.pools.status();
        let named = pools.iter().filter(|pool| pool.passed_by.is_some_and(|by| network.contains(&by)));
        remains.extend(named.map(|pool| {
            format!("the pool {0}, which passed by it: `screener pool forget {0}` takes that away", pool.domain)
        }));
        let statics = self.statics();
        let entries = statics.lookup(address).into_iter().filter(|found| network.contains(&found.prefix));
        remains.extend(entries.map(|found| format!("the entry {} from {}", found.prefix, found.source)));
        remains
    }
}

/// Everything that the sentences are made of.
struct Told<'a> {
    daemon: &'a Daemon,
    live: &'a Live,
    key: ClientKey,
    found: Option<&'a Match<'a>>,
    deny: Option<DenyAction>,
    pass: Option<&'a Pass>,
    pool: Option<&'a api_pool::Membership>,
    /// Where it stands on the offence ladder, if that may be held against it.
    offender: Option<&'a api_offender::Offender>,
    valid_until: Option<UnixTime>,
    history: Option<&'a History>,
}

impl Told<'_> {
    /// Is it on the list; and what will happen.
    fn sentences(&self, address: IpAddr) -> (String, String) {
        if self.live.config.listen.is_proxy(address.to_canonical()) {
            return (
                "Not a client. It is a proxy of listen.proxy_from.".to_owned(),
                "Each of its connections must begin with a PROXY header, and whoever that names is screened."
                    .to_owned(),
            );
        }
        let listed = self.found.map_or_else(String::new, |found| {
            let comment = found.comment.map_or_else(String::new, |comment| format!(" ({comment})"));
            let origin = found.source;
            format!("{} from {origin}{comment}, since {}", found.prefix, stamp(found.added))
        });
        match (self.found, self.deny) {
            (Some(_), None) => (
                format!("On the list. Permitted by {listed}."),
                "When it comes, it goes straight to the MTA, whatever else is known of it.".to_owned(),
            ),
            (Some(found), Some(action @ (DenyAction::Drop | DenyAction::Reject))) => {
                (format!("On the deny list. Denied by {listed} ({} so far).", found.hits), self.kept_out(action))
            }
            (Some(_), Some(DenyAction::Tag)) if self.offender.is_some_and(|offender| offender.until.is_some()) => {
                self.unlisted()
            }
            (Some(_), Some(DenyAction::Tag)) => {
                let next = match self.live.config.tests.tagged {
                    Tagged::Tarpit => "When it comes, it is answered slowly, and refused in the end.",
                    Tagged::Screen => {
                        "When it comes, it is let in, does every test again each time, and earns no pass."
                    }
                };
                (format!("Not on the list. Tagged by {listed}."), next.to_owned())
            }
            (Some(found), Some(DenyAction::Count)) => {
                let (answer, next) = self.unlisted();
                (format!("{answer} A dry run covers it, {listed}: {} SYNs counted, nothing else.", found.hits), next)
            }
            (None, _) => self.unlisted(),
        }
    }

    fn kept_out(&self, action: DenyAction) -> String {
        match (&self.daemon.kernel, action) {
            (Some(_), DenyAction::Drop) => "When it comes, its SYNs are dropped without an answer.".to_owned(),
            (Some(_), _) => "When it comes, its connections are refused with a RST.".to_owned(),
            (None, _) => "When it comes, it is refused with 521 at once.".to_owned(),
        }
    }

    fn unlisted(&self) -> (String, String) {
        if let (Some(pass), Some(until)) = (self.pass, self.valid_until) {
            return (self.passed(pass), self.served(pass, until));
        }
        if let Some((pool, until)) = self.pool.and_then(|pool| Some((pool, pool.passed_until.as_ref()?))) {
            let by = pool.passed_by.map_or_else(String::new, |by| format!(" by {by}"));
            let (domain, prefix) = (&pool.domain, pool.prefix);
            return (
                format!("On the list. It belongs to the pool {domain} ({prefix}), which has passed{by}."),
                format!("When it comes, it is given to the MTA at once, until {until}."),
            );
        }
        self.held().unwrap_or_else(|| (self.not_listed(), self.screened()))
    }

    /// The same for somebody on the offence ladder.
    fn held(&self) -> Option<(String, String)> {
        let offender = self.offender?;
        if let Some(next) = offender.kept_out() {
            return Some((format!("Not on the list. {}", offender.standing()), next));
        }
        let slowly = if offender.rung == "tarpitted" { " If it fails again it is answered slowly." } else { "" };
        Some((format!("{} {}", self.not_listed(), offender.standing()), format!("{}{slowly}", self.screened())))
    }

    fn passed(&self, pass: &Pass) -> String {
        let comment = pass.comment.as_ref().map_or_else(String::new, |comment| format!(" ({comment})"));
        let since = stamp(pass.created);
        let linked = self.linked_with();
        match pass.origin {
            Origin::Manual => format!("On the list. The operator gave it a pass{comment}, at {since}.{linked}"),
            Origin::Pool => format!("On the list. It has a copy of its pool's pass{comment}, since {since}.{linked}"),
            Origin::Shared => {
                let host = pass.comment.as_ref().map_or_else(String::new, |host| format!(" ({host})"));
                format!("On the list. It has passed on another MX host{host}, since {since}.{linked}")
            }
            Origin::Screened => format!("On the list. It has passed the tests{comment}, since {since}.{linked}"),
        }
    }

    fn served(&self, pass: &Pass, until: UnixTime) -> String {
        let in_kernel = self.daemon.kernel.as_ref().and_then(|kernel| kernel.pass_until(self.key).ok().flatten());
        let how = match self.daemon.mode {
            Mode::Steer if in_kernel.is_some() => "it goes straight to the MTA's own socket",
            Mode::Steer => "it reaches the daemon, which hands it to the MTA without a wait",
            Mode::Front => "it is relayed to the MTA without a wait",
        };
        let enabled = self.live.policy.enabled();
        let due: Vec<_> = enabled.iter().filter(|&test| pass.stamps.get(test) == Some(until)).map(Test::name).collect();
        format!("When it comes, {how}, until {}; then {} is due again.", stamp(until), due.join(", "))
    }

    fn not_listed(&self) -> String {
        let Some(pass) = self.pass else {
            let why = match self.history {
                None => " Nothing is known of it.".to_owned(),
                Some(history) => last_refusal(history),
            };
            return format!("Not on the list. It has no pass.{}{why}", self.linked_with());
        };
        let (enabled, now) = (self.live.policy.enabled(), Now::read().unix);
        let owed = pass.stamps.owed(enabled, now).iter().map(|test| match pass.stamps.get(test) {
            Some(until) => format!("{test} expired at {}", stamp(until)),
            None => format!("{test} was never passed"),
        });
        let owed: Vec<_> = owed.collect();
        let why = self.history.map_or_else(String::new, last_refusal);
        format!("Not on the list any more. Its pass does not cover everything: {}.{why}", owed.join(", "))
    }

    fn screened(&self) -> String {
        let enabled = self.live.policy.enabled();
        let stamps = self.pass.map(|pass| pass.stamps).unwrap_or_default().merged(&self.pooled());
        let owed: Vec<_> = stamps.owed(enabled, Now::read().unix).iter().map(Test::name).collect();
        let then = match self.live.policy.after_tests {
            AfterTests::Relay => "it goes on to the MTA in the same session",
            AfterTests::Defer => "it hears 450 at its recipient, and is served when it comes again",
        };
        let listen = &self.live.config.listen;
        let mut where_earned = String::new();
        if !listen.pass_on.is_empty() {
            let places: Vec<_> = listen.pass_on.iter().map(|place| place.ip.to_string()).collect();
            where_earned = format!(" A pass is earned only at {}.", places.join(", "));
        }
        format!("When it comes, it would be screened ({}): if it passes, {then}.{where_earned}", owed.join(", "))
    }

    /// What its pool has passed of the tests.
    fn pooled(&self) -> Stamps {
        self.daemon.pools.find(self.key.address()).map(|pool| pool.stamps).unwrap_or_default()
    }

    fn linked_with(&self) -> String {
        self.history.and_then(linked).map_or_else(String::new, |linked| format!(" It is one sender with {linked}."))
    }
}

/// The last refusal, in a sentence.
fn last_refusal(history: &History) -> String {
    let Some(refused) = history.refusals.last() else { return String::new() };
    let times = if refused.times > 1 { format!(" {} times, last", refused.times) } else { String::new() };
    let why: Vec<_> = refused.evidence.iter().map(|finding| format!("{}: {}", finding.test, finding.reason)).collect();
    format!(" It was refused{times} at {} ({}).", stamp(refused.at), why.join("; "))
}

/// With which other address the client was linked last, and by what.
fn linked(history: &History) -> Option<String> {
    history
        .events
        .iter()
        .rev()
        .find(|event| event.what == What::Linked)
        .map(|event| event.detail.trim_start_matches("LINKED with ").to_owned())
}

/// What the client did, in a few sentences; `None`: nothing is known.
fn happened(history: Option<&History>, let_through: Option<UnixTime>) -> Option<String> {
    let through = let_through.map(|at| format!("The kernel last let it through at {}.", stamp(at)));
    let Some(history) = history else { return through };
    let mut sentences = vec![match history.sessions {
        0 => "It never reached the daemon.".to_owned(),
        1 => "It reached the daemon once.".to_owned(),
        many => format!("It reached the daemon {many} times."),
    }];
    if let Some(dropped) = history.drops.last() {
        let packets = history.drops.iter().map(|dropped| dropped.packets).sum();
        sentences.push(format!(
            "The kernel kept out about {}, last at {}.",
            counted(packets, "SYN"),
            stamp(dropped.at)
        ));
    }
    sentences.extend(through);
    if let Some(event) = history.events.back() {
        let times = if event.times > 1 { format!(" ({} times)", event.times) } else { String::new() };
        let detail = if event.detail.is_empty() { json_name(event.what) } else { event.detail.clone() };
        sentences.push(format!("The last was at {}{times}: {detail}.", stamp(event.at)));
    }
    Some(sentences.join(" "))
}

fn counted(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

fn named(name: &crate::ledger::Name) -> api_explain::Named {
    api_explain::Named { name: name.name.clone(), at: stamp(name.at), times: name.times }
}

fn contact(live: &Live, contact: &Contact) -> api_explain::Contact {
    api_explain::Contact {
        server: contact.server.to_string(),
        earns_pass: live.config.listen.earns_pass(contact.server),
        outcome: json_name(contact.outcome),
        since: stamp(contact.since),
        at: stamp(contact.at),
        times: contact.times,
    }
}

fn refused(refused: &Refused) -> api_explain::Refused {
    let finding = |finding: &Finding| api_explain::Finding {
        test: finding.test.clone(),
        weight: finding.weight,
        reason: finding.reason.clone(),
        lists: finding.lists.iter().map(|listed| (listed.list.clone(), listed.weight)).collect(),
    };
    api_explain::Refused {
        at: stamp(refused.at),
        since: stamp(refused.since),
        times: refused.times,
        evidence: refused.evidence.iter().map(finding).collect(),
        reply: refused.reply.clone(),
        name: refused.name.clone(),
        sender: refused.sender.clone(),
        recipients: refused.recipients,
    }
}

fn dropped(dropped: &crate::ledger::Dropped) -> api_explain::Dropped {
    api_explain::Dropped {
        prefix: dropped.prefix,
        source: dropped.source.clone(),
        since: stamp(dropped.since),
        at: stamp(dropped.at),
        packets: dropped.packets,
    }
}

fn happening(event: &Event) -> api_explain::Happening {
    api_explain::Happening {
        at: stamp(event.at),
        times: event.times,
        what: json_name(event.what),
        detail: event.detail.clone(),
    }
}

/// The name in JSON, which is also the one in the ledger's file.
fn json_name(value: impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}
