//! A scripted SMTP client with a source address of its choice: the one with bad manners, or with good ones.
//!
//! It sends exactly what it is told, when it is told, and never more; it tells a silence from a refusal and from a
//! closed connection, because these are what a screener does to its clients.

mod wire;

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_linger, set_socket_timeout};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, bind, connect, sendto, socket_with};
use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};

use crate::certificate::Certificate;
use crate::host::Host;
use crate::mta::BOB;

use wire::Wire;

/// How long a client waits for a connection or a reply unless told otherwise.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// `net.ipv4.tcp_fastopen`: clients may (1), and need no cookie for it (4). For IPv6 too.
const FAST_OPEN_WITHOUT_COOKIE: &str = "5";

/// A connection of a client.
#[derive(Debug)]
pub struct Client {
    stream: Wire,
    local: SocketAddr,
    patience: Duration,
    unread: Vec<u8>,
    transcript: String,
}

/// A whole reply, of one or of several lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The code of the last line.
    pub code: u16,
    /// Every line as it came, without its end.
    pub lines: Vec<String>,
}

/// What a client meets instead of an answer.
#[derive(Debug)]
pub enum Trouble {
    /// Nothing came within this time: no answer to the SYN, or no (whole) reply.
    Silence(Duration),
    /// The connection was refused with a RST.
    Refused,
    /// The server closed the connection.
    Closed,
    /// The connection was reset.
    Reset,
    /// Something else, such as no route.
    Other(io::Error),
}

impl Client {
    /// Connects from an address of the host.
    ///
    /// # Errors
    /// When the connection does not come about within [`PATIENCE`].
    pub fn connect(host: &Host, source: IpAddr, server: SocketAddr) -> Result<Self, Trouble> {
        Self::connect_within(host, source, server, PATIENCE)
    }

    /// Connects with a limit of its own.
    ///
    /// # Errors
    /// When the connection does not come about in time.
    pub fn connect_within(host: &Host, source: IpAddr, server: SocketAddr, limit: Duration) -> Result<Self, Trouble> {
        let opened = host.in_ns(|| Ok(open(source, server, limit)));
        Self::over(opened.map_err(|error| Trouble::Other(io::Error::other(error)))??)
    }

    /// Connects, and says its first words with the last packet of the handshake: no server can have said or learned
    /// anything before it has them, however busy the machine is.
    ///
    /// They go with the SYN (`TCP Fast Open` without a cookie, RFC 7413), where a server that has not agreed to that ignores
    /// them, and are sent again by the kernel itself when the SYN's answer is there.
    ///
    /// # Errors
    /// When the connection does not come about within [`PATIENCE`].
    pub fn connect_saying(host: &Host, source: IpAddr, server: SocketAddr, words: &[u8]) -> Result<Self, Trouble> {
        Self::connect_saying_within(host, source, server, words, PATIENCE)
    }

    /// The same with a limit of its own.
    ///
    /// # Errors
    /// When the connection does not come about in time.
    pub fn connect_saying_within(
        host: &Host,
        source: IpAddr,
        server: SocketAddr,
        words: &[u8],
        limit: Duration,
    ) -> Result<Self, Trouble> {
        let opened = host.in_ns(|| {
            crate::net::switch("net/ipv4/tcp_fastopen", FAST_OPEN_WITHOUT_COOKIE)?;
            Ok(open_saying(source, server, words, limit))
        });
        let mut client = Self::over(opened.map_err(|error| Trouble::Other(io::Error::other(error)))??)?;
        client.transcript += &format!("C: {}\n", words.escape_ascii());
        Ok(client)
    }

    /// Connects from an address of the calling thread's network namespace.
    ///
    /// # Errors
    /// When the connection does not come about within [`PATIENCE`].
    pub fn here(source: IpAddr, server: SocketAddr) -> Result<Self, Trouble> {
        Self::over(open(source, server, PATIENCE)?)
    }

    fn over(stream: TcpStream) -> Result<Self, Trouble> {
        let local = stream.local_addr().map_err(Trouble::Other)?;
        let stream = Wire::Plain(stream);
        Ok(Self { stream, local, patience: PATIENCE, unread: Vec::new(), transcript: String::new() })
    }

    /// The client's own address and port.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// How screening logs name this connection: `[address]:port`.
    #[must_use]
    pub fn log_name(&self) -> String {
        format!("[{}]:{}", self.local.ip(), self.local.port())
    }

    /// Changes how long each reply may take.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// What was said on both sides until now, for error messages.
    #[must_use]
    pub fn transcript(&self) -> &str {
        &self.transcript
    }

    /// Sends a line with its CRLF.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn send_line(&mut self, line: &str) -> Result<(), Trouble> {
        self.send_raw(format!("{line}\r\n").as_bytes())
    }

    /// Sends bytes as they are, in one write.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.transcript += &format!("C: {}\n", bytes.escape_ascii());
        let sent = self.stream.write_all(bytes).and_then(|()| self.stream.flush());
        sent.map_err(|error| Trouble::of(error, self.patience))
    }

    /// Reads a whole reply.
    ///
    /// # Errors
    /// When it does not come in time or at all; bytes of a part of it stay readable by [`Client::read_all`].
    pub fn read_reply(&mut self) -> Result<Reply, Trouble> {
        let deadline = Instant::now() + self.patience;
        loop {
            if let Some((reply, used)) = Reply::parse(&self.unread).map_err(Trouble::Other)? {
                self.unread.drain(..used);
                for line in &reply.lines {
                    self.transcript += &format!("S: {line}\n");
                }
                return Ok(reply);
            }
            self.read_some(deadline)?;
        }
    }

    /// Reads a whole reply, which must have this code.
    ///
    /// # Errors
    /// When it has another code or does not come; the error shows the conversation.
    pub fn expect(&mut self, code: u16) -> Result<Reply> {
        let reply = self.read_reply().with_context(|| format!("instead of {code}, after:\n{}", self.transcript))?;
        ensure!(reply.code == code, "{} instead of {code} in:\n{}", reply.code, self.transcript);
        Ok(reply)
    }

    /// Sends a line and reads its reply, which must have this code.
    ///
    /// # Errors
    /// When the connection is gone, or the reply has another code or does not come.
    pub fn ask(&mut self, line: &str, code: u16) -> Result<Reply> {
        self.send_line(line).with_context(|| format!("sending {line:?} after:\n{}", self.transcript))?;
        self.expect(code)
    }

    /// Says what every mail begins with, EHLO, MAIL and RCPT; the recipient is answered so.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn begin_mail(&mut self, code: u16) -> Result<Reply> {
        self.ask("EHLO sender.example.net", 250)?;
        self.ask("MAIL FROM:<a@example.net>", 250)?;
        self.ask(&format!("RCPT TO:<{BOB}>"), code)
    }

    /// The first half of a mail, up to its first line of text.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn begin_text(&mut self) -> Result<()> {
        self.begin_mail(250)?;
        self.ask("DATA", 354)?;
        self.send_line("Subject: half\r\n\r\nfirst")?;
        Ok(())
    }

    /// Reads one line, whatever it is, without its end.
    ///
    /// # Errors
    /// When it does not come in time or at all.
    pub fn read_line(&mut self) -> Result<String, Trouble> {
        let deadline = Instant::now() + self.patience;
        loop {
            if let Some(length) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=length).collect();
                let line = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
                self.transcript += &format!("S: {line}\n");
                return Ok(line);
            }
            self.read_some(deadline)?;
        }
    }

    /// Says that nothing more will be sent, and stays to read.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn half_close(&mut self) -> Result<(), Trouble> {
        self.stream.tcp().shutdown(std::net::Shutdown::Write).map_err(|error| Trouble::of(error, self.patience))
    }

    /// Goes with a RST.
    ///
    /// # Errors
    /// When the kernel does not allow it.
    pub fn reset(self) -> Result<(), Trouble> {
        set_socket_linger(self.stream.tcp(), Some(Duration::ZERO)).map_err(|error| Trouble::Other(error.into()))
    }

    /// Begins TLS, after the server has said that it is ready; what is sent and read from here on is inside. The server must
    /// show this certificate.
    ///
    /// # Errors
    /// When the handshake fails, or something in plain text stands before it.
    pub fn start_tls(&mut self, certificate: &Certificate) -> Result<()> {
        self.start_tls_in(certificate, &[&TLS13, &TLS12])
    }

    /// Begins TLS in one of these versions.
    ///
    /// # Errors
    /// As [`Client::start_tls`].
    pub fn start_tls_in(
        &mut self,
        certificate: &Certificate,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Result<()> {
        ensure!(self.unread.is_empty(), "{} in plain text before TLS", self.unread.escape_ascii());
        self.stream.tcp().set_read_timeout(Some(self.patience))?;
        let shaken = self.stream.start_tls(certificate, versions);
        shaken.with_context(|| format!("the TLS handshake, after:\n{}", self.transcript))?;
        self.transcript += "(TLS)\n";
        Ok(())
    }

    /// The socket itself, below TLS if there is TLS.
    #[must_use]
    pub fn tcp(&self) -> &TcpStream {
        self.stream.tcp()
    }

    /// Holds back what is sent, until it is let go in one segment (`TCP_CORK`).
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn cork(&self, hold: bool) -> Result<()> {
        Ok(rustix::net::sockopt::set_tcp_cork(self.stream.tcp(), hold)?)
    }

    /// The protocol that TLS speaks, e.g. `TLSv1_3`; `None` in plain text.
    #[must_use]
    pub fn tls_protocol(&self) -> Option<String> {
        self.stream.protocol()
    }

    /// Makes sure that the server says nothing, and does not close, for a time.
    ///
    /// # Errors
    /// When it does.
    pub fn silent_for(&mut self, time: Duration) -> Result<()> {
        let deadline = Instant::now() + time;
        match self.read_some(deadline) {
            Err(Trouble::Silence(_)) if self.unread.is_empty() => Ok(()),
            Err(trouble) => Err(trouble).context("instead of silence"),
            Ok(()) => bail!("{} came instead of silence", self.unread.escape_ascii()),
        }
    }

    /// Reads everything until the server closes the connection, and says how that happened: `Closed` or `Reset`.
    ///
    /// # Errors
    /// When the server does not close it within the client's patience.
    pub fn read_all(&mut self) -> Result<(Vec<u8>, Trouble)> {
        let deadline = Instant::now() + self.patience;
        loop {
            match self.read_some(deadline) {
                Ok(()) => {}
                Err(end @ (Trouble::Closed | Trouble::Reset)) => {
                    let bytes = std::mem::take(&mut self.unread);
                    self.transcript += &format!("S: {} ({end})\n", bytes.escape_ascii());
                    return Ok((bytes, end));
                }
                Err(trouble) => {
                    return Err(trouble).with_context(|| format!("instead of the end, after:\n{}", self.transcript));
                }
            }
        }
    }

    /// Reads once into the buffer.
    fn read_some(&mut self, deadline: Instant) -> Result<(), Trouble> {
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = left.max(Duration::from_millis(1));
        let asked = self.stream.tcp().set_read_timeout(Some(limit));
        asked.map_err(Trouble::Other)?;
        let mut bytes = [0; 4096];
        let read = self.stream.read(&mut bytes);
        match read.map_err(|error| Trouble::of(error, self.patience))? {
            0 => Err(Trouble::Closed),
            count => {
                self.unread.extend(bytes.iter().take(count));
                Ok(())
            }
        }
    }
}

impl Reply {
    /// The lines as one text.
    #[must_use]
    pub fn text(&self) -> String {
        self.lines.join("\n")
    }

    /// Whether some line holds a text.
    #[must_use]
    pub fn contains(&self, part: &str) -> bool {
        self.lines.iter().any(|line| line.contains(part))
    }

    /// The first whole reply in some bytes and its length, or nothing while its end is missing.
    fn parse(bytes: &[u8]) -> io::Result<Option<(Self, usize)>> {
        let mut lines = Vec::new();
        let mut used = 0;
        while let Some(length) = bytes[used..].iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&bytes[used..used + length]);
            let line = line.trim_end_matches('\r').to_owned();
            used += length + 1;
            let code = line.get(..3).and_then(|code| code.parse().ok());
            let Some(code) = code.filter(|code| (200..600).contains(code)) else {
                let text = format!("{line:?} is no line of a reply");
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            };
            let goes_on = line.as_bytes().get(3) == Some(&b'-');
            lines.push(line);
            if !goes_on {
                return Ok(Some((Self { code, lines }, used)));
            }
        }
        Ok(None)
    }
}

impl Trouble {
    fn of(error: io::Error, limit: Duration) -> Self {
        match error.kind() {
            // A connect that a socket timeout ended is EINPROGRESS, which has no kind.
            _ if error.raw_os_error() == Some(libc::EINPROGRESS) => Self::Silence(limit),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silence(limit),
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Reset,
            _ => Self::Other(error),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silence(time) => write!(to, "no answer within {time:?}"),
            Self::Refused => to.write_str("connection refused"),
            Self::Closed => to.write_str("connection closed"),
            Self::Reset => to.write_str("connection reset"),
            Self::Other(error) => write!(to, "{error}"),
        }
    }
}

impl std::error::Error for Trouble {}

/// Opens a connection from an address of the calling thread's network namespace.
///
/// # Errors
/// When it does not come about in time.
pub fn open(source: IpAddr, server: SocketAddr, limit: Duration) -> Result<TcpStream, Trouble> {
    opened(source, limit, |socket| connect(socket, &server))
}

fn open_saying(source: IpAddr, server: SocketAddr, words: &[u8], limit: Duration) -> Result<TcpStream, Trouble> {
    let fast_open = SendFlags::from_bits_retain(libc::MSG_FASTOPEN.cast_unsigned());
    let began = Instant::now();
    let stream = opened(source, limit, |socket| match sendto(socket, words, fast_open, &server) {
        Ok(sent) if sent == words.len() => Ok(()),
        // Words are few.
        Ok(_) => Err(Errno::MSGSIZE),
        Err(error) => Err(error),
    })?;
    // What went with a SYN counts as sent, also if that SYN is never answered. A server that has taken the words and is gone already
    // has no address any more either, but it has answered in time.
    if stream.peer_addr().is_err() && began.elapsed() >= limit {
        return Err(Trouble::Silence(limit));
    }
    Ok(stream)
}

/// A socket at an address, connected in this way.
fn opened(
    source: IpAddr,
    limit: Duration,
    connect: impl FnOnce(&OwnedFd) -> Result<(), Errno>,
) -> Result<TcpStream, Trouble> {
    let family = match source {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let opened = || -> Result<TcpStream, Errno> {
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // The limit of a blocking connect.
        set_socket_timeout(&socket, Timeout::Send, Some(limit))?;
        bind(&socket, &SocketAddr::new(source, 0))?;
        connect(&socket)?;
        set_socket_timeout(&socket, Timeout::Send, None)?;
        Ok(socket.into())
    };
    opened().map_err(|error| Trouble::of(error.into(), limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_of_several_lines_is_one_reply() {
        let bytes = b"220-a\r\n220 b\r\n250 c\r\n";
        let (reply, used) = Reply::parse(bytes).unwrap().unwrap();
        assert_eq!((reply.code, reply.lines.len(), used), (220, 2, 14));
        for length in 0..used {
            assert!(Reply::parse(&bytes[..length]).unwrap().is_none());
        }
        assert!(Reply::parse(b"what?\r\n").is_err());
    }
}
