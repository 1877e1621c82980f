//! The Debian package: what is in it, and what becomes of a daemon when it comes, when a newer one comes, and when it goes.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;

use screener_tests::client::Client;
use screener_tests::mta::Mta;
use screener_tests::net::{Family, Net};
use screener_tests::operator::{
    as_good, cannot_stand, dist, dpkg, package_database, pid, runs_what_is_installed, start, status,
};
use screener_tests::screener::{USUAL, executable};
use screener_tests::software::lay_writable;
use screener_tests::{cell, crowd};

const SOON: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_secs(240);
const CONFIG: &str = "/etc/screener/screener.toml";

/// With the group that the package makes.
fn usual() -> String {
    USUAL.replace("group = \"root\"", "")
}

#[test]
fn two_builds_of_the_same_have_the_same_bytes() {
    cell::test("two_builds_of_the_same_have_the_same_bytes", || {
        // Any executable will do.
        let (one, other) = (dist("one", Path::new("/bin/true"))?, dist("other", Path::new("/bin/true"))?);
        ensure!(fs::read(&one.package)? == fs::read(&other.package)?, "the packages");
        ensure!(fs::read(&one.tarball)? == fs::read(&other.tarball)?, "the tarballs");
        Ok(())
    });
}

#[test]
fn a_package_serves_is_upgraded_without_a_refusal_and_leaves_nothing_behind() {
    cell::test_within("a_package_serves_is_upgraded_without_a_refusal_and_leaves_nothing_behind", LIMIT, || {
        let (mx, internet) = Net::mx_and_internet()?;
        lay_writable(&mx, None)?;
        package_database(&mx)?;
        mx.resolve_at("192.0.2.53".parse()?)?;
        let mta = Mta::start(&mx, "smtpd_client_connection_rate_limit = 0\n")?;
        let built = dist("dist", &executable()?)?;
        let install = |package: &Path| dpkg(&mx, &["-i", &package.display().to_string()]);

        // A first one starts nothing.
        let (code, said) = install(&built.package)?;
        ensure!(code == 0 && said.contains("not started yet"), "{code}: {said}");
        ensure!(status(&mx).is_err(), "it was started");
        ensure!(mx.read("/etc/group")?.contains("\nscreener:"), "no group");
        ensure!(fs::metadata(mx.path(CONFIG))?.permissions().mode() & 0o777 == 0o640, "{CONFIG} is for everybody");
        let shell = |line: &str| mx.ask("sh", &["-c", line]);
        ensure!(shell("screener check-config")?.contains("ok"));
        // What it shows can be had.
        let shown = "sed '/^#\\[tls/d; /^#certificate/d; /^#key/d; s/^#\\([a-z[]\\)/\\1/'";
        shell(&format!("{shown} {CONFIG} >/tmp/shown.toml && screener check-config --config /tmp/shown.toml"))?;
        ensure!(mx.read("/tmp/shown.toml")?.contains("\nthreshold = 3"));
        shell("bash -n /usr/share/bash-completion/completions/screener")?;
        shell("zcat /usr/share/doc/screener/changelog.gz | grep -q 'Unreleased\\|0.1.0'")?;

        // Told of the MTA it serves mail.
        mx.write(CONFIG, &usual())?;
        let first = start(&mx)?;
        let server = SocketAddr::new(mx.address(Family::V4)?, 25);
        let mut client = Client::connect(&internet, "198.51.100.20".parse()?, server)?;
        client.expect(220)?;
        client.begin_text()?;

        // A newer one takes its place, in the middle of that mail.
        let newer = built.package_with(2, &as_good(2)?)?;
        let ((code, said), clients) = crowd::during(&internet, server, || install(&newer))?;
        ensure!(code == 0 && said.contains("has taken over after"), "{code}: {said}");
        println!("{clients} clients over an upgrade");
        let second = pid(&mx)?;
        ensure!(second != first.id() && runs_what_is_installed(&mx, second)?, "{second} is not the new one");
        client.send_line("last\r\n.")?;
        client.expect(250)?;
        ensure!(mta.wait_for_mail(1, SOON)?[0].body == "first\nlast\n");

        // One that does not stand is told of, and the one before goes on.
        let bad = built.package_with(3, &cannot_stand()?)?;
        let ((code, said), _) = crowd::during(&internet, server, || install(&bad))?;
        ensure!(code != 0 && said.contains("the old version goes on"), "{code}: {said}");
        ensure!(pid(&mx)? == second);
        let good = built.package_with(4, &as_good(4)?)?;
        let (code, said) = install(&good)?;
        ensure!(code == 0 && said.contains("has taken over after"), "{code}: {said}");
        ensure!(mx.read(CONFIG)? == usual(), "the configuration is the operator's");

        // Removed: no daemon, nothing in the kernel; purged: nothing on the disk.
        let last = pid(&mx)?;
        let (code, said) = dpkg(&mx, &["-r", "screener"])?;
        ensure!(code == 0 && said.contains("detached: "), "{code}: {said}");
        ensure!(!Path::new(&format!("/proc/{last}")).exists(), "{last} runs on");
        ensure!(!mx.path("/sys/fs/bpf/screener").exists(), "pins are left");
        ensure!(!mx.ask("ip", &["-d", "link", "show", "eth0"])?.contains("xdp"), "XDP is left");
        ensure!(mx.path(CONFIG).exists() && mx.path("/var/lib/screener/ledger.redb").exists());
        let mut direct = Client::connect(&internet, "198.51.100.21".parse()?, server)?;
        direct.expect(220)?;
        let (code, said) = dpkg(&mx, &["-P", "screener"])?;
        ensure!(code == 0, "{code}: {said}");
        for place in ["/usr/sbin/screener", "/etc/screener", "/var/lib/screener", "/usr/share/doc/screener"] {
            ensure!(!mx.path(place).exists(), "{place} is left");
        }
        Ok(())
    });
}

#[test]
fn a_package_that_was_never_started_is_removed_too() {
    cell::test("a_package_that_was_never_started_is_removed_too", || {
        let mx = Net::mx()?;
        lay_writable(&mx, None)?;
        package_database(&mx)?;
        let built = dist("dist", &executable()?)?;
        for arguments in [["-i", &built.package.display().to_string()], ["-r", "screener"], ["-P", "screener"]] {
            let (code, said) = dpkg(&mx, &arguments)?;
            ensure!(code == 0, "dpkg {}: {code}: {said}", arguments.join(" "));
        }
        ensure!(!mx.path("/usr/sbin/screener").exists());
        Ok(())
    });
}
