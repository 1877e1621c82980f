//! What is counted: one slot a hook, family and outcome.
//!
//! Holds the names that metrics and JSON show. Never counts: the programs do, and the daemon adds the CPUs up.

/// Where a packet was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Hook {
    /// The XDP program.
    Screen = 0,
    /// The `sk_lookup` program.
    Steer = 1,
}

impl Hook {
    /// Every hook, in the order of the slots.
    pub const ALL: [Self; 2] = [Self::Screen, Self::Steer];

    /// The name in metrics and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Screen => "screen",
            Self::Steer => "steer",
        }
    }
}

/// The family of a packet, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Family {
    /// IPv4.
    Ipv4 = 0,
    /// IPv6.
    Ipv6 = 1,
    /// Neither, or not known yet.
    Other = 2,
}

impl Family {
    /// Every family, in the order of the slots.
    pub const ALL: [Self; 3] = [Self::Ipv4, Self::Ipv6, Self::Other];

    /// The name in metrics and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Other => "other",
        }
    }
}

/// What became of the packet at the hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Verdict {
    /// Left alone: on to the stack (`screen`), or to the MTA by the normal lookup (`steer`).
    Pass = 0,
    /// Dropped without an answer.
    Drop = 1,
    /// Refused with a RST.
    Reject = 2,
    /// Given to one of the daemon's listeners.
    Steer = 3,
    /// No verdict: something seen on the way, beside the verdict that is counted too.
    Note = 4,
}

impl Verdict {
    /// Every verdict, in the order of the values.
    pub const ALL: [Self; 5] = [Self::Pass, Self::Drop, Self::Reject, Self::Steer, Self::Note];

    /// The name in metrics and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Reject => "reject",
            Self::Steer => "steer",
            Self::Note => "note",
        }
    }
}

/// Which hooks can count an outcome.
const SCREEN: u8 = 1;
const STEER: u8 = 2;
const BOTH: u8 = SCREEN | STEER;

macro_rules! counters {
    ($($(#[$doc:meta])* $variant:ident = $verdict:ident, $name:literal, $hooks:expr;)*) => {
        /// An outcome: a verdict and its reason. The name says both.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Counter {
            $($(#[$doc])* $variant,)*
        }

        impl Counter {
            /// Every outcome, in the order of the slots.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$variant,)*];
            /// How many there are.
            pub const COUNT: usize = [$($name,)*].len();

            /// The name in metrics and JSON.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What became of the packet.
            pub const fn verdict(self) -> Verdict {
                match self { $(Self::$variant => Verdict::$verdict,)* }
            }

            const fn hooks(self) -> u8 {
                match self { $(Self::$variant => $hooks,)* }
            }
        }
    };
}

counters! {
    /// Neither IPv4 nor IPv6.
    NotIp = Pass, "pass_not_ip", SCREEN;
    /// No TCP, or TCP in something that `screen` does not look into.
    NotTcp = Pass, "pass_not_tcp", BOTH;
    /// To a port that is not screened.
    OtherPort = Pass, "pass_other_port", BOTH;
    /// A segment other than a pure SYN.
    NotSyn = Pass, "pass_not_syn", SCREEN;
    /// More than two VLAN tags.
    VlanDepth = Pass, "pass_vlan_depth", SCREEN;
    /// The frame ends within a header.
    Truncated = Pass, "pass_truncated", SCREEN;
    /// A header contradicts itself: version, lengths.
    Malformed = Pass, "pass_malformed", SCREEN;
    /// More IPv6 extension headers than `screen` follows.
    HeaderDepth = Pass, "pass_header_depth", SCREEN;
    /// A fragment other than the first: no ports in it.
    LaterFragment = Pass, "pass_later_fragment", SCREEN;
    /// A first fragment to a screened port whose source is not to be dropped.
    FirstFragment = Pass, "pass_first_fragment", SCREEN;
    /// An IPv4-mapped IPv6 source: never valid on a wire, the stack discards it.
    MappedSource = Pass, "pass_mapped_source", SCREEN;
    /// From loopback, or from the very address it goes to: never screened.
    OwnAddress = Pass, "pass_own_address", STEER;
    /// A permit covers the source. (For `screen` such a client is [`Counter::Unlisted`]: it asks about denies alone.)
    Permitted = Pass, "pass_permitted", STEER;
    /// No deny entry holds for the source. (In `steer` such a client is permitted, has a pass, or is screened.)
    Unlisted = Pass, "pass_unlisted", SCREEN;
    /// A `reject` entry: `screen` leaves the refusal to `steer`, because it may not or cannot answer.
    RejectLater = Pass, "pass_reject_later", SCREEN;
    /// A `tag` entry: `screen` leaves the choice of the listener to `steer`.
    TagLater = Pass, "pass_tag_later", SCREEN;
    /// The client holds a valid pass.
    Passed = Pass, "pass_passed", STEER;
    /// The client should be screened, but no listener stands in its slot: the daemon is not running.
    NoListener = Pass, "pass_no_listener", STEER;
    /// The client should be screened, but the listener in the slot cannot take its family.
    WrongFamily = Pass, "pass_wrong_family", STEER;
    /// The client should be screened, but the kernel would not assign the listener.
    AssignFailed = Pass, "pass_assign_failed", STEER;
    /// A SYN under a `drop` entry.
    Dropped = Drop, "drop_denied", SCREEN;
    /// A first fragment under a `drop` entry (reference/xdp.md section 4.2, rule 4).
    DroppedFragment = Drop, "drop_fragment", SCREEN;
    /// A SYN of a client that sends them faster than it may.
    OverRate = Drop, "drop_over_rate", SCREEN;
    /// A SYN, or a first fragment, of a client or prefix that is kept out as an offender.
    DroppedOffender = Drop, "drop_offender", SCREEN;
    /// A `reject` entry: `screen` has sent a RST back, or `steer` has made the stack send one.
    Rejected = Reject, "reject_denied", BOTH;
    /// A `drop` entry that `screen` did not see or could not read. Here no silence is possible, only a RST.
    DropMissed = Reject, "reject_drop_missed", STEER;
    /// An offender that `screen` did not see. Here no silence is possible, only a RST.
    RejectedOffender = Reject, "reject_offender", STEER;
    /// An unknown client, given to the plain listener.
    Screened = Steer, "steer_screened", STEER;
    /// A client under a `tag` entry, given to the tagged listener.
    Tagged = Steer, "steer_tagged", STEER;
    /// A `count` entry would have matched.
    Counted = Note, "note_counted", BOTH;
    /// An event found no room in the ring.
    EventLost = Note, "note_event_lost", BOTH;
}

impl Counter {
    /// Whether a hook can ever count this for a family: what cannot be need not be shown.
    pub const fn possible(self, hook: Hook, family: Family) -> bool {
        let hook_bit = match hook {
            Hook::Screen => SCREEN,
            Hook::Steer => STEER,
        };
        let early = matches!(self, Self::NotIp | Self::VlanDepth | Self::Truncated);
        let late = !matches!(self, Self::NotIp | Self::VlanDepth);
        let family_fits = match family {
            Family::Other => early,
            Family::Ipv4 => late && !matches!(self, Self::HeaderDepth | Self::MappedSource),
            Family::Ipv6 => late,
        };
        self.hooks() & hook_bit != 0 && family_fits
    }

    /// Whether a SYN that is counted here may become an event: what a static entry, the rate limit or the offence
    /// ladder decided.
    pub const fn tells(self, hook: Hook) -> bool {
        match self {
            Self::Dropped
            | Self::DroppedFragment
            | Self::OverRate
            | Self::DroppedOffender
            | Self::RejectedOffender
            | Self::Rejected
            | Self::DropMissed
            | Self::Tagged
            | Self::Counted => true,
            Self::Permitted => matches!(hook, Hook::Steer),
            _ => false,
        }
    }
}

/// How many slots the counter map has: one an outcome, and [`QUIET_SLOT`].
pub const COUNTER_SLOTS: u32 = QUIET_SLOT + 1;

/// The slot behind the outcomes: how many events each CPU will not even try to put into the full ring. No counter: it
/// lies in this map because it is one number a CPU, too.
pub const QUIET_SLOT: u32 = (Hook::ALL.len() * Family::ALL.len() * Counter::COUNT) as u32;

/// The slot of an outcome.
#[inline(always)]
pub const fn counter_slot(hook: Hook, family: Family, counter: Counter) -> u32 {
    (hook as u32 * Family::ALL.len() as u32 + family as u32) * Counter::COUNT as u32 + counter as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_is_used_once() {
        let mut seen = [false; QUIET_SLOT as usize];
        for hook in Hook::ALL {
            for family in Family::ALL {
                for counter in Counter::ALL {
                    let slot = &mut seen[counter_slot(hook, family, counter) as usize];
                    assert!(!*slot);
                    *slot = true;
                }
            }
        }
        assert!(seen.iter().all(|&used| used));
    }

    #[test]
    fn a_name_begins_with_its_verdict_and_stands_for_one_outcome() {
        for (index, counter) in Counter::ALL.iter().enumerate() {
            assert!(counter.name().starts_with(counter.verdict().name()), "{}", counter.name());
            assert!(Counter::ALL[..index].iter().all(|other| other.name() != counter.name()));
        }
    }
}
