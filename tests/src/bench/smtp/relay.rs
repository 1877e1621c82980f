//! Mails a second through the daemon, each from a client that nobody knows, beside the bare MTA.
//!
//! The greet wait is off, so that the rate is not one of waiting; each session goes through the whole dialogue, earns its pass,
//! and is relayed. The MTA accepts, queues and then discards the mail, which goes on beside the sessions as it would anywhere.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::load::play;
use super::rivals::{self, Hosts, Settings, port_25, source};
use super::{Effort, Findings};
use crate::bench::report::quotients;
use crate::client::Client;
use crate::host::Host;
use crate::wait::until;

/// Sessions at once.
const AT_ONCE: usize = 8;

/// Bytes of a mail's body: a page of text and the same in HTML.
const BODY: usize = 16_000;

const SETTINGS: Settings = Settings { wait: 0, deep: true };

pub(super) fn measure(hosts: &Hosts, effort: &Effort, findings: &mut Findings) -> Result<()> {
    let mut mtas =
        [rivals::bare(&hosts.bare)?, rivals::behind_front(&hosts.front)?, rivals::behind_handover(&hosts.handover)?];
    let mut screeners = [rivals::front(&hosts.front, SETTINGS)?, rivals::handover(&hosts.handover, SETTINGS)?];
    let sides = [&hosts.bare, &hosts.front, &hosts.handover];
    let mut next = 0;
    let mut burst = |side: usize, mails: u32, wrong: &mut Vec<String>| -> Result<f64> {
        let server = port_25(sides[side]);
        let first = next;
        // Both sides see new clients; those of the bare MTA are new to nobody.
        next += mails;
        let begun = Instant::now();
        let outcome = play(&hosts.clients, mails, AT_ONCE, |number| send(first + number, server))?;
        let rate = f64::from(mails) / begun.elapsed().as_secs_f64();
        wrong.extend(outcome.wrong(&format!("mails to {}", sides[side].name()), mails));
        drained(sides[side])?;
        Ok(rate)
    };
    for side in 0..sides.len() {
        burst(side, 2 * AT_ONCE as u32, &mut findings.wrong)?;
    }
    let mut rates: [Vec<f64>; 3] = Default::default();
    for round in 0..effort.rounds as usize {
        eprintln!("bench: round {} of {}", round + 1, effort.rounds);
        for turn in 0..sides.len() {
            let side = (turn + round) % sides.len();
            rates[side].push(burst(side, effort.mails, &mut findings.wrong)?);
        }
    }
    let mails = u64::from(effort.rounds * effort.mails) + 2 * AT_ONCE as u64;
    for screener in &mut screeners {
        let (handed_off, passes) = (screener.sessions_handed_off()?, screener.passes()?);
        if handed_off != mails || passes != mails {
            findings.wrong.push(format!("of {mails} mails {handed_off} were relayed, and {passes} clients passed"));
        }
        screener.stop()?;
    }
    for mta in &mut mtas {
        mta.stop()?;
    }
    let [bare, relayed, given] = rates;
    findings.rows.put("relay_ratio", "", quotients(&relayed, &bare));
    findings.rows.put("relay_pass_ratio", "", quotients(&given, &bare));
    findings.rows.put("relay_mails_per_second", "/s", relayed);
    findings.rows.put("relay_pass_mails_per_second", "/s", given);
    findings.rows.put("relay_bare_mails_per_second", "/s", bare);
    Ok(())
}

/// A session with one mail.
fn send(number: u32, server: SocketAddr) -> Result<()> {
    let mut client = Client::here(source(number), server)?;
    client.expect(220)?;
    client.ask("EHLO client.example", 250)?;
    client.ask("MAIL FROM:<alice@example.net>", 250)?;
    client.ask("RCPT TO:<bob@example.com>", 250)?;
    client.ask("DATA", 354)?;
    let line = "What is written here is thrown away in the end, whoever it was for.\r\n";
    let body = line.repeat(BODY / line.len());
    let mail = format!("From: alice@example.net\r\nTo: bob@example.com\r\nSubject: {number}\r\n\r\n{body}.\r\n");
    client.send_raw(mail.as_bytes()).context("sending the mail")?;
    client.expect(250)?;
    client.ask("QUIT", 221)?;
    Ok(())
}

/// Waits until the MTA has nothing left to do with what it accepted.
fn drained(host: &Host) -> Result<()> {
    let queues = ["incoming", "active", "deferred"].map(|queue| host.path(&format!("/var/spool/postfix/{queue}")));
    until(&format!("the queue of {} to be empty", host.name()), Duration::from_secs(60), || {
        queues.iter().all(|queue| fs::read_dir(queue).is_ok_and(|mut entries| entries.next().is_none())).then_some(())
    })
}
