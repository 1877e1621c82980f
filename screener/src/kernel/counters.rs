//! The programs' counters, added up over the CPUs.
//!
//! Holds the reading. The counters live as long as the maps: they do not begin at zero when a daemon starts.

use std::path::Path;

use aya::Ebpf;
use aya::maps::{MapData, PerCpuArray};
use screener_ebpf::{self as abi, COUNTER_SLOTS, Counter, Family, Hook, counter_slot};
use serde::Serialize;

use super::error::KernelError;
use super::load;
use super::pin::PinDirectory;

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

    /// From the pin alone.
    pub(super) fn open(directory: &Path) -> Result<Self, KernelError> {
        load::pinned(directory, abi::maps::COUNTERS).map(Self)
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

    fn packets(&self, slot: u32) -> Result<u64, KernelError> {
        let values = self.0.get(&slot, 0);
        let values = values.map_err(|error| KernelError::map(abi::maps::COUNTERS, COUNTER_SLOTS, error))?;
        Ok(values.iter().sum())
    }
}
