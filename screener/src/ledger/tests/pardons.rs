//! Pardons of several ledgers that share: whoever was taken off the ladder stays off, whatever the clocks of the hosts say, whoever
//! was away, and whoever was started again meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::sync_channel;

use proptest::prelude::*;

use super::*;
use crate::ladder::{Offence, Offender, Rules};
use crate::share::OffenceWord;

const CLIENT: &str = "192.0.2.7";
const HOUR: Duration = Duration::from_secs(3600);

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn client() -> IpNet {
    net("192.0.2.7/32")
}

/// One failure and it is kept out.
fn rules() -> Rules {
    Rules { tarpit_at: 1, drop_at: 2, half_life: DAY, prefix_clients: 0, ..Rules::default() }
}

/// The offenders of a file count by the real clock.
fn today() -> UnixTime {
    crate::clock::Now::read().unix
}

/// A host with a file and a clock of its own.
struct Host {
    dir: tempfile::TempDir,
    /// `None`: it is being started again.
    ledger: Option<Ledger>,
    now: UnixTime,
}

impl Host {
    fn new(now: UnixTime) -> Self {
        let mut host = Self { dir: tempfile::tempdir().unwrap(), ledger: None, now };
        host.restart();
        host
    }

    fn restart(&mut self) {
        self.ledger = None;
        let options = Options { shared: true, ladder: Some(rules()), ..Options::default() };
        self.ledger = Some(Ledger::open(&self.path(), options).unwrap().0);
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("ledger.redb")
    }

    fn ledger(&self) -> &Ledger {
        self.ledger.as_ref().unwrap()
    }

    fn offends(&self) -> bool {
        self.ledger().offend(CLIENT.parse().unwrap(), Offence::Failed(Test::Pregreet), self.now, self.now).counted
    }

    fn forgives(&self) -> bool {
        self.ledger().forgive(client(), self.now).is_some()
    }

    fn says(&self) -> OffenceWord {
        self.ledger().offence_word(client(), self.now)
    }

    fn hears(&self, word: &OffenceWord) -> Taken {
        self.ledger().take_in_offence(client(), word, self.now, &self.ledger().offender_changes().witness())
    }

    fn offender(&self) -> Option<Offender> {
        self.says().offender
    }
}

#[test]
fn a_pardon_is_as_late_as_its_hosts_know_and_not_as_late_as_their_clocks() {
    let now = today();
    // The clock of two is an hour ahead, that of three an hour behind.
    let (one, two, mut three) = (Host::new(now), Host::new(now.plus(HOUR)), Host::new(UnixTime(now.0 - 3600)));
    assert!(two.offends());
    let offence = two.says();
    assert!(one.hears(&offence).changed && three.hears(&offence).changed);
    assert!(three.forgives());
    let pardon = three.says();
    assert!(pardon.forgiven < offence.offender.as_ref().unwrap().last, "by the clocks it was before");
    assert_eq!(one.hears(&pardon), Taken { changed: true, ..Taken::default() });
    assert!(two.hears(&pardon).changed);
    assert_eq!((one.offender(), two.offender()), (None, None));
    // What was said before does not bring it back, and whoever says it hears better.
    for host in [&one, &two, &three] {
        assert_eq!(host.hears(&offence), Taken { ahead: true, ..Taken::default() });
        assert_eq!(host.offender(), None);
    }

    // What it does then counts everywhere, by whichever clock.
    three.now = three.now.plus(Duration::from_secs(10));
    assert!(three.offends());
    let again = three.says();
    assert!(one.hears(&again).changed && two.hears(&again).changed);
    assert!(one.offender().is_some() && two.offender().is_some());
    assert_eq!(one.hears(&again), Taken::default(), "the second time it is no news");
    // And the next pardon is later than the one before, on a host whose clock has not come that far.
    assert!(two.forgives());
    let ahead = two.says();
    assert!(one.hears(&ahead).changed);
    assert!(one.offends() && one.forgives());
    assert!(one.says().forgiven > ahead.forgiven && ahead.forgiven > one.now);
}

#[test]
fn an_offence_on_a_host_that_has_not_heard_of_a_pardon_counts_as_before_it() {
    let now = today();
    let (one, two) = (Host::new(now), Host::new(now.plus(HOUR)));
    assert!(one.offends() && two.offends() && one.forgives());
    assert_eq!(one.hears(&two.says()), Taken { ahead: true, ..Taken::default() });
    assert!(two.hears(&one.says()).changed);
    assert_eq!((one.offender(), two.offender()), (None, None));
}

#[test]
fn who_brings_a_word_is_not_told_of_it_and_others_are() {
    let (one, two) = (Host::new(today()), Host::new(today()));
    let (mut follower, mut mirror) = (two.ledger().offender_changes(), two.ledger().offender_changes());
    assert!(one.offends());
    let take_in = |word: &OffenceWord| two.ledger().take_in_offence(client(), word, two.now, &follower.witness());
    assert!(take_in(&one.says()).changed);
    assert!(one.forgives());
    assert!(take_in(&one.says()).changed);
    // Nobody means anything by it here.
    assert_eq!(
        two.ledger().take_in_offence(net("192.0.2.0/26"), &one.says(), two.now, &follower.witness()),
        Taken::default()
    );
    assert_eq!(follower.take(10), []);
    assert_eq!(mirror.take(10), [OffenderChange { network: client(), offender: None }]);
    assert!(two.offends());
    assert_eq!(follower.take(10).len(), 1, "what it learns itself is its own word");
}

#[test]
fn every_kind_of_pardon_outlives_the_daemon_and_is_forgotten_one_day() {
    let mut host = Host::new(today());
    let others = ["198.51.100.1", "198.51.100.2", "203.0.113.9", "203.0.113.10"];
    for other in others {
        host.ledger().offend(other.parse().unwrap(), Offence::Failed(Test::Pregreet), host.now, host.now);
    }
    assert!(host.offends() && host.forgives());
    assert_eq!(host.ledger().forgive_meeting(net("198.51.100.0/24"), host.now).len(), 2);
    host.ledger().grant(key("203.0.113.9"), &until(host.now.plus(DAY)), Origin::Screened, None, host.now);
    assert_eq!(host.ledger().forgive_all(host.now), 1);
    let words = host.ledger().offence_words(host.now);
    let pardon = OffenceWord { forgiven: host.now, offender: None };
    assert_eq!(words.iter().filter(|(_, word)| *word == pardon).count(), 5, "{words:?}");
    host.restart();
    assert_eq!(host.ledger().offence_words(host.now), words);

    // In a file that is written anew, too.
    std::fs::remove_file(host.path()).unwrap();
    assert!(host.offends());
    host.ledger().flush().unwrap();
    host.restart();
    assert_eq!(host.says().forgiven, host.now);
    assert!(host.offender().is_some());

    let later = host.now.plus(3 * DAY);
    assert_eq!(host.ledger().offence_word(client(), later).forgiven, UnixTime(0), "to the second");
    host.ledger().expire(later, Duration::ZERO);
    host.restart();
    let words = host.ledger().offence_words(host.now);
    assert!(words.iter().all(|(network, word)| *network == client() && word.forgiven == UnixTime(0)), "{words:?}");
}

#[test]
fn without_a_store_no_pardon_is_remembered_and_what_was_is_let_go_of() {
    let dir = tempfile::tempdir().unwrap();
    let (path, now) = (dir.path().join("ledger.redb"), today());
    let open = |shared| Ledger::open(&path, Options { shared, ladder: Some(rules()), ..Options::default() }).unwrap().0;
    let pardoned = |ledger: &Ledger| {
        ledger.offend(CLIENT.parse().unwrap(), Offence::Failed(Test::Pregreet), now, now);
        assert!(ledger.forgive(client(), now).is_some());
    };
    let tables = || {
        let database = redb::Database::open(&path).unwrap();
        let transaction = redb::ReadableDatabase::begin_read(&database).unwrap();
        transaction.list_tables().unwrap().any(|table| redb::TableHandle::name(&table) == "pardons")
    };
    let ledger = open(false);
    pardoned(&ledger);
    assert_eq!(ledger.offence_words(now), []);
    drop(ledger);
    assert!(!tables(), "an earlier version finds what it knows");
    let ledger = open(true);
    pardoned(&ledger);
    drop(ledger);
    assert!(tables());
    let ledger = open(false);
    assert_eq!(ledger.offence_words(now).len(), 1);
    ledger.expire(now.plus(3 * DAY), Duration::ZERO);
    drop(ledger);
    assert_eq!(open(true).offence_words(now), []);
}

#[test]
fn an_heir_has_the_pardons_of_before_and_hears_of_those_that_are_earned_after() {
    let mut old = Host::new(today());
    assert!(old.offends() && old.forgives());
    let late = "203.0.113.9";
    old.ledger().offend(late.parse().unwrap(), Offence::Failed(Test::Pregreet), old.now, old.now);
    let words = old.ledger().offence_words(old.now);
    old.ledger().let_go().unwrap();
    let (to, said) = sync_channel(10);
    old.ledger().tell_on(Some(to));
    let before = old.ledger.take().unwrap();
    old.restart();
    let heir = old.ledger();
    assert_eq!(heir.offence_words(old.now), words);
    before.grant(key(late), &until(old.now.plus(DAY)), Origin::Screened, None, old.now);
    drop(before);
    said.into_iter().for_each(|said| heir.hear(said));
    assert_eq!(heir.offence_word(net("203.0.113.9/32"), old.now), OffenceWord { forgiven: old.now, offender: None });
}

#[derive(Clone, Debug)]
enum Step {
    Offend(usize),
    Forgive(usize),
    Restart(usize),
    /// One hears what another says, or what it said some steps ago.
    Hear {
        to: usize,
        from: usize,
        old: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let host = 0..3_usize;
    let step = prop_oneof![
        3 => host.clone().prop_map(Step::Offend),
        2 => host.clone().prop_map(Step::Forgive),
        1 => host.clone().prop_map(Step::Restart),
        4 => (host.clone(), host, any::<bool>()).prop_map(|(to, from, old)| Step::Hear { to, from, old }),
    ];
    prop::collection::vec(step, 0..40)
}

/// What a host knows of the past: the offences, each with the last pardon that its host knew of, and the pardons.
#[derive(Clone, Debug, Default)]
struct Past {
    offences: BTreeMap<usize, UnixTime>,
    pardons: BTreeSet<UnixTime>,
}

impl Past {
    fn joined(&mut self, other: &Self) {
        self.offences.extend(&other.offences);
        self.pardons.extend(&other.pardons);
    }

    fn is_offender(&self) -> bool {
        let last = self.pardons.last().copied().unwrap_or_default();
        self.offences.values().any(|known| *known == last)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 40 } else { 400 }))]

    #[test]
    fn hosts_come_to_the_same_and_nobody_pardoned_comes_back(
        steps in steps(),
        apart in prop::array::uniform3(0..7200_u64),
    ) {
        let mut hosts = apart.map(|apart| Host::new(UnixTime(today().0 - 3600 + apart)));
        let mut pasts = [Past::default(), Past::default(), Past::default()];
        let mut said: [Vec<(OffenceWord, Past)>; 3] = Default::default();
        for (number, step) in steps.into_iter().enumerate() {
            for host in &mut hosts {
                host.now.0 += 2;
            }
            match step {
                Step::Offend(host) => {
                    if hosts[host].offends() {
                        pasts[host].offences.insert(number, hosts[host].says().forgiven);
                    }
                }
                Step::Forgive(host) => {
                    if hosts[host].forgives() {
                        pasts[host].pardons.insert(hosts[host].says().forgiven);
                    }
                }
                Step::Restart(host) => hosts[host].restart(),
                Step::Hear { to, from, old } => {
                    said[from].push((hosts[from].says(), pasts[from].clone()));
                    let heard = if old { said[from].first() } else { said[from].last() };
                    let (word, past) = heard.cloned().unwrap();
                    hosts[to].hears(&word);
                    pasts[to].joined(&past);
                }
            }
            for (host, past) in hosts.iter().zip(&pasts) {
                prop_assert_eq!(host.offender().is_some(), past.is_offender());
            }
        }
        // All hear all, twice, when the last clock has come to where the first one was.
        let end = today().plus(4 * HOUR);
        hosts.iter_mut().for_each(|host| host.now = end);
        for _ in 0..2 {
            for from in 0..hosts.len() {
                let word = hosts[from].says();
                for host in &hosts {
                    host.hears(&word);
                }
            }
        }
        let words = hosts.each_ref().map(Host::says);
        prop_assert!(words[0] == words[1] && words[1] == words[2], "{:?}", words);
        hosts.iter_mut().for_each(Host::restart);
        for host in &hosts {
            prop_assert_eq!(host.says().forgiven, words[0].forgiven);
            prop_assert_eq!(host.offender().is_some(), words[0].offender.is_some());
        }
    }
}
