//! Loading: the built-in object, its maps from their pins, its two programs past the verifier.
//!
//! Never attaches anything: what is loaded here sees no packet yet.

use std::path::Path;

use aya::maps::{Array, Map, MapData};
use aya::programs::{SkLookup, Xdp};
use aya::{Ebpf, EbpfLoader};
use screener_ebpf as abi;
use screener_ebpf::Settings;

use super::error::KernelError;
use super::options::Options;
use super::pin::{self, PinDirectory};

/// The kernel half, as `build.rs` compiled it.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/screener.bpf.o"));

/// The log target of what the programs say; `RUST_LOG=screener_ebpf=debug` turns it on, before the start.
const LOG_TARGET: &str = "screener_ebpf";

/// The object with its maps created or taken over; programs not loaded yet.
pub(super) fn object(pin: &PinDirectory) -> Result<Ebpf, KernelError> {
    let mut loader = EbpfLoader::new();
    for name in abi::maps::ALL {
        loader.map_pin_path(name, pin.map(name));
    }
    let level = log_level();
    loader.override_global(aya_log::LEVEL, &level, true);
    loader.load(OBJECT).map_err(KernelError::load)
}

/// The level for the programs: all or nothing. At 0 the verifier removes the statements: they cost nothing.
fn log_level() -> u8 {
    if logs_wanted() { aya_log::Level::Debug as u8 } else { 0 }
}

/// Whether anybody wants to read what the programs say.
pub(super) fn logs_wanted() -> bool {
    log::log_enabled!(target: LOG_TARGET, log::Level::Debug)
}

/// `screen`, loaded.
pub(super) fn screen(object: &mut Ebpf) -> Result<&mut Xdp, KernelError> {
    const NAME: &str = abi::programs::SCREEN;
    let program = object.program_mut(NAME).ok_or_else(|| missing(NAME))?;
    let program: &mut Xdp = program.try_into().map_err(|error| KernelError::program(NAME, error))?;
    program.load().map_err(|error| KernelError::program(NAME, error))?;
    Ok(program)
}

/// `steer`, loaded.
pub(super) fn steer(object: &mut Ebpf) -> Result<&mut SkLookup, KernelError> {
    const NAME: &str = abi::programs::STEER;
    let program = object.program_mut(NAME).ok_or_else(|| missing(NAME))?;
    let program: &mut SkLookup = program.try_into().map_err(|error| KernelError::program(NAME, error))?;
    program.load().map_err(|error| KernelError::program(NAME, error))?;
    Ok(program)
}

/// Takes a map out of the object.
pub(super) fn take<M: TryFrom<Map, Error = aya::maps::MapError>>(
    object: &mut Ebpf,
    pin: &PinDirectory,
    name: &'static str,
) -> Result<M, KernelError> {
    let map = object.take_map(name).ok_or_else(|| missing(name))?;
    // An existing pin is taken as it is: that it fits shows only here.
    M::try_from(map).map_err(|_| KernelError::ForeignMap { path: pin.map(name) })
}

/// Opens a map by its pin, without the object.
pub(super) fn pinned<M: TryFrom<Map, Error = aya::maps::MapError>>(
    directory: &Path,
    name: &'static str,
) -> Result<M, KernelError> {
    let path = pin::map_pin(directory, name);
    let map =
        MapData::from_pin(&path).and_then(Map::from_map_data).map_err(|error| KernelError::map(name, 0, error))?;
    M::try_from(map).map_err(|_| KernelError::ForeignMap { path })
}

fn missing(name: &'static str) -> KernelError {
    KernelError::Object(Box::new(aya::EbpfError::MapError(aya::maps::MapError::InvalidName { name: name.to_owned() })))
}

/// The settings map.
pub(super) struct SettingsMap(Array<aya::maps::MapData, Settings>);

impl SettingsMap {
    pub(super) fn take(object: &mut Ebpf, pin: &PinDirectory) -> Result<Self, KernelError> {
        take(object, pin, abi::maps::SETTINGS).map(Self)
    }

    /// From the pin alone.
    pub(super) fn open(directory: &Path) -> Result<Self, KernelError> {
        pinned(directory, abi::maps::SETTINGS).map(Self)
    }

    /// What stands there: from a daemon before us, or zeros.
    pub(super) fn read(&self) -> Result<Settings, KernelError> {
        self.0.get(&0, 0).map_err(|error| KernelError::map(abi::maps::SETTINGS, 1, error))
    }

    /// Replaces it whole: a program reads the old or the new one, at worst a mixture for one packet.
    pub(super) fn write(&mut self, settings: Settings) -> Result<(), KernelError> {
        self.0.set(0, settings, 0).map_err(|error| KernelError::map(abi::maps::SETTINGS, 1, error))
    }
}

/// The options in the form in which the programs read them.
pub(super) fn settings(options: &Options, steered: bool) -> Result<Settings, KernelError> {
    if options.ports.len() > abi::MAX_PORTS {
        return Err(KernelError::TooManyPorts(options.ports.len()));
    }
    let mut ports = [[0; 2]; abi::MAX_PORTS];
    for (slot, port) in ports.iter_mut().zip(&options.ports) {
        *slot = port.to_be_bytes();
    }
    let bits = u32::from(options.key_length.bits());
    let key_mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0).to_be_bytes();
    let flags = if steered { Settings::STEERED } else { 0 };
    Ok(Settings { abi: abi::ABI_VERSION, flags, event_sample: options.event_sample, ports, key_mask })
}
