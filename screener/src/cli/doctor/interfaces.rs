//! The interfaces where XDP is to be attached.

use super::finding::Findings;
use crate::config::{Config, Mode};
use crate::kernel::{self, Feature, InterfaceSurvey, Xdp, XdpPolicy, features, survey_interface};
use crate::serve;

/// Above this MTU most drivers want a program for frames in several buffers: a page less what stands around a frame.
const ONE_BUFFER: u32 = 3498;

pub(super) fn look(config: &Config, findings: &mut Findings) {
    let options = serve::kernel_options(config, config.listen.mode != Mode::Front);
    if options.xdp == XdpPolicy::Off {
        findings.ok("interfaces", "kernel.xdp = \"off\", what is denied is refused at socket lookup");
        return;
    }
    if options.interfaces.is_empty() {
        findings.warning("interfaces", "none is known that faces the Internet", serve::NONE);
    }
    let frags = features().iter().any(|found| found.feature == Feature::XdpFrags && found.there == Some(true));
    for name in &options.interfaces {
        let check = format!("interface {name}");
        match survey_interface(&options.pin, name) {
            Ok(Some(survey)) => judge(&check, &survey, options.xdp, frags, findings),
            Ok(None) => findings.problem(
                check,
                "does not exist",
                "correct kernel.interfaces (`ip link` lists them); a daemon that runs attaches as soon as it is there",
            ),
            Err(error) => findings.problem(check, "cannot be looked at", error.to_string()),
        }
    }
}

/// What there is to say about one of them.
fn judge(check: &str, survey: &InterfaceSurvey, policy: XdpPolicy, frags: bool, findings: &mut Findings) {
    let InterfaceSurvey { name, mtu, rx_queues, .. } = survey;
    let driver = survey.driver.as_deref().unwrap_or("unknown");
    let state = if survey.up { "up" } else { "down" };
    findings.ok(check, format!("driver {driver}, MTU {mtu}, {rx_queues} receive queues, {state}"));
    if !survey.up {
        findings.warning(check, "is down", format!("`ip link set {name} up`"));
    }
    program(check, survey, policy, findings);
    kind(check, survey, findings);
    let native_wanted = matches!(policy, XdpPolicy::Auto | XdpPolicy::Native);
    if *mtu > ONE_BUFFER && native_wanted && !(frags && survey.frags == Some(true)) {
        findings.warning(
            check,
            format!("an MTU of {mtu} may be too large for native mode"),
            format!(
                "`ip link set dev {name} mtu 1500`, unless the other hosts need it; it also works with Linux 5.18 and a \
                 driver that takes frames in several buffers"
            ),
        );
    }
    if survey.lro == Some(true) && native_wanted {
        findings.warning(
            check,
            "large receive offload (LRO) is on, which native XDP forbids",
            format!("`ethtool -K {name} lro off`, if attaching does not turn it off by itself"),
        );
    }
}

/// What runs there, or would.
fn program(check: &str, survey: &InterfaceSurvey, policy: XdpPolicy, findings: &mut Findings) {
    match &survey.xdp {
        Xdp::Ours { mode: kernel::Mode::Generic } if policy != XdpPolicy::Generic => findings.warning(
            check,
            "screen runs in generic mode, which is slower",
            "`screener kernel status` or the daemon's log say why; `screener kernel detach` and a start try native mode again",
        ),
        Xdp::Ours { mode } => findings.ok(check, format!("screen runs in {mode} mode")),
        Xdp::Foreign { owner } => {
            findings.problem(check, format!("has an XDP program of somebody else, {owner}"), owner.advice());
        }
        Xdp::None => match (survey.native, policy) {
            (_, XdpPolicy::Generic) => findings.ok(check, "no XDP program, ours runs in generic mode"),
            (Some(true), _) => findings.ok(check, "no XDP program, the driver says that it runs them"),
            (Some(false), XdpPolicy::Native) => findings.problem(
                check,
                "the driver says that it does not run XDP programs",
                "set kernel.xdp = \"auto\" to have it in generic mode",
            ),
            (Some(false), _) => findings.warning(
                check,
                "the driver says that it does not run XDP programs",
                "they run in generic mode, which is slower and works",
            ),
            (None, _) => findings.ok(check, "no XDP program; whether the driver runs them only an attempt would tell"),
        },
    }
}

/// What follows from what it is, and what it is a member of.
fn kind(check: &str, survey: &InterfaceSurvey, findings: &mut Findings) {
    let name = &survey.name;
    match survey.kind.as_deref() {
        Some("bond") => findings.ok(check, "a bond: XDP runs natively from Linux 5.15 on, if all members can"),
        Some("vlan" | "bridge" | "macvlan" | "ipvlan" | "vxlan") => findings.warning(
            check,
            "stands upon another interface, where XDP could run natively; here it is generic",
            "name the card below it in kernel.interfaces, screen reads VLAN tags",
        ),
        _ => {}
    }
    match &survey.member_of {
        Some((kind, of)) if kind == "bond" => findings.warning(
            check,
            format!("is a member of the bond {of}"),
            format!("name {of} in kernel.interfaces instead (Linux 5.15 and later), or every member beside {name}"),
        ),
        Some((kind, of)) => {
            findings
                .ok(check, format!("is a member of the {kind} {of}, whose frames come in here and are screened here"));
        }
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey() -> InterfaceSurvey {
        InterfaceSurvey {
            name: "eth0".to_owned(),
            up: true,
            mtu: 1500,
            rx_queues: 4,
            driver: Some("ixgbe".to_owned()),
            kind: None,
            member_of: None,
            lro: Some(false),
            native: Some(true),
            frags: Some(false),
            xdp: Xdp::None,
        }
    }

    fn said(survey: &InterfaceSurvey, policy: XdpPolicy) -> String {
        let mut findings = Findings::default();
        judge("interface eth0", survey, policy, true, &mut findings);
        let lines: Vec<_> = findings.into_list().iter().map(ToString::to_string).collect();
        lines.join("\n")
    }

    #[test]
    fn a_card_as_it_should_be_has_nothing_said_against_it() {
        let text = said(&survey(), XdpPolicy::Auto);
        assert!(text.lines().all(|line| line.starts_with("ok ")), "{text}");
        assert!(text.contains("driver ixgbe, MTU 1500, 4 receive queues, up"), "{text}");
    }

    #[test]
    fn what_stands_in_the_way_of_native_mode_is_named() {
        for (survey, wanted) in [
            (InterfaceSurvey { mtu: 9000, ..survey() }, "warning  interface eth0: an MTU of 9000 may be too large"),
            (InterfaceSurvey { lro: Some(true), ..survey() }, "`ethtool -K eth0 lro off`"),
            (InterfaceSurvey { native: Some(false), ..survey() }, "they run in generic mode"),
            (InterfaceSurvey { native: None, ..survey() }, "only an attempt would tell"),
            (InterfaceSurvey { up: false, ..survey() }, "`ip link set eth0 up`"),
            (InterfaceSurvey { kind: Some("vlan".into()), ..survey() }, "name the card below it"),
            (InterfaceSurvey { member_of: Some(("bond".into(), "bond0".into())), ..survey() }, "name bond0"),
            (
                InterfaceSurvey { xdp: Xdp::Ours { mode: kernel::Mode::Generic }, ..survey() },
                "generic mode, which is slower",
            ),
        ] {
            let text = said(&survey, XdpPolicy::Auto);
            assert!(text.contains(wanted), "{wanted:?} is not in {text}");
        }
        let text = said(&InterfaceSurvey { native: Some(false), ..survey() }, XdpPolicy::Native);
        assert!(text.contains("problem  interface eth0"), "{text}");
        let frags = InterfaceSurvey { mtu: 9000, frags: Some(true), ..survey() };
        assert!(!said(&frags, XdpPolicy::Auto).contains("too large"));
    }
}
