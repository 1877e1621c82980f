//! The kernel: its version, what it can do, whether this process may make it do that, and what makes it fast.

use std::fs;
use std::path::Path;

use super::finding::Findings;
use crate::config::Config;
use crate::kernel::{Found, Privileges, features, release};

/// The oldest version that has everything.
const FLOOR: (u32, u32) = (5, 10);
/// From here on BPF memory is the control group's; before, it is locked memory of the process.
const NO_MEMLOCK: (u32, u32) = (5, 11);

pub(super) fn look(_config: &Config, findings: &mut Findings) {
    let release = release();
    let version = version(&release);
    match version {
        Some(version) if version < FLOOR => {
            findings.problem("kernel", format!("Linux {release}"), "Linux 5.10 or later is needed for steer and XDP");
        }
        _ => findings.ok("kernel", format!("Linux {release}")),
    }
    privileges(findings);
    bpf(&features(), findings);
    if Path::new("/sys/kernel/btf/vmlinux").exists() {
        findings.ok("BTF", "the kernel describes its types");
    } else {
        findings.ok("BTF", "the kernel does not describe its types: Screener needs none, bpftool shows less");
    }
    jit(fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").ok().as_deref().map(str::trim), findings);
    memory(version, findings);
}

/// The first two numbers.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn privileges(findings: &mut Findings) {
    let privileges = Privileges::read();
    if privileges.lacking.is_empty() {
        findings.ok("capabilities", "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON are there");
    } else {
        findings.problem("capabilities", "what this command may do is not enough for BPF", privileges.advice());
    }
}

/// What of BPF there is.
fn bpf(found: &[Found], findings: &mut Findings) {
    if let Some(error) = found.iter().find_map(|found| found.error.clone())
        && found.iter().all(|found| found.there.is_none())
    {
        findings.problem("bpf(2)", error, Privileges::read().advice());
        return;
    }
    for Found { feature, there, error } in found {
        let (name, since) = (feature.name(), feature.since());
        match (there, feature.without()) {
            (Some(true), _) => findings.ok(name, "there"),
            (Some(false), Some(without)) => {
                findings.warning(name, format!("this kernel has none, {without}"), format!("Linux {since} or later"));
            }
            (Some(false), None) => findings.problem(name, "this kernel has none", format!("Linux {since} or later")),
            (None, _) => {
                let error = error.clone().unwrap_or_default();
                findings.warning(name, format!("cannot be told: {error}"), Privileges::read().advice());
            }
        }
    }
}

fn jit(setting: Option<&str>, findings: &mut Findings) {
    const CHECK: &str = "BPF JIT";
    match setting {
        Some("1") => findings.ok(CHECK, "on"),
        Some("0") => findings.warning(
            CHECK,
            "off, programs are interpreted, several times slower",
            "`sysctl net.core.bpf_jit_enable=1`, and the same line in /etc/sysctl.d",
        ),
        Some(_) => findings.warning(CHECK, "on, in debug mode", "`sysctl net.core.bpf_jit_enable=1`"),
        None => findings.ok(CHECK, "not shown in this network namespace, the host's setting holds"),
    }
}

fn memory(version: Option<(u32, u32)>, findings: &mut Findings) {
    use rustix::process::{Resource, getrlimit};
    const CHECK: &str = "memory limit";
    let limit = getrlimit(Resource::Memlock).maximum;
    match (version, limit) {
        (Some(version), Some(bytes)) if version < NO_MEMLOCK => findings.warning(
            CHECK,
            format!("{bytes} bytes of locked memory, against which this kernel counts BPF maps"),
            "as root it is raised by itself; otherwise LimitMEMLOCK=infinity in the unit",
        ),
        (Some(version), None) if version < NO_MEMLOCK => findings.ok(CHECK, "no limit of locked memory"),
        _ => findings.ok(CHECK, "BPF memory is counted by control group, no limit of the process"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Feature;

    fn lines(look: impl FnOnce(&mut Findings)) -> Vec<String> {
        let mut findings = Findings::default();
        look(&mut findings);
        findings.into_list().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_missing_feature_is_a_problem_unless_one_can_do_without_it() {
        let found = |feature, there| Found { feature, there, error: None };
        let found = [
            found(Feature::SkLookup, Some(false)),
            found(Feature::XdpFrags, Some(false)),
            found(Feature::Xdp, Some(true)),
        ];
        let lines = lines(|findings| bpf(&found, findings));
        assert_eq!(lines[0], "problem  sk_lookup programs: this kernel has none: Linux 5.9 or later");
        assert!(
            lines[1].starts_with("warning  XDP on frames in several buffers: this kernel has none"),
            "{}",
            lines[1]
        );
        assert_eq!(lines[2], "ok       XDP programs: there");
    }

    #[test]
    fn where_bpf_is_forbidden_one_line_says_so() {
        let found: Vec<_> = Feature::ALL
            .map(|feature| Found { feature, there: None, error: Some("Function not implemented".to_owned()) })
            .to_vec();
        let lines = lines(|findings| bpf(&found, findings));
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with("problem  bpf(2): Function not implemented"), "{}", lines[0]);
    }

    #[test]
    fn versions_are_read_with_and_without_what_distributions_add() {
        assert_eq!(version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(version("5.10"), Some((5, 10)));
        assert_eq!(version("7.0-rc1"), Some((7, 0)));
        assert_eq!(version("weird"), None);
        let old = lines(|findings| memory(Some((5, 10)), findings));
        assert!(old[0].contains("locked memory"), "{old:?}");
        assert!(lines(|findings| jit(Some("0"), findings))[0].starts_with("warning  BPF JIT: off"));
    }
}
