//! An MTA that does what no real one can be made to do at a given step: closes, resets, says what is no reply, refuses in
//! several lines, or stops reading.
//!
//! It takes a version 2 PROXY header first. To the daemon's own questions (LOCAL) it answers politely, whatever its script.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::net::sockopt::set_socket_linger;

use crate::host::Host;
use crate::listener::listener;

/// What it offers unless told otherwise.
pub const OFFER: &str = "250-mta.example.com\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250 8BITMIME\r\n";

/// What it does about a line, or, where the line is empty, about a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// What an MTA would say that likes everything.
    Polite,
    /// These bytes.
    Say(&'static str),
    /// These bytes, and the end.
    SayAndClose(&'static str),
    /// The end, without a word.
    Close,
    /// A RST.
    Reset,
    /// Nothing, for as long as the other side likes.
    Silence,
    /// A polite answer; then the connection is the test's: see [`ScriptedMta::taken`].
    Give,
}

type Script = Box<dyn FnMut(&str) -> Act + Send>;

/// The MTA. It listens for as long as the process lives.
#[derive(Debug)]
pub struct ScriptedMta {
    shared: Arc<Shared>,
    taken: Receiver<TcpStream>,
}

struct Shared {
    script: Mutex<Script>,
    heard: Mutex<Vec<String>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.heard.fmt(to)
    }
}

impl ScriptedMta {
    /// Listens on a host.
    ///
    /// # Errors
    /// When the address is not to be had.
    pub fn start(host: &Host, address: &str, script: impl FnMut(&str) -> Act + Send + 'static) -> Result<Self> {
        let listening = host.in_ns(|| listener(address))?;
        let shared = Arc::new(Shared { script: Mutex::new(Box::new(script)), heard: Mutex::default() });
        let (give, taken) = channel();
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listening.incoming().flatten() {
                let (shared, give) = (Arc::clone(&serving), give.clone());
                // A connection that breaks is what the scripts are for.
                thread::spawn(move || drop(serve(stream, &shared, &give)));
            }
        });
        Ok(Self { shared, taken })
    }

    /// Does something else from now on.
    pub fn script(&self, script: impl FnMut(&str) -> Act + Send + 'static) {
        *self.shared.script.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(script);
    }

    /// The lines that it has heard from clients, in order.
    #[must_use]
    pub fn heard(&self) -> Vec<String> {
        self.shared.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The next connection that was given to the test ([`Act::Give`]).
    ///
    /// # Errors
    /// When there is none in time.
    pub fn taken(&self, timeout: Duration) -> Result<TcpStream> {
        self.taken.recv_timeout(timeout).context("no connection was given to the test")
    }
}

fn serve(mut stream: TcpStream, shared: &Shared, give: &Sender<TcpStream>) -> io::Result<()> {
    let mut header = [0; 16];
    stream.read_exact(&mut header)?;
    let mut addresses = vec![0; usize::from(u16::from_be_bytes([header[14], header[15]]))];
    stream.read_exact(&mut addresses)?;
    let is_client = header[12] == 0x21;
    let mut line = String::new();
    loop {
        let act = if is_client {
            let mut script = shared.script.lock().unwrap_or_else(PoisonError::into_inner);
            script(&line)
        } else {
            Act::Polite
        };
        match act {
            Act::Polite => stream.write_all(polite(&line).as_bytes())?,
            Act::Say(reply) => stream.write_all(reply.as_bytes())?,
            Act::SayAndClose(reply) => return stream.write_all(reply.as_bytes()),
            Act::Close => return Ok(()),
            Act::Reset => return Ok(set_socket_linger(&stream, Some(Duration::ZERO))?),
            Act::Silence => {}
            Act::Give => {
                stream.write_all(polite(&line).as_bytes())?;
                // The test may not wait for it any more.
                let _ = give.send(stream);
                return Ok(());
            }
        }
        if line.starts_with("QUIT") {
            return Ok(());
        }
        line = read_line(&mut stream)?;
        if is_client {
            shared.heard.lock().unwrap_or_else(PoisonError::into_inner).push(line.clone());
        }
    }
}

/// A line without its end; byte by byte, so that nothing behind it is taken from whoever gets the connection.
fn read_line(stream: &mut TcpStream) -> io::Result<String> {
    let mut line = Vec::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        match byte[0] {
            b'\n' => return Ok(String::from_utf8_lossy(&line).trim_end().to_owned()),
            byte => line.push(byte),
        }
    }
}

fn polite(line: &str) -> &'static str {
    match line.split(' ').next().unwrap_or_default() {
        "" => "220 mta.example.com ESMTP\r\n",
        "EHLO" => OFFER,
        "DATA" => "354 go ahead\r\n",
        "QUIT" => "221 2.0.0 bye\r\n",
        _ => "250 2.0.0 ok\r\n",
    }
}
