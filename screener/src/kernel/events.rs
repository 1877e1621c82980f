//! What the programs tell: sampled events with addresses, and, when asked for at the start, their debug lines.
//!
//! Holds the two streams. Never keeps an event: who reads the stream decides what is worth keeping. A reader that is too
//! slow loses events, never packets; the counter `note_event_lost` says how many.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use screener_ebpf as abi;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::boot::BootClock;
use super::error::KernelError;
use super::statics::decode;
use crate::clock::UnixTime;
use crate::feed::StaticAction;

pub use screener_ebpf::{Hook, Verdict};

/// What a program found about one SYN under a static entry, of an offender, or over its client's rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: UnixTime,
    /// The client.
    pub address: IpAddr,
    /// The port it wanted.
    pub port: u16,
    /// Which program tells.
    pub hook: Hook,
    /// What became of the SYN.
    pub verdict: Verdict,
    /// The outcome by the name of its counter, for example `drop_denied`.
    pub outcome: &'static str,
    /// What the entry that holds asks for; `None`: no entry holds, and [`Event::counted`], [`Event::over_rate`] or
    /// [`Event::offender`] is why there is an event.
    pub action: Option<StaticAction>,
    /// An entry with the action `count` covers the client too.
    pub counted: bool,
    /// The client sends SYNs faster than it may, and this one was dropped.
    pub over_rate: bool,
    /// The client, or its prefix, is kept out as an offender.
    pub offender: bool,
    /// How many SYNs this one stands for: the sampling rate.
    pub weight: u32,
}

impl Event {
    /// Reads a record; `None` if it is none of ours.
    fn read(record: &[u8], clock: BootClock) -> Option<Self> {
        let record = abi::Event::read(record)?;
        let finding = record.finding()?;
        let address = match record.source()? {
            abi::Address::V4(octets) => IpAddr::from(octets),
            abi::Address::V6(octets) => IpAddr::from(octets),
        };
        Some(Self {
            at: clock.to_unix(record.boot_ns),
            address,
            port: u16::from_be_bytes(record.port),
            hook: finding.hook,
            verdict: finding.counter.verdict(),
            outcome: finding.counter.name(),
            action: decode(finding.action),
            counted: finding.counted,
            over_rate: finding.counter == abi::Counter::OverRate,
            offender: matches!(finding.counter, abi::Counter::DroppedOffender | abi::Counter::RejectedOffender),
            weight: record.weight,
        })
    }
}

/// The events, one after the other. Dropping it ends the reading; the ring then keeps what it has room for.
pub struct EventStream(AsyncFd<RingBuf<MapData>>);

impl EventStream {
    pub(super) fn new(ring: RingBuf<MapData>) -> Result<Self, KernelError> {
        // SAFETY: the ring owns its descriptor, always gives out the same one, and closes it when it is dropped.
        unsafe { register(ring) }.map(Self)
    }

    /// The next event; `None` when the runtime shuts down.
    ///
    /// May be dropped while it waits: no event is lost by that.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let mut guard = self.0.readable_mut().await.ok()?;
            while let Some(record) = guard.get_inner_mut().next() {
                if let Some(event) = Event::read(&record, BootClock::read()) {
                    return Some(event);
                }
            }
            guard.clear_ready();
        }
    }
}

/// Waits for a descriptor to become readable.
///
/// # Safety
/// As for [`AsyncFd::register_with_interest`]: one open descriptor, the same for the whole life of `source`.
unsafe fn register<T: AsRawFd>(source: T) -> Result<AsyncFd<T>, KernelError> {
    // tokio panics where there is no runtime.
    tokio::runtime::Handle::try_current().map_err(|error| KernelError::Events(io::Error::other(error)))?;
    // SAFETY: the caller's promise.
    let registered = unsafe { AsyncFd::register_with_interest(source, Interest::READABLE) };
    registered.map_err(|error| KernelError::Events(error.into_parts().1))
}

/// The debug lines of the programs: one for each packet that `screen` could not read.
///
/// They go to the `log` crate under the target `screener_ebpf`, and exist only if that target is enabled at level debug
/// when the kernel half starts.
pub struct LogStream(AsyncFd<EbpfLogger<&'static dyn log::Log>>);

impl LogStream {
    pub(super) fn new(logger: EbpfLogger<&'static dyn log::Log>) -> Result<Self, KernelError> {
        // SAFETY: the logger owns a ring, see there.
        unsafe { register(logger) }.map(Self)
    }

    /// Passes lines on until the runtime shuts down.
    pub async fn run(mut self) {
        while let Ok(mut guard) = self.0.readable_mut().await {
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    }
}
