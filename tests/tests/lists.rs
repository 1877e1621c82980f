//! Permits and whole lists of denies by command: taken all or not at all, guarded, kept, and in the kernel when the command
//! returns.

use std::time::Duration;

use anyhow::{Result, ensure};

use screener_tests::cell;
use screener_tests::cli::{expect, shell};
use screener_tests::host::Host;
use screener_tests::net::Net;
use screener_tests::screener::{GUARDED, Screener, command};

fn start(mx: &Host) -> Result<Screener> {
    Screener::start(mx, &(GUARDED.to_owned() + "[[deny]]\nprefix = \"203.0.113.128/25\"\naction = \"reject\"\n"))
}

#[test]
fn a_permit_beats_what_denies_it_for_as_long_as_it_stands() {
    cell::test("a_permit_beats_what_denies_it_for_as_long_as_it_stands", || {
        let mx = Net::mx()?;
        let mut screener = start(&mx)?;
        let permit = |arguments: &[&str], code, part| expect(&mx, &[&["permit"], arguments].concat(), code, part);
        permit(&["add", "198.51.100.7/24"], 2, "write 198.51.100.0/24 for the network")?;
        permit(&["add", "0.0.0.0/0"], 2, "permitting 0.0.0.0/0 is wider than /8")?;
        permit(&["add", "2000::/3"], 2, "force it with --force")?;
        permit(&["add", "2000::/3", "--force"], 0, "2000::/3: permit")?;
        permit(&["del", "2000::/3"], 0, "removed")?;
        permit(&["del", "2000::/3"], 1, "no permit entry for 2000::/3 was made by command")?;
        permit(&["del", "192.0.2.128/25"], 1, "no permit entry for 192.0.2.128/25 was made by command")?;

        expect(&mx, &["deny", "add", "198.51.100.0/24"], 0, "drop")?;
        let found = |address, code, part| expect(&mx, &["kernel", "map", "get", "deny", address], code, part);
        found("198.51.100.9", 0, "198.51.100.9: drop")?;
        permit(&["add", "198.51.100.8/29", "--comment", "partner"], 0, "198.51.100.8/29: permit")?;
        found("198.51.100.9", 0, "198.51.100.9: permit")?;
        expect(&mx, &["explain", "198.51.100.9"], 0, "Permitted by 198.51.100.8/29 from cli (partner)")?;
        expect(&mx, &["deny", "add", "198.51.100.9"], 2, "lies in the permit 198.51.100.8/29 (cli)")?;
        expect(&mx, &["deny", "add", "198.51.100.8/29", "--force"], 2, "screener permit del 198.51.100.8/29")?;
        expect(&mx, &["deny", "del", "198.51.100.8/29"], 1, "no deny entry")?;

        screener.stop()?;
        screener.restart()?;
        let permits = screener.json(&["permit", "list", "--json"])?;
        let ours = permits.as_array().and_then(|all| all.iter().find(|entry| entry["prefix"] == "198.51.100.8/29"));
        ensure!(ours.is_some_and(|entry| entry["comment"] == "partner" && entry["origin"] == "cli"), "{permits}");
        found("198.51.100.9", 0, "198.51.100.9: permit")?;
        permit(&["del", "198.51.100.8/29"], 0, "removed")?;
        // The deny under it was in the kernel all the time.
        found("198.51.100.9", 0, "198.51.100.9: drop")?;

        // On the same prefix the later command holds, and the kernel has what the list has.
        expect(&mx, &["deny", "add", "203.0.113.0/26"], 0, "drop")?;
        permit(&["add", "203.0.113.0/26"], 0, "permit")?;
        expect(&mx, &["kernel", "map", "get", "deny", "203.0.113.0/26"], 1, "not in deny")?;
        permit(&["del", "203.0.113.0/26"], 0, "removed")?;
        found("203.0.113.1", 1, "not in deny")
    });
}

#[test]
fn a_list_is_denied_as_a_whole_or_not_at_all() {
    cell::test("a_list_is_denied_as_a_whole_or_not_at_all", || {
        let mx = Net::mx()?;
        let mut screener = start(&mx)?;
        let import = |text: &str, more: &[&str], code, part: &str| {
            mx.write("/tmp/list", text)?;
            expect(&mx, &[&["deny", "import", "/tmp/list"], more].concat(), code, part)
        };
        let count = || -> Result<usize> {
            let denies = screener.json(&["deny", "list", "--json"])?;
            Ok(denies.as_array().map_or(0, Vec::len))
        };
        // What is not a list.
        expect(&mx, &["deny", "import", "/tmp/nothing"], 2, "cannot read /tmp/nothing")?;
        import("# empty\n", &[], 2, "/tmp/list:1: there is no prefix in it")?;
        import(
            "198.51.100.0/24\nfoo\n",
            &[],
            2,
            "nothing was changed:\n/tmp/list:2: 'foo' is no prefix and no address",
        )?;
        import("198.51.100.1/24\n", &[], 2, "/tmp/list:1: 198.51.100.1/24 has bits set behind its length")?;
        import("1.10.16.0/20 ; SBL256894\n", &["--format", "spamhaus-text"], 2, "not the whole list")?;
        import("198.51.100.0/24\n", &["--format", "ip4set"], 2, "it knows cidr, netset, spamhaus-text")?;
        // What no list may do.
        import("198.51.100.0/24\n192.0.2.0/28\n", &[], 2, "would cover 192.0.2.10/32 (own_address) by 192.0.2.0/28")?;
        import("10.255.255.0/24\n8.8.8.8\n", &[], 2, "10.255.255.1/32 (gateway) by 10.255.255.0/24")?;
        import("192.0.2.0/25\n192.0.2.128/25\n", &[], 2, "192.0.2.128/25 (config) by 192.0.2.128/25")?;
        import("10.7.3.4\n8.8.8.8\n", &[], 2, "10.7.0.0/16 (own_network) by 10.7.3.4/32")?;
        import("64.0.0.0/7\n", &[], 2, "one prefix is wider than /8 (IPv4) or /16 (IPv6): 64.0.0.0/7")?;
        let most: String = (20..80).map(|first| format!("{first}.0.0.0/8\n")).collect();
        import(&most, &[], 2, "26.7 % of IPv4's unicast addresses (1006632960), where at most 25 % are taken")?;
        expect(&mx, &["deny", "add", "10.255.255.1"], 2, "10.255.255.1 (gateway)")?;
        ensure!(count()? == 1, "something was taken in");

        // What is one.
        let list = "198.51.100.0/24 # one\n203.0.113.9;two\n2001:db8:bad::/48\n\n192.0.2.200\n203.0.113.9/32\n";
        import(list, &["--dry-run"], 0, "nothing was changed: 4 added, 0 changed, 0 kept")?;
        ensure!(count()? == 1, "a dry run is dry");
        let comment = ["--comment", "run 7", "--action", "reject"];
        import(list, &comment, 0, "1 of the prefixes lie in permits, which win: 192.0.2.200/32")?;
        import(list, &comment, 0, "0 added, 0 changed, 4 kept")?;
        import("198.51.100.0/24\n", &[], 0, "0 added, 1 changed, 0 kept")?;
        let found = |address, part| expect(&mx, &["kernel", "map", "get", "deny", address], 0, part);
        found("198.51.100.77", "drop")?;
        found("203.0.113.9", "reject")?;
        found("2001:db8:bad::1", "reject")?;
        found("192.0.2.200", "permit")?;
        expect(&mx, &["explain", "203.0.113.9"], 0, "Denied by 203.0.113.9/32 from cli (run 7)")?;

        screener.stop()?;
        screener.restart()?;
        ensure!(screener.json(&["deny", "list", "--json"])?.as_array().is_some_and(|all| all.len() == 5), "not kept");
        found("203.0.113.9", "reject")?;
        let all = screener.tell(&["deny", "export"])?;
        ensure!(all.contains("\n203.0.113.9/32 # reject, cli: run 7\n"), "{all}");
        ensure!(all.contains("\n203.0.113.128/25 # reject, config\n"), "{all}");
        let some = screener.tell(&["deny", "export", "--origin", "cli", "--action", "drop"])?;
        ensure!(some.lines().skip(1).collect::<Vec<_>>() == ["198.51.100.0/24 # drop, cli"], "{some}");
        // What is exported can be taken in.
        let said = shell(
            &mx,
            "screener deny export --origin cli --action reject | screener deny import - --action reject --comment 'run 7'",
        )?;
        ensure!(said.starts_with("0 added, 0 changed, 3 kept"), "{said}");
        // Forced, a list covers what it must not, and permits win all the same.
        import("192.0.2.0/24\n", &["--force"], 0, "forced, though: refused: it would deny")?;
        found("192.0.2.10", "permit")?;
        found("192.0.2.11", "drop")
    });
}

#[test]
fn a_list_that_the_kernel_cannot_hold_changes_nothing() {
    cell::test("a_list_that_the_kernel_cannot_hold_changes_nothing", || {
        let mx = Net::mx()?;
        let screener = start(&mx)?;
        screener.tell(&["deny", "add", "2001:db8:1::/48", "--action", "tag"])?;
        // More IPv6 prefixes than there is room for.
        shell(
            &mx,
            "awk 'BEGIN { for (i = 0; i < 300000; i++) printf \"2a%02x:%x:%x::/48\\n\", i % 16, i / 4096, i % 4096 }' > /tmp/list",
        )?;
        let mut import = mx.spawn(&mut command(&mx, &[], &["deny", "import", "/tmp/list"])?)?;
        import.wait_for_line("is full", Duration::from_secs(100))?;
        ensure!(import.wait(Duration::from_secs(5))?.code() == Some(2), "{}", import.log());
        let denies = screener.json(&["deny", "list", "--json"])?;
        ensure!(
            denies.as_array().is_some_and(|all| all.len() == 2),
            "{} entries",
            denies.as_array().map_or(0, Vec::len)
        );
        expect(&mx, &["explain", "2001:db8:1::1"], 0, "Tagged by 2001:db8:1::/48 from cli")
    });
}
