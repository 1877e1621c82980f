//! Who has just passed under which name: where the other address of a sender is looked for.
//!
//! Holds the names of the last minutes, in memory only, and the proof that two addresses are one sender's: the name that both
//! called themselves has both (RFC 1912 section 2.1 asks that of any mail host). A name alone is never enough: everybody can
//! call himself anything. Never decides about a client.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::dns::{Resolver, is_domain};

/// How many names are kept at most, twice: beyond that nobody new is linked for a while.
const MOST_NAMES: usize = 50_000;
/// How many addresses of one name: a sender has one or two of each family.
const MOST_ADDRESSES: usize = 8;

/// The names of the last minutes.
#[derive(Debug)]
pub struct Recent(Mutex<Names>);

/// Two ages: when the younger one has lasted for the window, it becomes the older one, and that goes.
#[derive(Debug)]
struct Names {
    young: HashMap<Box<str>, Vec<(IpAddr, Instant)>>,
    old: HashMap<Box<str>, Vec<(IpAddr, Instant)>>,
    since: Instant,
}

impl Recent {
    /// None yet.
    pub fn new(now: Instant) -> Self {
        Self(Mutex::new(Names { young: HashMap::new(), old: HashMap::new(), since: now }))
    }

    /// A client has passed that calls itself so.
    pub fn passed(&self, name: &str, address: IpAddr, window: Duration, now: Instant) {
        let Some(name) = normal(name) else { return };
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.age(window, now);
        if names.young.len() >= MOST_NAMES && !names.young.contains_key(name.as_str()) {
            return;
        }
        let addresses = names.young.entry(name.into()).or_default();
        addresses.retain(|(known, _)| *known != address);
        if addresses.len() == MOST_ADDRESSES {
            addresses.remove(0);
        }
        addresses.push((address, now));
    }

    /// The addresses of the other family that have passed under a name within the window, the latest first.
    pub fn others(&self, name: &str, address: IpAddr, window: Duration, now: Instant) -> Vec<IpAddr> {
        let Some(name) = normal(name) else { return Vec::new() };
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |age: &HashMap<Box<str>, Vec<(IpAddr, Instant)>>| age.get(name.as_str()).cloned().unwrap_or_default();
        let mut found: Vec<_> = of(&names.old).into_iter().chain(of(&names.young)).collect();
        found.retain(|(other, at)| other.is_ipv4() != address.is_ipv4() && now.duration_since(*at) <= window);
        found.sort_by_key(|(_, at)| std::cmp::Reverse(*at));
        let mut others: Vec<IpAddr> = Vec::new();
        for (other, _) in found {
            if !others.contains(&other) {
                others.push(other);
            }
        }
        others
    }
}

impl Names {
    fn age(&mut self, window: Duration, now: Instant) {
        let age = now.duration_since(self.since);
        if age > window {
            let young = std::mem::take(&mut self.young);
            self.old = if age > 2 * window { HashMap::new() } else { young };
            self.since = now;
        }
    }
}

/// Which of these addresses is one sender's with `address`: the first that the name has, if it has `address` too. `None` also
/// where the DNS does not say.
pub async fn confirm(resolver: &Resolver, name: &str, address: IpAddr, others: &[IpAddr]) -> Option<IpAddr> {
    let found = resolver.addresses(&normal(name)?).await.ok()?.records;
    let both = |other: &&IpAddr| found.contains(&address) && found.contains(other);
    others.iter().find(both).copied()
}

/// The name in lower case, if it is one that can have addresses.
fn normal(name: &str) -> Option<String> {
    is_domain(name).then(|| name.trim_end_matches('.').to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(600);
    const SECOND: Duration = Duration::from_secs(1);

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_the_other_family_of_the_same_name_within_the_window_is_found() {
        let began = Instant::now();
        let recent = Recent::new(began);
        recent.passed("Mail.example.net", address("192.0.2.1"), WINDOW, began);
        recent.passed("mail.example.net.", address("192.0.2.2"), WINDOW, began + SECOND);
        let others = |name: &str, from: &str, at: Instant| recent.others(name, address(from), WINDOW, at);
        let both = [address("192.0.2.2"), address("192.0.2.1")];
        assert_eq!(others("mail.EXAMPLE.net", "2001:db8::1", began + SECOND), both);
        assert!(others("mail.example.net", "192.0.2.9", began).is_empty(), "the same family");
        assert!(others("other.example.net", "2001:db8::1", began).is_empty());
        assert_eq!(others("mail.example.net", "2001:db8::1", began + WINDOW + SECOND), [address("192.0.2.2")]);
        for none in ["[192.0.2.1]", "localhost", ""] {
            recent.passed(none, address("192.0.2.1"), WINDOW, began);
            assert!(others(none, "2001:db8::1", began).is_empty(), "{none}");
        }
    }

    #[test]
    fn names_live_through_one_change_of_ages_and_are_bounded() {
        let began = Instant::now();
        let recent = Recent::new(began);
        let six = address("2001:db8::1");
        recent.passed("a.example", address("192.0.2.1"), WINDOW, began + WINDOW - SECOND);
        recent.passed("b.example", address("192.0.2.1"), WINDOW, began + WINDOW + SECOND);
        assert_eq!(recent.others("a.example", six, WINDOW, began + WINDOW + SECOND).len(), 1, "in the older age");
        recent.passed("c.example", address("192.0.2.1"), WINDOW, began + 9 * WINDOW);
        let names = || {
            let names = recent.0.lock().unwrap();
            names.young.len() + names.old.len()
        };
        assert_eq!(names(), 1, "both ages have gone");
        for number in 0..2 * MOST_NAMES {
            recent.passed(&format!("n{number}.example"), address("192.0.2.1"), WINDOW, began + 9 * WINDOW);
        }
        assert_eq!(names(), MOST_NAMES);
        for last in 0..100 {
            recent.passed("c.example", address(&format!("192.0.2.{last}")), WINDOW, began + 9 * WINDOW);
        }
        assert_eq!(recent.others("c.example", six, WINDOW, began + 9 * WINDOW).len(), MOST_ADDRESSES);
    }
}
