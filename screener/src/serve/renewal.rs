//! Renewal: whose pass is in use and expires soon, about that the DNS lists are asked again, so that regular correspondents are
//! never screened a second time.
//!
//! Holds when that is due and what follows. Never asks for anybody who waits, and asks about few at a time.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{debug, info};

use crate::client::{ClientKey, Ipv6KeyLength};
use crate::clock::{Now, UnixTime};
use crate::ledger::{Origin, Pass, What};
use crate::pass::{Stamps, Test};
use crate::session::Policy;

use super::daemon::Daemon;

/// How often passes that expire soon are looked for.
const SWEEP: Duration = Duration::from_secs(20);
/// How many passes are looked at before others may use the table.
const PAGE: usize = 4096;
/// How many clients are asked about at a time: renewal must never crowd out those who wait.
const AT_A_TIME: usize = 16;
/// A pass is renewed at most so long before it expires.
const EARLIEST: Duration = Duration::from_secs(900);
/// A client that has not been seen for so long is no regular correspondent.
const IN_USE: Duration = Duration::from_secs(3600);

/// The last address of each IPv6 client that has passed here: its key stands for a whole network, and lists know addresses.
#[derive(Debug, Default)]
pub(super) struct LastAddresses(Mutex<HashMap<ClientKey, IpAddr>>);

impl LastAddresses {
    /// A client has passed.
    pub(super) fn passed(&self, client: ClientKey, address: IpAddr) {
        if matches!(client, ClientKey::V6(_)) {
            self.map().insert(client, address);
        }
    }

    /// Which address to ask about; `None`: it has not passed since the daemon began.
    fn of(&self, client: ClientKey, length: Ipv6KeyLength) -> Option<IpAddr> {
        match client {
            ClientKey::V6(_) if length.bits() < 128 => self.map().get(&client).copied(),
            whole => Some(whole.address()),
        }
    }

    /// Forgets the others. Asks with nothing locked: sessions write here.
    fn keep(&self, wanted: impl Fn(ClientKey) -> bool) {
        let mut old: Vec<_> = self.map().keys().copied().collect();
        old.retain(|&client| !wanted(client));
        let mut map = self.map();
        for client in old {
            map.remove(&client);
        }
        let room = map.len() * 2;
        map.shrink_to(room);
    }

    fn map(&self) -> MutexGuard<'_, HashMap<ClientKey, IpAddr>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Clients that need not be asked about for a while: an answer that holds for a short time only makes a pass that always
/// expires soon.
type Rested = HashMap<ClientKey, Rest>;

/// Until when a client is left in peace, and the pass that it has: one that expires sooner is another one.
struct Rest {
    until: Instant,
    expires: UnixTime,
}

fn is_resting(rested: &Rested, client: ClientKey, pass: &Pass) -> bool {
    rested.get(&client).is_some_and(|rest| pass.stamps.get(Test::Dnsbl) >= Some(rest.expires))
}

/// Asks about clients again whose pass is in use and expires soon.
pub(super) async fn renew(daemon: Arc<Daemon>) {
    let work = async {
        let mut rested = Rested::new();
        loop {
            tokio::time::sleep(SWEEP).await;
            let begun = Instant::now();
            rested.retain(|_, rest| rest.until > begun);
            let due;
            (due, rested) = {
                let (daemon, rested) = (Arc::clone(&daemon), std::mem::take(&mut rested));
                let look = move || (due_now(&daemon, &rested), rested);
                tokio::task::spawn_blocking(look).await.unwrap_or_default()
            };
            if due.is_empty() {
                continue;
            }
            debug!("{} passes are renewed", due.len());
            // Evenly over the time until the next look.
            let pause = SWEEP / u32::try_from(due.len().div_ceil(AT_A_TIME)).unwrap_or(u32::MAX);
            for clients in due.chunks(AT_A_TIME) {
                let asking = clients.iter().map(|&client| {
                    let daemon = Arc::clone(&daemon);
                    tokio::spawn(async move { (client, renew_one(&daemon, client).await) })
                });
                let asking: Vec<_> = asking.collect();
                tokio::time::sleep(pause).await;
                for task in asking {
                    // A task that broke has said so.
                    if let Ok((client, Some(rest))) = task.await {
                        rested.insert(client, rest);
                    }
                }
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = daemon.retired.cancelled() => {}
    }
}

/// The clients whose pass is to be renewed now.
fn due_now(daemon: &Daemon, rested: &Rested) -> Vec<ClientKey> {
    let live = daemon.live();
    let stamp = |client| daemon.ledger.stamps(client).and_then(|stamps| stamps.get(Test::Dnsbl));
    let now = Now::read().unix;
    daemon.last_addresses.keep(|client| stamp(client).is_some_and(|until| until > now));
    let mut due = Vec::new();
    let mut after = None;
    loop {
        let page = daemon.ledger.passes_after(after, PAGE);
        let Some((last, _)) = page.last() else { return due };
        after = Some(*last);
        let now = Now::read().unix;
        let wanted = page
            .iter()
            .filter(|(client, pass)| !is_resting(rested, *client, pass))
            .filter(|(client, pass)| is_due(daemon, &live.policy, *client, pass, now));
        due.extend(wanted.map(|(client, _)| *client));
    }
}

fn is_due(daemon: &Daemon, policy: &Policy, client: ClientKey, pass: &Pass, now: UnixTime) -> bool {
    let Some(until) = pass.stamps.get(Test::Dnsbl).filter(|&until| until > now) else { return false };
    let longest = policy.dnsbl.as_ref().map_or(EARLIEST, |dnsbl| dnsbl.max_ttl);
    let own = matches!(pass.origin, Origin::Screened | Origin::Shared);
    let left = until.since(now);
    // What holds for longer than anything may was given before the clock was set back.
    if !own || (left > moment(client, longest) && left <= longest) {
        return false;
    }
    if daemon.last_addresses.of(client, daemon.key_length).is_none() {
        return false;
    }
    // The lists' is the one stamp that has to be renewed: where another expires first, the client is screened anyway.
    let other_first = pass.stamps.complete_until(policy.enabled()).is_none_or(|complete| complete < until);
    let seen_by_kernel = daemon.kernel.as_ref().and_then(|kernel| kernel.pass_last_used(client).ok().flatten());
    let seen_by_us = || daemon.ledger.history(client).filter(|history| history.sessions > 1).map(|it| it.last_seen);
    let seen = seen_by_kernel.max(seen_by_us());
    !other_first && seen.is_some_and(|seen| now.since(seen) <= IN_USE)
}

/// How long before its expiry a client's pass is renewed: another time for each client, so that those who came together
/// are not asked about together; never so late that the next look would miss it.
fn moment(client: ClientKey, longest: Duration) -> Duration {
    thread_local!(static HASHER: RandomState = RandomState::new());
    let share = HASHER.with(|hasher| hasher.hash_one(client)) % 1000;
    let earliest = EARLIEST.min(longest / 2);
    earliest.mul_f64(1.0 / 3.0 + share as f64 / 1500.0).max(SWEEP * 3 / 2)
}

/// How long a client need not be asked about whose answers hold for `ttl` from now on: until its moment, and for half of that
/// time in any case, but for the last look.
fn rest(ttl: Duration, moment: Duration) -> Duration {
    ttl.saturating_sub(moment.min(ttl / 2).max(SWEEP * 3 / 2))
}

/// Returns whether the client need not be asked about for a while; `None`: the next look decides that.
async fn renew_one(daemon: &Arc<Daemon>, client: ClientKey) -> Option<Rest> {
    let live = daemon.live();
    let (policy, lists) = (live.policy.dnsbl.as_ref()?, live.lists.as_ref()?);
    let address = daemon.last_addresses.of(client, daemon.key_length)?;
    let mut check = lists.start_fresh(address);
    let report = check.complete().await;
    if report.score >= policy.threshold {
        let why = format!("at renewal: DNSBL rank {}: {}", report.score, report.arithmetic());
        if daemon.take_pass_back(client, address, What::Dnsbl, why.clone()) {
            info!("{client}: pass withdrawn {why}");
        }
        return None;
    }
    // It may have been taken away while the lists were asked.
    let expires = daemon.ledger.stamps(client)?.get(Test::Dnsbl)?;
    let Now { instant, unix: now } = Now::read();
    // What nobody vouches for is not prolonged, and asked for again a few times only.
    let Some(ttl) = report.ttl.filter(|_| !report.blind && report.without_best_ally < policy.threshold) else {
        return Some(Rest { until: instant + expires.since(now) / 2, expires });
    };
    let ttl = ttl.clamp(policy.min_ttl, policy.max_ttl);
    let mut stamps = Stamps::default();
    stamps.set(Test::Dnsbl, Some(now.plus(ttl)));
    daemon.ledger.grant(client, &stamps, Origin::Screened, None, now);
    daemon.metrics.pass_renewed();
    Some(Rest { until: instant + rest(ttl, moment(client, policy.max_ttl)), expires: now.plus(ttl) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_pass_is_renewed_late_in_its_life_and_in_time_however_short_that_is() {
        for last in 0..=255 {
            let moment = moment(ClientKey::V4([192, 0, 2, last].into()), HOUR);
            for seconds in [60, 90, 300, 900, 3600] {
                let ttl = Duration::from_secs(seconds);
                let rest = rest(ttl, moment);
                assert!(rest >= ttl / 2 || ttl - rest <= SWEEP * 3 / 2, "{ttl:?}: again after {rest:?}");
                assert!(ttl - rest >= SWEEP * 3 / 2, "{ttl:?}: the look after {rest:?} may come too late");
            }
        }
        assert_eq!(rest(Duration::from_secs(5), HOUR), Duration::ZERO);
    }

    #[test]
    fn a_client_rests_with_the_pass_that_it_has_and_not_with_a_shorter_one() {
        let client = ClientKey::V4([192, 0, 2, 7].into());
        let rested = Rested::from([(client, Rest { until: Instant::now(), expires: UnixTime(1000) })]);
        let mut pass =
            Pass { stamps: Stamps::default(), created: UnixTime(1), origin: Origin::Screened, comment: None };
        for (expires, rests) in [(None, false), (Some(999), false), (Some(1000), true), (Some(2000), true)] {
            pass.stamps.set(Test::Dnsbl, expires.map(UnixTime));
            assert_eq!(is_resting(&rested, client, &pass), rests, "{expires:?}");
        }
    }

    #[test]
    fn an_ipv6_client_is_asked_about_by_the_address_that_it_has() {
        let (seen, length) = (LastAddresses::default(), Ipv6KeyLength::default());
        let address: IpAddr = "2001:db8:1:2::25".parse().unwrap();
        let client = ClientKey::of(address, length);
        assert_eq!(seen.of(client, length), None, "nobody knows which");
        seen.passed(client, address);
        assert_eq!(seen.of(client, length), Some(address));
        let v4: IpAddr = [192, 0, 2, 7].into();
        assert_eq!(seen.of(ClientKey::of(v4, length), length), Some(v4));
        seen.keep(|_| false);
        assert_eq!(seen.of(client, length), None);
        let whole = Ipv6KeyLength::try_from(128).unwrap();
        assert_eq!(seen.of(ClientKey::of(address, whole), whole), Some(address));
    }
}
