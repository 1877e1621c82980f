//! Mails a second through the daemon, each from a client that nobody knows, beside the bare MTA.
//!
//! The greet wait is off, so that the rate is not one of waiting; each session goes through the whole dialogue, earns its pass,
//! and is relayed. The MTA accepts, queues and then discards the mail, which goes on beside the sessions as it would anywhere.

use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::load::play;
use super::rivals::{self, Hosts, Settings, port_25, source};
use super::usage::cpu_seconds;
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
    let mut mtas = [
        rivals::bare(&hosts.bare)?,
        rivals::behind_front(&hosts.front)?,
        rivals::behind_socket(&hosts.socket)?,
        rivals::behind_handover(&hosts.handover)?,
        rivals::behind_front(&hosts.proxy)?,
    ];
    let mut screeners = [
        rivals::front(&hosts.front, SETTINGS)?,
        rivals::socket(&hosts.socket, SETTINGS)?,
        rivals::handover(&hosts.handover, SETTINGS)?,
    ];
    let proxy = rivals::proxy(&hosts.proxy)?;
    // Each with the process whose time is taken: what stands before the MTA, or the bare MTA's master.
    let sides = [
        ("relay_bare", &hosts.bare, mtas[0].id()?),
        ("relay", &hosts.front, screeners[0].id()),
        ("relay_socket", &hosts.socket, screeners[1].id()),
        ("relay_pass", &hosts.handover, screeners[2].id()),
        ("relay_haproxy", &hosts.proxy, proxy.id()),
    ];
    let mut next = 0;
    let mut burst = |side: usize, mails: u32, wrong: &mut Vec<String>| -> Result<[f64; 2]> {
        let (_, host, process) = sides[side];
        let server = port_25(host);
        let first = next;
        // Both sides see new clients; those of the bare MTA are new to nobody.
        next += mails;
        let (begun, before) = (Instant::now(), cpu_seconds(process)?);
        let outcome = play(&hosts.clients, mails, AT_ONCE, |number| send(first + number, server))?;
        let rate = f64::from(mails) / begun.elapsed().as_secs_f64();
        wrong.extend(outcome.wrong(&format!("mails to {}", host.name()), mails));
        drained(host)?;
        // The MTA has worked on when the last client had gone.
        let micros = (cpu_seconds(process)? - before) * 1e6 / f64::from(mails);
        Ok([rate, micros])
    };
    for side in 0..sides.len() {
        burst(side, 2 * AT_ONCE as u32, &mut findings.wrong)?;
    }
    let (mut rates, mut micros) = <([Vec<f64>; 5], [Vec<f64>; 5])>::default();
    for round in 0..effort.rounds as usize {
        eprintln!("bench: round {} of {}", round + 1, effort.rounds);
        for turn in 0..sides.len() {
            let side = (turn + round) % sides.len();
            let [rate, taken] = burst(side, effort.mails, &mut findings.wrong)?;
            rates[side].push(rate);
            micros[side].push(taken);
        }
    }
    let mails = u64::from(effort.rounds * effort.mails) + 2 * AT_ONCE as u64;
    for screener in &mut screeners {
        let (handed_off, passes) = (screener.sessions_handed_off()?, screener.passes()?);
        if handed_off != mails || passes != mails {
            findings.wrong.push(format!("of {mails} mails {handed_off} were relayed, and {passes} clients passed"));
        }
    }
    for mta in &mut mtas {
        mta.stop()?;
    }
    let dialogue = dialogues(hosts, next, screeners[0].id(), effort, findings)?;
    for screener in &mut screeners {
        screener.stop()?;
    }
    for ((name, ..), side) in sides.iter().zip(&rates).skip(1) {
        findings.rows.put(&format!("{name}_ratio"), "", quotients(side, &rates[0]));
    }
    let bare_rates = rates[0].clone();
    for ((name, ..), side) in sides.iter().zip(rates) {
        findings.rows.put(&format!("{name}_mails_per_second"), "/s", side);
    }
    // All processors are busy in a burst, so that the bare MTA's rate tells what a mail takes of them, its client's part included.
    let processors = thread::available_parallelism()?.get() as f64;
    let for_nothing = |(micros, rate): (&f64, &f64)| 1.0 / (1.0 + micros * 1e-6 * rate / processors);
    findings.rows.put("relay_for_nothing_ratio", "", dialogue.iter().zip(&bare_rates).map(for_nothing).collect());
    findings.rows.put("relay_dialogue_cpu_us", "us", dialogue);
    for ((name, ..), side) in sides.iter().zip(micros) {
        findings.rows.put(&format!("{name}_cpu_us"), "us", side);
    }
    Ok(())
}

/// What the tests alone take of the screener on `front`, without a relay: its MTA is away, so that a session is over where the
/// relay would begin.
fn dialogues(hosts: &Hosts, first: u32, screener: u32, effort: &Effort, findings: &mut Findings) -> Result<Vec<f64>> {
    let (server, mut next) = (port_25(&hosts.front), first);
    let mut micros = Vec::new();
    for _ in 0..effort.rounds {
        let before = cpu_seconds(screener)?;
        let outcome =
            play(&hosts.clients, effort.mails, AT_ONCE, |number| begin(next + number, server, 451).map(drop))?;
        micros.push((cpu_seconds(screener)? - before) * 1e6 / f64::from(effort.mails));
        findings.wrong.extend(outcome.wrong("sessions without an MTA", effort.mails));
        next += effort.mails;
    }
    Ok(micros)
}

/// A session as far as the recipient, who gets this answer: with the MTA away, 451.
fn begin(number: u32, server: SocketAddr, answer: u16) -> Result<Client> {
    let mut client = Client::here(source(number), server)?;
    client.expect(220)?;
    client.ask("EHLO client.example", 250)?;
    client.ask("MAIL FROM:<alice@example.net>", 250)?;
    client.ask("RCPT TO:<bob@example.com>", answer)?;
    Ok(client)
}

/// A session with one mail.
fn send(number: u32, server: SocketAddr) -> Result<()> {
    let mut client = begin(number, server, 250)?;
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
