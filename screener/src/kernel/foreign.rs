//! Whose XDP program is on an interface: by what it is attached, where it is pinned, which process holds it, and what an
//! operator can do about it.
//!
//! Holds a search through what the kernel tells everybody. Never touches what it finds.

use std::fmt;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use aya::programs::links::LinkType;
use aya::programs::{loaded_links, loaded_programs};
use serde::Serialize;

use super::interface::Mode;
use super::{pin, sys};

/// libxdp puts one program of this name on an interface, which calls those of its users.
const DISPATCHER: &str = "xdp_dispatcher";
/// How deep below a bpffs pins are looked for, and how many.
const PIN_DEPTH: usize = 5;
const MOST_PINS: usize = 4096;

/// A program that is not ours, and who may have put it there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// The interface.
    pub interface: String,
    /// The id of the program.
    pub program: u32,
    /// Its name; empty if it has none.
    pub name: String,
    /// How it runs.
    pub mode: Mode,
    /// The id of the link that it is attached by; `None`: by netlink, or that may not be asked.
    pub link: Option<u32>,
    /// Where the program or its link is pinned.
    pub pins: Vec<PathBuf>,
    /// The processes that hold the program or its link open, as `name (number)`.
    pub processes: Vec<String>,
}

impl Owner {
    /// Looks for what can be found out. What may not be asked is left out.
    pub(super) fn find(interface: &str, index: u32, program: u32, mode: Mode) -> Self {
        let name = loaded_programs()
            .filter_map(Result::ok)
            .find(|loaded| loaded.id() == program)
            .and_then(|loaded| loaded.name_as_str().map(str::to_owned));
        Self {
            interface: interface.to_owned(),
            program,
            name: name.unwrap_or_default(),
            mode,
            link: link(program, index),
            pins: pins(program),
            processes: processes(program),
        }
    }

    /// What to do about it.
    pub fn advice(&self) -> String {
        let interface = &self.interface;
        let free = if self.name == DISPATCHER {
            format!(
                "it is libxdp's dispatcher, under which only its own users share an interface: `xdp-loader status \
                 {interface}` shows them, `xdp-loader unload {interface} --all` frees the interface"
            )
        } else if let Some(directory) = self.other_screener() {
            format!("it belongs to another screener: `screener kernel detach --pin {}`", directory.display())
        } else if let (Some(_), Some(pin)) = (self.link, self.pins.first()) {
            format!("if nobody needs it, `rm {}` detaches it", pin.display())
        } else if let (Some(_), Some(process)) = (self.link, self.processes.first()) {
            format!("it goes when {process} ends")
        } else if let Some(link) = self.link {
            format!("if nobody needs it, `bpftool link detach id {link}`")
        } else {
            let how = if self.mode == Mode::Generic { "xdpgeneric" } else { "xdp" };
            format!("if nobody needs it, `ip link set dev {interface} {how} off` detaches it")
        };
        format!("{free}; or take {interface} out of kernel.interfaces, or set kernel.xdp = \"off\"")
    }

    /// The pin directory of another screener, if it is one's.
    fn other_screener(&self) -> Option<&Path> {
        self.pins.iter().find_map(|path| pin::is_screen_link(path).then(|| path.parent()).flatten())
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "id {}", self.program)?;
        if !self.name.is_empty() {
            write!(f, ", \"{}\"", self.name)?;
        }
        match self.link {
            Some(link) => write!(f, ", attached by link {link}")?,
            None => write!(f, ", attached by netlink")?,
        }
        write!(f, " in {} mode", self.mode)?;
        for pin in &self.pins {
            write!(f, ", pinned at {}", pin.display())?;
        }
        match self.processes.as_slice() {
            [] => Ok(()),
            processes => write!(f, ", held by {}", processes.join(", ")),
        }
    }
}

/// The link by which a program is on an interface.
fn link(program: u32, index: u32) -> Option<u32> {
    loaded_links()
        .filter_map(Result::ok)
        .filter(|link| link.program_id() == program && link.link_type().is_ok_and(|kind| kind == LinkType::Xdp))
        .map(|link| link.id())
        .find(|&id| {
            let fields = sys::link_by_id(id).and_then(|link| sys::fdinfo(link.as_fd()));
            fields.is_ok_and(|fields| fields.get("ifindex") == Some(&u64::from(index)))
        })
}

/// Where a program, or a link to it, is pinned.
fn pins(program: u32) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut places: Vec<_> = bpf_mounts(&mounts).into_iter().map(|place| (place, 0)).collect();
    let (mut found, mut looked_at) = (Vec::new(), 0);
    while let Some((place, depth)) = places.pop() {
        for entry in fs::read_dir(&place).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && depth < PIN_DEPTH => places.push((path, depth + 1)),
                Ok(kind) if kind.is_file() && looked_at < MOST_PINS => {
                    looked_at += 1;
                    let fields = sys::object_get(&path).and_then(|object| sys::fdinfo(object.as_fd()));
                    if fields.is_ok_and(|fields| fields.get("prog_id") == Some(&u64::from(program))) {
                        found.push(path);
                    }
                }
                _ => {}
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// From the table of proc(5): the fifth column is the place, the kind stands behind a lone hyphen.
fn bpf_mounts(table: &str) -> Vec<PathBuf> {
    let bpf = table.lines().filter(|line| line.split_once(" - ").is_some_and(|(_, kind)| kind.starts_with("bpf ")));
    bpf.filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from).collect()
}

/// The processes that hold a program or a link to it.
fn processes(program: u32) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let number = entry.file_name().to_string_lossy().into_owned();
        if number.bytes().all(|digit| digit.is_ascii_digit()) && holds(&entry.path(), program) {
            found.push(format!("{} ({number})", process_name(entry.path())));
        }
    }
    found
}

fn holds(process: &Path, program: u32) -> bool {
    let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    descriptors.into_iter().any(|descriptor| {
        let bpf = fs::read_link(descriptor.path()).is_ok_and(|to| to.to_string_lossy().starts_with("anon_inode:bpf"));
        let fdinfo = || fs::read_to_string(process.join("fdinfo").join(descriptor.file_name())).unwrap_or_default();
        bpf && sys::fields(&fdinfo()).get("prog_id") == Some(&u64::from(program))
    })
}

/// The name of a process's program, by its directory in `/proc`.
pub(super) fn process_name(process: impl AsRef<Path>) -> String {
    fs::read_to_string(process.as_ref().join("comm"))
        .map_or_else(|_| "a process".to_owned(), |name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        let interface = "eth0".to_owned();
        let (pins, processes) = (Vec::new(), Vec::new());
        Owner { interface, program: 7, name: "xdp_pass".into(), mode: Mode::Native, link: None, pins, processes }
    }

    #[test]
    fn each_kind_of_owner_has_its_own_advice() {
        let by_netlink = owner();
        assert_eq!(by_netlink.to_string(), "id 7, \"xdp_pass\", attached by netlink in native mode");
        assert!(by_netlink.advice().contains("`ip link set dev eth0 xdp off`"), "{}", by_netlink.advice());
        let generic = Owner { mode: Mode::Generic, ..owner() };
        assert!(generic.advice().contains("xdpgeneric off"));
        let libxdp = Owner { name: DISPATCHER.to_owned(), link: Some(3), ..owner() };
        assert!(libxdp.advice().contains("xdp-loader unload eth0 --all"));
        let held = Owner { link: Some(3), processes: vec!["katran (5)".to_owned()], ..owner() };
        assert!(held.to_string().ends_with("by link 3 in native mode, held by katran (5)"), "{held}");
        assert!(held.advice().contains("it goes when katran (5) ends"));
        let pinned = Owner { link: Some(3), pins: vec!["/sys/fs/bpf/x/link".into()], ..owner() };
        assert!(pinned.advice().contains("`rm /sys/fs/bpf/x/link` detaches it"));
        let ours = Owner { link: Some(3), pins: vec!["/sys/fs/bpf/other/link_screen_eth0".into()], ..owner() };
        assert!(ours.advice().contains("`screener kernel detach --pin /sys/fs/bpf/other`"));
        assert!(Owner { link: Some(3), ..owner() }.advice().contains("`bpftool link detach id 3`"));
    }

    #[test]
    fn bpf_mounts_are_found_among_others() {
        let table =
            "30 25 0:27 / /sys rw - sysfs sysfs rw\n31 30 0:28 / /sys/fs/bpf rw shared:9 - bpf bpf rw,mode=700\n";
        assert_eq!(bpf_mounts(table), [PathBuf::from("/sys/fs/bpf")]);
    }
}
