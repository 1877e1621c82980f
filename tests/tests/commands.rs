//! The commands as an operator meets them: answers, errors that say what to do, exit codes.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::ensure;

use screener_tests::cell;
use screener_tests::cli::expect;
use screener_tests::net::Net;
use screener_tests::screener::{GUARDED, Screener};
use screener_tests::wait::until;

#[test]
fn without_a_daemon_commands_say_what_to_do() {
    cell::test("without_a_daemon_commands_say_what_to_do", || {
        let mx = Net::mx()?;
        for asking in [&["status"][..], &["pass", "list"], &["deny", "list", "--json"], &["explain", "192.0.2.1"]] {
            expect(&mx, asking, 2, "screener is not running: nobody answers at /run/screener/control.sock")?;
        }
        expect(&mx, &["--socket", "/run/other.sock", "status"], 2, "/run/other.sock")?;
        expect(&mx, &["kernel", "status"], 1, "nothing is attached under /sys/fs/bpf/screener")?;
        expect(&mx, &["kernel", "detach"], 1, "nothing was attached")?;
        expect(&mx, &["completions", "bash"], 0, "_screener")?;
        expect(&mx, &["--version"], 0, "screener ")?;
        expect(&mx, &["explain", "mx.example.com"], 2, "invalid value 'mx.example.com'")?;
        expect(&mx, &["deny", "add", "300.0.0.0/8"], 2, "write 192.0.2.0/24")?;
        expect(&mx, &["deny", "add", "192.0.2.0/24", "--action", "ban"], 2, "use drop, reject, tag or count")?;
        expect(&mx, &["pass", "add", "192.0.2.1", "--ttl", "soon"], 2, "invalid value 'soon'")?;
        expect(&mx, &["frobnicate"], 2, "unrecognized subcommand")
    });
}

#[test]
fn a_daemon_with_places_of_its_own_is_found_by_its_configuration_also_when_that_was_spoilt() {
    cell::test("a_daemon_with_places_of_its_own_is_found_by_its_configuration_also_when_that_was_spoilt", || {
        let mx = Net::mx()?;
        let own = GUARDED.replace("[control]", "[control]\nsocket = \"/run/mx/control.sock\"");
        let own = own.replace("[kernel]", "[kernel]\npin = \"/sys/fs/bpf/mx\"");
        let mut screener = Screener::start(&mx, &own)?;
        expect(&mx, &["kernel", "status"], 0, "/sys/fs/bpf/mx")?;
        screener.configure(&own.replace("[control]", "[limits]\ncommands = 0\n[control]"))?;
        expect(&mx, &["reload"], 2, "limits.commands")?;
        screener.stop()?;
        expect(&mx, &["status"], 2, "nobody answers at /run/mx/control.sock")?;
        expect(&mx, &["kernel", "detach"], 0, "detached: ")?;
        expect(&mx, &["kernel", "detach"], 1, "nothing was attached under /sys/fs/bpf/mx")
    });
}

#[test]
fn check_config_names_file_line_and_key() {
    cell::test("check_config_names_file_line_and_key", || {
        let mx = Net::mx()?;
        let path = "/etc/screener/test.toml";
        let check = &["check-config", "--config", path];
        expect(&mx, check, 2, "cannot read the configuration")?;
        expect(&mx, &["check-config"], 0, "/etc/screener/screener.toml: there is none")?;
        for (text, complaint) in [
            ("[listen]\nmoed = \"steer\"\n", "test.toml:2:1"),
            ("[tests.pregreet]\nwait = \"six\"\n", "test.toml:2:8: tests.pregreet.wait"),
            ("[kernel]\nsyn_rate = \"fast\"\n", "test.toml:2:12: kernel.syn_rate: \"fast\" is no rate: write it like"),
            ("[ledger]\nshared = \"store.example\"\n", "ledger.shared: no address of a store: write redis://HOST"),
            ("[[deny]]\nprefix = \"192.0.2.1/24\"\n", "192.0.2.0/24"),
            ("[[tests.dnsbl.list]]\nzone = \"a.example\"\ncodes = { \"127.0.0.[9..2]\" = 1 }\n", "test.toml:3:"),
            ("listen = [", "test.toml:1:"),
        ] {
            mx.write(path, text)?;
            expect(&mx, check, 2, complaint)?;
            expect(&mx, &["run", "--config", path], 2, complaint)?;
        }
        mx.write(path, GUARDED)?;
        expect(&mx, check, 0, "test.toml: ok")?;
        expect(&mx, &["check-config", "--config", path, "--json"], 0, "\"ok\": true")
    });
}

#[test]
fn denies_and_passes_are_kept_guarded_and_explained() {
    cell::test("denies_and_passes_are_kept_guarded_and_explained", || {
        let mx = Net::mx()?;
        let mut screener = Screener::start(&mx, GUARDED)?;
        expect(&mx, &["deny", "add", "198.51.100.7/24"], 2, "write 198.51.100.0/24 for the network")?;
        expect(&mx, &["deny", "add", "192.0.2.0/24"], 2, "would cover 192.0.2.10/32 (own_address)")?;
        expect(&mx, &["deny", "add", "10.7.3.0/24"], 2, "lies in the permit 10.7.0.0/16 (own_network)")?;
        expect(&mx, &["deny", "add", "128.0.0.0/1"], 2, "wider than /8")?;
        expect(&mx, &["deny", "add", "198.51.100.0/24", "--comment", "ticket 4711"], 0, "198.51.100.0/24: drop")?;
        expect(&mx, &["deny", "add", "2001:db8:bad::/48", "--action", "tag"], 0, "2001:db8:bad::/48: tag")?;
        expect(&mx, &["deny", "add", "203.0.113.9"], 0, "203.0.113.9/32: drop")?;
        expect(&mx, &["deny", "del", "203.0.113.0/24"], 1, "no deny entry for 203.0.113.0/24 was made by command")?;
        expect(&mx, &["deny", "del", "203.0.113.9"], 0, "removed")?;
        expect(&mx, &["pass", "add", "203.0.113.9", "--ttl", "1d", "--comment", "asked by phone"], 0, "until")?;
        expect(&mx, &["pass", "add", "2001:db8:1:2:3::4"], 0, "2001:db8:1:2:: has a pass until")?;
        expect(&mx, &["pass", "add", "203.0.113.9", "--ttl", "0s"], 2, "a pass of no time is none")?;
        expect(&mx, &["pass", "del", "203.0.113.10"], 1, "203.0.113.10 has no pass")?;

        expect(&mx, &["explain", "198.51.100.7"], 0, "Denied by 198.51.100.0/24 from cli (ticket 4711)")?;
        expect(&mx, &["explain", "192.0.2.200"], 0, "Permitted by 192.0.2.128/25 from config (our own relays)")?;
        expect(&mx, &["explain", "203.0.113.9"], 0, "On the list. The operator gave it a pass (asked by phone)")?;
        expect(
            &mx,
            &["explain", "203.0.113.77"],
            1,
            "Not on the list. It has no pass. Nothing is known of it. When it comes, it would be screened (pregreet, pipelining",
        )?;
        // What an entry says must be in the kernel when the command returns.
        let maps = screener.json(&["kernel", "status", "--json"])?;
        ensure!(entries(&maps, "DENY4") == Some(1) && entries(&maps, "DENY6") == Some(1), "{maps}");
        until("the passes to reach the kernel", Duration::from_secs(5), || {
            let maps = screener.json(&["kernel", "status", "--json"]).ok()?;
            (entries(&maps, "PASS4") == Some(1) && entries(&maps, "PASS6") == Some(1)).then_some(())
        })?;

        screener.stop()?;
        screener.restart()?;
        let denies = screener.json(&["deny", "list", "--json"])?;
        ensure!(denies.as_array().is_some_and(|all| all.len() == 2), "{denies}");
        ensure!(denies[0]["comment"] == "ticket 4711" && denies[0]["origin"] == "cli", "{denies}");
        let passes = screener.json(&["pass", "list", "--json"])?;
        ensure!(passes.as_array().is_some_and(|all| all.len() == 2), "{passes}");
        ensure!(passes[0]["comment"] == "asked by phone" && passes[0]["origin"] == "manual", "{passes}");
        // On no terminal: a line each, tabs between the columns.
        let lines = screener.tell(&["deny", "list"])?;
        ensure!(lines.lines().count() == 2 && lines.starts_with("198.51.100.0/24\tdrop\tcli\t"), "{lines}");
        Ok(())
    });
}

fn entries(status: &serde_json::Value, map: &str) -> Option<u64> {
    status["maps"].as_array()?.iter().find(|entry| entry["name"] == map)?["entries"].as_u64()
}

#[test]
fn a_second_daemon_is_told_about_the_first() {
    cell::test("a_second_daemon_is_told_about_the_first", || {
        let mx = Net::mx()?;
        let mut screener = Screener::start(&mx, GUARDED)?;
        mx.write("/etc/screener/second.toml", GUARDED)?;
        let second = &["run", "--config", "/etc/screener/second.toml"];
        expect(&mx, second, 2, "another screener is running")?;
        // With a socket of its own it meets the first one's ledger, or its pins.
        let own_socket = GUARDED.replace("[control]", "[control]\nsocket = \"/run/second.sock\"");
        mx.write("/etc/screener/second.toml", &own_socket)?;
        expect(&mx, second, 2, "is in use by another running screener")?;
        mx.write("/etc/screener/second.toml", &(own_socket + "[ledger]\npath = \"/run/second.redb\"\n"))?;
        expect(&mx, second, 2, "holds /sys/fs/bpf/screener: it has the programs and maps there")?;
        screener.tell(&["status"])?;
        // A dead one holds nothing.
        screener.kill9()?;
        screener.restart()
    });
}

#[test]
fn metrics_are_on_their_port_and_name_no_client() {
    cell::test("metrics_are_on_their_port_and_name_no_client", || {
        let mx = Net::mx()?;
        let screener = Screener::start(&mx, GUARDED)?;
        screener.tell(&["deny", "add", "198.51.100.0/24"])?;
        let text = mx.in_ns(|| {
            let address: SocketAddr = "127.0.0.1:9725".parse()?;
            let mut stream = TcpStream::connect(address)?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: mx\r\nConnection: close\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        })?;
        ensure!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        ensure!(text.contains("application/openmetrics-text") && text.contains("# EOF"), "{text}");
        for name in [
            "screener_denies 1",
            "screener_event_sample 1",
            "screener_events_lost 0",
            "screener_packets_total{",
            "screener_degraded{what=\"mta\"} 1",
        ] {
            ensure!(text.contains(name), "{name} is not in {text}");
        }
        ensure!(!text.contains("198.51.100"), "{text}");
        Ok(())
    });
}
