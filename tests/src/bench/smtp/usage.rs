//! What a server's processes have taken: processor time of the whole tree, memory of one of them.

use std::collections::HashMap;
use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::proc::memory;

/// The parts of `/proc/PID/stat` (proc(5)) that are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// User and system time, its own and that of children it has waited for, in clock ticks.
    ticks: u64,
}

/// Processor time, user and system, of a process and of all below it, ended ones included, in seconds.
///
/// The kernel counts in nanoseconds and shows hundredths of a second: what is measured must take much longer than that.
pub(super) fn cpu_seconds(root: u32) -> Result<f64> {
    let all = processes()?;
    ensure!(all.contains_key(&root), "process {root} has ended");
    let below = all.keys().filter(|&&process| is_below(&all, process, root));
    let ticks: u64 = below.filter_map(|process| all.get(process)).map(|stat| stat.ticks).sum();
    // SAFETY: a call without pointers.
    let ticks_per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Ok(ticks as f64 / ticks_per_second as f64)
}

/// The process below `root` with this name.
pub(super) fn find(root: u32, name: &str) -> Result<u32> {
    let all = processes()?;
    let mut below = all.keys().copied().filter(|&process| is_below(&all, process, root));
    let is_named =
        |process: &u32| fs::read_to_string(format!("/proc/{process}/comm")).is_ok_and(|comm| comm.trim_end() == name);
    below.find(is_named).with_context(|| format!("no process {name} below {root}"))
}

/// Resident memory of one process, in bytes.
pub(super) fn resident_bytes(process: u32) -> Result<f64> {
    Ok(memory(process, "VmRSS")? as f64)
}

fn processes() -> Result<HashMap<u32, Stat>> {
    let mut all = HashMap::new();
    for entry in fs::read_dir("/proc").context("/proc")? {
        let name = entry.context("/proc")?.file_name();
        let Some(process) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that ends at this moment has no line any more; its time is its parent's then.
        if let Some(stat) = fs::read_to_string(format!("/proc/{process}/stat")).ok().as_deref().and_then(parse) {
            all.insert(process, stat);
        }
    }
    Ok(all)
}

fn is_below(all: &HashMap<u32, Stat>, process: u32, root: u32) -> bool {
    let mut at = process;
    // A process that changes its parent meanwhile could make a circle; no tree here is as deep.
    for _ in 0..64 {
        if at == root {
            return true;
        }
        match all.get(&at) {
            Some(stat) => at = stat.parent,
            None => return false,
        }
    }
    false
}

fn parse(line: &str) -> Option<Stat> {
    // The name may hold blanks and brackets; what follows its last bracket does not.
    let (_, rest) = line.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    // Field 3 of proc(5), the state, is the first here.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let ticks = field(14)? + field(15)? + field(16)? + field(17)?;
    Some(Stat { parent: field(4)?.try_into().ok()?, ticks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_stat_is_understood_whatever_the_name() {
        let line = "7 (a) b) S 3 7 7 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 5 6 7";
        assert_eq!(parse(line), Some(Stat { parent: 3, ticks: 100 }));
        assert_eq!(parse("7 (a"), None);
    }

    #[test]
    fn this_process_takes_time_and_memory() {
        let own = std::process::id();
        assert!(cpu_seconds(own).unwrap() >= 0.0);
        assert!(resident_bytes(own).unwrap() > 0.0);
        assert!(find(own, "no such name").is_err());
    }
}
