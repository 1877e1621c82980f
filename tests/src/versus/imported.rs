//! postscreen's own configuration, imported by `screener import-postfix`, and moved to the screener's host.
//!
//! Holds the moving: the import is made where Postfix is, and says its addresses and its own way to its smtpd. Every setting of the
//! tests stays as it was imported.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};

use crate::host::Host;
use crate::screener::command;

use super::setting::{MTA_PORT, MTA_WITHOUT_VRFY_PORT, PROGRAM, Setting};

/// What names where Postfix stands, and not how a client is screened.
const OF_THE_PLACE: [&str; 6] = ["addresses = ", "pass_on = ", "ports = ", "address = ", "handoff = ", "program = "];

/// The screener's configuration under a setting; `vetoed` are the addresses of the mail host where no pass is earned.
///
/// # Errors
/// When something was not taken over.
pub(super) fn configuration(setting: Setting, mail: &Host, primary: &[IpAddr], vetoed: &[IpAddr]) -> Result<String> {
    let service = setting.port().to_string();
    let arguments = ["import-postfix", "/etc/postfix/main.cf", "--service", &service];
    let output = mail.run(&mut command(mail, &[], &arguments)?)?;
    let (text, said) = (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr).into_owned());
    ensure!(output.status.code() == Some(0), "not everything was taken over: {said}");

    let pass_on = text.lines().find(|line| line.starts_with("pass_on = ")).context("no pass_on")?;
    for address in mail.addresses() {
        let is_in = pass_on.contains(&format!("\"{address}\""));
        ensure!(is_in != vetoed.contains(address), "{address}: {pass_on}");
    }
    ensure!(text.contains(&format!("program = \"{}/postscreen\"", setting.log_name())), "{text}");

    let mta = mail.addresses().first().context("an address")?;
    let port = if setting == Setting::Limits { MTA_WITHOUT_VRFY_PORT } else { MTA_PORT };
    let primary: Vec<String> = primary.iter().map(|address| format!("\"{address}\"")).collect();
    let here = [
        ("listen", format!("mode = \"front\"\npass_on = [{}]\n", primary.join(", "))),
        ("backend", format!("address = \"{mta}:{port}\"\n")),
        ("kernel", "xdp = \"off\"\n".to_owned()),
        // Every client of a test fails again and again.
        ("ladder", "enable = false\n".to_owned()),
        ("control", "group = \"root\"\n".to_owned()),
        ("observe", format!("program = \"{PROGRAM}\"\n")),
    ];
    let mut moved = String::new();
    for line in text.lines().filter(|line| !OF_THE_PLACE.iter().any(|key| line.starts_with(key))) {
        moved += &format!("{line}\n");
        let table = here.iter().find(|(table, _)| line == format!("[{table}]"));
        moved += table.map_or("", |(_, settings)| settings);
    }
    for (table, settings) in &here {
        if !text.contains(&format!("\n[{table}]\n")) {
            moved += &format!("\n[{table}]\n{settings}");
        }
    }
    Ok(moved)
}
