//! Facts about interfaces and pins for `screener doctor`: what is there, before anybody tries anything.
//!
//! Holds the collecting. Never judges, and never attempts what could disturb somebody's traffic.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use aya::programs::links::LinkType;
use aya::programs::{loaded_links, loaded_programs};
use serde::Serialize;

use super::attach::{self, Look};
use super::error::KernelError;
use super::foreign::{self, Owner};
use super::interface::{self, Interface, Mode};
use super::probe::BPF_PROG_TYPE_SK_LOOKUP;
use super::status::Holder;
use super::{driver, pin, sys};

/// An interface, as it is.
#[derive(Clone, Debug, Serialize)]
pub struct InterfaceSurvey {
    /// Its name.
    pub name: String,
    /// It is up.
    pub up: bool,
    /// Bytes.
    pub mtu: u32,
    /// How many queues its frames come in by.
    pub rx_queues: u32,
    /// Its driver; for what is no card, what it is: `veth`, `bond`, `vlan`, …
    pub driver: Option<String>,
    /// What it is where it is no card.
    pub kind: Option<String>,
    /// The bond, bridge or other that it is a member of: its kind and its name.
    pub member_of: Option<(String, String)>,
    /// It joins TCP segments before XDP sees them; `None`: it does not say.
    pub lro: Option<bool>,
    /// The driver says that it runs XDP; `None`: it cannot be asked (before Linux 6.3).
    pub native: Option<bool>,
    /// The driver says that it gives XDP frames in several buffers.
    pub frags: Option<bool>,
    /// What runs there.
    pub xdp: Xdp,
}

/// The XDP program of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Xdp {
    /// There is none.
    None,
    /// Ours.
    Ours {
        /// How it runs.
        mode: Mode,
    },
    /// Somebody else's.
    Foreign {
        /// Whose.
        owner: Owner,
    },
}

/// Looks at an interface; `None`: there is none of this name.
pub fn survey_interface(directory: &Path, name: &str) -> Result<Option<InterfaceSurvey>, KernelError> {
    let (interface, xdp) = match attach::look(directory, name)? {
        Look::Ours { interface, mode, .. } => (interface, Xdp::Ours { mode }),
        Look::Free(interface) => (interface, Xdp::None),
        Look::Foreign { interface, program, mode } => {
            let owner = Owner::find(name, interface.index, program, mode);
            (interface, Xdp::Foreign { owner })
        }
        Look::Renamed { .. } | Look::Gone => return Ok(None),
    };
    let features = driver::xdp_features(&interface).ok();
    let member_of = interface.member_of.clone().map(|(kind, master)| (kind, name_of(master)));
    Ok(Some(InterfaceSurvey {
        driver: driver::name(&interface),
        lro: driver::joins_segments(&interface),
        native: features.map(driver::XdpFeatures::native),
        frags: features.map(driver::XdpFeatures::frags),
        xdp,
        member_of,
        name: interface.name,
        up: interface.up,
        mtu: interface.mtu,
        rx_queues: interface.rx_queues,
        kind: interface.kind,
    }))
}

fn name_of(index: u32) -> String {
    match interface::by_index(index) {
        Ok(Some(Interface { name, .. })) => name,
        _ => format!("interface {index}"),
    }
}

/// The pin directory, as it is.
#[derive(Clone, Debug, Serialize)]
pub struct PinSurvey {
    /// It lies, or would lie, on a bpffs.
    pub on_bpffs: bool,
    /// It exists.
    pub exists: bool,
    /// The versions whose maps are there, the one of this program first.
    pub versions: Vec<u32>,
    /// The version of this program.
    pub abi: u32,
    /// What is pinned, as `steer`, or `screen` and an interface.
    pub links: Vec<String>,
    /// Who holds it.
    pub holder: Option<Holder>,
}

/// Looks at a pin directory.
pub fn survey_pins(directory: &Path) -> Result<PinSurvey, KernelError> {
    let abi = screener_ebpf::ABI_VERSION;
    let mut links: Vec<_> =
        pin::screen_links(directory)?.into_iter().map(|(name, _)| format!("screen {name}")).collect();
    if pin::steer_link(directory).exists() {
        links.push("steer".to_owned());
    }
    let mut versions = pin::versions(directory)?;
    versions.sort_by_key(|&version| version != abi);
    let holder = pin::holder(directory)
        .map(|process| Holder { process, name: foreign::process_name(format!("/proc/{process}")) });
    Ok(PinSurvey {
        on_bpffs: pin::on_bpffs(directory)?,
        exists: fs::metadata(directory).is_ok(),
        versions,
        abi,
        links,
        holder,
    })
}

/// The `sk_lookup` programs of others that are attached to this network namespace, beside the `steer` of a pin directory: id
/// and name. The last of all that chooses a socket decides.
pub fn other_lookups(directory: &Path) -> Result<Vec<(u32, String)>, KernelError> {
    let ours = pin::link_info(&pin::steer_link(directory))?.map(|link| link.program);
    let own = pin::own_namespace().unwrap_or(0);
    let here = loaded_links().filter_map(Result::ok).filter(|link| {
        let fields = sys::link_by_id(link.id()).and_then(|link| sys::fdinfo(link.as_fd()));
        link.link_type().is_ok_and(|kind| kind == LinkType::Netns)
            && fields.is_ok_and(|fields| fields.get("netns_ino") == Some(&own))
    });
    let others: Vec<_> = here.map(|link| link.program_id()).filter(|&id| Some(id) != ours).collect();
    let programs = loaded_programs()
        .filter_map(Result::ok)
        .filter(|program| others.contains(&program.id()) && program.program_type() as u32 == BPF_PROG_TYPE_SK_LOOKUP);
    Ok(programs.map(|program| (program.id(), program.name_as_str().unwrap_or_default().to_owned())).collect())
}
