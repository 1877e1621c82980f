//! The daemon's control socket spoken to without the CLI: for tests that give passes by the thousand.
//!
//! Knows no more of HTTP than one connection with answers of a known length.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::host::Host;

const SOCKET: &str = "/run/screener/control.sock";
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection.
#[derive(Debug)]
pub struct Control(BufReader<UnixStream>);

impl Control {
    /// Connects to the daemon of a host.
    ///
    /// # Errors
    /// When there is none.
    pub fn connect(host: &Host) -> Result<Self> {
        let stream = UnixStream::connect(host.path(SOCKET)).context(SOCKET)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Gives a client a pass for a day; when this returns the daemon has said that it has it.
    ///
    /// # Errors
    /// When it has not.
    pub fn give_pass(&mut self, client: IpAddr) -> Result<()> {
        self.ask("PUT", &format!("/v1/passes/{client}"), r#"{"ttl_seconds":86400}"#).map(drop)
    }

    /// The metrics as text.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn metrics(&mut self) -> Result<String> {
        self.ask("GET", "/metrics", "")
    }

    /// What `status` shows.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn status(&mut self) -> Result<Value> {
        serde_json::from_str(&self.ask("GET", "/v1/status", "")?).context("the status")
    }

    fn ask(&mut self, method: &str, path: &str, body: &str) -> Result<String> {
        let (length, kind) = (body.len(), "Content-Type: application/json");
        write!(
            self.0.get_mut(),
            "{method} {path} HTTP/1.1\r\nHost: screener\r\n{kind}\r\nContent-Length: {length}\r\n\r\n{body}"
        )?;
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        ensure!(line.starts_with("HTTP/1.1 200 "), "{method} {path}: {line:?}");
        let mut length = 0;
        loop {
            line.clear();
            ensure!(self.0.read_line(&mut line)? > 0, "the daemon broke off");
            let header = line.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().context("a length")?;
            }
        }
        let mut answer = String::new();
        self.0.by_ref().take(length).read_to_string(&mut answer)?;
        Ok(answer)
    }
}
