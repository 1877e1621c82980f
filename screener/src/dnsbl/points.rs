//! The test points of RFC 5782 section 5: what every list must answer, and what none may.
//!
//! Holds the questions and what the answers say about the list. Never says anything about a client.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr};

use super::answer::{Failure, Looked, Said};
use super::health::Why;
use super::list::List;
use super::resolver::Resolver;
use crate::config::Family;

/// What the test points say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tested {
    /// What is wrong with the list.
    pub(super) wrong: Option<Why>,
    /// Whether it knows IPv6, if that was asked and answered.
    pub(super) knows_v6: Option<bool>,
}

/// Asks a list's test points.
pub(super) async fn test(resolver: &Resolver, list: &List) -> Tested {
    let family = async |family: Family| match list.families().contains(&family) {
        true => Some(test_family(resolver, list, family).await),
        false => None,
    };
    let (v4, v6) = tokio::join!(family(Family::Ipv4), family(Family::Ipv6));
    match (v4, v6) {
        // A list of both that has nothing under IPv6 is a list of IPv4, and well. So is one that has everything: the names of
        // IPv6 end like those of IPv4, and a wildcard for 0.0.0.0/8 is met by the test points.
        (Some(None), Some(Some(Why::Empty | Why::ListsTheWorld))) => Tested { wrong: None, knows_v6: Some(false) },
        (Some(v4), Some(v6)) => {
            // Silence about IPv6 alone says nothing: what says most comes first.
            let wrong = v4.or(v6.filter(|why| !matches!(why, Why::Fails(_))));
            Tested { wrong, knows_v6: v6.is_none().then_some(true) }
        }
        (Some(v4), None) => Tested { wrong: v4, knows_v6: None },
        (None, v6) => Tested { wrong: v6.flatten(), knows_v6: None },
    }
}

async fn test_family(resolver: &Resolver, list: &List, family: Family) -> Option<Why> {
    let ask = async |address: Ipv4Addr| match list.point_name(address, family) {
        Some(name) => resolver.a(name).await,
        None => Looked::Nothing(None),
    };
    let (listed, unlisted, random) =
        tokio::join!(ask(Ipv4Addr::new(127, 0, 0, 2)), ask(Ipv4Addr::LOCALHOST), ask(random_address()));
    judge(list, &listed, &unlisted, &random)
}

fn judge(list: &List, listed: &Looked, unlisted: &Looked, random: &Looked) -> Option<Why> {
    let answers = [listed, unlisted, random];
    // Refusals first: a list that refuses says the same about every address.
    let refusal = answers.iter().find_map(|looked| match looked {
        Looked::Records(records, _) => match list.judge(records) {
            Said::Bad(bad) if bad.is_refusal() => Some(Why::Bad(bad)),
            _ => None,
        },
        _ => None,
    });
    if refusal.is_some() {
        return refusal;
    }
    let is_listed = |looked: &Looked| matches!(looked, Looked::Records(..));
    if is_listed(random) || (list.test_points && is_listed(unlisted)) {
        return Some(Why::ListsTheWorld);
    }
    let failure = answers.iter().find_map(|looked| match looked {
        Looked::Failed(failure) => Some(*failure),
        _ => None,
    });
    match (listed, failure) {
        (_, Some(failure)) => Some(Why::Fails(failure)),
        (Looked::Nothing(_), None) if list.test_points => Some(Why::Empty),
        _ => None,
    }
}

/// Of 127.64.0.0 to 127.254.255.255: no list has any of these, and no resolver has been asked for this one before.
fn random_address() -> Ipv4Addr {
    let [a, b, c, ..] = RandomState::new().hash_one(0).to_ne_bytes();
    Ipv4Addr::from_octets([127, 64 + a % 190, b, c])
}

/// The address as a list knows it in a family: IPv4, or IPv4-mapped IPv6.
pub(super) fn in_family(address: Ipv4Addr, family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => address.into(),
        Family::Ipv6 => address.to_ipv6_mapped().into(),
    }
}

/// Whether a failure says that the resolver itself does not work, rather than one list.
pub(super) fn is_the_resolvers(failure: Failure) -> bool {
    matches!(failure, Failure::Silent | Failure::Unreachable)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::answer::BadAnswer;
    use super::*;
    use crate::config::Config;

    fn list(more: &str) -> List {
        let text = format!("[[tests.dnsbl.list]]\nzone = \"bl.test\"\n{more}");
        List::configured(&Config::parse(&text, "test").unwrap().tests.dnsbl.lists[0]).unwrap()
    }

    fn records(code: [u8; 4]) -> Looked {
        Looked::Records(vec![code.into()], Duration::from_secs(60))
    }

    #[test]
    fn each_way_to_be_wrong_has_its_name() {
        let nothing = Looked::Nothing(None);
        let listed = records([127, 0, 0, 2]);
        let plain = list("");
        assert_eq!(judge(&plain, &listed, &nothing, &nothing), None);
        assert_eq!(judge(&plain, &nothing, &nothing, &nothing), Some(Why::Empty));
        let without = list("test_points = false");
        assert_eq!(judge(&without, &nothing, &nothing, &nothing), None);
        assert_eq!(judge(&without, &nothing, &listed, &nothing), None);
        assert_eq!(judge(&without, &nothing, &nothing, &listed), Some(Why::ListsTheWorld));
        assert_eq!(judge(&plain, &listed, &listed, &nothing), Some(Why::ListsTheWorld));
        assert_eq!(judge(&plain, &listed, &nothing, &records([192, 0, 2, 1])), Some(Why::ListsTheWorld));
        let refused = records([127, 255, 255, 254]);
        let bad = Why::Bad(BadAnswer::Refused([127, 255, 255, 254].into()));
        assert_eq!(judge(&plain, &refused, &refused, &refused), Some(bad));
        let silent = Looked::Failed(Failure::Silent);
        assert_eq!(judge(&plain, &silent, &silent, &silent), Some(Why::Fails(Failure::Silent)));
        assert_eq!(judge(&plain, &silent, &listed, &silent), Some(Why::ListsTheWorld), "what is known counts");
        let allow = list("weight = -2");
        let everybody = records([127, 0, 10, 3]);
        assert_eq!(judge(&allow, &everybody, &everybody, &everybody), Some(Why::ListsTheWorld));
    }

    #[test]
    fn random_addresses_are_no_test_points() {
        for _ in 0..1000 {
            let [first, second, ..] = random_address().octets();
            assert!(first == 127 && (64..=253).contains(&second));
        }
    }
}
