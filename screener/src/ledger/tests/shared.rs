//! Several ledgers that share: whatever happens in whatever order, they come to the same, and nothing deleted comes back.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{DAY, NOW, key};
use crate::client::ClientKey;
use crate::clock::UnixTime;
use crate::ledger::{Changes, Ledger, Options, Origin, Sharing, Taken};
use crate::pass::{Stamps, Test};
use crate::share::State;

const HOSTS: [&str; 3] = ["mx1", "mx2", "mx3"];
const CLIENT: &str = "192.0.2.7";

struct Host {
    ledger: Ledger,
    news: Changes,
    sharing: Sharing<'static>,
}

impl Host {
    fn new(host: &'static str, manual: bool) -> Self {
        let ledger = Ledger::in_memory(Options { shared: true, ..Options::default() });
        let news = ledger.news();
        Self { ledger, news, sharing: Sharing { host, manual } }
    }

    fn says(&self) -> Option<State> {
        self.ledger.state(key(CLIENT), self.sharing, NOW)
    }

    fn hears(&self, word: &State) -> Taken {
        self.ledger.take_in(key(CLIENT), word, self.sharing, NOW, &self.news.witness())
    }

    fn grant(&self, test: Test, until: u64) {
        let mut stamps = Stamps::default();
        stamps.set(test, Some(UnixTime(until)));
        self.ledger.grant(key(CLIENT), &stamps, Origin::Screened, None, NOW);
    }

    fn epoch(&self, test: Test) -> u32 {
        self.says().map_or(0, |word| word.tests[test as usize].epoch)
    }

    fn until(&self, test: Test) -> Option<u64> {
        self.ledger.stamps(key(CLIENT)).and_then(|stamps| stamps.get(test)).map(|until| until.0)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Grant(usize, Test, u64),
    Withdraw(usize, Test),
    Revoke(usize),
    /// One hears what another says, or what it said some steps ago.
    Hear {
        to: usize,
        from: usize,
        old: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let host = 0..HOSTS.len();
    let test = prop::sample::select(vec![Test::Pregreet, Test::Dnsbl]);
    let step = prop_oneof![
        3 => (host.clone(), test.clone(), 1..50_u64).prop_map(|(host, test, more)| Step::Grant(host, test, NOW.0 + more)),
        1 => (host.clone(), test).prop_map(|(host, test)| Step::Withdraw(host, test)),
        1 => host.clone().prop_map(Step::Revoke),
        4 => (host.clone(), host, any::<bool>()).prop_map(|(to, from, old)| Step::Hear { to, from, old }),
    ];
    prop::collection::vec(step, 0..40)
}

/// What a host knows of the past, each step by its number: grants with the revocation that their maker knew, as an epoch.
#[derive(Clone, Debug, Default)]
struct Past {
    grants: BTreeMap<usize, (Test, u64, u32)>,
    revocations: BTreeMap<usize, (Test, u32)>,
}

impl Past {
    fn joined(&mut self, other: &Self) {
        self.grants.extend(&other.grants);
        self.revocations.extend(&other.revocations);
    }

    /// Until when a test may stand: by the grants whose maker knew of the last revocation, or of a later one.
    fn stands_until(&self, test: Test) -> Option<u64> {
        let last = self.revocations.values().filter(|(of, _)| *of == test).map(|(_, epoch)| *epoch).max().unwrap_or(0);
        let standing = self.grants.values().filter(|(of, _, epoch)| *of == test && *epoch >= last);
        standing.map(|(_, until, _)| *until).max()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 400 } else { 4000 }))]

    #[test]
    fn hosts_come_to_the_same_and_nothing_deleted_comes_back(steps in steps()) {
        let hosts = HOSTS.map(|name| Host::new(name, false));
        let mut pasts = [Past::default(), Past::default(), Past::default()];
        let mut said: Vec<Vec<(State, Past)>> = vec![Vec::new(); HOSTS.len()];
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Grant(host, test, until) => {
                    hosts[host].grant(test, until);
                    let epoch = hosts[host].epoch(test);
                    pasts[host].grants.insert(number, (test, until, epoch));
                }
                Step::Withdraw(host, test) => {
                    if hosts[host].ledger.withdraw(key(CLIENT), test) {
                        let epoch = hosts[host].epoch(test);
                        pasts[host].revocations.insert(2 * number, (test, epoch));
                    }
                }
                Step::Revoke(host) => {
                    if hosts[host].ledger.revoke(key(CLIENT)) {
                        for (nth, test) in [Test::Pregreet, Test::Dnsbl].into_iter().enumerate() {
                            let epoch = hosts[host].epoch(test);
                            pasts[host].revocations.insert(2 * number + nth, (test, epoch));
                        }
                    }
                }
                Step::Hear { to, from, old } => {
                    let now = hosts[from].says().map(|word| (word, pasts[from].clone()));
                    let heard = if old { said[from].first().cloned() } else { now.clone() };
                    said[from].extend(now);
                    if let Some((word, past)) = heard {
                        hosts[to].hears(&word);
                        pasts[to].joined(&past);
                    }
                }
            }
            for (host, past) in hosts.iter().zip(&pasts) {
                for test in [Test::Pregreet, Test::Dnsbl] {
                    prop_assert_eq!(host.until(test), past.stands_until(test));
                }
            }
        }
        // All hear all, twice: whoever was behind has caught up.
        for _ in 0..2 {
            for from in 0..HOSTS.len() {
                if let Some(word) = hosts[from].says() {
                    for host in &hosts {
                        host.hears(&word);
                    }
                }
            }
        }
        let all = hosts.each_ref().map(|host| host.ledger.stamps(key(CLIENT)).unwrap_or_default());
        prop_assert!(all[0] == all[1] && all[1] == all[2], "{:?}", all);
        let words = hosts.each_ref().map(|host| host.says().map(|word| word.tests));
        prop_assert!(words[0] == words[1] && words[1] == words[2], "{:?}", words);
    }
}

fn told(host: &mut Host) -> Vec<ClientKey> {
    host.news.take(100).into_iter().map(|change| change.client).collect()
}

#[test]
fn who_brings_a_word_is_not_told_of_it_and_others_are() {
    let (one, mut two) = (Host::new("mx1", false), Host::new("mx2", false));
    let mut mirror = two.ledger.changes();
    one.grant(Test::Dnsbl, NOW.0 + 5_000);
    let word = one.says().unwrap();
    assert_eq!(two.hears(&word), Taken { changed: true, revoked: false, ahead: false });
    assert_eq!((told(&mut two), mirror.take(10).len()), (vec![], 1));
    let pass = two.ledger.pass(key(CLIENT)).unwrap();
    assert_eq!((pass.origin, pass.comment.as_deref()), (Origin::Shared, Some("mx1")));
    assert_eq!(two.hears(&word), Taken::default(), "the second time it is no news");
    // What two learns itself is its own word.
    two.grant(Test::Pregreet, NOW.0 + 6_000);
    assert_eq!(told(&mut two), [key(CLIENT)]);
    assert_eq!(two.ledger.pass(key(CLIENT)).unwrap().origin, Origin::Screened);
    assert!(two.hears(&word).ahead, "it knows more than the word says");
}

#[test]
fn a_revocation_is_later_than_any_that_is_known_whatever_the_clock_says() {
    let (one, two) = (Host::new("mx1", false), Host::new("mx2", false));
    one.grant(Test::Dnsbl, NOW.0 + 5_000);
    let mut ahead_of_time = one.says().unwrap();
    // A host whose clock is an hour ahead has revoked, and given another pass.
    let epoch = crate::share::seconds(crate::clock::Now::read().unix) + 3600;
    for register in &mut ahead_of_time.tests {
        register.epoch = epoch;
    }
    two.hears(&ahead_of_time);
    assert!(two.ledger.revoke(key(CLIENT)));
    let word = two.says().unwrap();
    assert!(word.tests.iter().all(|register| register.epoch == epoch + 1 && register.until == 0));
    one.hears(&ahead_of_time);
    assert_eq!(one.hears(&word), Taken { changed: true, revoked: true, ahead: false });
    assert!(!one.hears(&ahead_of_time).changed, "and what was before it does not come back");
}

#[test]
fn what_is_this_hosts_own_business_is_neither_told_nor_touched() {
    let (one, two) = (Host::new("mx1", false), Host::new("mx2", true));
    let forever = Stamps::all_until(NOW.plus(10 * DAY));
    one.ledger.grant(key(CLIENT), &forever, Origin::Manual, Some("our branch"), NOW);
    assert_eq!(one.says(), None, "nothing to say");
    two.grant(Test::Dnsbl, NOW.0 + 5_000);
    two.ledger.revoke(key(CLIENT));
    assert_eq!(one.hears(&two.says().unwrap()), Taken::default());
    assert_eq!(one.ledger.stamps(key(CLIENT)), Some(forever));
    // A pass by hand from where they are shared is not for those who do not share them.
    two.ledger.grant(key(CLIENT), &forever, Origin::Manual, Some("their branch"), NOW);
    let word = two.says().unwrap();
    assert!(word.given.manual && word.given.comment == "their branch");
    let three = Host::new("mx3", false);
    assert_eq!(three.hears(&word), Taken::default());
    let four = Host::new("mx4", true);
    assert!(four.hears(&word).changed);
    let pass = four.ledger.pass(key(CLIENT)).unwrap();
    assert_eq!((pass.origin, pass.comment.as_deref()), (Origin::Manual, Some("their branch")));
    // A copy of a pool's pass goes without a word.
    let five = Host::new("mx5", false);
    five.ledger.grant(key(CLIENT), &forever, Origin::Pool, None, NOW);
    assert_eq!(five.says(), None);
    five.ledger.revoke(key(CLIENT));
    assert_eq!(five.says(), None);
}

#[test]
fn without_a_store_no_revocation_is_remembered() {
    let ledger = Ledger::in_memory(Options::default());
    ledger.grant(key(CLIENT), &Stamps::all_until(NOW.plus(DAY)), Origin::Screened, None, NOW);
    ledger.revoke(key(CLIENT));
    assert_eq!(ledger.clients_after(None, 10), []);
}

#[test]
fn revocations_outlive_the_daemon_and_are_forgotten_one_day() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.redb");
    let options = Options { shared: true, ..Options::default() };
    let sharing = Sharing { host: "mx1", manual: false };
    let open = || Ledger::open(&path, options).unwrap().0;
    let word = {
        let ledger = open();
        ledger.grant(key(CLIENT), &Stamps::all_until(NOW.plus(DAY)), Origin::Screened, None, NOW);
        ledger.grant(key("192.0.2.8"), &Stamps::all_until(NOW.plus(DAY)), Origin::Shared, Some("mx2"), NOW);
        ledger.revoke(key(CLIENT));
        ledger.state(key(CLIENT), sharing, NOW).unwrap()
    };
    let ledger = open();
    assert_eq!(ledger.state(key(CLIENT), sharing, NOW), Some(word.clone()));
    assert_eq!(ledger.pass(key("192.0.2.8")).unwrap().comment.as_deref(), Some("mx2"));
    let later = word.kept_until().unwrap().plus(std::time::Duration::from_secs(2));
    ledger.expire(later, std::time::Duration::ZERO);
    assert_eq!(ledger.clients_after(None, 10), []);
    drop(ledger);
    assert_eq!(open().clients_after(None, 10), []);
}
