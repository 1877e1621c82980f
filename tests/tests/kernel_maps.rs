//! `screener kernel map` on pinned maps, with and without a daemon that holds them.

use std::time::Duration;

use anyhow::{Result, ensure};

use screener_tests::cell;
use screener_tests::cli::{expect, run, shell};
use screener_tests::host::Host;
use screener_tests::net::Net;
use screener_tests::screener::Screener;

const CONFIG: &str = r#"
hostname = "mx.example.com"
[listen]
mode = "steer"
[kernel]
interfaces = ["eth0"]
[[permit]]
prefix = "192.0.2.128/25"
[control]
group = "root"
"#;

/// A host on which a daemon was, and left its maps.
fn left() -> Result<Host> {
    let mx = Net::mx()?;
    Screener::start(&mx, CONFIG)?.stop()?;
    Ok(mx)
}

/// `screener kernel map` with these arguments.
fn map(host: &Host, arguments: &[&str], code: i32, part: &str) -> Result<()> {
    expect(host, &[&["kernel", "map"], arguments].concat(), code, part)
}

fn dump(host: &Host) -> Result<String> {
    let (_, said) = run(host, &["kernel", "map", "dump"])?;
    Ok(said.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect())
}

#[test]
fn without_maps_every_verb_says_how_to_have_them() {
    cell::test("without_maps_every_verb_says_how_to_have_them", || {
        let mx = Net::mx()?;
        mx.write("/tmp/file", "deny 198.51.100.0/24 drop\n")?;
        for verb in [
            &["list"][..],
            &["get", "deny", "198.51.100.1"],
            &["set", "deny", "198.51.100.0/24"],
            &["del", "deny", "198.51.100.0/24"],
            &["set", "pass", "198.51.100.1"],
            &["dump"],
            &["restore", "/tmp/file"],
        ] {
            map(
                &mx,
                verb,
                2,
                "are pinned under /sys/fs/bpf/screener: run `screener kernel attach`, or start the daemon",
            )?;
        }
        map(&mx, &["list", "--pin", "/sys/fs/bpf/other"], 2, "are pinned under /sys/fs/bpf/other")
    });
}

#[test]
fn without_a_daemon_single_entries_are_read_and_changed() {
    cell::test("without_a_daemon_single_entries_are_read_and_changed", || {
        let mx = left()?;
        // Prefixes.
        map(&mx, &["set", "deny", "198.51.100.0/24"], 0, "198.51.100.0/24: drop")?;
        map(&mx, &["set", "deny", "198.51.100.0/26", "count"], 0, "198.51.100.0/26: count")?;
        map(&mx, &["set", "deny", "2001:db8:bad::/48", "tag"], 0, "2001:db8:bad::/48: tag")?;
        map(&mx, &["set", "deny", "::ffff:203.0.113.0/120", "reject"], 0, "203.0.113.0/24: reject")?;
        map(&mx, &["get", "deny", "198.51.100.0/24"], 0, "198.51.100.0/24: drop")?;
        map(&mx, &["get", "deny", "198.51.100.0/25"], 1, "198.51.100.0/25: not in deny")?;
        map(&mx, &["get", "deny", "198.51.100.0/26"], 0, "198.51.100.0/26: count")?;
        map(&mx, &["get", "deny", "198.51.100.1"], 0, "198.51.100.1: drop")?;
        map(&mx, &["get", "deny", "203.0.113.1"], 0, "203.0.113.1: reject")?;
        map(&mx, &["get", "deny", "2001:db8:bad::1"], 0, "2001:db8:bad::1: tag")?;
        map(&mx, &["get", "deny", "8.8.8.8"], 1, "8.8.8.8: not in deny")?;
        map(&mx, &["set", "permit", "198.51.100.4"], 0, "198.51.100.4/32: permit")?;
        map(&mx, &["get", "deny", "198.51.100.4"], 0, "198.51.100.4: permit")?;
        map(&mx, &["get", "permit", "198.51.100.4"], 0, "198.51.100.4: permit")?;
        map(&mx, &["get", "permit", "198.51.100.5"], 1, "198.51.100.5: not in permit")?;
        map(&mx, &["get", "deny", "198.51.100.4", "--json"], 0, "\"value\": \"permit\"")?;
        map(&mx, &["del", "deny", "198.51.100.0/25"], 1, "not in deny")?;
        map(&mx, &["del", "deny", "198.51.100.0/24"], 0, "removed")?;
        map(&mx, &["get", "deny", "198.51.100.1"], 0, "198.51.100.1: count")?;
        map(&mx, &["del", "permit", "198.51.100.4"], 0, "removed")?;
        // Passes.
        map(&mx, &["set", "pass", "203.0.113.7", "86400"], 0, "203.0.113.7: 86400 s")?;
        map(&mx, &["set", "pass", "2001:db8:1:2:3::4", "2d"], 0, "2001:db8:1:2::: 172800 s")?;
        map(&mx, &["get", "pass", "2001:db8:1:2::9"], 0, "2001:db8:1:2::: 17")?;
        map(&mx, &["get", "pass", "203.0.113.8"], 1, "203.0.113.8: not in pass")?;
        map(&mx, &["del", "pass", "203.0.113.8"], 1, "not in pass")?;
        map(&mx, &["del", "pass", "203.0.113.7"], 0, "removed")?;
        // Settings and counters.
        map(&mx, &["get", "settings", "ports"], 0, "ports: 25")?;
        map(&mx, &["set", "settings", "ports", "25,587"], 0, "ports: 25,587")?;
        map(&mx, &["list", "settings"], 0, "ports\t25,587")?;
        map(&mx, &["get", "counters", "drop_denied"], 0, "screen ipv4 drop_denied: 0")?;
        map(&mx, &["list"], 0, "pass\t1")?;
        map(&mx, &["list", "--json"], 0, "\"map\": \"deny\"")?;
        map(&mx, &["dump", "deny"], 0, "\ndeny 2001:db8:bad::/48 tag\n")?;
        map(&mx, &["dump", "--json"], 0, "{\"map\":\"deny\",\"key\":\"203.0.113.0/24\",\"value\":\"reject\"}")
    });
}

#[test]
fn what_makes_no_sense_is_refused_with_what_would() {
    cell::test("what_makes_no_sense_is_refused_with_what_would", || {
        let mx = left()?;
        let before = dump(&mx)?;
        let settings = run(&mx, &["kernel", "map", "list", "settings"])?;
        for (arguments, part) in [
            (
                &["get", "denies", "8.8.8.8"][..],
                "'denies' is no map: there are permit, deny, pass, offender, settings, counters",
            ),
            (&["get", "deny", "example.com"], "'example.com' is no prefix and no address"),
            (&["set", "deny", "198.51.100.1/24"], "write 198.51.100.0/24 for the network"),
            (&["set", "deny", "198.51.100.0/24", "block"], "use drop, reject, tag or count"),
            (&["set", "deny", "64.0.0.0/7"], "wider than /8"),
            (&["set", "deny", "192.0.2.10"], "192.0.2.10/32 (own_address)"),
            (&["set", "deny", "10.255.255.0/24"], "10.255.255.1/32 (gateway) by 10.255.255.0/24"),
            (&["set", "deny", "192.0.2.200"], "192.0.2.200/32 lies in a permit, which wins"),
            (&["set", "permit", "0.0.0.0/0"], "permitting 0.0.0.0/0 is wider than /8"),
            (&["set", "permit", "198.51.100.0/24", "drop"], "a permit has no value"),
            (&["set", "pass", "203.0.113.0/24"], "a pass is for one client"),
            (&["set", "pass", "203.0.113.7", "soon"], "'soon' is no time: write seconds, or 30d"),
            (&["set", "pass", "203.0.113.7", "0"], "a pass of no time is none"),
            (&["set", "settings", "prots", "25"], "there is no setting prots: there are ports, "),
            (&["set", "settings", "ports", "0"], "between 1 and 65535"),
            (&["set", "settings", "abi", "7"], "abi cannot be set"),
            (&["set", "settings", "ports"], "to what shall ports be set?"),
            (&["get", "settings", "prots"], "there is no setting 'prots'"),
            (&["get", "counters", "dropped"], "there is no counter 'dropped': there are "),
            (&["set", "counters", "drop_denied", "0"], "counters are only read"),
            (&["set", "offender", "198.51.100.1"], "`screener deny add 198.51.100.1` keeps it out"),
            (&["del", "offender", "198.51.100.1"], "let in again by `screener deny del 198.51.100.1`"),
            (&["get", "offender", "example.com"], "'example.com' is no prefix and no address"),
            (&["del", "settings", "ports"], "settings are not removed"),
        ] {
            map(&mx, arguments, 2, part)?;
        }
        ensure!(dump(&mx)? == before && run(&mx, &["kernel", "map", "list", "settings"])? == settings, "changed");
        // Forced it is done, and permits still win.
        map(&mx, &["set", "deny", "192.0.2.0/24", "--force"], 0, "192.0.2.0/24: drop")?;
        map(&mx, &["get", "deny", "192.0.2.10"], 0, "192.0.2.10: permit")?;
        map(&mx, &["get", "deny", "192.0.2.11"], 0, "192.0.2.11: drop")
    });
}

#[test]
fn restore_replaces_what_a_file_names_and_nothing_else() {
    cell::test("restore_replaces_what_a_file_names_and_nothing_else", || {
        let mx = left()?;
        let restore = |text: &str, more: &[&str], code, part: &str| {
            mx.write("/tmp/file", text)?;
            map(&mx, &[&["restore", "/tmp/file"], more].concat(), code, part)
        };
        let first = "deny 198.51.100.0/24 drop\ndeny 203.0.113.9/32 tag\ndeny 2001:db8:bad::/48 reject\n";
        restore(
            &format!("# comment\n\n{first}pass 203.0.113.7 86400\n"),
            &[],
            0,
            "deny: 3 added, 0 changed, 0 removed, 0 kept",
        )?;
        let all = dump(&mx)?;
        ensure!(
            all.contains("permit 192.0.2.128/25\n") && all.contains(first) && all.contains("pass 203.0.113.7 86"),
            "{all}"
        );

        // What is dumped is put back without a change, and can be put back twice.
        let said = shell(&mx, "screener kernel map dump | screener kernel map restore -")?;
        for part in [
            "permit: 0 added, 0 changed, 0 removed",
            "deny: 0 added, 0 changed, 0 removed, 3 kept",
            "pass: 0 added, 0 changed, 0 removed, 1 kept",
        ] {
            ensure!(said.contains(part), "{part:?} is not in {said}");
        }
        restore(
            "deny 198.51.100.0/24 reject\ndeny 8.8.8.8 drop\n",
            &[],
            0,
            "deny: 1 added, 1 changed, 2 removed, 0 kept",
        )?;
        ensure!(dump(&mx)?.contains("pass 203.0.113.7 "), "the passes were not named");
        map(&mx, &["get", "deny", "203.0.113.9"], 1, "not in deny")?;
        map(&mx, &["get", "deny", "198.51.100.3"], 0, "198.51.100.3: reject")?;
        restore(
            "pass 203.0.113.8 5000\ndeny 9.9.9.9 drop\n",
            &["--map", "pass"],
            0,
            "pass: 1 added, 0 changed, 1 removed, 0 kept",
        )?;
        map(&mx, &["get", "deny", "9.9.9.9"], 1, "not in deny")?;

        // Anything wrong, and nothing changes.
        let before = dump(&mx)?.lines().filter(|line| !line.starts_with("pass")).collect::<Vec<_>>().join("\n");
        for (text, more, part) in [
            ("deny 1.2.3.0/24 drop\nallow 5.5.5.5\n", &[][..], "nothing was changed:\n/tmp/file:2: 'allow' is no list"),
            ("deny 1.2.3.4/24 drop\n", &[], "/tmp/file:1: 1.2.3.4/24 has bits set behind its length"),
            ("deny 1.2.3.4 drop\ndeny 1.2.3.4/32 tag\n", &[], "/tmp/file:2: 1.2.3.4/32 is in line 1 already"),
            ("pass 1.2.3.0/24 60\n", &[], "/tmp/file:1: '1.2.3.0/24' is no address"),
            ("deny 1.2.3.4\n", &[], "write deny PREFIX drop|reject|tag|count"),
            ("# nothing\n", &[], "names no entry, and nothing was changed"),
            ("permit 1.2.3.4\n", &["--map", "deny"], "no entry of that list"),
            ("deny 192.0.2.0/24 drop\n", &[], "nothing was changed: refused: it would deny less than 0.1 %"),
            ("deny 10.255.255.0/24 drop\ndeny 1.2.3.4 drop\n", &[], "10.255.255.1/32 (gateway) by 10.255.255.0/24"),
            ("permit 1.2.3.4\ndeny 1.2.3.0/24 drop\n", &[], "1.2.3.4/32 (permit) by 1.2.3.0/24"),
            ("permit 0.0.0.0/1\n", &[], "permitting 0.0.0.0/1 is wider than /8"),
        ] {
            restore(text, more, 2, part)?;
        }
        let after = dump(&mx)?.lines().filter(|line| !line.starts_with("pass")).collect::<Vec<_>>().join("\n");
        ensure!(before == after, "{before}\nbecame\n{after}");
        // Forced it is done; and what was forced once is put back from a dump without force.
        restore("deny 192.0.2.0/24 drop\n", &["--force"], 0, "deny: 1 added, 0 changed, 2 removed, 0 kept")?;
        shell(&mx, "screener kernel map dump | screener kernel map restore -")?;
        restore("", &["--map", "deny", "--force"], 0, "deny: 0 added, 0 changed, 1 removed, 0 kept")
    });
}

#[test]
fn a_daemon_that_holds_the_maps_is_asked_for_changes() {
    cell::test("a_daemon_that_holds_the_maps_is_asked_for_changes", || {
        let mx = Net::mx()?;
        let screener = Screener::start(&mx, CONFIG)?;
        map(&mx, &["set", "deny", "198.51.100.0/24", "tag"], 0, "198.51.100.0/24: tag")?;
        map(&mx, &["set", "permit", "203.0.113.0/24"], 0, "203.0.113.0/24: permit")?;
        map(&mx, &["set", "pass", "8.8.8.8", "3600"], 0, "8.8.8.8: 3600 s")?;
        // They are the daemon's own now.
        let denies = screener.json(&["deny", "list", "--json"])?;
        ensure!(denies[0]["prefix"] == "198.51.100.0/24" && denies[0]["origin"] == "cli", "{denies}");
        ensure!(screener.has_pass("8.8.8.8".parse()?)?, "no pass");
        map(&mx, &["get", "deny", "198.51.100.9"], 0, "198.51.100.9: tag")?;
        map(&mx, &["get", "permit", "203.0.113.0/24"], 0, "203.0.113.0/24: permit")?;
        map(&mx, &["dump"], 0, "deny 198.51.100.0/24 tag")?;
        map(&mx, &["set", "deny", "192.0.2.0/24"], 2, "would cover 192.0.2.10/32 (own_address)")?;
        map(&mx, &["del", "permit", "192.0.2.128/25"], 1, "no permit entry for 192.0.2.128/25 was made by command")?;
        map(&mx, &["del", "permit", "203.0.113.0/24"], 0, "removed")?;
        map(&mx, &["del", "deny", "198.51.100.0/24"], 0, "removed")?;
        map(&mx, &["del", "pass", "8.8.8.8"], 0, "removed")?;
        map(&mx, &["get", "deny", "198.51.100.9"], 1, "not in deny")?;
        map(&mx, &["set", "settings", "ports", "26"], 2, "change the configuration and restart it")?;
        mx.write("/tmp/file", "deny 1.2.3.4 drop\npass 1.2.3.4 60\n")?;
        map(
            &mx,
            &["restore", "/tmp/file"],
            2,
            "Use `screener deny import FILE` (a prefix a line), `screener pass add ADDRESS`",
        )?;
        // A daemon that does not answer, or holds other maps, is not asked.
        expect(
            &mx,
            &["--socket", "/run/none.sock", "kernel", "map", "set", "deny", "1.2.3.4"],
            2,
            "must be asked for a change",
        )
    });
}

#[test]
fn a_daemon_says_what_it_removes_from_the_kernel_when_it_starts() {
    cell::test("a_daemon_says_what_it_removes_from_the_kernel_when_it_starts", || {
        let mx = Net::mx()?;
        let mut screener = Screener::start(&mx, CONFIG)?;
        screener.tell(&["deny", "add", "198.51.100.0/24"])?;
        screener.stop()?;
        for host in 1..=4 {
            map(&mx, &["set", "deny", &format!("203.0.113.{host}"), "reject"], 0, "reject")?;
        }
        map(&mx, &["set", "permit", "8.8.8.8"], 0, "permit")?;
        screener.restart()?;
        let line = screener.wait_for_log("leave the kernel", Duration::from_secs(5))?;
        let named = "1 permits and 4 denies leave the kernel";
        ensure!(line.contains(named) && line.contains("permit 8.8.8.8/32, deny 203.0.113.1/32 reject, "), "{line}");
        ensure!(line.contains(" and 2 more; `screener deny import`"), "{line}");
        map(&mx, &["get", "deny", "203.0.113.1"], 1, "not in deny")?;
        map(&mx, &["get", "deny", "198.51.100.1"], 0, "drop")?;
        // What it knows is no news.
        screener.stop()?;
        screener.restart()?;
        ensure!(!screener.log().contains("leave the kernel"), "{}", screener.log());
        Ok(())
    });
}
