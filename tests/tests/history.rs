//! What is known of a client, as `explain` tells it at each step of its way, and the erasing of that.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use screener_tests::cell;
use screener_tests::cli::{expect, expect_all};
use screener_tests::client::Client;
use screener_tests::dnsl::Dnsl;
use screener_tests::host::Host;
use screener_tests::mta::{BOB, DIRECT, Mta};
use screener_tests::net::{INTERNET, Net, Plan};
use screener_tests::screener::{Screener, USUAL};
use screener_tests::wait::{until, until_or_show};

const SOON: Duration = Duration::from_secs(20);

const PRIMARY: &str = "192.0.2.10";
const BACKUP: &str = "192.0.2.20";
const CLIENT: &str = "203.0.113.7";
const LISTED: &str = "203.0.113.9";
const DENIED: &str = "203.0.113.66";

/// One host that is both MX hosts of the domain, a DNS list, and the Internet.
struct Lab {
    mx: Host,
    internet: Host,
    _lists: Dnsl,
    mta: Mta,
    screener: Screener,
}

impl Lab {
    fn build() -> Result<Self> {
        let net = Net::new()?;
        let addresses = &[PRIMARY, BACKUP, "2001:db8:25::10"];
        let mx = net.host(&Plan { name: "mx", addresses, prefixes: &[] })?;
        let internet = net.host(&INTERNET)?;
        let dns = net.host(&Plan { name: "dns", addresses: &["192.0.2.53"], prefixes: &[] })?;
        let mut lists = Dnsl::start(&dns, &["bl.example"])?;
        lists.list("bl.example", LISTED, [127, 0, 0, 2].into())?;
        mx.resolve_at("192.0.2.53".parse()?)?;
        let mta = Mta::start(&mx, "")?;
        let config = format!(
            "{USUAL}[listen]\nmode = \"steer\"\npass_on = [\"{PRIMARY}\", \"2001:db8:25::10\"]\n[tests.dnsbl]\nthreshold = 1\n\
             deadline = \"2s\"\n[[tests.dnsbl.list]]\nzone = \"bl.example\"\nweight = 3\n"
        );
        let screener = Screener::start(&mx, &config)?;
        Ok(Self { mx, internet, _lists: lists, mta, screener })
    }

    fn connect(&self, source: &str, server: &str) -> Result<Client> {
        let server = SocketAddr::new(server.parse()?, 25);
        Ok(Client::connect(&self.internet, source.parse::<IpAddr>()?, server)?)
    }

    /// A session up to its first recipient, which is answered so.
    fn recipient(&self, source: &str, server: &str, code: u16) -> Result<String> {
        let mut client = self.connect(source, server)?;
        client.expect(220)?;
        client.ask("EHLO mail.sender.example", 250)?;
        client.ask("MAIL FROM:<a@sender.example>", 250)?;
        let reply = client.ask(&format!("RCPT TO:<{BOB}>"), code)?.text();
        client.ask("QUIT", 221)?;
        Ok(reply)
    }

    /// What `explain` says once it says this.
    fn explained(&self, client: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
        let client = client.parse()?;
        let shown = || self.screener.explain(client).map(|told| told.to_string()).unwrap_or_default();
        until_or_show(what, SOON, shown, || Ok(Some(self.screener.explain(client)?).filter(|told| holds(told))))
    }
}

fn sessions(told: &Value, many: u64) -> bool {
    told["sessions"] == many
}

#[test]
fn a_client_is_explained_at_each_step_of_its_way_and_erased() {
    cell::test("a_client_is_explained_at_each_step_of_its_way_and_erased", || {
        let mut lab = Lab::build()?;
        let mx = lab.mx.clone();
        // Nobody knows it.
        let never = "203.0.113.7: Not on the list. It has no pass. Nothing is known of it. When it comes, it would be screened \
                     (pregreet, dnsbl, pipelining, non_smtp_command, bare_newline): if it passes, it goes on to the MTA in the same session. A pass is earned only at \
                     192.0.2.10, 2001:db8:25::10.";
        expect(&mx, &["explain", CLIENT], 1, never)?;
        expect(&mx, &["forget", CLIENT], 1, "nothing is known of 203.0.113.7")?;

        // It spares the primary MX host and speaks too early, there and then at the primary.
        for server in [BACKUP, PRIMARY] {
            let (source, server) = (CLIENT.parse()?, SocketAddr::new(server.parse()?, 25));
            let mut early = Client::connect_saying(&lab.internet, source, server, b"HELO early.example\r\n")?;
            lab.explained(CLIENT, "it to be connected", |told| told["connected"] == 1)?;
            early.expect(220)?;
            early.expect(250)?;
            early.ask("MAIL FROM:<a@sender.example>", 250)?;
            early.ask(&format!("RCPT TO:<{BOB}>"), 550)?;
            early.ask("QUIT", 221)?;
        }
        let told = lab.explained(CLIENT, "two sessions", |told| sessions(told, 2))?;
        ensure!(told["on_list"] == false && told["verdict"] == "screen" && told["pass"].is_null(), "{told}");
        let order: Vec<_> = (0..2).map(|at| told["contacts"][at]["server"].clone()).collect();
        ensure!(order == [format!("{BACKUP}:25"), format!("{PRIMARY}:25")], "{told}");
        ensure!(told["contacts"][0]["earns_pass"] == false && told["contacts"][1]["earns_pass"] == true, "{told}");
        ensure!(told["contacts"][0]["outcome"] == "refused", "{told}");
        let refused = &told["refusals"][0];
        ensure!(refused["times"] == 2 && refused["evidence"][0]["test"] == "pregreet", "{told}");
        ensure!(refused["name"] == "early.example" && refused["sender"] == "a@sender.example", "{told}");
        ensure!(
            refused["reply"].as_str().is_some_and(|reply| reply.starts_with("550 5.5.1 Protocol error; session=")),
            "{told}"
        );
        ensure!(told["names"][0]["name"] == "early.example" && told["names"][0]["times"] == 2, "{told}");
        let parts = [
            "Not on the list. It has no pass. It was refused 2 times, last at",
            "It reached the daemon 2 times.",
            "calls itself\n  early.example x2",
            "came to our addresses in this order",
            "192.0.2.20:25 (no pass is earned there) refused",
            "pregreet +1",
        ];
        expect_all(&mx, &["explain", CLIENT], 0, &parts)?;

        // It behaves, at the primary: from then on it is the MTA's own.
        lab.recipient(CLIENT, PRIMARY, 250)?;
        let told = lab.explained(CLIENT, "a pass in the kernel", |told| {
            told["next"].as_str().is_some_and(|next| next.contains("straight to the MTA's own socket, until"))
        })?;
        ensure!(told["on_list"] == true && told["verdict"] == "pass" && told["handed_off"] == 1, "{told}");
        ensure!(told["let_through"].is_null() && told["last_used"].is_string(), "{told}");
        expect_all(
            &mx,
            &["explain", CLIENT],
            0,
            &["On the list. It has passed the tests, since", "then dnsbl is due again"],
        )?;

        // The daemon does not see it any more, and still knows that it comes.
        lab.recipient(CLIENT, PRIMARY, 250)?;
        lab.mta.wait_until_seen(DIRECT, CLIENT.parse()?, SOON)?;
        let told = lab.explained(CLIENT, "the kernel's use", |told| told["let_through"].is_string())?;
        ensure!(sessions(&told, 3) && told["last_seen"] == told["let_through"], "{told}");
        expect(&mx, &["explain", CLIENT], 0, "last let through by the kernel at")?;

        // A kill loses nothing of it that is older than a batch.
        until("all of it to be in the file", SOON, || {
            let status = lab.screener.json(&["status", "--json"]).ok()?;
            (status["ledger"]["queued"] == 0).then_some(())
        })?;
        lab.screener.kill9()?;
        lab.screener.restart()?;
        let after = lab.screener.explain(CLIENT.parse()?)?;
        for known in ["sessions", "contacts", "refusals", "names", "events", "first_seen", "pass"] {
            ensure!(after[known] == told[known], "{known}: {after} was {told}");
        }

        // Erased, but for its pass; then with it; also after a restart.
        let parts = [
            "203.0.113.7: erased: what it did from",
            "3 sessions",
            "when the kernel last let it through",
            "still here: its pass",
        ];
        expect_all(&mx, &["forget", CLIENT], 0, &parts)?;
        let told = lab.screener.explain(CLIENT.parse()?)?;
        ensure!(told["first_seen"].is_null() && told["let_through"].is_null() && told["on_list"] == true, "{told}");
        expect_all(&mx, &["forget", CLIENT, "--pass"], 0, &["erased: its pass"])?;
        lab.screener.stop()?;
        lab.screener.restart()?;
        expect(&mx, &["explain", CLIENT], 1, "Nothing is known of it")?;
        expect(&mx, &["forget", CLIENT, "--pass"], 1, "nothing is known of 203.0.113.7")?;
        expect(&mx, &["forget", "example.com"], 2, "invalid value 'example.com'")
    });
}

#[test]
fn evidence_names_the_list_and_kernel_drops_name_the_entry() {
    cell::test("evidence_names_the_list_and_kernel_drops_name_the_entry", || {
        let lab = Lab::build()?;
        let mx = lab.mx.clone();
        lab.recipient(LISTED, PRIMARY, 550)?;
        let told = lab.explained(LISTED, "its session", |told| sessions(told, 1))?;
        let finding = &told["refusals"][0]["evidence"][0];
        ensure!(finding["test"] == "dnsbl" && finding["weight"] == 3, "{told}");
        ensure!(finding["lists"][0][0] == "bl.example" && finding["lists"][0][1] == 3, "{told}");
        ensure!(
            told["refusals"][0]["reply"].as_str().is_some_and(|reply| reply.contains("blocked using bl.example")),
            "{told}"
        );
        expect_all(
            &mx,
            &["explain", LISTED],
            0,
            &["It was refused at", "dnsbl: score 3 at threshold 1: bl.example +3"],
        )?;

        // Dropped by an entry that came by command.
        expect(&mx, &["deny", "add", "203.0.113.64/26", "--comment", "ticket 4711"], 0, "drop")?;
        let server = SocketAddr::new(PRIMARY.parse()?, 25);
        let silence = Client::connect_within(&lab.internet, DENIED.parse::<IpAddr>()?, server, Duration::from_secs(1));
        ensure!(silence.is_err(), "it got through");
        let told = lab.explained(DENIED, "the drop", |told| told["drops"][0]["packets"].as_u64() >= Some(1))?;
        ensure!(told["drops"][0]["prefix"] == "203.0.113.64/26" && told["drops"][0]["source"] == "cli", "{told}");
        ensure!(told["verdict"] == "deny" && sessions(&told, 0), "{told}");
        let parts = [
            "On the deny list. Denied by 203.0.113.64/26 from cli (ticket 4711)",
            "When it comes, its SYNs are dropped without an answer. It never reached the daemon. The kernel kept out about",
            "by 203.0.113.64/26 from cli, about",
        ];
        expect_all(&mx, &["explain", DENIED], 0, &parts)?;
        // The history is its own, the entry stays the operator's.
        expect(&mx, &["forget", DENIED], 0, "0 sessions")?;
        expect(&mx, &["explain", DENIED], 0, "On the deny list.")?;

        // Of a whole network that is one client each address says so.
        expect(&mx, &["pass", "add", "2001:db8:a:7::1", "--comment", "by phone"], 0, "until")?;
        let parts = [
            "2001:db8:a:7::9 (client 2001:db8:a:7::/64): On the list. The operator gave it a pass (by phone)",
            "not used since",
        ];
        expect_all(&mx, &["explain", "2001:db8:a:7::9"], 0, &parts)?;
        // One that has run out, and one that a dry run counts.
        expect(&mx, &["pass", "add", "203.0.113.20", "--ttl", "1s"], 0, "until")?;
        let told = lab.explained("203.0.113.20", "the end of its pass", |told| told["on_list"] == false)?;
        let answer = "Not on the list any more. Its pass does not cover everything: pregreet expired at";
        ensure!(told["answer"].as_str().is_some_and(|text| text.starts_with(answer)), "{told}");
        expect(&mx, &["deny", "add", "203.0.113.21", "--action", "count"], 0, "count")?;
        expect(
            &mx,
            &["explain", "203.0.113.21"],
            0,
            "Not on the list. It has no pass. Nothing is known of it. A dry run covers it",
        )?;
        expect(&mx, &["deny", "add", "203.0.113.22", "--action", "reject"], 0, "reject")?;
        expect(&mx, &["explain", "203.0.113.22"], 0, "When it comes, its connections are refused with a RST")?;
        // How full the kernel's maps are.
        expect(&mx, &["status"], 0, "passes in the kernel: ")?;
        let status = lab.screener.json(&["status", "--json"])?;
        ensure!(
            status["kernel"]["passes"][0]["capacity"] == 1 << 20 && status["kernel"]["passes"][0]["left_out"] == 0,
            "{status}"
        );
        expect(&mx, &["explain", PRIMARY], 0, "On the list. Permitted by 192.0.2.10/32 from own_address")?;
        let six = "2001:db8:a:7::9";
        until("the kernel to know the pass", SOON, || {
            let told = lab.screener.explain(six.parse().ok()?).ok()?;
            told["next"].as_str().filter(|next| next.contains("straight to the MTA's own socket")).map(drop)
        })?;
        lab.recipient(six, "2001:db8:25::10", 250)?;
        let told = lab.explained("2001:db8:a:7::1", "the use by another address of its own", |told| {
            told["let_through"].is_string()
        })?;
        ensure!(sessions(&told, 0) && told["network"] == "2001:db8:a:7::/64", "{told}");
        Ok(())
    });
}
