//! What of ours is in the kernel already, who holds it, and what the daemon says of itself.

use super::finding::Findings;
use crate::config::Config;
use crate::control::{Client, ClientError, api};
use crate::kernel::{self, other_lookups, survey_pins};

pub(super) async fn look(config: &Config, findings: &mut Findings) {
    pins(config, findings);
    lookups(config, findings);
    let (check, socket) = ("daemon", config.control.socket.display());
    let client = Client::new(config.control.socket.clone());
    match client.get::<api::Status>("/v1/status").await {
        Ok(status) => {
            findings.ok(check, format!("runs in {} mode", status.mode));
            for sentence in status.degraded {
                findings.warning(check, "is degraded", sentence);
            }
        }
        Err(ClientError::NotRunning(_)) => findings.ok(check, format!("none answers at {socket}")),
        Err(error) => findings.warning(check, "does not answer", error.to_string()),
    }
}

/// Programs of others that have a say in where connections go.
fn lookups(config: &Config, findings: &mut Findings) {
    for (id, name) in other_lookups(&config.kernel.pin).unwrap_or_default() {
        findings.warning(
            "sk_lookup",
            format!("a program of somebody else is attached to this network namespace, id {id}, \"{name}\""),
            format!(
                "both work as long as they choose sockets for different ports; `bpftool link` and `bpftool prog show id {id}` \
                 tell whose it is"
            ),
        );
    }
}

fn pins(config: &Config, findings: &mut Findings) {
    let directory = &config.kernel.pin;
    let survey = match survey_pins(directory) {
        Ok(survey) => survey,
        Err(error) => {
            findings.problem("pins", "cannot be looked at", error.to_string());
            return;
        }
    };
    if survey.on_bpffs {
        findings.ok("BPF file system", format!("{} lies on one", directory.display()));
    } else if directory.starts_with("/sys/fs/bpf") {
        findings.warning(
            "BPF file system",
            "none is mounted at /sys/fs/bpf",
            "Screener mounts it at its start if it may, `mount -t bpf bpf /sys/fs/bpf` does it now",
        );
    } else {
        findings.problem(
            "BPF file system",
            format!("kernel.pin, {}, does not lie on one", directory.display()),
            "set it to a directory below /sys/fs/bpf, or mount one: `mount -t bpf bpf DIRECTORY`",
        );
    }
    if !survey.exists {
        findings.ok("pins", format!("nothing is pinned at {}", directory.display()));
        return;
    }
    let links = if survey.links.is_empty() { "no attachment".to_owned() } else { survey.links.join(", ") };
    let held = match &survey.holder {
        Some(holder) => format!("held by {} (process {})", holder.name, holder.process),
        None => "held by nobody".to_owned(),
    };
    findings.ok("pins", format!("{links}; {held}"));
    for version in survey.versions.iter().filter(|&&version| version != survey.abi) {
        findings.warning(
            "pins",
            format!("maps of version {version} are there, this program has version {}", survey.abi),
            "the next start of this program replaces them without a gap",
        );
    }
    match kernel::pinned_status(directory) {
        // The daemon itself knows more: its own sentences follow.
        Ok(status) if survey.holder.is_none() => {
            for sentence in status.degraded {
                findings.warning("pins", "not as it should be", sentence);
            }
            if status.steer.attached {
                findings.ok("pins", "steer has no daemon to send clients to: who is not denied reaches the MTA");
            }
        }
        Ok(_) => {}
        Err(error) => findings.problem("pins", "cannot be read", error.to_string()),
    }
}
