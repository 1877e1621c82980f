//! `cargo xtask deploy`, to a host by a real sshd, while clients come all the time; and everything that may be wrong with what is
//! deployed, or with the host.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use screener_tests::host::Host;
use screener_tests::mta::Mta;
use screener_tests::net::{Family, INTERNET, MX, Net, Plan};
use screener_tests::operator::{
    as_good, cannot_stand, dist, pid, runs_what_is_installed, stand_in_for_systemd, stands_until, start, status,
    told_systemd, xtask,
};
use screener_tests::proc::Proc;
use screener_tests::screener::{USUAL, executable};
use screener_tests::software::lay_writable;
use screener_tests::sshd::Sshd;
use screener_tests::wait::until_or_show;
use screener_tests::{cell, crowd};

const SOON: Duration = Duration::from_secs(120);
const LIMIT: Duration = Duration::from_secs(300);
const CONFIG: &str = "/etc/screener/screener.toml";
const INSTALLED: &str = "/usr/sbin/screener";
const ADMINISTRATOR: Plan<'_> = Plan { name: "admin", addresses: &["192.0.2.50"], prefixes: &[] };
/// What the installer says when it has the daemon replaced.
const REPLACES: &str = "+ timeout 180 /usr/sbin/screener upgrade";

/// The hosts: who deploys, where to, and who sends mail there.
struct Lab {
    administrator: Host,
    mx: Host,
    internet: Host,
    sshd: Sshd,
    _mta: Mta,
}

impl Lab {
    fn new() -> Result<Self> {
        let net = Net::new()?;
        let (administrator, mx, internet) = (net.host(&ADMINISTRATOR)?, net.host(&MX)?, net.host(&INTERNET)?);
        let sshd = Sshd::start(&mx, &administrator)?;
        mx.resolve_at("192.0.2.53".parse()?)?;
        let mta = Mta::start(&mx, "smtpd_client_connection_rate_limit = 0\n")?;
        Ok(Self { administrator, mx, internet, sshd, _mta: mta })
    }

    fn server(&self) -> Result<SocketAddr> {
        Ok(SocketAddr::new(self.mx.address(Family::V4)?, 25))
    }

    fn begin(&self, tarball: &Path, more: &[&str]) -> Result<Proc> {
        let there = format!("root@{}", self.mx.address(Family::V4)?);
        let mut deploy = self.administrator.command(xtask()?);
        deploy.args(["deploy", "--host", &there, "--tarball"]).arg(tarball).args(more);
        self.administrator.spawn(&mut deploy)
    }

    /// Deploys: whether it succeeded, and what it printed.
    fn deploy(&self, tarball: &Path, more: &[&str]) -> Result<(bool, String)> {
        let mut deploy = self.begin(tarball, more)?;
        let status = deploy.wait(SOON)?;
        Ok((status.success(), deploy.log()))
    }
}

fn usual() -> String {
    USUAL.replace("group = \"root\"", "")
}

#[test]
fn deploy_brings_a_new_version_by_ssh_and_no_client_is_refused() {
    cell::test_within("deploy_brings_a_new_version_by_ssh_and_no_client_is_refused", LIMIT, || {
        let lab = Lab::new()?;
        let mx = &lab.mx;
        let built = dist("dist", &executable()?)?;
        let other = built.tarball_with(2, &as_good(2)?)?;

        let (done, said) = lab.deploy(&built.tarball, &["--dry-run"])?;
        ensure!(done && said.contains("+ ssh ") && !mx.path(INSTALLED).exists(), "{said}");

        // A host that knows nothing of Screener yet: everything is there, and nothing is started.
        let (done, said) = lab.deploy(&built.tarball, &[])?;
        ensure!(done && said.contains("nothing is started: tell the MTA"), "{said}");
        ensure!(mx.path(CONFIG).exists() && mx.read("/etc/group")?.contains("\nscreener:"));
        mx.write(CONFIG, &usual())?;
        let (done, said) = lab.deploy(&built.tarball, &["--anyway"])?;
        ensure!(done && said.contains("there is no systemd here; have your supervisor run"), "{said}");
        let first = start(mx)?;

        let ((done, said), clients) = crowd::during(&lab.internet, lab.server()?, || lab.deploy(&other, &[]))?;
        ensure!(done && said.contains("install: done: process "), "{said}");
        println!("{clients} clients over a deployment");
        let second = pid(mx)?;
        ensure!(second != first.id() && runs_what_is_installed(mx, second)?, "{said}");

        // Once more: there is nothing to do.
        let (done, said) = lab.deploy(&other, &[])?;
        ensure!(done && said.contains(&format!("process {second} is this very executable")), "{said}");
        ensure!(pid(mx)? == second);

        // The connection breaks half way: the host finishes by itself.
        let third = built.tarball_with(3, &as_good(3)?)?;
        let mut deploy = lab.begin(&third, &[])?;
        deploy.wait_for_line(REPLACES, SOON)?;
        lab.sshd.break_connections()?;
        ensure!(!deploy.wait(SOON)?.success());
        ensure!(deploy.log().contains("the connection was lost"), "{}", deploy.log());
        let log = || mx.read("/var/log/screener-install.log").unwrap_or_default();
        until_or_show("the host to finish", SOON, log, || Ok(log().contains("install: done: process ").then_some(())))?;
        ensure!(pid(mx)? != second && runs_what_is_installed(mx, pid(mx)?)?);
        Ok(())
    });
}

#[test]
fn what_is_no_good_is_refused_or_put_back_and_no_client_is_refused() {
    cell::test_within("what_is_no_good_is_refused_or_put_back_and_no_client_is_refused", LIMIT, || {
        let lab = Lab::new()?;
        let (mx, server) = (&lab.mx, lab.server()?);
        let built = dist("dist", &executable()?)?;
        // An interface more, which can be taken away.
        mx.ask("ip", &["link", "add", "extra0", "type", "veth", "peer", "name", "extra1"])?;
        let config = usual().replace("[\"eth0\"]", "[\"eth0\", \"extra0\"]");
        mx.write(CONFIG, &config)?;
        let (done, said) = lab.deploy(&built.tarball, &["--anyway"])?;
        ensure!(done, "{said}");
        let daemon = start(mx)?;
        let old = daemon.id();
        let bytes = std::fs::read(mx.path(INSTALLED))?;
        let untouched = || -> Result<()> {
            ensure!(std::fs::read(mx.path(INSTALLED))? == bytes, "another executable is in its place");
            ensure!(!mx.path("/usr/sbin/screener.new").exists(), "the new one lies about");
            Ok(())
        };
        let good = built.tarball_with(2, &as_good(2)?)?;

        // What the new one says of the host before anything was changed.
        mx.write(CONFIG, "[limits]\ncommands = 0\n")?;
        let (done, said) = lab.deploy(&good, &[])?;
        ensure!(!done && said.contains("limits.commands") && said.contains("nothing was changed"), "{said}");
        mx.write(CONFIG, &config.replace("[tests", "[backend]\naddress = \"127.0.0.1:9\"\n[tests"))?;
        let (done, said) = lab.deploy(&good, &[])?;
        ensure!(!done && said.contains("the new version finds problems on this host"), "{said}");
        mx.write(CONFIG, &config)?;
        let (done, said) = lab.deploy(&built.tarball_with(3, b"\x7fELF, but no more")?, &[])?;
        ensure!(!done && said.contains("the new executable does not run on this host"), "{said}");
        ensure!(pid(mx)? == old);
        untouched()?;

        // One that does not stand.
        let bad = built.tarball_with(4, &cannot_stand()?)?;
        let ((done, said), _) = crowd::during(&lab.internet, server, || lab.deploy(&bad, &[]))?;
        ensure!(!done && said.contains("the old version serves, as process") && pid(mx)? == old, "{said}");
        ensure!(said.contains("is not done: what served there before serves"), "{said}");
        untouched()?;

        // One that stands, and something is worse than before: the old one takes over from it.
        let lacking = || -> Result<Proc> {
            let mut deploy = lab.begin(&good, &["--patience", "6"])?;
            deploy.wait_for_line(REPLACES, SOON)?;
            mx.ask("ip", &["link", "del", "extra0"])?;
            deploy.wait(SOON)?;
            Ok(deploy)
        };
        let (mut deploy, _) = crowd::during(&lab.internet, server, lacking)?;
        let said = deploy.log();
        ensure!(!deploy.wait(SOON)?.success() && said.contains("does not serve well after 6 s"), "{said}");
        ensure!(said.contains("DEGRADED: ") && said.contains("extra0"), "{said}");
        ensure!(pid(mx)? != old && runs_what_is_installed(mx, pid(mx)?)?, "{said}");
        untouched()?;

        Ok(())
    });
}

#[test]
fn a_new_version_that_dies_or_hangs_leaves_its_place_to_the_old_one() {
    cell::test_within("a_new_version_that_dies_or_hangs_leaves_its_place_to_the_old_one", LIMIT, || {
        let lab = Lab::new()?;
        let mx = &lab.mx;
        let built = dist("dist", &executable()?)?;
        mx.write(CONFIG, &usual())?;
        let (done, said) = lab.deploy(&built.tarball, &["--anyway"])?;
        ensure!(done, "{said}");
        let _daemon = start(mx)?;
        let bytes = std::fs::read(mx.path(INSTALLED))?;
        for (number, signal) in [(2, "KILL"), (3, "STOP")] {
            let before = pid(mx)?;
            let bad = built.tarball_with(number, &stands_until(signal)?)?;
            let (done, said) = lab.deploy(&bad, &["--patience", "5"])?;
            ensure!(!done && said.contains("the old version serves, as process"), "{signal}: {said}");
            let now = pid(mx).with_context(|| said.clone())?;
            ensure!(now != before && runs_what_is_installed(mx, now)?, "{signal}: {said}");
            ensure!(std::fs::read(mx.path(INSTALLED))? == bytes, "another executable is in its place");
            // As it was called before.
            ensure!(status(mx)?["configuration"]["file"] == CONFIG, "it was started in another way than before");
        }
        Ok(())
    });
}

#[test]
fn on_this_host_systemd_starts_it_and_starts_the_old_one_again() {
    cell::test_within("on_this_host_systemd_starts_it_and_starts_the_old_one_again", LIMIT, || {
        let mx = Net::mx()?;
        lay_writable(&mx, None)?;
        stand_in_for_systemd(&mx)?;
        mx.resolve_at("192.0.2.53".parse()?)?;
        let _mta = Mta::start(&mx, "")?;
        mx.write(CONFIG, &usual())?;
        let built = dist("dist", &executable()?)?;
        let begin = |tarball: &Path| {
            mx.spawn(mx.command(xtask()?).args(["deploy", "--patience", "10", "--tarball"]).arg(tarball))
        };

        // A first one that does not start leaves nothing behind.
        let mut deploy = begin(&built.tarball_with(2, &cannot_stand()?)?)?;
        ensure!(!deploy.wait(SOON)?.success());
        let said = deploy.log();
        ensure!(said.contains("everything is as it was: no daemon runs"), "{said}");
        for place in [INSTALLED, "/usr/lib/systemd/system/screener.service", "/sys/fs/bpf/screener"] {
            ensure!(!mx.path(place).exists(), "{place} is left: {said}");
        }
        ensure!(!told_systemd(&mx).contains("enable"), "{}", told_systemd(&mx));

        let mut deploy = begin(&built.tarball)?;
        ensure!(deploy.wait(SOON)?.success(), "{}", deploy.log());
        let told = told_systemd(&mx);
        ensure!(told.ends_with("daemon-reload\nstart screener\nenable screener\n"), "{told}");
        let first = pid(&mx)?;
        ensure!(runs_what_is_installed(&mx, first)?);

        // The next one dies: systemd is told to start what is in its place again.
        let mut deploy = begin(&built.tarball_with(3, &stands_until("KILL")?)?)?;
        ensure!(!deploy.wait(SOON)?.success() && deploy.log().contains("the old version serves"), "{}", deploy.log());
        let told = told_systemd(&mx);
        ensure!(told.ends_with("daemon-reload\nreset-failed screener\nrestart screener\n"), "{told}");
        ensure!(pid(&mx)? != first && runs_what_is_installed(&mx, pid(&mx)?)?);
        Ok(())
    });
}

#[test]
fn on_a_full_disk_nothing_is_replaced_and_nothing_is_lost() {
    cell::test_within("on_a_full_disk_nothing_is_replaced_and_nothing_is_lost", LIMIT, || {
        let mx = Net::mx()?;
        lay_writable(&mx, None)?;
        mx.resolve_at("192.0.2.53".parse()?)?;
        let _mta = Mta::start(&mx, "")?;
        mx.write(CONFIG, &usual())?;
        let built = dist("dist", &executable()?)?;
        let deploy = |tarball: &Path| -> Result<(bool, String)> {
            let mut deploy = mx.spawn(mx.command(xtask()?).args(["deploy", "--anyway", "--tarball"]).arg(tarball))?;
            Ok((deploy.wait(SOON)?.success(), deploy.log()))
        };
        let (done, said) = deploy(&built.tarball)?;
        ensure!(done, "{said}");
        let first = start(&mx)?;
        let bytes = std::fs::read(mx.path(INSTALLED))?;
        // Where the old version is kept there is no room for it, and a second name is none for a file elsewhere.
        mx.ask("mkdir", &["-p", "/usr/lib/screener"])?;
        mx.ask("mount", &["-t", "tmpfs", "-o", "size=64k", "tmpfs", "/usr/lib/screener"])?;
        let (done, said) = deploy(&built.tarball_with(2, &as_good(2)?)?)?;
        ensure!(!done && said.contains("cannot be kept in") && said.contains("nothing was changed"), "{said}");
        ensure!(std::fs::read(mx.path(INSTALLED))? == bytes, "another executable is in its place: {said}");
        ensure!(pid(&mx)? == first.id() && runs_what_is_installed(&mx, first.id())?, "{said}");
        Ok(())
    });
}

#[test]
fn of_two_deployments_at_once_none_installs_what_the_other_brought() {
    cell::test_within("of_two_deployments_at_once_none_installs_what_the_other_brought", LIMIT, || {
        let lab = Lab::new()?;
        let (mx, administrator) = (&lab.mx, &lab.administrator);
        let built = dist("dist", &executable()?)?;
        // The way of the first is slow between its two commands.
        let ssh = "#!/bin/sh\ncase \"$*\" in\n    *install.sh*) while [ ! -e /tmp/go ]; do sleep 0.1; done ;;\nesac\nexec /usr/bin/ssh \"$@\"\n";
        administrator.write("/tmp/slow/ssh", ssh)?;
        administrator.ask("chmod", &["755", "/tmp/slow/ssh"])?;
        let there = format!("root@{}", mx.address(Family::V4)?);
        let mut slow = administrator.command(xtask()?);
        slow.env("PATH", "/tmp/slow:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        slow.args(["deploy", "--host", &there, "--tarball"]).arg(&built.tarball);
        let mut slow = administrator.spawn(&mut slow)?;
        slow.wait_for_line("/install.sh", SOON)?;
        let (done, said) = lab.deploy(&built.tarball_with(2, &as_good(2)?)?, &[])?;
        ensure!(done, "{said}");
        administrator.write("/tmp/go", "")?;
        let success = slow.wait(SOON)?.success();
        let said = slow.log();
        ensure!(!success && said.contains("another installation has begun meanwhile"), "{said}");
        ensure!(said.contains("what served there before serves"), "{said}");
        ensure!(std::fs::read(mx.path(INSTALLED))? == as_good(2)?, "the second is not installed");
        let left = mx.ask("sh", &["-c", "ls -d /var/tmp/screener-install* || true"])?;
        ensure!(left.is_empty(), "left behind: {left}");
        Ok(())
    });
}

#[test]
fn hosts_are_taken_in_turn_and_the_first_that_fails_is_the_last() {
    cell::test("hosts_are_taken_in_turn_and_the_first_that_fails_is_the_last", || {
        let administrator = Net::new()?.host(&ADMINISTRATOR)?;
        administrator.write("/tmp/some.tar.gz", "")?;
        let deploy = |words: &[&str]| -> Result<(bool, String)> {
            let mut deploy = administrator.spawn(administrator.command(xtask()?).arg("deploy").args(words))?;
            Ok((deploy.wait(SOON)?.success(), deploy.log()))
        };
        let hosts = ["--host", "root@192.0.2.50", "--host", "mx2.example.com"];
        let (done, said) = deploy(&[&hosts[..], &["--tarball", "/tmp/some.tar.gz"]].concat())?;
        ensure!(!done && said.contains("root@192.0.2.50 is not done, and not begun: mx2.example.com"), "{said}");
        ensure!(said.contains("ssh does not reach it") && said.contains("Nothing was changed"), "{said}");
        let (done, said) = deploy(&["--tarball", "/tmp/none.tar.gz"])?;
        ensure!(!done && said.contains("there is no such file; `cargo xtask dist` makes one"), "{said}");
        let (done, said) = deploy(&["--patience", "2", "--tarball", "/tmp/some.tar.gz"])?;
        ensure!(!done && said.contains("2 is not in 3.."), "{said}");
        let (done, said) = deploy(&["--host", "-oProxyCommand=id", "--tarball", "/tmp/some.tar.gz"])?;
        ensure!(!done && !said.contains("uid="), "{said}");
        Ok(())
    });
}
