//! The daemon that runs, if one does: is it what is installed, and does it go by what stands in the file.

use std::fs;

use super::finding::Findings;
use crate::config::Config;
use crate::control::{Client, ClientError, api};
use crate::version;

const CHECK: &str = "daemon";

pub(super) async fn look(config: &Config, findings: &mut Findings) {
    let socket = &config.control.socket;
    let status = match Client::new(socket.clone()).get::<api::Status>("/v1/status").await {
        Ok(status) => status,
        Err(ClientError::NotRunning(_)) => return findings.ok(CHECK, format!("none answers at {}", socket.display())),
        Err(error) => return findings.problem(CHECK, "it does not answer", error.to_string()),
    };
    let ours = version::own();
    if status.version == ours {
        findings.ok(CHECK, format!("version {ours} runs as process {}, in {} mode", status.pid, status.mode));
    } else {
        let found = format!("version {} runs, and this is {ours}", status.version);
        findings.warning(
            CHECK,
            found,
            "`screener upgrade` has it start what is installed, without refusing a connection",
        );
    }
    let waits = &status.configuration.needs_restart;
    if !waits.is_empty() {
        let found = format!("it runs with other values than the file has for {}", waits.join(", "));
        findings.warning(CHECK, found, "`screener upgrade` or a restart takes them");
    }
    if is_older_than_the_file(&status.configuration) {
        let found = format!("the file was changed after {}, when it was read", status.configuration.read);
        findings.warning(CHECK, found, "`screener reload` takes it in, or says what is wrong with it");
    }
}

fn is_older_than_the_file(configuration: &api::Configuration) -> bool {
    let changed = configuration.file.as_ref().and_then(|file| fs::metadata(file).ok()?.modified().ok());
    let changed = changed.and_then(|changed| jiff::Timestamp::try_from(changed).ok());
    let read = configuration.read.parse::<jiff::Timestamp>().ok();
    changed.zip(read).is_some_and(|(changed, read)| changed.as_second() > read.as_second())
}
