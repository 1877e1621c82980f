//! What an operator reads when the kernel half cannot be had: each lack is brought about for real, and each message must say
//! what to do.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use screener_tests::cell;
use screener_tests::cli::{finish, run};
use screener_tests::host::Host;
use screener_tests::mta::Mta;
use screener_tests::net::{Net, ip};
use screener_tests::screener::command;
use screener_tests::xdp;

const STEER: &str = r#"
hostname = "mx.example.com"
[listen]
mode = "steer"
[kernel]
interfaces = ["eth0"]
[control]
group = "root"
"#;

fn mx() -> Result<Host> {
    let mx = Net::mx()?;
    mx.write("/etc/screener/screener.toml", STEER)?;
    Ok(mx)
}

/// Every way to attach must fail with all of these words: by command, by a daemon that may do nothing else, and in `doctor`.
fn fails(host: &Host, change: impl Fn(&mut Command), wrapper: &[&str], parts: &[&str]) -> Result<()> {
    for (arguments, code) in [(&["kernel", "attach"][..], 2), (&["run"], 2), (&["doctor"], 1)] {
        let mut attempt = command(host, wrapper, arguments)?;
        change(&mut attempt);
        let (met, said) = finish(host, &mut attempt)?;
        let line = arguments.join(" ");
        ensure!(met == code, "{line}: exit code {met} instead of {code}: {said}");
        ensure!(!said.contains("panicked"), "{line}: {said}");
        // `doctor` puts the same in its own words: what is checked is that it advises the same.
        for part in parts.iter().filter(|part| code == 2 || !part.starts_with("no permission")) {
            ensure!(said.contains(part), "{line}: {part:?} is not in: {said}");
        }
    }
    Ok(())
}

#[test]
fn without_bpf_in_the_system_the_message_names_both_causes_and_the_way_without() {
    cell::test("without_bpf_in_the_system_the_message_names_both_causes_and_the_way_without", || {
        let mx = mx()?;
        let refused = |command: &mut Command| xdp::deny_bpf(command, libc::ENOSYS);
        for (arguments, code) in [(&["kernel", "attach"][..], 2), (&["run"], 2)] {
            let mut attempt = command(&mx, &[], arguments)?;
            refused(&mut attempt);
            let (met, said) = finish(&mx, &mut attempt)?;
            ensure!(met == code, "exit code {met}: {said}");
            for part in ["no bpf(2) at all", "seccomp filter", "CONFIG_BPF_SYSCALL", "listen.mode = \"front\""] {
                ensure!(said.contains(part), "{part:?} is not in: {said}");
            }
        }
        let mut doctor = command(&mx, &[], &["doctor"])?;
        refused(&mut doctor);
        let (met, said) = finish(&mx, &mut doctor)?;
        ensure!(met == 1 && said.contains("problem  bpf(2): Function not implemented"), "{met}: {said}");
        Ok(())
    });
}

#[test]
fn where_a_seccomp_filter_forbids_bpf_the_message_says_that_it_is_the_filter() {
    cell::test("where_a_seccomp_filter_forbids_bpf_the_message_says_that_it_is_the_filter", || {
        let refused = |command: &mut Command| xdp::deny_bpf(command, libc::EPERM);
        fails(&mx()?, refused, &[], &["no permission to", "a seccomp filter is on it", "listen.mode = \"front\""])
    });
}

#[test]
fn without_capabilities_the_message_names_those_that_are_lacking() {
    cell::test("without_capabilities_the_message_names_those_that_are_lacking", || {
        let mx = mx()?;
        let weak = ["setpriv", "--bounding-set", "-bpf,-sys_admin,-perfmon"];
        let parts = ["no permission to", "this process lacks CAP_BPF, CAP_PERFMON", "AmbientCapabilities="];
        fails(&mx, |_| (), &weak, &parts)?;
        // Enough for maps, not enough for programs that see packets.
        let (code, said) = finish(
            &mx,
            &mut command(&mx, &["setpriv", "--bounding-set", "-net_admin,-sys_admin"], &["kernel", "attach"])?,
        )?;
        ensure!(code == 2 && said.contains("lacks CAP_NET_ADMIN"), "{code}: {said}");
        // Nobody at all cannot even read the pins.
        let nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
        for arguments in [&["kernel", "attach"][..], &["kernel", "status"], &["kernel", "detach"]] {
            let (code, said) = finish(&mx, &mut command(&mx, &nobody, arguments)?)?;
            ensure!(code == 2, "{}: {code}: {said}", arguments.join(" "));
            ensure!(said.contains("no permission to"), "{}: {said}", arguments.join(" "));
            ensure!(said.contains("lacks CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON"), "{}: {said}", arguments.join(" "));
        }
        Ok(())
    });
}

#[test]
fn a_missing_bpf_file_system_is_mounted_or_the_message_says_how() {
    cell::test("a_missing_bpf_file_system_is_mounted_or_the_message_says_how", || {
        let mx = mx()?;
        mx.ask("umount", &["/sys/fs/bpf"])?;
        let weak = ["setpriv", "--bounding-set", "-sys_admin"];
        let (code, said) = finish(&mx, &mut command(&mx, &weak, &["kernel", "attach"])?)?;
        ensure!(code == 2 && said.contains("`mount -t bpf bpf /sys/fs/bpf`"), "{code}: {said}");
        ensure!(said.contains("mounting it here failed: Operation not permitted"), "{said}");
        let (_, said) = run(&mx, &["doctor"])?;
        ensure!(said.contains("warning  BPF file system: none is mounted at /sys/fs/bpf"), "{said}");
        let (code, said) = run(&mx, &["kernel", "attach"])?;
        ensure!(code == 0 && said.contains("screen on eth0 (veth): native"), "{code}: {said}");
        ensure!(mx.ask("stat", &["-f", "-c", "%T", "/sys/fs/bpf"])?.trim() == "bpf_fs");
        // Somewhere else nothing is mounted unasked.
        let (code, said) = run(&mx, &["kernel", "attach", "--pin", "/run/screener/pins"])?;
        ensure!(code == 2 && said.contains("/run/screener/pins is not on a BPF file system"), "{code}: {said}");
        Ok(())
    });
}

#[test]
fn an_interface_that_does_not_exist_and_a_large_mtu_are_named() {
    cell::test("an_interface_that_does_not_exist_and_a_large_mtu_are_named", || {
        let mx = mx()?;
        let attach = ["kernel", "attach", "--interface", "eth7"];
        let (code, said) = run(&mx, &attach)?;
        ensure!(code == 0 && said.contains("steer: attached"), "steer stands all the same: {code}: {said}");
        ensure!(
            said.contains("there is no interface eth7: correct kernel.interfaces (`ip link` lists them)"),
            "{said}"
        );
        run(&mx, &["kernel", "detach"])?;
        ip("link set to-mx mtu 9000\n")?;
        mx.in_ns(|| ip("link set eth0 mtu 9000\n"))?;
        let (code, said) = run(&mx, &["kernel", "attach"])?;
        // With a program for frames in several buffers it runs natively; without, the reason is told.
        let native = said.contains("eth0 (veth): native");
        let told = said.contains("eth0 (veth): generic") && said.contains("an MTU of 9000, or that of the other end");
        ensure!(code == 0 && (native || told), "{code}: {said}");
        Ok(())
    });
}

#[test]
fn doctor_finds_a_healthy_machine_healthy_and_an_mta_that_is_away() {
    cell::test("doctor_finds_a_healthy_machine_healthy_and_an_mta_that_is_away", || {
        let mx = mx()?;
        let mut mta = Mta::start(&mx, "")?;
        let (code, said) = run(&mx, &["doctor"])?;
        ensure!(code == 0, "{said}");
        for part in [
            "ok       kernel: Linux",
            "ok       sk_lookup programs: there",
            "ok       interface eth0: driver veth, MTU 1500",
            "ok       interface eth0: no XDP program, the driver says that it runs them",
            "ok       BPF file system",
            "ok       pins: nothing is pinned",
            "ok       port 25, IPv4: master (",
            "ok       port 25, IPv6: master (",
            "ok       MTA at 127.0.0.1:10025: answers behind proxy-v2: mx.example.com ESMTP",
            // The lab's MTA has no certificate, and this configuration none either.
            "warning  TLS: nobody offers STARTTLS",
            "0 problems, 1 warnings",
        ] {
            ensure!(said.contains(part), "{part:?} is not in: {said}");
        }
        run(&mx, &["kernel", "attach"])?;
        let output = mx.run(&mut command(&mx, &[], &["doctor", "--json"])?)?;
        let findings: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let findings = findings.as_array().context("no list")?;
        ensure!(findings.iter().all(|finding| finding["state"] == "ok" || finding["check"] == "TLS"), "{findings:?}");
        ensure!(findings.iter().any(|finding| finding["found"] == "screen runs in native mode"), "{findings:?}");
        mta.stop()?;
        let (code, said) = run(&mx, &["doctor"])?;
        ensure!(code == 1, "{said}");
        for part in ["problem  port 25, IPv4: nobody listens", "problem  MTA at 127.0.0.1:10025", "start the MTA"] {
            ensure!(said.contains(part), "{part:?} is not in: {said}");
        }
        Ok(())
    });
}
