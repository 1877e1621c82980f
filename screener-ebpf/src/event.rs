//! The event record: one sampled finding of a program, with the address that no counter has.
//!
//! Holds the layout and its decoding. Never trusts the bytes: a record from an older program decodes to `None`.

use crate::counter::{Counter, Family, Hook};
use crate::{Address, action};

/// What a program found about one SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Who found it.
    pub hook: Hook,
    /// What became of the packet, and why.
    pub counter: Counter,
    /// One of [`action`]: what the static entry that holds asked for; [`action::NONE`]: there is none.
    pub action: u8,
    /// A `count` entry would have matched too.
    pub counted: bool,
}

/// After an event that found the ring full a CPU does not try again for this many: nobody reads, and trying costs more
/// than all the rest of a drop.
pub const QUIET_AFTER_LOSS: u64 = 255;

/// Whether the finding that was counted as number `count` becomes an event, if one of `sample` does; 0: none does.
///
/// Chosen by the counter that has just been raised, since a random number costs as much as the drop. Multiples of the
/// golden section spread evenly over a circle, and so do every second, every third of them: senders that take turns in
/// whatever rhythm are all seen in proportion, which every `sample`-th alone would not do.
#[inline(always)]
pub const fn sampled(count: u64, sample: u32) -> bool {
    let place = (count as u32).wrapping_mul(0x9e37_79b1) as u64;
    sample != 0 && (place * sample as u64) >> 32 == 0
}

/// The record in the ring buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, in nanoseconds since boot (`CLOCK_BOOTTIME`).
    pub boot_ns: u64,
    /// The source; an IPv4 address in the first four bytes.
    pub address: [u8; 16],
    /// How many packets this event stands for: the sampling rate when it was made.
    pub weight: u32,
    /// The destination port in network order.
    pub port: [u8; 2],
    /// [`Family`].
    pub family: u8,
    /// [`Hook`].
    pub hook: u8,
    /// [`Counter`].
    pub counter: u8,
    /// One of [`action`].
    pub action: u8,
    /// Not 0: a `count` entry would have matched too.
    pub counted: u8,
    /// Zero.
    pub _pad: [u8; 5],
}
const _: () = assert!(size_of::<Event>() == 40);

impl Event {
    /// The record of a finding.
    #[inline(always)]
    pub const fn new(boot_ns: u64, source: &Address, port: [u8; 2], weight: u32, finding: &Finding) -> Self {
        let address = match source {
            Address::V4([a, b, c, d]) => [*a, *b, *c, *d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            Address::V6(whole) => *whole,
        };
        Self {
            boot_ns,
            address,
            weight,
            port,
            family: source.family() as u8,
            hook: finding.hook as u8,
            counter: finding.counter as u8,
            action: finding.action,
            counted: finding.counted as u8,
            _pad: [0; 5],
        }
    }

    /// The record in these bytes; `None` if they are too few.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (boot_ns, rest) = bytes.split_first_chunk::<8>()?;
        let (address, rest) = rest.split_first_chunk::<16>()?;
        let (weight, rest) = rest.split_first_chunk::<4>()?;
        let (port, rest) = rest.split_first_chunk::<2>()?;
        let ([family, hook, counter, action, counted], _) = rest.split_first_chunk::<5>()?;
        Some(Self {
            boot_ns: u64::from_ne_bytes(*boot_ns),
            address: *address,
            weight: u32::from_ne_bytes(*weight),
            port: *port,
            family: *family,
            hook: *hook,
            counter: *counter,
            action: *action,
            counted: *counted,
            _pad: [0; 5],
        })
    }

    /// The source; `None` if the record names no family.
    pub fn source(&self) -> Option<Address> {
        let [a, b, c, d, ..] = self.address;
        match self.family {
            family if family == Family::Ipv4 as u8 => Some(Address::V4([a, b, c, d])),
            family if family == Family::Ipv6 as u8 => Some(Address::V6(self.address)),
            _ => None,
        }
    }

    /// Who found what; `None` if the record names a hook, outcome or action that does not exist.
    pub fn finding(&self) -> Option<Finding> {
        let hook = Hook::ALL.into_iter().find(|&hook| hook as u8 == self.hook)?;
        let counter = *Counter::ALL.get(usize::from(self.counter))?;
        let known = self.action <= action::PERMIT;
        known.then_some(Finding { hook, counter, action: self.action, counted: self.counted != 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(event: &Event) -> [u8; size_of::<Event>()] {
        // SAFETY: repr(C) without padding, any byte pattern is a valid array.
        unsafe { core::mem::transmute_copy(event) }
    }

    #[test]
    fn a_record_reads_back() {
        let finding = Finding { hook: Hook::Steer, counter: Counter::Rejected, action: action::REJECT, counted: true };
        for source in [Address::V4([192, 0, 2, 7]), Address::V6([0x20; 16])] {
            let event = Event::new(7, &source, [0, 25], 64, &finding);
            let read = Event::read(&bytes(&event)).expect("a whole record");
            assert_eq!(read, event);
            assert_eq!(read.source(), Some(source));
            assert_eq!(read.finding(), Some(finding));
        }
    }

    #[test]
    fn one_of_so_many_is_chosen_whatever_the_rhythm_of_the_senders() {
        let chosen = |first: u64, step: u64, sample: u32| -> i64 {
            let mut chosen = 0;
            for number in 0..100_000 {
                chosen += i64::from(sampled(first + number * step, sample));
            }
            chosen
        };
        assert_eq!(chosen(5, 1, 1), 100_000);
        assert_eq!(chosen(5, 1, 0), 0);
        for sample in [2, 4, 16, 64, 1024] {
            let fair = 100_000 / i64::from(sample);
            for step in [1, 2, 3, 4, 5, 8, 16, 64, 1024] {
                for first in [0, 1, 12_345, u64::from(u32::MAX) - 7] {
                    let got = chosen(first, step, sample);
                    assert!((got - fair).abs() <= 12, "one of {sample}, each {step}th sender: {got} instead of {fair}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let finding = Finding { hook: Hook::Screen, counter: Counter::Dropped, action: action::DROP, counted: false };
        let event = Event::new(7, &Address::V4([192, 0, 2, 7]), [0, 25], 1, &finding);
        assert_eq!(Event::read(&bytes(&event)[..34]), None);
        assert_eq!(Event { family: 9, ..event }.source(), None);
        assert_eq!(Event { counter: 77, ..event }.finding(), None);
    }
}
