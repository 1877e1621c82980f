//! `screener kernel status`

use std::time::Duration;

use clap::Args;

use super::Pin;
use crate::cli::output::Form;
use crate::cli::{Answer, output};
use crate::kernel::{self, InterfaceStatus, MapStatus, ProgramStatus, SettingsStatus, SteerStatus};

#[derive(Debug, Args)]
pub(in crate::cli) struct Status {
    #[command(flatten)]
    pin: Pin,
    #[command(flatten)]
    form: Form,
}

impl Status {
    /// Yes if something is attached.
    pub(super) fn carry_out(self) -> anyhow::Result<Answer> {
        let status = kernel::pinned_status(&self.pin.place())?;
        let answer = if status.attached { Answer::Yes } else { Answer::No };
        if self.form.json {
            output::json(&status)?;
            return Ok(answer);
        }
        show(&status)?;
        Ok(answer)
    }
}

fn show(status: &kernel::Status) -> anyhow::Result<()> {
    let pin = status.pin.display();
    if !status.attached {
        output::line(format!("nothing is attached under {pin}"))?;
    }
    let holder = match &status.holder {
        Some(holder) => format!("held by {} (process {})", holder.name, holder.process),
        None => "held by nobody".to_owned(),
    };
    output::line(format!("{pin}: ABI version {}, {holder}", status.abi))?;
    for interface in &status.interfaces {
        output::line(interface_line(interface))?;
    }
    output::line(steer_line(&status.steer))?;
    if let Some(settings) = &status.settings {
        output::line(settings_line(settings))?;
    }
    output::rows(["map", "entries", "room for", "KiB"], status.maps.iter().map(map_row))?;
    let told = status.counters.iter().filter(|counter| counter.packets > 0);
    output::rows(
        ["packets", "hook", "family", "verdict", "outcome"],
        told.map(|counter| {
            [
                counter.packets.to_string(),
                counter.hook.to_owned(),
                counter.family.to_owned(),
                counter.verdict.to_owned(),
                counter.name.to_owned(),
            ]
        }),
    )?;
    for sentence in &status.degraded {
        output::line(format!("DEGRADED: {sentence}"))?;
    }
    Ok(())
}

/// `screen` on one interface.
pub(super) fn interface_line(interface: &InterfaceStatus) -> String {
    let driver = interface.driver.as_ref().map_or_else(String::new, |driver| format!(" ({driver})"));
    let reason = reason(interface.reason.as_ref());
    format!("screen on {}{driver}: {}{}{reason}", interface.name, interface.mode, program(interface.program.as_ref()))
}

/// `steer` in the namespace.
pub(super) fn steer_line(steer: &SteerStatus) -> String {
    let attached = if steer.attached { "attached" } else { "not attached" };
    format!("steer: {attached}{}{}", program(steer.program.as_ref()), reason(steer.reason.as_ref()))
}

fn reason(reason: Option<&String>) -> String {
    reason.map_or_else(String::new, |why| format!(" ({why})"))
}

fn program(program: Option<&ProgramStatus>) -> String {
    let Some(program) = program else { return String::new() };
    let age = program.age_seconds.map_or_else(String::new, |age| {
        format!(", loaded {} ago", humantime::format_duration(Duration::from_secs(age)))
    });
    format!(", program {} {} tag {}{age}", program.id, program.name, program.tag)
}

fn settings_line(settings: &SettingsStatus) -> String {
    let ports: Vec<_> = settings.ports.iter().map(ToString::to_string).collect();
    let early = match (&settings.reject_early_reason, settings.reject_early) {
        (_, true) => "XDP".to_owned(),
        (Some(reason), false) => format!("steer ({reason})"),
        (None, false) => "steer".to_owned(),
    };
    let events = match settings.event_sample {
        0 => "no events".to_owned(),
        1 => "an event for each finding".to_owned(),
        sample => format!("an event for one of {sample} findings"),
    };
    format!(
        "settings: ports {}; refusals are sent by {early}; {events}; IPv6 clients by /{}",
        ports.join(", "),
        settings.ipv6_key
    )
}

fn map_row(map: &MapStatus) -> [String; 4] {
    let entries = map.entries.map_or_else(|| "-".to_owned(), |entries| entries.to_string());
    let room = map.max_entries.map_or_else(|| "-".to_owned(), |room| room.to_string());
    [map.name.to_owned(), entries, room, map.bytes.div_ceil(1024).to_string()]
}
