//! The programs' counters, added up over the CPUs.
//!
//! Holds the reading. The counters live as long as the maps: they do not begin at zero when a daemon starts.

use std::path::Path;

use aya::Ebpf;
use aya::maps::{MapData, PerCpuArray, PerCpuValues};
use screener_ebpf::{self as abi, COUNTER_SLOTS, Counter, Family, Hook, QUIET_SLOT, counter_slot};
use serde::Serialize;

use super::error::KernelError;
use super::load;
use super::pin::PinDirectory;

/// The name of the counters of events that found no room.
pub const EVENTS_LOST: &str = Counter::EventLost.name();

/// One counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CounterValue {
    /// The outcome, for example `drop_denied`. The names are listed at [`Counter`].
    pub name: &'static str,
    /// What became of the packets: `pass`, `drop`, `reject`, `steer`; or `note`, which is counted beside a verdict.
    pub verdict: &'static str,
    /// `ipv4`, `ipv6` or `other`.
    pub family: &'static str,
    /// `screen` or `steer`.
    pub hook: &'static str,
    /// Packets since the maps were made.
    pub packets: u64,
}

/// The counter map.
pub(super) struct Counters(PerCpuArray<MapData, u64>);

impl Counters {
    pub(super) fn take(object: &mut Ebpf, pin: &PinDirectory) -> Result<Self, KernelError> {
        load::take(object, pin, abi::maps::COUNTERS).map(Self)
    }

    /// From the pin alone; `None`: nothing is pinned there.
    pub(super) fn open(directory: &Path) -> Result<Option<Self>, KernelError> {
        Ok(load::open(directory, abi::maps::COUNTERS)?.map(Self))
    }

    /// Every counter that can be other than zero, in a fixed order.
    pub(super) fn read(&self) -> Result<Vec<CounterValue>, KernelError> {
        let mut values = Vec::new();
        for hook in Hook::ALL {
            for family in Family::ALL {
                for counter in Counter::ALL.into_iter().filter(|counter| counter.possible(hook, family)) {
                    values.push(CounterValue {
                        name: counter.name(),
                        verdict: counter.verdict().name(),
                        family: family.name(),
                        hook: hook.name(),
                        packets: self.packets(counter_slot(hook, family, counter))?,
                    });
                }
            }
        }
        Ok(values)
    }

    /// How many findings there were that could become an event. One under a `count` entry may be in here twice.
    pub(super) fn findings(&self) -> Result<u64, KernelError> {
        let mut findings = 0u64;
        for hook in Hook::ALL {
            for family in [Family::Ipv4, Family::Ipv6] {
                let telling = |counter: &Counter| counter.possible(hook, family) && counter.tells(hook);
                for counter in Counter::ALL.into_iter().filter(telling) {
                    findings = findings.wrapping_add(self.packets(counter_slot(hook, family, counter))?);
                }
            }
        }
        Ok(findings)
    }

    /// Makes the programs try to tell their findings again: somebody listens now.
    pub(super) fn be_heard(&mut self) -> Result<(), KernelError> {
        let failed = |error| KernelError::map(abi::maps::COUNTERS, COUNTER_SLOTS, error);
        let before = self.0.get(&QUIET_SLOT, 0).map_err(failed)?;
        let zeros = PerCpuValues::try_from(vec![0; before.len()]).map_err(|error| failed(error.into()))?;
        self.0.set(QUIET_SLOT, zeros, 0).map_err(failed)
    }

    fn packets(&self, slot: u32) -> Result<u64, KernelError> {
        let values = self.0.get(&slot, 0);
        let values = values.map_err(|error| KernelError::map(abi::maps::COUNTERS, COUNTER_SLOTS, error))?;
        Ok(values.iter().sum())
    }
}
