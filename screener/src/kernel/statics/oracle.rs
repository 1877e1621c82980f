//! The deny set against a model that compares prefixes one by one: whole sets, and changes in place.
//!
//! What the programs run on a packet is run here on the same memory. Other judges (the kernel's trie, nft, ipset) have their
//! say in `tests/oracles.rs`.

use std::collections::BTreeMap;

use aya::EbpfLoader;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;
use crate::kernel::load::OBJECT;

/// Lists with nothing in them, over maps of their own that are pinned nowhere.
fn empty() -> Statics {
    assert!(rustix::process::geteuid().is_root(), "needs root to make BPF maps: run `cargo xtask test` as root");
    Statics::unpinned(&mut EbpfLoader::new().load(OBJECT).unwrap()).unwrap()
}

/// What stands where, compared the slow way.
#[derive(Clone, Debug, Default)]
struct Model {
    permits: Vec<IpNet>,
    denies: BTreeMap<IpNet, DenyAction>,
}

impl Model {
    fn put(&mut self, net: IpNet, action: StaticAction) {
        match action {
            StaticAction::Permit => {
                self.permits.retain(|&other| other != net);
                self.permits.push(net);
            }
            StaticAction::Deny(action) => drop(self.denies.insert(net, action)),
        }
    }

    fn remove(&mut self, net: IpNet, kind: StaticKind) -> bool {
        match kind {
            StaticKind::Permit => {
                let before = self.permits.len();
                self.permits.retain(|&other| other != net);
                self.permits.len() != before
            }
            StaticKind::Deny => self.denies.remove(&net).is_some(),
        }
    }

    fn lookup(&self, address: IpAddr) -> Option<StaticAction> {
        if self.permits.iter().any(|permit| permit.contains(&address)) {
            return Some(StaticAction::Permit);
        }
        let mut over: Vec<_> = self.denies.iter().filter(|(net, _)| net.contains(&address)).collect();
        over.sort_by_key(|(net, _)| net.prefix_len());
        let decides = over.iter().rev().find(|&&(_, &action)| action != DenyAction::Count);
        let counts = over.last().map(|&(_, &action)| action);
        decides.map(|&(_, &action)| action).or(counts).map(StaticAction::Deny)
    }

    fn entries(&self) -> impl Iterator<Item = (IpNet, StaticAction)> {
        let permits = self.permits.iter().map(|&net| (net, StaticAction::Permit));
        permits.chain(self.denies.iter().map(|(&net, &action)| (net, StaticAction::Deny(action))))
    }

    /// The addresses where something may change: the ends of each prefix and their neighbours, and some within.
    fn borders(&self) -> Vec<IpAddr> {
        let mut addresses = Vec::new();
        for (net, _) in self.entries() {
            match net {
                IpNet::V4(net) => {
                    let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
                    let middle = first + (last - first) / 3;
                    for bits in [first.wrapping_sub(1), first, middle, last, last.wrapping_add(1)] {
                        addresses.push(Ipv4Addr::from_bits(bits).into());
                    }
                }
                IpNet::V6(net) => {
                    let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
                    let middle = first + (last - first) / 3;
                    for bits in [first.wrapping_sub(1), first, middle, last, last.wrapping_add(1)] {
                        addresses.push(Ipv6Addr::from_bits(bits).into());
                    }
                }
            }
        }
        // An IPv4-mapped address is an IPv4 address, wherever it comes from.
        addresses.retain(|address: &IpAddr| address.to_canonical() == *address);
        addresses
    }

    fn agrees(&self, statics: &Statics, more: &[IpAddr]) -> Result<(), TestCaseError> {
        for address in self.borders().iter().chain(more) {
            prop_assert_eq!(statics.lookup(*address), self.lookup(*address), "{}", address);
        }
        let mut listed: Vec<_> = statics.list().collect();
        let mut wanted: Vec<_> = self.entries().collect();
        let by_place = |&(net, action): &(IpNet, StaticAction)| (action != StaticAction::Permit, net);
        listed.sort_by_key(by_place);
        wanted.sort_by_key(by_place);
        prop_assert_eq!(listed, wanted);
        Ok(())
    }
}

fn action() -> impl Strategy<Value = StaticAction> {
    prop_oneof![
        6 => Just(StaticAction::Deny(DenyAction::Drop)),
        2 => Just(StaticAction::Deny(DenyAction::Reject)),
        2 => Just(StaticAction::Deny(DenyAction::Tag)),
        1 => Just(StaticAction::Deny(DenyAction::Count)),
        2 => Just(StaticAction::Permit),
    ]
}

/// Prefixes close together, so that they lie upon each other and share /24s, /18s, roots and /64s.
fn net() -> impl Strategy<Value = IpNet> {
    let four = (prop_oneof![Just(0x0a00_0000u32), Just(0xffff_c000), Just(0)], 0u32..1 << 15, 6u8..=32);
    let four =
        four.prop_map(|(base, low, length)| IpNet::V4(Ipv4Net::new((base | low).into(), length).unwrap().trunc()));
    let hosts = (0u32..2, any::<u8>(), 20u8..=32);
    let hosts = hosts.prop_map(|(third, octet, length)| {
        let bits = 0x0a00_0000 | third << 8 | u32::from(octet);
        IpNet::V4(Ipv4Net::new(bits.into(), length).unwrap().trunc())
    });
    let six = (0u128..8, 0u128..4, 0u128..64, prop_oneof![16u8..=64, 28u8..=36, 60u8..=128]);
    let six = six.prop_map(|(root, second, low, length)| {
        let bits = 0x2001_0db8 << 96 | root << 96 | second << 64 | low << 58 | low;
        IpNet::V6(Ipv6Net::new(bits.into(), length).unwrap().trunc())
    });
    prop_oneof![2 => four, 2 => hosts, 3 => six]
}

fn entries(most: usize) -> impl Strategy<Value = Vec<(IpNet, StaticAction)>> {
    proptest::collection::vec((net(), action()), 0..most)
}

fn run<S: Strategy>(cases: u32, strategy: S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) };
    TestRunner::new(config).run(&strategy, test).unwrap();
}

#[test]
fn a_whole_set_says_what_comparing_prefixes_says() {
    let statics = std::cell::RefCell::new(empty());
    run(120, (entries(60), proptest::collection::vec(net(), 20)), |(entries, others)| {
        let mut model = Model::default();
        for (net, action) in entries {
            model.put(net, action);
        }
        let mut statics = statics.borrow_mut();
        statics.sync(model.entries()).unwrap();
        let others: Vec<_> = others.iter().map(IpNet::addr).collect();
        model.agrees(&statics, &others)?;
        let report = statics.sync(model.entries()).unwrap();
        prop_assert_eq!((report.added, report.changed, report.removed), (0, 0, 0));
        Ok(())
    });
}

#[test]
fn changes_in_place_end_where_a_whole_set_would() {
    let change = (net(), action(), any::<bool>());
    run(60, (entries(40), proptest::collection::vec(change, 1..40)), |(entries, changes)| {
        let mut statics = empty();
        let mut model = Model::default();
        for (net, action) in entries {
            model.put(net, action);
        }
        statics.sync(model.entries()).unwrap();
        let known: Vec<_> = model.entries().collect();
        for (number, (net, action, away)) in changes.into_iter().enumerate() {
            // Half of the removals are of something that was there.
            let (net, action) = known.get(number).copied().filter(|_| away && number % 2 == 0).unwrap_or((net, action));
            if away {
                let kind = StaticKind::of(action);
                prop_assert_eq!(statics.remove(net, kind).unwrap(), model.remove(net, kind));
            } else {
                statics.put(net, action).unwrap();
                model.put(net, action);
            }
            model.agrees(&statics, &[net.addr()])?;
        }
        Ok(())
    });
}
