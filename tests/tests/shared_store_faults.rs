//! The shared store killed, emptied, silent, slow, failed over, behind TLS, with a password: mail goes on, and all is merged.

use anyhow::{Result, ensure};

use screener_tests::cell;
use screener_tests::certificate::Certificate;
use screener_tests::cli::expect;
use screener_tests::mxs::{Mxs, SOON, STORE, config, shared, wait_for_state};
use screener_tests::net::{Net, Plan};
use screener_tests::redis::{MASTER, Redis};
use screener_tests::screener::Screener;
use screener_tests::wait::until_or_show;

/// Clients that pass while the store is away.
const MANY: u8 = 12;

fn two() -> Result<Mxs> {
    let (net, store) = Mxs::net_and_store("")?;
    Mxs::start(&net, store, 2, &config("redis://192.0.2.70", ""))
}

fn wait_for_key(lab: &Mxs, client: &str) -> Result<()> {
    let look = || Ok((lab.store.ask(&["EXISTS", &format!("screener:c:{client}")])? == "1").then_some(()));
    until_or_show(&format!("the store to know {client}"), SOON, || lab.screeners[0].log(), look)
}

#[test]
fn what_a_store_loses_by_a_flush_or_a_kill_its_hosts_put_back() {
    cell::test("what_a_store_loses_by_a_flush_or_a_kill_its_hosts_put_back", || {
        let mut lab = two()?;
        lab.pass("198.51.100.1", 0)?;
        lab.pass("198.51.100.2", 1)?;
        lab.pass("198.51.100.3", 1)?;
        for client in ["198.51.100.1", "198.51.100.2", "198.51.100.3"] {
            lab.wait_for_kernels(client, true, SOON)?;
        }
        lab.screeners[0].tell(&["pass", "del", "198.51.100.3"])?;
        lab.wait_for_kernels("198.51.100.3", false, SOON)?;

        lab.store.ask(&["FLUSHALL"])?;
        wait_for_key(&lab, "198.51.100.1")?;
        wait_for_key(&lab, "198.51.100.2")?;
        lab.screeners[0].wait_for_log("it was emptied; what this host knows is put back", SOON)?;
        lab.pass("198.51.100.4", 1)?;
        lab.wait_for_kernels("198.51.100.4", true, SOON)?;

        lab.store.kill9()?;
        for screener in &lab.screeners {
            screener.wait_for_degraded("nothing is shared by redis://192.0.2.70:6379: it cannot be reached", true)?;
            screener.wait_for_degraded("Passes of this host count here as ever", true)?;
        }
        lab.pass("198.51.100.5", 0)?;
        lab.wait_for_kernel(0, "198.51.100.5", true, SOON)?;
        lab.screeners[1].tell(&["pass", "del", "198.51.100.1"])?;
        let metrics = lab.hosts[0].ask("curl", &["-s", "http://127.0.0.1:9725/metrics"])?;
        ensure!(metrics.contains("screener_shared_store_up 0"), "{metrics}");
        ensure!(metrics.contains("screener_degraded{what=\"shared\"} 1"), "{metrics}");
        // It comes back empty, and both sides have what the other does not know.
        lab.store.restart()?;
        for (client, there) in [("198.51.100.5", true), ("198.51.100.2", true), ("198.51.100.1", false)] {
            lab.wait_for_kernels(client, there, SOON)?;
            wait_for_key(&lab, client)?;
        }
        for screener in &lab.screeners {
            screener.wait_for_degraded("nothing is shared", false)?;
            ensure!(!screener.has_pass("198.51.100.3".parse()?)?, "what was deleted came back");
        }
        Ok(())
    });
}

#[test]
fn a_store_that_is_silent_or_slow_holds_nobody_up() {
    cell::test("a_store_that_is_silent_or_slow_holds_nobody_up", || {
        let mut lab = two()?;
        lab.store.sleep()?;
        wait_for_state(&lab.screeners[0], "away")?;
        lab.screeners[0].wait_for_degraded("it does not answer in time", true)?;
        // Clients are greeted, pass, and are the MTA's at once; what they did waits to be told.
        for client in 1..=MANY {
            let client = format!("198.51.100.{client}");
            lab.pass(&client, 0)?;
            lab.wait_for_kernel(0, &client, true, SOON)?;
        }
        let status = shared(&lab.screeners[0])?;
        ensure!(status["queued"] == MANY && status["queue_overflows"] == 0, "{status}");
        lab.store.wake()?;
        for client in 1..=MANY {
            lab.wait_for_kernels(&format!("198.51.100.{client}"), true, SOON)?;
        }
        ensure!(shared(&lab.screeners[0])?["queued"] == 0);

        // Slow is late, and no failure.
        let failures = shared(&lab.screeners[0])?["failures"].clone();
        lab.store.ask(&["CLIENT", "PAUSE", "1000", "WRITE"])?;
        lab.pass("198.51.100.100", 0)?;
        lab.wait_for_kernels("198.51.100.100", true, SOON)?;
        ensure!(shared(&lab.screeners[0])?["failures"] == failures, "{}", shared(&lab.screeners[0])?);
        Ok(())
    });
}

#[test]
fn a_failover_by_sentinels_is_followed_and_nothing_is_lost() {
    cell::test("a_failover_by_sentinels_is_followed_and_nothing_is_lost", || {
        let (net, store) = Mxs::net_and_store("repl-diskless-sync yes\nrepl-diskless-sync-delay 0\n")?;
        let second = net.host(&Plan { name: "store2", addresses: &["192.0.2.71"], prefixes: &[] })?;
        let third = net.host(&Plan { name: "arbiter", addresses: &["192.0.2.72"], prefixes: &[] })?;
        let replica = Redis::start_replica(&second, &store, "")?;
        let sentinels = [&second, &third]
            .map(|host| Redis::start_sentinel(host, &store, 2))
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        let known = || {
            let text = sentinels[1].ask(&["SENTINEL", "MASTER", MASTER])?;
            let lines: Vec<_> = text.lines().collect();
            let after =
                |name: &str| lines.iter().position(|line| *line == name).and_then(|at| lines.get(at + 1).copied());
            Ok((after("num-slaves") == Some("1") && after("num-other-sentinels") == Some("1")).then_some(()))
        };
        until_or_show("the sentinels to know each other and the replica", SOON, || sentinels[1].log(), known)?;

        let place = "redis+sentinel://192.0.2.71,192.0.2.72/mail";
        let mut lab = Mxs::start(&net, store, 2, &config(place, ""))?;
        lab.pass("198.51.100.1", 0)?;
        lab.pass("198.51.100.2", 1)?;
        lab.wait_for_kernels("198.51.100.1", true, SOON)?;
        lab.wait_for_kernels("198.51.100.2", true, SOON)?;

        lab.store.kill9()?;
        wait_for_state(&lab.screeners[0], "away")?;
        lab.pass("198.51.100.3", 0)?;
        lab.screeners[0].tell(&["pass", "del", "198.51.100.2"])?;
        for screener in &lab.screeners {
            wait_for_state(screener, "sharing")?;
        }
        lab.wait_for_kernels("198.51.100.3", true, SOON)?;
        lab.wait_for_kernels("198.51.100.2", false, SOON)?;
        ensure!(replica.ask(&["ROLE"])?.starts_with("master"), "{}", replica.log());
        // The old master comes back as it was, and is made a copy.
        lab.store.restart()?;
        // A Sentinel cuts off whoever is connected to a server that it demotes, redis-cli too.
        let demoted = || Ok(lab.store.ask(&["ROLE"]).ok().filter(|role| role.starts_with("slave")));
        until_or_show("the old master to be a replica", SOON, || lab.store.log(), demoted)?;
        lab.pass("198.51.100.4", 1)?;
        lab.wait_for_kernels("198.51.100.4", true, SOON)?;
        ensure!(!lab.screeners[1].has_pass("198.51.100.2".parse()?)?);

        let wrong = config("redis+sentinel://192.0.2.71/nobody", "");
        lab.screeners[0].stop()?;
        lab.screeners[0].configure(&wrong)?;
        lab.screeners[0].restart()?;
        lab.screeners[0].wait_for_degraded("the sentinels do not lead to a master", true)
    });
}

/// The user of docs/shared-store.md.
const USER: &str = "user screener on >hunter2 resetkeys ~screener:* resetchannels -@all +eval +evalsha +script|load +get +mget \
                    +set +expireat +xadd +xread +xrange +xrevrange +scan +time +info +ping +select +role\n";

#[test]
fn tls_and_passwords_are_asked_for_and_never_shown() {
    cell::test("tls_and_passwords_are_asked_for_and_never_shown", || {
        let net = Net::new()?;
        let (host, mx) =
            (net.host(&STORE)?, net.host(&Plan { name: "mx9", addresses: &["192.0.2.19"], prefixes: &[] })?);
        let (certificate, other) = (Certificate::new("store.example")?, Certificate::new("store.example")?);
        certificate.install(&host, "/etc/redis")?;
        let tls = "tls-port 6380\ntls-cert-file /etc/redis/cert.pem\ntls-key-file /etc/redis/key.pem\n\
                   tls-ca-cert-file /etc/redis/cert.pem\ntls-auth-clients no\n";
        let _store = Redis::start(&host, &format!("{tls}requirepass swordfish\n{USER}"))?;
        mx.write("/etc/hosts", "127.0.0.1 localhost\n192.0.2.70 store.example\n")?;
        mx.write("/etc/screener/good.pem", certificate.chain())?;
        mx.write("/etc/screener/other.pem", other.chain())?;
        mx.write("/etc/screener/store.pass", "hunter2\n")?;

        let mut screener = Screener::start(&mx, &config("redis://store.example", ""))?;
        let login = "set the user in ledger.shared and the password there or in shared.password_file";
        let mut sees = |config: String, degraded: Option<&str>| -> Result<()> {
            screener.stop()?;
            screener.configure(&config)?;
            screener.restart()?;
            match degraded {
                Some(text) => screener.wait_for_degraded(text, true)?,
                None => wait_for_state(&screener, "sharing")?,
            }
            let doctor = screener.cli(&["doctor"])?;
            let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
            let line = doctor.lines().find(|line| line.contains("shared store")).unwrap_or_default().to_owned();
            ensure!(line.starts_with(if degraded.is_some() { "problem" } else { "ok" }), "{doctor}");
            ensure!(degraded.is_none_or(|text| line.contains(text)), "{line}");
            let shown = format!("{}{}{doctor}", screener.log(), screener.tell(&["status", "--json"])?);
            ensure!(
                !shown.contains("hunter2") && !shown.contains("swordfish") && !shown.contains("wrong-one"),
                "{shown}"
            );
            Ok(())
        };
        sees(config("redis://store.example", ""), Some(login))?;
        sees(config("redis://:wrong-one@store.example", ""), Some(login))?;
        sees(config("redis://:swordfish@store.example", ""), None)?;
        sees(config("redis://screener:hunter2@store.example", ""), None)?;
        let file = |name: &str| format!("[shared]\npassword_file = \"/etc/screener/{name}\"\n");
        sees(config("redis://screener@store.example", &file("store.pass")), None)?;
        let missing = "shared.password_file: /etc/screener/none.pass cannot be used";
        sees(config("redis://screener@store.example", &file("none.pass")), Some(missing))?;
        let inside = |ca: &str| {
            config(
                "rediss://screener@store.example:6380",
                &format!("{}ca_file = \"/etc/screener/{ca}\"\n", file("store.pass")),
            )
        };
        sees(inside("good.pem"), None)?;
        sees(inside("other.pem"), Some("set shared.ca_file to the CA that signed it"))?;
        sees(config("rediss://store.example:6379", ""), Some("a port that does not speak TLS behaves so"))?;
        sees(config("redis://192.0.2.77", ""), Some("redis://192.0.2.77:6379: it "))?;
        expect(&mx, &["check-config"], 0, "rediss:// is TLS")
    });
}
