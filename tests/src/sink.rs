//! An MTA that only records: what comes after DATA, byte for byte, until the client closes.
//!
//! No real MTA can show this: each parses what it gets. Everything else about an MTA is shown with real ones.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::host::Host;
use crate::listener::listener;
use crate::wait::until;

/// The length of a version 2 PROXY header's fixed part; its last two bytes are the length of the rest.
const FIXED: usize = 16;

/// No line of a dialogue is longer.
const LINE: u64 = 4096;

/// The recorder; its threads end with the cell.
#[derive(Debug)]
pub struct Sink {
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// One connection, from its PROXY header to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The commands before DATA, without line ends; the last is DATA.
    pub commands: Vec<Vec<u8>>,
    /// Everything behind the DATA line.
    pub data: Vec<u8>,
}

impl Sink {
    /// Listens at an address of a host, where it expects a PROXY header of version 2.
    ///
    /// # Errors
    /// When the address is not to be had.
    pub fn start(host: &Host, address: &str) -> Result<Self> {
        let listener = host.in_ns(|| listener(address))?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || match record(stream) {
                    // Whoever comes without DATA only asks what is offered.
                    Ok(one) if one.commands.last().is_some_and(|last| last == b"DATA") => {
                        shared.lock().unwrap_or_else(PoisonError::into_inner).push(one);
                    }
                    Ok(_) => {}
                    Err(error) => eprintln!("sink: {error:#}"),
                });
            }
        });
        Ok(Self { seen })
    }

    /// The connections that have come as far as DATA and ended.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the connection with a command, and gives it.
    ///
    /// # Errors
    /// When there is none in time.
    pub fn wait_for(&self, command: &str, timeout: Duration) -> Result<Seen> {
        let has = |one: &Seen| one.commands.iter().any(|line| line == command.as_bytes());
        until(&format!("{command} at the sink"), timeout, || self.seen().into_iter().find(has))
    }
}

/// Speaks SMTP up to DATA, then listens.
fn record(stream: TcpStream) -> Result<Seen> {
    let mut answers = stream.try_clone().context("a second handle")?;
    let mut reader = BufReader::new(stream);
    let mut fixed = [0; FIXED];
    reader.read_exact(&mut fixed).context("the PROXY header")?;
    let mut rest = vec![0; usize::from(u16::from_be_bytes([fixed[14], fixed[15]]))];
    reader.read_exact(&mut rest).context("the rest of the PROXY header")?;
    answers.write_all(b"220 sink.example.com ESMTP\r\n")?;
    let mut seen = Seen::default();
    loop {
        let mut line = Vec::new();
        reader.by_ref().take(LINE).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(seen);
        }
        ensure!(line.ends_with(b"\r\n"), "a command without CR LF: {}", line.escape_ascii());
        line.truncate(line.len() - 2);
        let verb = String::from_utf8_lossy(line.get(..4).unwrap_or(&line)).to_ascii_uppercase();
        seen.commands.push(line);
        let reply: &[u8] = match verb.as_str() {
            "EHLO" => b"250-sink.example.com\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 CHUNKING\r\n",
            "DATA" => b"354 go on\r\n",
            "QUIT" => b"221 bye\r\n",
            "MAIL" | "RCPT" | "RSET" | "HELO" => b"250 ok\r\n",
            _ => bail!("the command {verb}"),
        };
        answers.write_all(reply)?;
        if verb == "DATA" {
            reader.read_to_end(&mut seen.data)?;
            return Ok(seen);
        }
    }
}
