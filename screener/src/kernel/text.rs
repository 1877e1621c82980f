//! The text form of the kernel's lists: what `screener kernel map dump` writes and `restore` reads.
//!
//! ```text
//! permit 192.0.2.0/24
//! deny 198.51.100.0/24 drop
//! pass 203.0.113.7 86400          (seconds left)
//! ```
//! An entry a line, `#` comments. Text in, entries or complaints out: reads no file and touches no map.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::client::{ClientKey, Ipv6KeyLength};
use crate::feed::{BadList, DenyAction, StaticAction, parse_prefix, quoted};

/// After how many lines progress is told.
const STEP: usize = 4096;

/// A list that commands name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// The permits.
    Permit,
    /// The denies.
    Deny,
    /// The passes.
    Pass,
}

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// A permit or a deny.
    Static(IpNet, StaticAction),
    /// A pass and the seconds that it has left.
    Pass(ClientKey, u64),
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Static(net, StaticAction::Permit) => write!(f, "permit {net}"),
            Self::Static(net, StaticAction::Deny(action)) => write!(f, "deny {net} {action}"),
            Self::Pass(client, seconds) => write!(f, "pass {client} {seconds}"),
        }
    }
}

/// What a file says. `None`: nothing about that list, which then stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The permits in order.
    pub permits: Option<Vec<IpNet>>,
    /// The denies in order.
    pub denies: Option<Vec<(IpNet, DenyAction)>>,
    /// The passes in order, with the seconds that they have left.
    pub passes: Option<Vec<(ClientKey, u64)>>,
}

/// Reads a file. IPv6 clients are cut to `key`. `told` hears now and then how many bytes are done.
///
/// # Errors
/// With every line that is not understood, or that names what another has named.
pub fn read(text: &str, key: Ipv6KeyLength, told: &mut dyn FnMut(usize)) -> Result<Contents, BadList> {
    let mut bad = BadList::default();
    let (mut permits, mut denies, mut passes) = (Vec::new(), Vec::new(), Vec::new());
    let mut done = 0;
    for (at, line) in text.split_inclusive('\n').enumerate() {
        let content = line.split('#').next().unwrap_or_default();
        match entry(content, key) {
            Ok(Some(Line::Static(net, StaticAction::Permit))) => permits.push((net, (), at + 1)),
            Ok(Some(Line::Static(net, StaticAction::Deny(action)))) => denies.push((net, action, at + 1)),
            Ok(Some(Line::Pass(client, seconds))) => passes.push((client, seconds, at + 1)),
            Ok(None) => {}
            Err(what) => bad.push(at + 1, what),
        }
        done += line.len();
        if at % STEP == 0 {
            told(done);
        }
    }
    told(done);
    let contents = Contents {
        permits: each_once(permits, &mut bad).map(|all| all.into_iter().map(|(net, ())| net).collect()),
        denies: each_once(denies, &mut bad),
        passes: each_once(passes, &mut bad),
    };
    if bad.is_empty() { Ok(contents) } else { Err(bad) }
}

/// In order, and a complaint about each key that is there twice. `None`: no entry at all.
fn each_once<K: Ord + Copy + fmt::Display, V>(mut all: Vec<(K, V, usize)>, bad: &mut BadList) -> Option<Vec<(K, V)>> {
    if all.is_empty() {
        return None;
    }
    all.sort_by_key(|(key, _, _)| *key);
    for pair in all.windows(2) {
        if pair[0].0 == pair[1].0 {
            bad.push(pair[1].2, format!("{} is in line {} already: take one of them out", pair[1].0, pair[0].2));
        }
    }
    Some(all.into_iter().map(|(key, value, _)| (key, value)).collect())
}

/// What a line says; `None`: nothing.
fn entry(line: &str, key: Ipv6KeyLength) -> Result<Option<Line>, String> {
    let mut words = line.split_whitespace();
    let Some(list) = words.next() else { return Ok(None) };
    let wanted = match list {
        "permit" => "permit PREFIX",
        "deny" => "deny PREFIX drop|reject|tag|count",
        "pass" => "pass ADDRESS SECONDS",
        "offender" => {
            return Err("offenders are not restored: `screener deny add` keeps somebody out by hand".to_owned());
        }
        "settings" | "counters" => {
            return Err(format!("{list} are not restored: use `screener kernel map set settings NAME VALUE`"));
        }
        _ => return Err(format!("'{}' is no list: a line begins with permit, deny or pass", quoted(list))),
    };
    let mistaken = || format!("'{}': write {wanted}", quoted(line.trim()));
    let word = words.next().ok_or_else(mistaken)?;
    let value = words.next();
    if words.next().is_some() {
        return Err(mistaken());
    }
    let entry = match (list, value) {
        ("permit", None) => Line::Static(parse_prefix(word)?, StaticAction::Permit),
        ("deny", Some(action)) => {
            let action: DenyAction = action.parse().map_err(|_| mistaken())?;
            Line::Static(parse_prefix(word)?, StaticAction::Deny(action))
        }
        ("pass", Some(seconds)) => {
            let seconds = seconds.parse().map_err(|_| mistaken())?;
            Line::Pass(client(word, key)?, seconds)
        }
        _ => return Err(mistaken()),
    };
    Ok(Some(entry))
}

/// The client of an address as a person writes it.
///
/// # Errors
/// If it is no address.
pub fn client(word: &str, key: Ipv6KeyLength) -> Result<ClientKey, String> {
    let address: IpAddr = word.parse().map_err(|_| {
        let network = if word.contains('/') { ": a pass is for one client" } else { "" };
        format!("'{}' is no address{network}", quoted(word))
    })?;
    Ok(ClientKey::of(address, key))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> Ipv6KeyLength {
        Ipv6KeyLength::default()
    }

    fn told(text: &str) -> String {
        read(text, key(), &mut |_| ()).unwrap_err().told("file")
    }

    #[test]
    fn a_file_names_the_lists_that_it_replaces() {
        let text = "# dump\npermit 192.0.2.0/24\n\n deny 198.51.100.7 tag # why\ndeny ::ffff:10.0.0.0/104 drop\n";
        let contents = read(text, key(), &mut |_| ()).unwrap();
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        assert_eq!(contents.permits, Some(vec![net("192.0.2.0/24")]));
        let denies = vec![(net("10.0.0.0/8"), DenyAction::Drop), (net("198.51.100.7/32"), DenyAction::Tag)];
        assert_eq!((contents.denies, contents.passes), (Some(denies), None));
    }

    #[test]
    fn what_is_not_understood_is_named_with_its_line_and_what_to_write() {
        for (text, complaint) in [
            ("allow 192.0.2.0/24\n", "file:1: 'allow' is no list: a line begins with permit, deny or pass"),
            ("\npermit\n", "file:2: 'permit': write permit PREFIX"),
            ("permit 192.0.2.0/24 drop\n", "write permit PREFIX"),
            ("deny 192.0.2.0/24\n", "write deny PREFIX drop|reject|tag|count"),
            ("deny 192.0.2.0/24 permit\n", "write deny PREFIX drop|reject|tag|count"),
            ("deny 192.0.2.0/24 drop now\n", "write deny PREFIX drop|reject|tag|count"),
            ("deny 192.0.2.1/24 drop\n", "write 192.0.2.0/24 for the network, or 192.0.2.1/32"),
            ("deny 192.0.2.0/33 drop\n", "'192.0.2.0/33' is no prefix and no address"),
            ("pass 192.0.2.0/24 5\n", "'192.0.2.0/24' is no address: a pass is for one client"),
            ("pass 192.0.2.1 1d\n", "write pass ADDRESS SECONDS"),
            ("settings ports 25\n", "set settings NAME VALUE"),
            ("offender 192.0.2.0/24 3600\n", "file:1: offenders are not restored: `screener deny add`"),
            ("deny 1.2.3.4 drop\ndeny 1.2.3.4/32 tag\n", "file:2: 1.2.3.4/32 is in line 1 already"),
            ("pass 2001:db8::1 5\npass 2001:db8::2 5\n", "file:2: 2001:db8:: is in line 1 already"),
        ] {
            let told = told(text);
            assert!(told.contains(complaint), "{told}");
        }
        // The same prefix may be permitted and denied.
        assert!(read("permit 1.2.3.4\ndeny 1.2.3.4 drop\n", key(), &mut |_| ()).is_ok());
    }

    fn line() -> impl Strategy<Value = Line> {
        let net = (any::<u32>(), 0..=32_u8)
            .prop_map(|(bits, length)| IpNet::new(std::net::Ipv4Addr::from(bits).into(), length).unwrap().trunc());
        let net6 = (any::<u128>(), 0..=128_u8).prop_map(|(bits, length)| {
            IpNet::new(std::net::Ipv6Addr::from(bits | 1 << 127).into(), length).unwrap().trunc()
        });
        let actions = vec![
            StaticAction::Permit,
            StaticAction::Deny(DenyAction::Drop),
            StaticAction::Deny(DenyAction::Reject),
            StaticAction::Deny(DenyAction::Tag),
            StaticAction::Deny(DenyAction::Count),
        ];
        let client =
            any::<u128>().prop_map(|bits| ClientKey::of(std::net::Ipv6Addr::from(bits | 1 << 127).into(), key()));
        prop_oneof![
            (prop_oneof![net, net6], prop::sample::select(actions)).prop_map(|(net, action)| Line::Static(net, action)),
            (client, any::<u64>()).prop_map(|(client, seconds)| Line::Pass(client, seconds)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_is_read_back(line in line()) {
            prop_assert_eq!(entry(&line.to_string(), key()), Ok(Some(line)));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "(?s)(permit|deny|pass|[ -~\n\t])[ -~\n\té/:.]{0,100}") {
            let _ = read(&text, key(), &mut |_| ());
        }
    }
}
