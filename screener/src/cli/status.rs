//! `screener status`

use clap::Args;

use super::output::Form;
use super::{Answer, output};
use crate::control::{Client, api};

#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    form: Form,
}

impl Status {
    /// Yes if all is well.
    pub(super) async fn carry_out(self, client: &Client) -> anyhow::Result<Answer> {
        let status: api::Status = client.get("/v1/status").await?;
        if self.form.json {
            output::json(&status)?;
        } else {
            show(&status)?;
        }
        Ok(Answer::Yes)
    }
}

fn show(status: &api::Status) -> anyhow::Result<()> {
    let sessions = &status.sessions;
    output::line(format!(
        "screener {} in {} mode, up {}{}",
        status.version,
        status.mode,
        humantime::format_duration(std::time::Duration::from_secs(status.uptime_seconds)),
        if status.state == "draining" { ", going down: no new connections, sessions may end" } else { "" }
    ))?;
    let configuration = &status.configuration;
    let file = configuration.file.as_ref().map_or_else(|| "the defaults".to_owned(), |file| file.display().to_string());
    output::line(format!("configuration: {file}, read at {}", configuration.read))?;
    if let Some(before) = &status.predecessor {
        output::line(format!(
            "the daemon before this one (process {}) has {} sessions left",
            before.pid, before.sessions
        ))?;
    }
    for key in &configuration.needs_restart {
        output::line(format!("needs a restart: {key} stands otherwise in the file"))?;
    }
    output::line(format!(
        "sessions: {} ({} now), {} handed to the MTA, {} refused, {} tagged",
        sessions.total, sessions.active, sessions.handed_off, sessions.refused, sessions.tagged
    ))?;
    if sessions.tarpitted > 0 {
        output::line(format!("tarpit: {} sessions are answered slowly", sessions.tarpitted))?;
    }
    if sessions.stress {
        output::line("stress: sessions are so many that waits are shortened (over 90 % of limits.connections)")?;
    }
    output::line(format!("passes: {}, deny entries: {}", status.passes, status.denies))?;
    let offenders = &status.offenders;
    output::line(format!(
        "offenders: {} dropped, {} tarpitted, {} that failed lately; {} of these are whole prefixes",
        offenders.dropped, offenders.tarpitted, offenders.refused, offenders.prefixes
    ))?;
    if let Some(shared) = &status.shared {
        let lag = shared.round_trip_ms.map_or_else(String::new, |ms| format!(", answers in {ms:.1} ms"));
        output::line(format!(
            "shared store: {} as {}: {}{lag}, last contact {}; {} told, {} heard, {} to be told",
            shared.store,
            shared.name,
            shared.state,
            output::or_dash(shared.last_contact.as_ref()),
            shared.told,
            shared.heard,
            shared.queued
        ))?;
    }
    if let Some(tls) = &status.tls {
        output::line(match (&tls.not_after, tls.days_left) {
            (Some(until), Some(days)) => format!("TLS: {}, until {until} ({days} days left)", tls.names.join(", ")),
            _ => format!("TLS: no certificate, {} is refused", tls.certificate.display()),
        })?;
    }
    match &status.kernel {
        None => output::line("kernel: nothing attached")?,
        Some(kernel) => {
            let interfaces: Vec<_> = kernel
                .interfaces
                .iter()
                .map(|interface| {
                    let reason = interface.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
                    format!("{} {}{reason}", interface.name, interface.mode)
                })
                .collect();
            let steer = if kernel.steer { "clients are steered" } else { "clients are not steered" };
            let xdp = if interfaces.is_empty() { "off".to_owned() } else { format!("on {}", interfaces.join(", ")) };
            output::line(format!("kernel: XDP {xdp}; {steer}"))?;
            output::line(format!(
                "events: {}, {} lost; clients under `reject` are refused {}",
                match kernel.event_sample {
                    0 => "none".to_owned(),
                    1 => "every finding".to_owned(),
                    sample => format!("one of {sample} findings"),
                },
                kernel.events_lost,
                if kernel.reject_early { "by XDP" } else { "in the stack" }
            ))?;
            let rooms = kernel.passes.iter().map(|room| {
                let left_out =
                    if room.left_out > 0 { format!(", {} have no room", room.left_out) } else { String::new() };
                format!("{} of {} ({}{left_out})", room.entries, room.capacity, room.family)
            });
            output::line(format!("passes in the kernel: {}", rooms.collect::<Vec<_>>().join(", ")))?;
            let told = kernel.counters.iter().filter(|counter| counter.packets > 0);
            output::rows(
                ["packets", "hook", "family", "outcome"],
                told.map(|counter| {
                    [counter.packets.to_string(), counter.hook.clone(), counter.family.clone(), counter.name.clone()]
                }),
            )?;
        }
    }
    if !status.dnsbl.is_empty() {
        output::rows(
            ["list", "state", "asked", "hits", "unknown", "errors", "last error"],
            status.dnsbl.iter().map(|list| {
                let counts = [list.queries, list.hits, list.unknown, list.errors].map(|count| count.to_string());
                let [asked, hits, unknown, errors] = counts;
                let error = output::or_dash(list.last_error.as_ref());
                [list.list.clone(), list.state.clone(), asked, hits, unknown, errors, error]
            }),
        )?;
    }
    for note in &status.notes {
        output::line(format!("note: {note}"))?;
    }
    if status.degraded.is_empty() {
        output::line("nothing is degraded")?;
    }
    for sentence in &status.degraded {
        output::line(format!("DEGRADED: {sentence}"))?;
    }
    Ok(())
}
