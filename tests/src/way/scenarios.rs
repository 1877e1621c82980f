//! The scenarios, in the order in which they are played: later ones rest on what earlier ones left.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::Scenario;
use super::lab::{LIST, Lab, Role};
use crate::client::{Client, Trouble};
use crate::mta::{BOB, DIRECT, RELAY};
use crate::net::Family;
use crate::wait::until_or_show;

/// How long a mail or a log line may take. Far more than it should: the machine may be busy.
const SOON: Duration = Duration::from_secs(20);

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "SYNs from a denied prefix",
        expected: "no answer; drop counters and the prefix's hits rise; MTA and daemon see nothing",
        play: denied,
    },
    Scenario {
        name: "a sending Postfix, first mail ever",
        expected: "delivered in its first session, no 450; Received: and the MTA's log show its true address",
        play: first_mail,
    },
    Scenario {
        name: "the same sender again",
        expected: "served by the MTA's own socket; the daemon's session count does not move",
        play: second_mail,
    },
    Scenario {
        name: "a client that speaks before the greeting",
        expected: "refused; PREGREET logged; no pass",
        play: early_talker,
    },
    Scenario {
        name: "a client on the DNS list",
        expected: "refused with the list's name in the reply; DNSBL rank logged",
        play: listed,
    },
    Scenario { name: "a tagged prefix", expected: "let in, and the daemon knows the tag", play: tagged },
    Scenario {
        name: "screener explain for each of them",
        expected: "says what happened and what would happen now",
        play: explain,
    },
    Scenario {
        name: "kill -9 of the daemon",
        expected: "mail flows straight to the MTA; denied stay dropped; after a restart passes are known, screening resumes",
        play: kill,
    },
];

fn denied(lab: &mut Lab, family: Family) -> Result<String> {
    let (prefix, client) = (Role::Denied.prefix(family), Role::Denied.address(family));
    lab.screener.tell(&["deny", "add", &prefix, "--comment", "the lab"])?;
    let (dropped, hits) = (lab.screener.dropped(family)?, lab.screener.hits(&prefix)?);
    match lab.try_connect(Role::Denied, family)? {
        Err(Trouble::Silence(_)) => {}
        Err(trouble) => bail!("{trouble} instead of no answer"),
        Ok(_) => bail!("connected"),
    }
    let dropped = lab.screener.dropped(family)?.saturating_sub(dropped);
    ensure!(dropped > 0, "the drop counter did not rise");
    let hits = until_or_show(
        "the prefix's hits to rise",
        SOON,
        || lab.screener.log(),
        || Ok(lab.screener.hits(&prefix)?.checked_sub(hits).filter(|&rise| rise > 0)),
    )?;
    ensure!(!lab.mta.has_seen(DIRECT, client) && !lab.mta.has_seen(RELAY, client), "the MTA saw {client}");
    ensure!(!lab.screener.log().contains(&client.to_string()), "the daemon's log names {client}");
    Ok(format!("no answer; {dropped} SYNs dropped in XDP, {hits} hits of {prefix}; nobody saw {client}"))
}

fn first_mail(lab: &mut Lab, family: Family) -> Result<String> {
    let seen = mail(lab, Role::Sender, family, RELAY)?;
    let client = Role::Sender.address(family);
    ensure!(lab.screener.has_pass(client)?, "{client} has no pass");
    lab.screener.wait_for_log(&format!("PASS NEW [{client}]:"), SOON)?;
    Ok(format!("{seen}; PASS NEW"))
}

fn second_mail(lab: &mut Lab, family: Family) -> Result<String> {
    lab.screener.wait_for_kernel_pass(Role::Sender.address(family))?;
    let sessions = lab.screener.sessions()?;
    let seen = mail(lab, Role::Sender, family, DIRECT)?;
    let now = lab.screener.sessions()?;
    ensure!(now == sessions, "the daemon's session count went from {sessions} to {now}");
    Ok(format!("{seen}; session count still {now}"))
}

/// Sends a mail, and follows it to the mailbox: in one attempt, through one of the MTA's doors.
fn mail(lab: &mut Lab, role: Role, family: Family, door: &str) -> Result<String> {
    let source = role.address(family);
    let id = lab.sender.send(&role.envelope(family), BOB, "Hello Bob")?;
    let line = lab.sender.wait_for_attempt(&id, SOON)?;
    ensure!(line.status == "sent" && line.dsn.starts_with("2."), "{} {}: {}", line.status, line.dsn, line.reply);
    let mail = lab.mta.wait_for_message(&id, SOON)?;
    ensure!(mail.was_received_from(source), "Received: names another than {source}: {:?}", mail.header("Received"));
    lab.mta.wait_until_seen(door, source, SOON)?;
    Ok(format!("{} {} in the first attempt, Received: from [{source}], seen by {door}", line.status, line.dsn))
}

fn early_talker(lab: &mut Lab, family: Family) -> Result<String> {
    let (source, server) = (Role::EarlyTalker.address(family), lab.port_25(family)?);
    let mut client = Client::connect_saying(&lab.internet, source, server, b"EHLO early.example.net\r\n")?;
    client.expect(220)?;
    client.expect(250)?;
    let refusal = refused_at_rcpt(&mut client)?;
    ensure!(refusal.starts_with("550 5.5.1 Protocol error"), "{refusal}");
    let log = lab.screener.wait_for_log(&format!("from {}: EHLO early.example.net\\r\\n", client.log_name()), SOON)?;
    ensure!(log.contains(": PREGREET 24 after 0"), "{log}");
    ensure!(!lab.screener.has_pass(Role::EarlyTalker.address(family))?, "it has a pass");
    Ok(format!("{refusal}; {}; no pass", message(&log)))
}

fn listed(lab: &mut Lab, family: Family) -> Result<String> {
    let mut client = lab.connect(Role::Listed, family)?;
    client.expect(220)?;
    client.ask("EHLO listed.example.net", 250)?;
    let refusal = refused_at_rcpt(&mut client)?;
    let expected = format!("550 5.7.1 Service unavailable; client [{}] blocked using {LIST}", client.local().ip());
    ensure!(refusal.starts_with(&expected), "{refusal}");
    let log = lab.screener.wait_for_log(&format!("DNSBL rank 1 for {}", client.log_name()), SOON)?;
    ensure!(lab.lists.queries(LIST, client.local().ip()) > 0, "the list was not asked");
    ensure!(!lab.screener.has_pass(client.local().ip())?, "it has a pass");
    Ok(format!("{refusal}; {}", message(&log)))
}

fn refused_at_rcpt(client: &mut Client) -> Result<String> {
    client.ask("MAIL FROM:<somebody@example.net>", 250)?;
    let refusal = client.ask(&format!("RCPT TO:<{BOB}>"), 550)?.text();
    client.ask("QUIT", 221)?;
    Ok(refusal)
}

fn tagged(lab: &mut Lab, family: Family) -> Result<String> {
    let prefix = Role::Tagged.prefix(family);
    lab.screener.tell(&["deny", "add", &prefix, "--action", "tag"])?;
    let before = lab.screener.tagged_sessions()?;
    let mut client = lab.connect(Role::Tagged, family)?;
    client.expect(220)?;
    client.ask("EHLO tagged.example.net", 250)?;
    client.ask("MAIL FROM:<somebody@example.net>", 250)?;
    let reply = client.ask(&format!("RCPT TO:<{BOB}>"), 250)?.text();
    client.ask("QUIT", 221)?;
    lab.mta.wait_until_seen(RELAY, client.local().ip(), SOON)?;
    let tagged = lab.screener.tagged_sessions()? - before;
    ensure!(tagged == 1, "{tagged} tagged sessions");
    ensure!(!lab.screener.has_pass(client.local().ip())?, "it has a pass");
    Ok(format!("the MTA's \"{reply}\"; {tagged} session of the tagged class; no pass"))
}

fn explain(lab: &mut Lab, family: Family) -> Result<String> {
    let asked = [
        (Role::Denied, "deny", "denied"),
        (Role::Sender, "pass", "passed"),
        (Role::EarlyTalker, "screen", "pregreet"),
        (Role::Listed, "screen", "dnsbl"),
        (Role::Tagged, "screen", "tagged"),
    ];
    let mut seen = Vec::new();
    for (role, verdict, happened) in asked {
        let client = role.address(family);
        let told = lab.screener.explain(client)?;
        ensure!(told["verdict"] == verdict, "{client}: {told}");
        ensure!(has_event(&told, happened), "{client} has no event {happened}: {told}");
        ensure!(told["tag"] == (role == Role::Tagged), "{client}: {told}");
        let person = lab.screener.tell(&["explain", &client.to_string()])?;
        let summary = told["summary"].as_str().context("no summary")?;
        ensure!(person.contains(summary), "{person}");
        seen.push(format!("{verdict} ({happened})"));
    }
    Ok(seen.join(", "))
}

fn has_event(told: &Value, what: &str) -> bool {
    let kept_out = what == "denied" && told["drops"].as_array().is_some_and(|drops| !drops.is_empty());
    kept_out || told["events"].as_array().is_some_and(|events| events.iter().any(|event| event["what"] == what))
}

fn kill(lab: &mut Lab, family: Family) -> Result<String> {
    lab.screener.kill9()?;
    let direct = mail(lab, Role::LateSender, family, DIRECT)?;
    let dropped = lab.try_connect(Role::Denied, family)?;
    ensure!(matches!(dropped, Err(Trouble::Silence(_))), "denied after kill -9: {dropped:?}");
    lab.screener.restart()?;
    ensure!(lab.screener.has_pass(Role::Sender.address(family))?, "the sender's pass is forgotten");
    resumed(lab, family).context("after the restart")?;
    let sessions = lab.screener.sessions()?;
    mail(lab, Role::Sender, family, DIRECT)?;
    ensure!(lab.screener.sessions()? == sessions, "a client with a pass reached the daemon");
    Ok(format!("without the daemon: {direct}, denied still dropped; restarted: passes known, a newcomer meets 220-"))
}

/// A client that nobody knows meets the teaser, and only later the greeting.
fn resumed(lab: &mut Lab, family: Family) -> Result<()> {
    let mut client = lab.connect(Role::Newcomer, family)?;
    let greeting = client.expect(220)?;
    ensure!(greeting.lines.len() == 2 && greeting.lines[0].starts_with("220-"), "no teaser: {}", greeting.text());
    client.ask("QUIT", 221)?;
    let address: IpAddr = client.local().ip();
    lab.screener.wait_for_log(&format!("CONNECT from [{address}]:"), SOON)?;
    Ok(())
}

/// A log line without its stamp.
fn message(line: &str) -> &str {
    line.split_once("]: ").map_or(line, |(_, message)| message)
}
