//! What is attached, how, and why not better: as the kernel says now, not as somebody once did.
//!
//! Holds the reading of pins and interfaces, for the daemon and for a command that finds no daemon. Never changes
//! anything.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData, MapError, MapInfo};
use aya::programs::{ProgramInfo, loaded_programs};
use screener_ebpf::{self as abi, Offender, Pass, Settings};
use serde::Serialize;

use super::attach::{self, Look};
use super::counters::CounterValue;
use super::error::KernelError;
use super::interface::Mode;
use super::{foreign, life, pin, sys};

/// The state of the kernel half.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Anything at all is attached.
    pub attached: bool,
    /// The pin directory.
    pub pin: PathBuf,
    /// The daemon that holds it, or the command that is at work there.
    pub holder: Option<Holder>,
    /// The version of the maps.
    pub abi: u32,
    /// The interfaces that are configured, or have a pinned link.
    pub interfaces: Vec<InterfaceStatus>,
    /// `steer`.
    pub steer: SteerStatus,
    /// What the programs are told; `None`: there are no maps of this version.
    pub settings: Option<SettingsStatus>,
    /// The maps of this version; empty if there are none.
    pub maps: Vec<MapStatus>,
    /// Packets by outcome; empty if there are no maps of this version.
    pub counters: Vec<CounterValue>,
    /// What does not work as it should, a line each.
    pub degraded: Vec<String>,
}

/// A process that holds the pin directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// Its number.
    pub process: u32,
    /// The name of its program.
    pub name: String,
}

/// `screen` on one interface.
#[derive(Clone, Debug, Serialize)]
pub struct InterfaceStatus {
    /// The interface.
    pub name: String,
    /// How it runs there.
    pub mode: Mode,
    /// Why not in a better way.
    pub reason: Option<String>,
    /// Its driver, where that can be told.
    pub driver: Option<String>,
    /// What runs there.
    pub program: Option<ProgramStatus>,
}

/// `steer` in the network namespace.
#[derive(Clone, Debug, Serialize)]
pub struct SteerStatus {
    /// It is attached to the namespace of the process that asks.
    pub attached: bool,
    /// Why not.
    pub reason: Option<String>,
    /// What runs there.
    pub program: Option<ProgramStatus>,
}

/// A program in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProgramStatus {
    /// Its number, until it is loaded again.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// The kernel's digest of its instructions: equal programs have equal tags.
    pub tag: String,
    /// How long ago it was loaded.
    pub age_seconds: Option<u64>,
    /// Its memory.
    pub bytes: Option<u32>,
}

/// What the programs are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SettingsStatus {
    /// The screened ports.
    pub ports: Vec<u16>,
    /// `steer` stands behind `screen`.
    pub steered: bool,
    /// `screen` answers `reject` entries itself.
    pub reject_early: bool,
    /// Why not.
    pub reject_early_reason: Option<String>,
    /// One of so many findings becomes an event; 0: none does.
    pub event_sample: u32,
    /// How many bits of an IPv6 address make a client.
    pub ipv6_key: u32,
}

/// One map.
#[derive(Clone, Debug, Serialize)]
pub struct MapStatus {
    /// Its name.
    pub name: &'static str,
    /// How many entries it holds, where that says something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries: Option<usize>,
    /// How many it can hold; bytes for a ring buffer; for a compiled deny set nothing, since it grows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_entries: Option<u32>,
    /// Its memory, as the kernel accounts it.
    pub bytes: u64,
}

/// What the one who asks knows beyond the pins.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// Why `screen` is not on an interface, or not in a better way. An interface that should have `screen` is in here.
    pub(super) interfaces: BTreeMap<String, Option<String>>,
    /// Generic mode is what was asked for.
    pub(super) generic_wanted: bool,
    /// Why `steer` is not attached.
    pub(super) steer: Option<String>,
    /// Whether it should be.
    pub(super) steer_wanted: bool,
}

/// The attachments as they are.
pub(super) fn read(
    directory: &Path,
    known: &Known,
    maps: Vec<MapStatus>,
    counters: Vec<CounterValue>,
) -> Result<Status, KernelError> {
    let mut names = known.interfaces.clone();
    for (name, _) in pin::screen_links(directory)? {
        names.entry(name).or_default();
    }
    let holder = pin::holder(directory);
    let (mut interfaces, mut looks) = (Vec::new(), Vec::new());
    let mut degraded = Vec::new();
    for (name, reason) in names {
        let look = attach::look(directory, &name)?;
        let reason = match &look {
            Look::Ours { .. } => reason,
            Look::Renamed { to, .. } => Some(format!("it is called {to} now, put that name into kernel.interfaces")),
            other => Some(reason.unwrap_or_else(|| why_not(directory, &name, other, holder.is_some()))),
        };
        let status = interface_status(name, &look, reason);
        degraded.extend(complaint(&status, &look, known.generic_wanted));
        interfaces.push(status);
        looks.push(look);
    }
    let steer = steer_status(directory, known)?;
    if let (true, Some(reason)) = (known.steer_wanted, &steer.reason) {
        degraded.push(format!("clients are not steered: {reason}"));
    }
    Ok(Status {
        attached: steer.attached || interfaces.iter().any(|interface| interface.mode != Mode::None),
        pin: directory.to_owned(),
        holder: holder.map(|process| Holder { process, name: foreign::process_name(format!("/proc/{process}")) }),
        abi: abi::ABI_VERSION,
        settings: settings(directory, &looks)?,
        interfaces,
        steer,
        maps,
        counters,
        degraded,
    })
}

fn interface_status(name: String, look: &Look, reason: Option<String>) -> InterfaceStatus {
    let (mode, id) = match look {
        Look::Ours { interface, mode, .. } => (*mode, interface.program.map(|(id, _)| id)),
        Look::Renamed { mode, pin, .. } => (*mode, pin::link_info(pin).ok().flatten().map(|link| link.program)),
        Look::Free(_) | Look::Foreign { .. } | Look::Gone => (Mode::None, None),
    };
    let driver = look.interface().and_then(super::driver::name);
    InterfaceStatus { name, mode, reason, driver, program: id.and_then(program) }
}

/// Why `screen` is not on an interface, for somebody who was not there when it was attached.
fn why_not(directory: &Path, name: &str, look: &Look, held: bool) -> String {
    let pinned = pin::screen_link(directory, name).exists();
    let next =
        if held { "the daemon attaches again in a moment" } else { "`screener kernel attach` or start the daemon" };
    match look {
        Look::Gone => KernelError::NoInterface { interface: name.to_owned() }.to_string(),
        Look::Foreign { .. } => format!("the XDP program of somebody else is on {name}: `screener doctor` tells whose"),
        _ if pinned => format!("the interface was removed and made anew: {next}"),
        _ => "not asked for".to_owned(),
    }
}

/// What does not work as it should on an interface.
fn complaint(status: &InterfaceStatus, look: &Look, generic_wanted: bool) -> Option<String> {
    let InterfaceStatus { name, mode, reason, .. } = status;
    let why = reason.as_deref().unwrap_or("the reason is in the log of the daemon's start");
    if let Look::Renamed { to, .. } = look {
        return Some(format!(
            "{name} is called {to} now, where it is still screened: put that name into kernel.interfaces"
        ));
    }
    match mode {
        Mode::None => Some(format!("{name}: nothing is dropped early: {why}")),
        Mode::Generic if !generic_wanted => Some(format!("{name}: XDP in generic mode, which is slower: {why}")),
        Mode::Generic | Mode::Native | Mode::Offloaded => None,
    }
}

fn steer_status(directory: &Path, known: &Known) -> Result<SteerStatus, KernelError> {
    let Some(link) = pin::link_info(&pin::steer_link(directory))? else {
        let gone = || known.steer_wanted.then(|| "its pin is gone".to_owned());
        return Ok(SteerStatus { attached: false, reason: known.steer.clone().or_else(gone), program: None });
    };
    let attached = attach::is_steered(directory)?;
    let reason = match link.namespace {
        _ if attached => None,
        0 => Some("its network namespace is gone: restart the daemon".to_owned()),
        other => Some(format!("attached to another network namespace, inode {other}")),
    };
    Ok(SteerStatus { attached, reason, program: program(link.program) })
}

fn program(id: u32) -> Option<ProgramStatus> {
    let found = loaded_programs().filter_map(Result::ok).find(|program| program.id() == id)?;
    let age = found.loaded_at().and_then(|at| SystemTime::now().duration_since(at).ok());
    Some(ProgramStatus {
        id,
        name: found.name_as_str().unwrap_or_default().to_owned(),
        tag: format!("{:016x}", found.tag()),
        age_seconds: age.map(|age| age.as_secs()),
        bytes: ProgramInfo::memory_locked(&found).ok(),
    })
}

fn settings(directory: &Path, looks: &[Look]) -> Result<Option<SettingsStatus>, KernelError> {
    let path = pin::map_pin(directory, abi::maps::SETTINGS);
    if !path.exists() {
        return Ok(None);
    }
    let failed = |error| KernelError::map(abi::maps::SETTINGS, 1, error);
    let map = MapData::from_pin(&path).and_then(Map::from_map_data).map_err(failed)?;
    let map: Array<_, Settings> = map.try_into().map_err(failed)?;
    let settings = map.get(&0, 0).map_err(failed)?;
    let ports = settings.ports.into_iter().map(u16::from_be_bytes).filter(|&port| port != 0).collect();
    let reject_early = settings.flags & Settings::REJECT_EARLY != 0;
    Ok(Some(SettingsStatus {
        ports,
        steered: settings.flags & Settings::STEERED != 0,
        reject_early,
        reject_early_reason: life::reject_early(looks).err().filter(|_| !reject_early),
        event_sample: settings.event_sample,
        ipv6_key: u128::from_be_bytes(settings.key_mask).leading_ones(),
    }))
}

/// The maps by their pins. `size` tells how many entries a map holds and how much memory it takes, where that says something.
pub(super) fn maps(
    directory: &Path,
    size: impl Fn(&'static str, &Path) -> Result<(Option<usize>, Option<usize>), KernelError>,
) -> Result<Vec<MapStatus>, KernelError> {
    let mut maps = Vec::new();
    for name in abi::maps::ALL {
        let path = pin::map_pin(directory, name);
        if !path.exists() {
            continue;
        }
        let info = MapInfo::from_pin(&path).map_err(|error| KernelError::map(name, 0, error))?;
        let fields = sys::object_get(&path).and_then(|map| sys::fdinfo(map.as_fd()));
        let fields = fields.map_err(|error| KernelError::pin("cannot read about", &path, error))?;
        let (entries, within) = size(name, &path)?;
        // A deny set is the map within the map, of which the outer one's memory says nothing.
        let bytes = within.map(|bytes| bytes as u64).or_else(|| fields.get("memlock").copied()).unwrap_or(0);
        let max_entries = within.is_none().then(|| info.max_entries());
        maps.push(MapStatus { name, entries, max_entries, bytes });
    }
    Ok(maps)
}

/// Counts the entries of a pinned map of clients: takes about a second for a million of them.
pub(super) fn count(name: &'static str, path: &Path) -> Result<Option<usize>, KernelError> {
    let open = || {
        let map = MapData::from_pin(path).and_then(Map::from_map_data);
        map.map_err(|error| KernelError::map(name, 0, error))
    };
    match name {
        abi::maps::PASS4 => clients::<[u8; 4], Pass>(open()?),
        abi::maps::PASS6 => clients::<[u8; 16], Pass>(open()?),
        abi::maps::OFFENDER4 => clients::<abi::OffenderKey4, Offender>(open()?),
        abi::maps::OFFENDER6 => clients::<abi::OffenderKey6, Offender>(open()?),
        _ => return Ok(None),
    }
    .map(Some)
    .map_err(|error| KernelError::map(name, 0, error))
}

fn clients<K: Pod, V: Pod>(map: Map) -> Result<usize, MapError> {
    let table = HashMap::<_, K, V>::try_from(map)?;
    table.keys().try_fold(0, |count, key| key.map(|_| count + 1))
}
