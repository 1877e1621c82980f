//! A real rbldnsd, and a real unbound before it, on ports of their own.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

use super::super::answer::Looked;
use super::super::resolver::Resolver;
use super::*;

/// A server; it ends when this is dropped.
struct Server {
    child: Child,
    _directory: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn rbldnsd() -> (Server, SocketAddr) {
    let directory = tempfile::tempdir().unwrap();
    let soa = "$SOA 300 ns.bl.test. admin.bl.test. 0 600 300 86400 300\n";
    std::fs::write(directory.path().join("v4"), format!("{soa}127.0.0.2\n:127.0.0.4:listed\n203.0.113.0/25\n"))
        .unwrap();
    std::fs::write(directory.path().join("v6"), ":127.0.0.3:listed\n::ffff:7f00:2\n2001:db8:bad::/48\n").unwrap();
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    // Another process may take the port between our look and rbldnsd's bind; then it ends, and the next port is tried.
    for _ in 0..10 {
        let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("rbldnsd");
        command.args(["-n", "-r", "/", "-w"]).arg(directory.path());
        command.args(["-b", &format!("127.0.0.1/{port}"), "bl.test:ip4set:v4", "bl.test:ip6trie:v6"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut child = child.expect("rbldnsd is not installed: run cargo xtask setup");
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        for _ in 0..50 {
            if child.try_wait().unwrap().is_some() {
                break;
            }
            let looked = Resolver::new(&[server]).unwrap().a("2.0.0.127.bl.test.".to_owned()).await;
            if matches!(looked, Looked::Records(..)) {
                return (Server { child, _directory: directory }, server);
            }
        }
        let _ = child.kill();
        let _ = child.wait();
    }
    panic!("rbldnsd does not start");
}

#[tokio::test]
async fn a_real_list_knows_who_is_listed_in_both_families_and_has_its_test_points() {
    let (_server, address) = rbldnsd().await;
    let dnsbl = dnsbl(&list("bl.test", 3), address);
    dnsbl.watch(&CancellationToken::new());
    for (client, score) in [
        ("203.0.113.5", 3),
        ("203.0.113.200", 0),
        ("2001:db8:bad::5", 3),
        ("2001:db8::5", 0),
        ("::ffff:203.0.113.5", 3),
    ] {
        let report = everything(&dnsbl, client).await;
        assert_eq!((report.score, report.unknown.len()), (score, 0), "{client}: {:?}", dnsbl.status());
        assert!(report.ttl.is_some(), "{client}");
        if let Some(hit) = report.hits.first() {
            assert_eq!(hit.text.as_deref(), Some("listed"));
        }
    }
    let status = status_of(&dnsbl, "bl.test");
    assert_eq!((status.state, status.ipv4_only), ("asked", false));
}

/// unbound before a list; it makes up addresses for whatever does not exist under `com`.
async fn rewriting_unbound(list: SocketAddr) -> (Server, SocketAddr) {
    let directory = tempfile::tempdir().unwrap();
    for _ in 0..10 {
        let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "server:\n  interface: 127.0.0.1@{port}\n  do-daemonize: no\n  chroot: \"\"\n  username: \"\"\n  pidfile: \"\"\n  \
             use-syslog: no\n  logfile: \"\"\n  verbosity: 0\n  module-config: \"iterator\"\n  do-not-query-localhost: no\n  \
             local-zone: \"test.\" nodefault\n  local-zone: \"com.\" redirect\n  local-data: \"com. A 192.0.2.80\"\n\
             remote-control:\n  control-enable: no\nstub-zone:\n  name: \"bl.test\"\n  stub-addr: 127.0.0.1@{}\n",
            list.port()
        );
        let path = directory.path().join("unbound.conf");
        std::fs::write(&path, config).unwrap();
        let mut command = Command::new("unbound");
        command.args(["-d", "-c"]).arg(&path).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("unbound is not installed: run cargo xtask setup");
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        for _ in 0..50 {
            if child.try_wait().unwrap().is_some() {
                break;
            }
            let looked = Resolver::new(&[server]).unwrap().a("2.0.0.127.bl.test.".to_owned()).await;
            if matches!(looked, Looked::Records(..)) {
                return (Server { child, _directory: directory }, server);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let _ = child.kill();
        let _ = child.wait();
    }
    panic!("unbound does not start");
}

#[tokio::test]
async fn a_real_resolver_brings_the_lists_answers_and_is_seen_through_by_the_doctor() {
    let (_list, list_address) = rbldnsd().await;
    let (_resolver, address) = rewriting_unbound(list_address).await;
    let lists = list("bl.test", 3);
    let dnsbl = dnsbl(&lists, address);
    dnsbl.watch(&CancellationToken::new());
    for (client, score) in [("203.0.113.5", 3), ("203.0.113.200", 0), ("2001:db8:bad::5", 3)] {
        let said = everything(&dnsbl, client).await;
        assert_eq!((said.score, said.unknown.len()), (score, 0), "{client}: {:?}", dnsbl.status());
    }
    let findings = doctor::examine(&config(&lists, address)).await;
    let problem = findings.iter().find(|it| it.finding.contains("makes up answers"));
    assert_eq!(problem.map(|it| it.severity), Some(doctor::Severity::Problem), "{findings:?}");
    assert!(findings.iter().any(|it| it.finding.contains("bl.test is alive")), "{findings:?}");
}
