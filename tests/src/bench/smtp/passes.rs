//! Clients with a pass: the time from connecting to the greeting, in steer and in front mode, before postscreen, and with
//! nothing between client and MTA.

use anyhow::{Context as _, Result};

use super::rivals::{self, Hosts, Settings, port_25, source};
use super::{Effort, Findings};
use crate::bench::greeting::greeted;
use crate::bench::report::{median, quotients, sorted};

/// Short, for postscreen gives its pass to a client that has waited.
const SETTINGS: Settings = Settings { wait: 1, deep: false };

/// The sides, as rows name them.
const NAMES: [&str; 5] = ["bare", "steer", "front", "front_handover", "postscreen"];

pub(super) fn measure(hosts: &Hosts, effort: &Effort, findings: &mut Findings) -> Result<()> {
    let client = source(0);
    let mut mtas = [
        rivals::bare(&hosts.bare)?,
        rivals::beside_steer(&hosts.steer)?,
        rivals::behind_front(&hosts.front)?,
        rivals::behind_handover(&hosts.handover)?,
    ];
    let mut postscreen = rivals::postscreen(&hosts.postscreen, SETTINGS)?;
    let mut screeners = [
        rivals::steer(&hosts.steer, SETTINGS)?,
        rivals::front(&hosts.front, SETTINGS)?,
        rivals::handover(&hosts.handover, SETTINGS)?,
    ];
    for screener in &screeners {
        screener.tell(&["pass", "add", &client.to_string()])?;
    }
    let servers = [&hosts.bare, &hosts.steer, &hosts.front, &hosts.handover, &hosts.postscreen].map(port_25);
    let mut micros: [Vec<f64>; NAMES.len()] = Default::default();
    hosts.clients.in_ns(|| {
        // Some sessions first: postscreen's makes its pass, the others make the MTAs start their processes.
        for side in (0..servers.len()).cycle().take(5 * servers.len()) {
            greeted(client, servers[side]).with_context(|| format!("a first session with {}", NAMES[side]))?;
        }
        for round in 0..effort.rounds as usize {
            eprintln!("bench: round {} of {}", round + 1, effort.rounds);
            let mut taken: [Vec<f64>; NAMES.len()] = Default::default();
            for sample in 0..effort.passes as usize {
                for turn in 0..servers.len() {
                    let side = (turn + sample) % servers.len();
                    let time = greeted(client, servers[side]).with_context(|| NAMES[side].to_owned())?;
                    taken[side].push(time.as_secs_f64() * 1e6);
                }
            }
            for (side, taken) in taken.into_iter().enumerate() {
                micros[side].push(median(&sorted(taken)));
            }
        }
        Ok(())
    })?;
    // The kernel's pass must have kept the daemon out of it, and the other daemons must have been in all of it.
    let sessions = u64::from(effort.rounds * effort.passes);
    let expected = [("steer", 0), ("front", sessions), ("front_handover", sessions)];
    for (screener, (name, expected)) in screeners.iter().zip(expected) {
        let seen = screener.sessions()?;
        if (expected == 0 && seen > 0) || seen < expected {
            findings.wrong.push(format!("{name}: the daemon saw {seen} sessions of {sessions} with a pass"));
        }
    }
    let log = postscreen.log();
    let old = log.matches("PASS OLD").count() as u64;
    if old < sessions {
        findings.wrong.push(format!("postscreen knew {old} of {sessions} clients"));
    }
    for screener in &mut screeners {
        screener.stop()?;
    }
    for mta in &mut mtas {
        mta.stop()?;
    }
    postscreen.stop()?;
    for (name, of) in NAMES.iter().zip(&micros).skip(1) {
        findings.rows.put(&format!("pass_{name}_ratio"), "", quotients(of, &micros[0]));
    }
    for (name, values) in NAMES.iter().zip(micros) {
        findings.rows.put(&format!("pass_{name}_us"), "us", values);
    }
    Ok(())
}
