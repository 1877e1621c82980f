//! What is attached, how, and why not better: as the kernel says now, not as somebody once did.
//!
//! Holds the reading of pins and interfaces, for the daemon and for a command that finds no daemon. Never changes
//! anything.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use aya::Pod;
use aya::maps::{HashMap, Map, MapData, MapError, MapInfo};
use screener_ebpf::{self as abi, Pass};
use serde::Serialize;

use super::error::KernelError;
use super::interface::{self, Mode};
use super::pin;

/// The state of the kernel half.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Anything at all is attached.
    pub attached: bool,
    /// The pin directory.
    pub pin: PathBuf,
    /// The version of the maps.
    pub abi: u32,
    /// The interfaces that are configured, or have a pinned link.
    pub interfaces: Vec<InterfaceStatus>,
    /// `steer`.
    pub steer: SteerStatus,
    /// The maps of this version; empty if there are none.
    pub maps: Vec<MapStatus>,
    /// What does not work as it should, a line each.
    pub degraded: Vec<String>,
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
}

/// `steer` in the network namespace.
#[derive(Clone, Debug, Serialize)]
pub struct SteerStatus {
    /// It is attached to the namespace of the process that asks.
    pub attached: bool,
    /// Why not.
    pub reason: Option<String>,
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
    /// How much memory it takes, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<usize>,
}

/// What the one who asks knows beyond the pins.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// Why `screen` is not on an interface, or not in a better way. An interface that should have `screen` is in here.
    pub(super) interfaces: BTreeMap<String, Option<String>>,
    /// Why `steer` is not attached.
    pub(super) steer: Option<String>,
    /// Whether it should be.
    pub(super) steer_wanted: bool,
}

/// The attachments as they are.
pub(super) fn read(directory: &Path, known: &Known, maps: Vec<MapStatus>) -> Result<Status, KernelError> {
    let mut degraded = Vec::new();
    let mut names: BTreeMap<String, Option<String>> = known.interfaces.clone();
    let links: BTreeMap<_, _> = pin::screen_links(directory)?.into_iter().collect();
    for name in links.keys() {
        names.entry(name.clone()).or_default();
    }
    let mut interfaces = Vec::new();
    for (name, reason) in names {
        let link = links.get(&name).map(PathBuf::as_path);
        interfaces.push(interface_status(name, link, reason)?);
    }
    let steer = steer_status(directory, known)?;
    for InterfaceStatus { name, mode, reason } in &interfaces {
        let why = reason.as_deref().unwrap_or("the reason is in the log of the daemon's start");
        match mode {
            Mode::None => degraded.push(format!("{name}: nothing is dropped early: {why}")),
            Mode::Generic => degraded.push(format!("{name}: XDP in generic mode, which is slower: {why}")),
            Mode::Native | Mode::Offloaded => {}
        }
    }
    if let (true, Some(reason)) = (known.steer_wanted, &steer.reason) {
        degraded.push(format!("clients are not steered: {reason}"));
    }
    let attached = steer.attached || interfaces.iter().any(|interface| interface.mode != Mode::None);
    Ok(Status { attached, pin: directory.to_owned(), abi: abi::ABI_VERSION, interfaces, steer, maps, degraded })
}

fn interface_status(name: String, link: Option<&Path>, reason: Option<String>) -> Result<InterfaceStatus, KernelError> {
    let none = |name, reason: String| Ok(InterfaceStatus { name, mode: Mode::None, reason: Some(reason) });
    let found = match interface::look_up(&name) {
        Ok(found) => found,
        Err(error @ KernelError::NoInterface { .. }) => return none(name, error.to_string()),
        Err(error) => return Err(error),
    };
    let ours = match link {
        Some(link) => pin::link_info(link)?,
        None => None,
    };
    match (ours, found.program) {
        (Some(link), Some((id, mode))) if link.program == id && link.interface == found.index => {
            Ok(InterfaceStatus { name, mode, reason })
        }
        (Some(_), _) => none(name, "the interface was removed and made anew: restart the daemon".to_owned()),
        (None, _) => none(name, reason.unwrap_or_else(|| "not attached".to_owned())),
    }
}

fn steer_status(directory: &Path, known: &Known) -> Result<SteerStatus, KernelError> {
    let Some(link) = pin::link_info(&pin::steer_link(directory))? else {
        let reason = known.steer.clone().unwrap_or_else(|| "not attached".to_owned());
        return Ok(SteerStatus { attached: false, reason: Some(reason) });
    };
    let attached = pin::own_namespace().is_ok_and(|own| own == link.namespace);
    let reason = match link.namespace {
        _ if attached => None,
        0 => Some("its network namespace is gone: restart the daemon".to_owned()),
        other => Some(format!("attached to another network namespace, inode {other}")),
    };
    Ok(SteerStatus { attached, reason })
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
        let (entries, bytes) = size(name, &path)?;
        let grows = [abi::maps::DENY4, abi::maps::DENY6].contains(&name);
        maps.push(MapStatus { name, entries, max_entries: (!grows).then(|| info.max_entries()), bytes });
    }
    Ok(maps)
}

/// Counts the entries of a pinned map of passes: takes about a second for a million of them.
pub(super) fn count(name: &'static str, path: &Path) -> Result<Option<usize>, KernelError> {
    let open = || {
        let map = MapData::from_pin(path).and_then(Map::from_map_data);
        map.map_err(|error| KernelError::map(name, 0, error))
    };
    match name {
        abi::maps::PASS4 => clients::<[u8; 4]>(open()?),
        abi::maps::PASS6 => clients::<[u8; 16]>(open()?),
        _ => return Ok(None),
    }
    .map(Some)
    .map_err(|error| KernelError::map(name, 0, error))
}

fn clients<K: Pod>(map: Map) -> Result<usize, MapError> {
    let table = HashMap::<_, K, Pass>::try_from(map)?;
    table.keys().try_fold(0, |count, key| key.map(|_| count + 1))
}
