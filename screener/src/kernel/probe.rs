//! What this kernel can do, and what this process may do: asked by small attempts that change nothing.
//!
//! Holds the list of the kernel features that the programs and maps need, with the version that brought each. Never
//! attaches anything: the one attempt that would is aimed at an interface that cannot take it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use serde::Serialize;

use super::sys;

// <linux/bpf.h>
const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_TYPE_XDP: u32 = 6;
pub(super) const BPF_PROG_TYPE_SK_LOOKUP: u32 = 30;
const BPF_XDP: u32 = 37;
const BPF_SK_LOOKUP: u32 = 36;
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
const BPF_FUNC_KTIME_GET_BOOT_NS: i32 = 125;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_LPM_TRIE: u32 = 11;
const BPF_MAP_TYPE_SOCKMAP: u32 = 15;
const BPF_MAP_TYPE_RINGBUF: u32 = 27;
const BPF_F_NO_PREALLOC: u32 = 1;
const BPF_F_MMAPABLE: u32 = 1 << 10;
/// The number of the loopback interface. It has no driver: nothing can be attached to it in native mode.
const LOOPBACK: u32 = 1;

/// A feature of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    /// XDP programs.
    Xdp,
    /// XDP attachments that can be pinned and swapped.
    XdpLinks,
    /// XDP programs for frames in several buffers.
    XdpFrags,
    /// `sk_lookup` programs.
    SkLookup,
    /// Sockets in maps.
    SocketMaps,
    /// LPM tries.
    Tries,
    /// Ring buffers.
    RingBuffers,
    /// Arrays that can be mapped into memory.
    MappedArrays,
    /// The boot clock within programs.
    BootClock,
}

impl Feature {
    /// Every feature, in the order in which they are shown.
    pub const ALL: [Self; 9] = [
        Self::Xdp,
        Self::XdpLinks,
        Self::XdpFrags,
        Self::SkLookup,
        Self::SocketMaps,
        Self::Tries,
        Self::RingBuffers,
        Self::MappedArrays,
        Self::BootClock,
    ];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Xdp => "XDP programs",
            Self::XdpLinks => "XDP links",
            Self::XdpFrags => "XDP on frames in several buffers",
            Self::SkLookup => "sk_lookup programs",
            Self::SocketMaps => "socket maps",
            Self::Tries => "longest-prefix tries",
            Self::RingBuffers => "BPF ring buffers",
            Self::MappedArrays => "arrays mapped into memory",
            Self::BootClock => "the boot clock in BPF programs",
        }
    }

    /// The version of Linux that brought it.
    pub fn since(self) -> &'static str {
        match self {
            Self::Xdp => "4.8",
            Self::XdpLinks | Self::SkLookup => "5.9",
            Self::XdpFrags => "5.18",
            Self::SocketMaps => "5.7",
            Self::Tries => "4.11",
            Self::RingBuffers | Self::BootClock => "5.8",
            Self::MappedArrays => "5.5",
        }
    }

    /// What is lost without it; `None`: nothing works without it.
    pub fn without(self) -> Option<&'static str> {
        match self {
            Self::XdpFrags => Some("interfaces with a large MTU run in generic mode"),
            _ => None,
        }
    }

    /// Asks the kernel. An error: it cannot be told, for example for lack of permission.
    fn ask(self) -> io::Result<bool> {
        let there = match self {
            Self::Xdp => program(BPF_PROG_TYPE_XDP, BPF_XDP, 0, &RETURN).map(drop),
            Self::XdpFrags => program(BPF_PROG_TYPE_XDP, BPF_XDP, BPF_F_XDP_HAS_FRAGS, &RETURN).map(drop),
            Self::SkLookup => program(BPF_PROG_TYPE_SK_LOOKUP, BPF_SK_LOOKUP, 0, &RETURN).map(drop),
            Self::BootClock => program(BPF_PROG_TYPE_XDP, BPF_XDP, 0, &BOOT_CLOCK).map(drop),
            Self::XdpLinks => xdp_link(),
            Self::SocketMaps => map(BPF_MAP_TYPE_SOCKMAP, 4, 8, 1, 0),
            Self::Tries => map(BPF_MAP_TYPE_LPM_TRIE, 8, 4, 1, BPF_F_NO_PREALLOC),
            // One page of any size that is in use.
            Self::RingBuffers => map(BPF_MAP_TYPE_RINGBUF, 0, 0, 1 << 16, 0),
            Self::MappedArrays => map(BPF_MAP_TYPE_ARRAY, 4, 4, 1, BPF_F_MMAPABLE),
        };
        match there {
            Ok(()) => Ok(true),
            // E2BIG: the kernel met a field that it does not know.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::E2BIG)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// What the kernel said about a feature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Which.
    pub feature: Feature,
    /// Whether it is there; `None`: it cannot be told.
    pub there: Option<bool>,
    /// Why not.
    pub error: Option<String>,
}

/// Asks about every feature.
pub fn features() -> Vec<Found> {
    raise_memory_limit();
    features_by(Feature::ask)
}

fn features_by(ask: impl Fn(Feature) -> io::Result<bool>) -> Vec<Found> {
    let found = Feature::ALL.into_iter().map(|feature| match ask(feature) {
        Ok(there) => Found { feature, there: Some(there), error: None },
        Err(error) => Found { feature, there: None, error: Some(error.to_string()) },
    });
    found.collect()
}

/// What of the features that nothing works without is not there, as a sentence; `None`: nothing is known to be missing.
pub(super) fn missing() -> Option<String> {
    missing_of(&features())
}

fn missing_of(found: &[Found]) -> Option<String> {
    let missing = found.iter().filter(|found| found.there == Some(false) && found.feature.without().is_none());
    let named: Vec<_> =
        missing.map(|found| format!("{} (Linux {} and later)", found.feature.name(), found.feature.since())).collect();
    (!named.is_empty()).then(|| named.join(", "))
}

/// The version of the kernel.
pub fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// What stands in the way of a process that the kernel does not let use BPF.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Privileges {
    /// Capabilities that it lacks.
    pub lacking: Vec<&'static str>,
    /// A seccomp filter is on it.
    pub seccomp: bool,
    /// It is in a user namespace, whose capabilities do not count for BPF.
    pub user_namespace: bool,
}

impl Privileges {
    /// Those of this process.
    pub fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        Self::of(&status, &map)
    }

    fn of(status: &str, uid_map: &str) -> Self {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        let effective = field("CapEff").and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or(0);
        let has = |number: u32| effective >> number & 1 == 1;
        let admin = has(21);
        let all =
            [("CAP_BPF", admin || has(39)), ("CAP_NET_ADMIN", admin || has(12)), ("CAP_PERFMON", admin || has(38))];
        let ids: Vec<_> = uid_map.split_whitespace().collect();
        Self {
            lacking: all.into_iter().filter(|(_, there)| !there).map(|(name, _)| name).collect(),
            seccomp: field("Seccomp").is_some_and(|mode| mode.trim() == "2"),
            user_namespace: !ids.is_empty() && ids != ["0", "0", "4294967295"],
        }
    }

    /// What to do about it, behind "no permission to …: ".
    pub fn advice(&self) -> String {
        let front = "or do without BPF: listen.mode = \"front\", kernel.xdp = \"off\"";
        if !self.lacking.is_empty() {
            let lacking = self.lacking.join(", ");
            return format!(
                "this process lacks {lacking}: run as root, or give it these (in a systemd unit: \
                 AmbientCapabilities=), {front}"
            );
        }
        if self.seccomp {
            return format!(
                "this process has the capabilities, but a seccomp filter is on it, as container engines and \
                 SystemCallFilter= set one: allow bpf(2) there, {front}"
            );
        }
        if self.user_namespace {
            return format!(
                "this process is in a user namespace, whose capabilities do not count for BPF: start it outside of \
                 one, {front}"
            );
        }
        format!(
            "this process has the capabilities: a security module or kernel lockdown forbids it, `dmesg` may say \
             which; allow it there, {front}"
        )
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn instruction(code: u8, immediate: i32) -> Instruction {
    Instruction { code, registers: 0, offset: 0, immediate }
}

const EXIT: Instruction = instruction(0x95, 0);
/// `return 1`
const RETURN: [Instruction; 2] = [instruction(0xb7, 1), EXIT];
/// `return bpf_ktime_get_boot_ns()`, cut to 1 for the programs whose answers are checked.
const BOOT_CLOCK: [Instruction; 3] = [instruction(0x85, BPF_FUNC_KTIME_GET_BOOT_NS), instruction(0xb7, 1), EXIT];

/// Loads a program; it is gone with its descriptor.
fn program(kind: u32, attach_type: u32, flags: u32, instructions: &[Instruction]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buf: u64,
        kern_version: u32,
        prog_flags: u32,
        prog_name: [u8; 16],
        prog_ifindex: u32,
        expected_attach_type: u32,
    }
    let attributes = Attributes {
        prog_type: kind,
        insn_cnt: u32::try_from(instructions.len()).unwrap_or(0),
        insns: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: flags,
        prog_name: *b"screener_probe\0\0",
        prog_ifindex: 0,
        expected_attach_type: attach_type,
    };
    // SAFETY: laid out as <linux/bpf.h> has it; the instructions and the licence live until after the call.
    unsafe { sys::bpf_fd(BPF_PROG_LOAD, &attributes) }
}

/// Makes a map; it is gone with its descriptor.
fn map(kind: u32, key_size: u32, value_size: u32, max_entries: u32, flags: u32) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        map_type: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        map_flags: u32,
    }
    let attributes = Attributes { map_type: kind, key_size, value_size, max_entries, map_flags: flags };
    // SAFETY: laid out as <linux/bpf.h> has it; numbers only.
    unsafe { sys::bpf_fd(BPF_MAP_CREATE, &attributes) }.map(drop)
}

/// Where links are known, what is wrong is the mode; elsewhere, the kind of attachment (`EINVAL`).
fn xdp_link() -> io::Result<()> {
    let program = program(BPF_PROG_TYPE_XDP, BPF_XDP, 0, &RETURN)?;
    match sys::link_xdp(program.as_fd(), LOOPBACK, sys::XDP_FLAGS_DRV_MODE) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EBUSY | libc::EEXIST)) => Ok(()),
        other => other.map(drop),
    }
}

/// Before 5.11 the kernel counts maps and programs against the limit of locked memory.
fn raise_memory_limit() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    // Where it is refused the attempts say what they lack.
    let _ = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_every_feature_without_which_nothing_works() {
        for found in features().into_iter().filter(|found| found.feature.without().is_none()) {
            assert_eq!(found.there, Some(true), "{found:?}");
        }
        assert_eq!(missing(), None);
    }

    #[test]
    fn what_an_old_kernel_lacks_is_named_with_the_version_that_brought_it() {
        let old = features_by(|feature| Ok(!matches!(feature, Feature::SkLookup | Feature::MappedArrays)));
        let missing = missing_of(&old).unwrap();
        assert_eq!(
            missing,
            "sk_lookup programs (Linux 5.9 and later), arrays mapped into memory (Linux 5.5 and later)"
        );
        // One can do without this one.
        assert_eq!(missing_of(&features_by(|feature| Ok(feature != Feature::XdpFrags))), None);
        let forbidden = features_by(|_| Err(io::Error::from_raw_os_error(libc::EPERM)));
        assert_eq!(missing_of(&forbidden), None, "what may not be asked is not missing");
        assert!(forbidden.iter().all(|found| found.there.is_none() && found.error.is_some()));
    }

    #[test]
    fn each_obstacle_has_its_own_advice() {
        let all = "CapEff:\t000001ffffffffff\nSeccomp:\t0\n";
        let init = "         0          0 4294967295\n";
        let nothing = Privileges::of(all, init);
        assert_eq!(nothing, Privileges::default());
        assert!(nothing.advice().contains("security module"));
        let weak = Privileges::of("CapEff:\t0000000000001000\nSeccomp:\t0\n", init);
        assert_eq!(weak.lacking, ["CAP_BPF", "CAP_PERFMON"]);
        assert!(weak.advice().contains("lacks CAP_BPF, CAP_PERFMON"), "{}", weak.advice());
        let filtered = Privileges::of("CapEff:\t000001ffffffffff\nSeccomp:\t2\n", init);
        assert!(filtered.advice().contains("seccomp filter"));
        let mapped = Privileges::of(all, "         0     100000      65536\n");
        assert!(mapped.advice().contains("user namespace"));
    }
}
