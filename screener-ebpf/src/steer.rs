//! `steer`: the `sk_lookup` program. Gives unknown clients to the daemon and leaves all others to the MTA.
//!
//! Decides from the source address alone: under SYN cookies it runs again on the ACK and must come to the same end.
//! Never gives a client to the MTA's socket: it only steps aside, so that mail flows when the daemon is gone.

use core::ptr::addr_of;

use aya_ebpf::bindings::sk_action::{SK_DROP, SK_PASS};
use aya_ebpf::bindings::{BPF_SK_LOOKUP_F_REPLACE, bpf_sk_lookup};
use aya_ebpf::macros::{map, sk_lookup};
use aya_ebpf::maps::SockMap;
use aya_ebpf::programs::SkLookupContext;
use screener_ebpf::parse::is_mapped;
use screener_ebpf::{Address, Class, Counter, Family, Finding, Hook, SOCKET_SLOTS, action, socket_slot};

use crate::lists::{Denial, Static, look_up, use_pass};
use crate::offenders::turns_away;
use crate::report::{conclude, count};
use crate::settings::settings;

#[map]
static SOCKETS: SockMap = SockMap::with_max_entries(SOCKET_SLOTS, 0);

const AF_INET: u32 = 2;
const IPPROTO_TCP: u32 = 6;
/// `EAFNOSUPPORT` as the helper returns it: the socket is of the other family.
const WRONG_FAMILY: i32 = -97;
/// `ENOENT` as aya returns it: the slot is empty.
const EMPTY_SLOT: i32 = -2;

#[sk_lookup]
#[allow(clippy::needless_pass_by_value, reason = "what the macro calls it with")]
fn steer(ctx: SkLookupContext) -> u32 {
    let Some(settings) = settings() else { return SK_PASS };
    // SAFETY: the pointer that the program was called with.
    let fields = unsafe { Fields::read(ctx.lookup) };
    let unjudged = if fields.protocol != IPPROTO_TCP {
        Some(Counter::NotTcp)
    } else if !settings.screens(fields.port) {
        Some(Counter::OtherPort)
    } else if fields.own {
        Some(Counter::OwnAddress)
    } else {
        None
    };
    if let Some(counter) = unjudged {
        count(Hook::Steer, fields.family, counter);
        return SK_PASS;
    }
    let listed = look_up(&fields.source);
    // SK_DROP makes the stack answer as for a closed port: a RST. For `reject` that is what was asked for; for `drop` it
    // is the best that can be done here, and the counter says what `screen` did not see.
    let (counter, action) = match listed.verdict {
        Static::Permitted => (Counter::Permitted, action::PERMIT),
        Static::Denied(Denial::Reject) => (Counter::Rejected, action::REJECT),
        Static::Denied(Denial::Drop) => (Counter::DropMissed, action::DROP),
        Static::Denied(Denial::Tag) if turns_away(&fields.source, settings) => (Counter::RejectedOffender, action::TAG),
        Static::Denied(Denial::Tag) => (assign(&ctx, Class::Tagged, fields.family), action::TAG),
        Static::Unlisted if use_pass(&fields.source, settings) => (Counter::Passed, action::NONE),
        Static::Unlisted if turns_away(&fields.source, settings) => (Counter::RejectedOffender, action::NONE),
        Static::Unlisted => (assign(&ctx, Class::Plain, fields.family), action::NONE),
    };
    let finding = Finding { hook: Hook::Steer, counter, action, counted: listed.counted };
    conclude(settings, &fields.source, fields.port, &finding, true);
    match counter {
        Counter::Rejected | Counter::DropMissed | Counter::RejectedOffender => SK_DROP,
        _ => SK_PASS,
    }
}

/// Gives the connection to the daemon's listener of this class; leaves it to the MTA if there is none.
#[inline(always)]
fn assign(ctx: &SkLookupContext, class: Class, family: Family) -> Counter {
    // REPLACE: another program may have chosen a socket before us, for the local address, say. Whatever it chose is
    // where a client that has passed goes; an unknown one is screened first.
    let replace = u64::from(BPF_SK_LOOKUP_F_REPLACE);
    match SOCKETS.redirect_sk_lookup(ctx, socket_slot(class, family), replace) {
        Ok(()) => match class {
            Class::Plain => Counter::Screened,
            Class::Tagged => Counter::Tagged,
        },
        Err(EMPTY_SLOT) => Counter::NoListener,
        Err(WRONG_FAMILY) => Counter::WrongFamily,
        Err(_) => Counter::AssignFailed,
    }
}

/// What the program wants to know of the lookup.
struct Fields {
    protocol: u32,
    /// The family of the packet. An IPv4-mapped source in an IPv6 packet is IPv6 here and IPv4 in `source`.
    family: Family,
    /// Local port, network order.
    port: [u8; 2],
    source: Address,
    /// From loopback, or from the address it goes to.
    own: bool,
}

impl Fields {
    /// Reads the context.
    ///
    /// # Safety
    /// `lookup` must be the pointer that the program was called with.
    #[inline(always)]
    unsafe fn read(lookup: *const bpf_sk_lookup) -> Self {
        // Volatile: the verifier takes reads of these fields as 32 bits each, and the compiler would join two of them.
        // SAFETY: the caller's promise; the fields exist since kernel 5.9.
        unsafe {
            let protocol = addr_of!((*lookup).protocol).read_volatile();
            let port = addr_of!((*lookup).local_port).read_volatile() as u16;
            let port = port.to_be_bytes();
            if addr_of!((*lookup).family).read_volatile() == AF_INET {
                let remote = addr_of!((*lookup).remote_ip4).read_volatile();
                let local = addr_of!((*lookup).local_ip4).read_volatile();
                let bytes = remote.to_ne_bytes();
                let own = remote == local || bytes[0] == 127;
                return Self { protocol, family: Family::Ipv4, port, source: Address::V4(bytes), own };
            }
            let remote = words(addr_of!((*lookup).remote_ip6));
            let local = words(addr_of!((*lookup).local_ip6));
            let [a, b, c, d] = remote.map(u32::to_ne_bytes);
            let bytes =
                [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3]];
            let same = remote[0] == local[0] && remote[1] == local[1] && remote[2] == local[2] && remote[3] == local[3];
            let loopback = remote[0] == 0 && remote[1] == 0 && remote[2] == 0 && remote[3] == 1u32.to_be();
            let source = if is_mapped(&bytes) { Address::V4(d) } else { Address::V6(bytes) };
            let own = same || loopback || matches!(source, Address::V4([127, ..]));
            Self { protocol, family: Family::Ipv6, port, source, own }
        }
    }
}

/// The four words of an IPv6 address in the context.
///
/// # Safety
/// `address` must point into the context.
#[inline(always)]
unsafe fn words(address: *const [u32; 4]) -> [u32; 4] {
    let word = address.cast::<u32>();
    // SAFETY: the caller's promise; four words within the array.
    unsafe {
        [word.read_volatile(), word.add(1).read_volatile(), word.add(2).read_volatile(), word.add(3).read_volatile()]
    }
}
