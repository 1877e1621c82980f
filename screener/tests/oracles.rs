//! The compiled deny set before four judges that know nothing of it: a trie in user space, the kernel's own trie, nft and
//! ipset. On random lists and addresses all five must say the same about every one.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapData;
use aya::maps::lpm_trie::{Key, LpmTrie};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use screener::clock::UnixTime;
use screener::feed::{DenyAction, Entry, Source, StaticAction, StaticSet};
use screener::kernel::{Kernel, Options, XdpPolicy};
use screener_tests::cell;

/// Prefixes of one family in a list.
const PREFIXES: usize = 3000;
/// Addresses that are asked about: half of them at the borders of prefixes.
const ADDRESSES: usize = 1500;

/// Splitmix64: the same lists for the same seed, everywhere.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn any(&mut self) -> u32 {
        (self.next() >> 32) as u32
    }

    fn below(&mut self, end: u32) -> u32 {
        self.any() % end
    }

    /// Prefixes of all lengths, half of them close to each other.
    fn four(&mut self) -> Ipv4Net {
        let near = 0xc633_0000 | self.below(1 << 14);
        let bits = if self.below(2) == 0 { near } else { self.any() };
        let length = 9 + u8::try_from(self.below(24)).unwrap_or_default();
        Ipv4Net::new_assert(bits.into(), length).trunc()
    }

    fn six(&mut self) -> Ipv6Net {
        let root = 0x2001_0db8 + self.below(40);
        let (second, third) = (self.below(300), self.below(300));
        let bits =
            u128::from(root) << 96 | u128::from(second) << 64 | u128::from(third) << 48 | u128::from(self.below(9));
        let length = 20 + u8::try_from(self.below(109)).unwrap_or_default();
        Ipv6Net::new_assert(bits.into(), length).trunc()
    }

    fn address(&mut self, list: &[IpNet]) -> IpAddr {
        let net = list[self.below(u32::try_from(list.len()).unwrap_or(1)) as usize];
        let step = u128::from(self.below(3));
        match (net, self.below(4)) {
            (IpNet::V4(net), 0) => four(net.network().to_bits().wrapping_sub(step as u32)),
            (IpNet::V4(net), 1) => four(net.broadcast().to_bits().wrapping_add(step as u32)),
            (IpNet::V4(_), 2) => four(self.any()),
            (IpNet::V4(net), _) => four(net.network().to_bits() | self.any() & net.hostmask().to_bits()),
            (IpNet::V6(net), 0) => six(net.network().to_bits().wrapping_sub(step)),
            (IpNet::V6(net), 1) => six(net.broadcast().to_bits().wrapping_add(step)),
            (IpNet::V6(net), _) => {
                let low = u128::from(self.next()) << 64 | u128::from(self.next());
                six(net.network().to_bits() | low & net.hostmask().to_bits())
            }
        }
    }
}

fn four(bits: u32) -> IpAddr {
    Ipv4Addr::from_bits(bits).into()
}

fn six(bits: u128) -> IpAddr {
    Ipv6Addr::from_bits(bits).into()
}

/// Feeds a program that is talked to line by line; gives back what it says on standard error, which is where both say no.
fn talk(program: &str, arguments: &[&str], lines: &str) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {program}: run `cargo xtask setup`"))?;
    let mut input = child.stdin.take().context("no input")?;
    let lines = lines.to_owned();
    let feeding = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(matches!(feeding.join(), Ok(Ok(()))), "{program} stopped listening:\n{said}");
    Ok(said)
}

/// Which of the addresses nft has.
fn by_nft(list: &[IpNet], addresses: &[IpAddr]) -> Result<BTreeSet<IpAddr>> {
    let kind = if list[0].addr().is_ipv4() { "ipv4_addr" } else { "ipv6_addr" };
    let mut lines = format!("add table inet t\nadd set inet t s {{ type {kind}; flags interval; auto-merge; }}\n");
    let elements: Vec<_> = list.iter().map(ToString::to_string).collect();
    lines += &format!("add element inet t s {{ {} }}\n", elements.join(", "));
    let loaded = talk("nft", &["-f", "-"], &lines)?;
    ensure!(loaded.is_empty(), "nft: {loaded}");
    let questions: String = addresses.iter().map(|address| format!("get element inet t s {{ {address} }}\n")).collect();
    let said = talk("nft", &["-i"], &questions)?;
    // It repeats a question only to say that there is no such element.
    let missing: BTreeSet<_> = said.lines().filter_map(|line| line.strip_prefix("get element inet t s { ")).collect();
    talk("nft", &["-f", "-"], "delete table inet t\n")?;
    let missing: BTreeSet<IpAddr> =
        missing.into_iter().map(|line| Ok(line.trim_end_matches(" }").parse()?)).collect::<Result<_>>()?;
    Ok(addresses.iter().copied().filter(|address| !missing.contains(address)).collect())
}

/// Which of the addresses ipset has.
fn by_ipset(list: &[IpNet], addresses: &[IpAddr]) -> Result<BTreeSet<IpAddr>> {
    let family = if list[0].addr().is_ipv4() { "inet" } else { "inet6" };
    let mut lines = format!("create s hash:net family {family} maxelem 65536\n");
    lines.extend(list.iter().map(|net| format!("add s {net} -exist\n")));
    let loaded = talk("ipset", &["restore"], &lines)?;
    ensure!(loaded.is_empty(), "ipset: {loaded}");
    let questions: String = addresses.iter().map(|address| format!("test s {address}\n")).collect();
    let said = talk("ipset", &["-"], &questions)?;
    talk("ipset", &["destroy", "s"], "")?;
    let (mut has, mut answered) = (BTreeSet::new(), 0);
    for line in said.lines() {
        let line = line.trim_start_matches("Warning: ");
        if let Some(address) = line.strip_suffix(" is in set s.") {
            has.insert(address.parse::<IpAddr>()?);
            answered += 1;
        } else if line.ends_with(" is NOT in set s.") {
            answered += 1;
        }
    }
    ensure!(answered == addresses.len(), "ipset answered {answered} questions of {}", addresses.len());
    Ok(has)
}

/// What the kernel's trie says: the action of the longest prefix.
fn by_lpm(list: &[(IpNet, StaticAction)], addresses: &[IpAddr]) -> Result<Vec<Option<StaticAction>>> {
    const NO_PREALLOC: u32 = 1;
    let mut four = LpmTrie::<MapData, [u8; 4], u32>::create(1 << 16, NO_PREALLOC)?;
    let mut six = LpmTrie::<MapData, [u8; 16], u32>::create(1 << 16, NO_PREALLOC)?;
    for (number, (net, _)) in list.iter().enumerate() {
        let (length, number) = (u32::from(net.prefix_len()), u32::try_from(number)?);
        match net.addr() {
            IpAddr::V4(address) => four.insert(&Key::new(length, address.octets()), number, 0)?,
            IpAddr::V6(address) => six.insert(&Key::new(length, address.octets()), number, 0)?,
        }
    }
    let find = |address: &IpAddr| match address {
        IpAddr::V4(address) => four.get(&Key::new(32, address.octets()), 0).ok(),
        IpAddr::V6(address) => six.get(&Key::new(128, address.octets()), 0).ok(),
    };
    Ok(addresses.iter().map(|address| find(address).map(|number| list[number as usize].1)).collect())
}

/// What the trie of the daemon says.
fn by_set(list: &[(IpNet, StaticAction)], addresses: &[IpAddr]) -> Result<Vec<Option<StaticAction>>> {
    let mut set = StaticSet::new();
    for &(prefix, action) in list {
        let added = UnixTime(0);
        set.insert_forced(Entry { prefix, action, source: Source::Cli, comment: None, added })?;
    }
    Ok(addresses.iter().map(|&address| set.lookup(address).map(|found| found.action)).collect())
}

fn lists(dice: &mut Dice) -> [Vec<IpNet>; 2] {
    let four: BTreeSet<_> = (0..PREFIXES).map(|_| IpNet::V4(dice.four())).collect();
    let six: BTreeSet<_> = (0..PREFIXES).map(|_| IpNet::V6(dice.six())).collect();
    [four.into_iter().collect(), six.into_iter().collect()]
}

fn kernel() -> Result<Kernel> {
    Ok(Kernel::start(&Options { xdp: XdpPolicy::Off, ..Options::default() })?)
}

#[test]
fn four_judges_and_the_deny_set_agree_on_who_is_listed() {
    cell::test("four_judges_and_the_deny_set_agree_on_who_is_listed", || {
        let kernel = kernel()?;
        for seed in 1..=3 {
            let mut dice = Dice(seed);
            for list in lists(&mut dice) {
                let addresses: Vec<_> = (0..ADDRESSES).map(|_| dice.address(&list)).collect();
                let entries: Vec<_> = list.iter().map(|&net| (net, StaticAction::Deny(DenyAction::Drop))).collect();
                kernel.sync_statics(entries.iter().copied())?;
                let (nft, ipset) = (by_nft(&list, &addresses)?, by_ipset(&list, &addresses)?);
                let (lpm, set) = (by_lpm(&entries, &addresses)?, by_set(&entries, &addresses)?);
                for ((address, lpm), set) in addresses.iter().zip(lpm).zip(set) {
                    let ours = kernel.lookup_static(*address).is_some();
                    let said = [nft.contains(address), ipset.contains(address), lpm.is_some(), set.is_some()];
                    ensure!(
                        said == [ours; 4],
                        "{address}: ours {ours}; nft, ipset, the kernel's trie, ours in user space: {said:?} (seed {seed})"
                    );
                }
            }
        }
        Ok(())
    });
}

#[test]
fn both_tries_and_the_deny_set_agree_on_what_is_done() {
    const ACTIONS: [DenyAction; 3] = [DenyAction::Drop, DenyAction::Reject, DenyAction::Tag];
    cell::test("both_tries_and_the_deny_set_agree_on_what_is_done", || {
        let kernel = kernel()?;
        for seed in 11..=14 {
            let mut dice = Dice(seed);
            for list in lists(&mut dice) {
                let addresses: Vec<_> = (0..20 * ADDRESSES).map(|_| dice.address(&list)).collect();
                let mut entries = Vec::new();
                for net in list {
                    entries.push((net, StaticAction::Deny(ACTIONS[dice.below(3) as usize])));
                }
                kernel.sync_statics(entries.iter().copied())?;
                let (lpm, set) = (by_lpm(&entries, &addresses)?, by_set(&entries, &addresses)?);
                for ((address, lpm), set) in addresses.iter().zip(lpm).zip(set) {
                    let ours = kernel.lookup_static(*address);
                    ensure!(ours == lpm && ours == set, "{address}: ours {ours:?}, {lpm:?}, {set:?} (seed {seed})");
                }
            }
        }
        Ok(())
    });
}
