//! Clients that speak before the greeting and are dropped for it: the processor time that each costs.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};

use super::load::play;
use super::rivals::{self, Hosts, Settings, port_25, source};
use super::usage::cpu_seconds;
use super::{Effort, Findings};
use crate::bench::report::quotients;
use crate::client::{PATIENCE, open};

/// As many clients at once as a small flood has.
const AT_ONCE: usize = 32;

const SETTINGS: Settings = Settings { wait: 6, deep: true };

pub(super) fn measure(hosts: &Hosts, effort: &Effort, findings: &mut Findings) -> Result<()> {
    let mut ours = rivals::front(&hosts.front, SETTINGS)?;
    let mut postscreen = rivals::postscreen(&hosts.postscreen, SETTINGS)?;
    let sides = [(port_25(&hosts.front), ours.id()), (port_25(&hosts.postscreen), postscreen.id()?)];
    // The first clients find processes that are being started.
    for (server, _) in sides {
        let outcome = play(&hosts.clients, 64, AT_ONCE, |number| refused(number, server))?;
        findings.wrong.extend(outcome.wrong("the first early talkers", 64));
    }
    let mut micros = [Vec::new(), Vec::new()];
    for round in 0..effort.rounds as usize {
        eprintln!("bench: round {} of {}", round + 1, effort.rounds);
        for turn in 0..2 {
            let side = (turn + round) % 2;
            let (server, process) = sides[side];
            let before = cpu_seconds(process)?;
            let outcome = play(&hosts.clients, effort.refused, AT_ONCE, |number| refused(number, server))?;
            let taken = cpu_seconds(process)? - before;
            micros[side].push(taken * 1e6 / f64::from(effort.refused));
            let who = ["ours", "postscreen"][side];
            findings.wrong.extend(outcome.wrong(&format!("early talkers to {who}"), effort.refused));
        }
    }
    ours.stop()?;
    postscreen.stop()?;
    let [ours, postscreen] = micros;
    findings.rows.put("refusal_cpu_ratio", "", quotients(&ours, &postscreen));
    findings.rows.put("refusal_cpu_us", "us", ours);
    findings.rows.put("refusal_cpu_postscreen_us", "us", postscreen);
    Ok(())
}

/// Speaks at once, and must hear the beginning of a greeting and a 521.
fn refused(number: u32, server: SocketAddr) -> Result<()> {
    let mut stream = open(source(number), server, PATIENCE).context("connecting")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"EHLO client.example\r\n").context("speaking")?;
    let mut heard = Vec::new();
    match stream.read_to_end(&mut heard) {
        // postscreen leaves unread what it refuses, so that its close resets the connection.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        read => drop(read.context("listening")?),
    }
    let heard = String::from_utf8_lossy(&heard);
    ensure!(heard.starts_with("220-") && heard.contains("\r\n521 "), "heard {heard:?}");
    Ok(())
}
