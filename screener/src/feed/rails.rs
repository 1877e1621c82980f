//! Guard rails for a list of denies: what it may cover before somebody has to say that it is meant.
//!
//! Judges a list as a whole before anything is built of it. Pure: what is to be guarded is passed in. A list that an operator
//! forces does not come here.

use std::fmt;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Source;

/// The widest single prefix that is taken: a regional registry is handed a /8, nobody who sends spam owns more.
pub const WIDEST_V4: u8 = 8;
/// The same for IPv6, where a registry is handed a /12 at most.
pub const WIDEST_V6: u8 = 16;
/// A list may cover this part of the space: one in `MOST`. The widest lists in use (whole countries, all dial-up ranges of the
/// world) stay well below a quarter; what is above is a list of everything with exceptions, or a mistake.
const MOST: u128 = 4;
/// The unicast addresses of IPv4: all below 224.0.0.0. What a list says of the rest never meets a connection.
const SPACE_V4: u128 = 224 << 24;
/// What IANA has handed to the regional registries of IPv6's `2000::/3`, in which it counts: eight /12s. Measured against the
/// whole /3 no list of networks that exist could ever be too much.
const SPACE_V6: u128 = 8 << 116;
/// How many things of a kind a message names.
const NAMED: usize = 3;

/// The widest single prefix of a family that is taken.
pub fn widest(prefix: &IpNet) -> u8 {
    match prefix {
        IpNet::V4(_) => WIDEST_V4,
        IpNet::V6(_) => WIDEST_V6,
    }
}

/// Why something must not be covered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guarded {
    /// A permit, by whom it was made.
    Permit(Source),
    /// A permit that stands in the kernel, or in the file that is being restored.
    KernelPermit,
    /// The next hop of a default route: behind address translation all the world comes from there.
    Gateway,
}

impl fmt::Display for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Permit(source) => source.fmt(f),
            Self::KernelPermit => f.write_str("permit"),
            Self::Gateway => f.write_str("gateway"),
        }
    }
}

impl Guarded {
    /// Whether a list that names a part of it is wrong already. A part of somebody else's permitted network may well be
    /// on a list: the permit wins, and that is what it is for.
    fn is_our_own(&self) -> bool {
        matches!(self, Self::Permit(Source::OwnAddress | Source::OwnNetwork) | Self::Gateway)
    }
}

/// What a list must not cover.
#[derive(Clone, Debug, Default)]
pub struct Protected {
    items: Vec<(IpNet, Guarded)>,
}

impl Protected {
    /// Adds something.
    pub fn add(&mut self, net: IpNet, why: Guarded) {
        self.items.push((net.trunc(), why));
    }
}

/// Some things of a kind by name, and how many more there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Few<T> {
    named: Vec<T>,
    more: usize,
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self { named: Vec::new(), more: 0 }
    }
}

impl<T> Few<T> {
    /// Adds one.
    pub fn push(&mut self, one: T) {
        if self.named.len() < NAMED { self.named.push(one) } else { self.more += 1 }
    }

    /// How many there are in all.
    pub fn len(&self) -> usize {
        self.named.len() + self.more
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }
}

impl<T> Extend<T> for Few<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, all: I) {
        all.into_iter().for_each(|one| self.push(one));
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(all: I) -> Self {
        let mut few = Self::default();
        few.extend(all);
        few
    }
}

/// `a, b, c and 7 more`.
impl<T: fmt::Display> fmt::Display for Few<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, one) in self.named.iter().enumerate() {
            write!(f, "{}{one}", if number > 0 { ", " } else { "" })?;
        }
        if self.more > 0 { write!(f, " and {} more", self.more) } else { Ok(()) }
    }
}

/// How much a list covers, each address counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Addresses below 224.0.0.0.
    pub v4: u128,
    /// Addresses in `2000::/3`.
    pub v6: u128,
}

impl Coverage {
    /// Of a sorted list.
    pub fn of(sorted: &[IpNet]) -> Self {
        let mut coverage = Self::default();
        for net in outermost(sorted) {
            match net {
                IpNet::V4(net) => coverage.v4 += size(bounds_v4(net), (0, SPACE_V4 - 1)),
                IpNet::V6(net) => coverage.v6 += size(bounds_v6(net), (1 << 125, (1 << 126) - 1)),
            }
        }
        coverage
    }

    /// Whether this is, in either family, more than `times` as much as before, and more than what is `small` in it: then
    /// whoever keeps the list is asked whether that is meant. The one rule for the denies and permits of feeds and for the
    /// members of pools; they differ in what is small.
    pub fn outgrows(self, before: Self, times: u32, small: Self) -> bool {
        let grown = |to: u128, from: u128, small: u128| to > small && to > from.saturating_mul(times.into());
        grown(self.v4, before.v4, small.v4) || grown(self.v6, before.v6, small.v6)
    }

    fn is_too_much(self) -> bool {
        self.v4 > SPACE_V4 / MOST || self.v6 > SPACE_V6 / MOST
    }
}

/// `6.7 % of IPv4's unicast addresses and 0.1 % of the IPv6 addresses in use`.
impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v4 = || format!("{} of IPv4's unicast addresses ({})", share(self.v4, SPACE_V4), self.v4);
        let v6 = || format!("{} of the IPv6 addresses in use", share(self.v6, SPACE_V6));
        match (self.v4, self.v6) {
            (_, 0) => f.write_str(&v4()),
            (0, _) => f.write_str(&v6()),
            _ => write!(f, "{} and {}", v4(), v6()),
        }
    }
}

fn share(part: u128, whole: u128) -> String {
    // In thousandths: a part is less than 2^126, and one of IPv6 has low bits to spare.
    let thousandths = if part > u128::MAX / 1000 { part / (whole / 1000) } else { part * 1000 / whole };
    match thousandths {
        0 if part > 0 => "less than 0.1 %".to_owned(),
        _ => format!("{}.{} %", thousandths / 10, thousandths % 10),
    }
}

fn bounds_v4(net: &Ipv4Net) -> (u128, u128) {
    (u32::from(net.network()).into(), u32::from(net.broadcast()).into())
}

fn bounds_v6(net: &Ipv6Net) -> (u128, u128) {
    (net.network().into(), net.broadcast().into())
}

fn size((first, last): (u128, u128), (lowest, highest): (u128, u128)) -> u128 {
    (last.min(highest) + 1).saturating_sub(first.max(lowest))
}

/// The prefixes of a sorted list that lie in no other one: a prefix comes right before all that it covers.
fn outermost(sorted: &[IpNet]) -> impl Iterator<Item = &IpNet> {
    let mut outer: Option<&IpNet> = None;
    sorted.iter().filter(move |&net| {
        if outer.is_some_and(|outer| outer.contains(net)) {
            return false;
        }
        outer = Some(net);
        true
    })
}

/// Something that is guarded, and the prefix of the list that meets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Covered {
    /// What is covered.
    pub net: IpNet,
    /// Why it should not be.
    pub why: Guarded,
    /// By which prefix.
    pub by: IpNet,
}

impl fmt::Display for Covered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}) by {}", self.net, self.why, self.by)
    }
}

/// What a list is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// How much it covers.
    pub coverage: Coverage,
    /// Prefixes within permits: they do nothing.
    pub idle: Few<IpNet>,
}

/// Why a list was not taken, all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objections {
    /// How many prefixes it has.
    pub prefixes: usize,
    /// How much it would have covered.
    pub coverage: Coverage,
    /// Prefixes that are too wide by themselves.
    pub too_wide: Few<IpNet>,
    /// What it would have covered that it must not.
    pub covered: Few<Covered>,
}

impl std::error::Error for Objections {}

impl fmt::Display for Objections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefixes {
            1 => f.write_str("refused")?,
            many => write!(f, "the list is refused as a whole ({many} prefixes)")?,
        }
        write!(f, ": it would deny {}", self.coverage)?;
        if self.coverage.is_too_much() {
            f.write_str(", where at most 25 % are taken")?;
        }
        if !self.too_wide.is_empty() {
            write!(
                f,
                "; {} wider than /{WIDEST_V4} (IPv4) or /{WIDEST_V6} (IPv6): {}",
                number(&self.too_wide),
                self.too_wide
            )?;
        }
        if !self.covered.is_empty() {
            write!(f, "; it would cover {}", self.covered)?;
        }
        f.write_str(". Correct that, or force it with --force (permits still win)")
    }
}

fn number<T>(few: &Few<T>) -> String {
    match few.len() {
        1 => "one prefix is".to_owned(),
        many => format!("{many} prefixes are"),
    }
}

/// Judges a list. Bits behind the lengths are zero.
///
/// # Errors
/// With everything that speaks against it.
pub fn judge(list: &[IpNet], protected: &Protected) -> Result<Judgement, Box<Objections>> {
    judge_next(&[], list, protected)
}

/// Judges a list that follows on another one, which is in order. What that one says already is no news: it was accepted, or
/// what it covers was permitted since, on purpose.
///
/// # Errors
/// As [`judge`].
pub(super) fn judge_next(
    before: &[IpNet],
    list: &[IpNet],
    protected: &Protected,
) -> Result<Judgement, Box<Objections>> {
    let mut sorted = list.to_vec();
    sorted.sort_unstable();
    let coverage = Coverage::of(&sorted);
    let is_new = |net: &IpNet| before.binary_search(net).is_err();
    let too_wide: Few<_> = sorted.iter().filter(|net| net.prefix_len() < widest(net) && is_new(net)).copied().collect();
    let (covered, idle) = meet(&sorted, protected, is_new);
    let too_much = coverage.is_too_much() && !Coverage::of(before).is_too_much();
    if too_wide.is_empty() && covered.is_empty() && !too_much {
        return Ok(Judgement { coverage, idle });
    }
    Err(Box::new(Objections { prefixes: list.len(), coverage, too_wide, covered }))
}

/// What of a sorted list meets what is guarded by prefixes that are new, and what of it lies in permits.
fn meet(sorted: &[IpNet], protected: &Protected, is_new: impl Fn(&IpNet) -> bool + Copy) -> (Few<Covered>, Few<IpNet>) {
    let outer: Vec<_> = outermost(sorted).copied().collect();
    let mut items: Vec<_> = protected.items.iter().collect();
    items.sort_by_key(|(net, _)| *net);
    let (mut covered, mut idle) = (Few::default(), Few::default());
    // The permit whose prefixes are counted as idle already.
    let mut counted: Option<IpNet> = None;
    for (net, why) in items {
        let at = outer.partition_point(|other| other <= net);
        if let Some(&by) = at.checked_sub(1).and_then(|at| outer.get(at)).filter(|by| by.contains(net)) {
            if is_new(&by) {
                covered.push(Covered { net: *net, why: why.clone(), by });
            }
            continue;
        }
        let inside = within(sorted, net);
        if let (Some(&by), true) = (inside.iter().find(|net| is_new(net)), why.is_our_own()) {
            covered.push(Covered { net: *net, why: why.clone(), by });
        } else if !counted.is_some_and(|permit| permit.contains(net)) {
            idle.extend(inside.iter().copied());
            counted = Some(*net);
        }
    }
    (covered, idle)
}

/// Whether any prefix of a sorted list covers a part of another prefix, or the other way round.
pub(super) fn meets(sorted: &[IpNet], net: &IpNet) -> bool {
    // What covers a prefix stands before it, but not always right before it.
    let covers =
        |length| IpNet::new(net.addr(), length).is_ok_and(|wider| sorted.binary_search(&wider.trunc()).is_ok());
    !within(sorted, net).is_empty() || (0..net.prefix_len()).any(covers)
}

/// The part of a sorted list that lies in a prefix.
fn within<'a>(sorted: &'a [IpNet], net: &IpNet) -> &'a [IpNet] {
    let from = sorted.partition_point(|other| other < net);
    let length = sorted[from..].partition_point(|other| net.contains(other));
    &sorted[from..from + length]
}

#[cfg(test)]
mod tests;
