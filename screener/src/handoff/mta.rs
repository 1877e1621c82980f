//! A connection to the MTA, as far as the replay needs one: lines out, whole replies in, each within a time.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::config::{Backend, BackendAddress, HandoffMethod};
use crate::proxy::Header;

use super::stream::MtaStream;
use super::{HandoffError, announcement, pass};

/// How long the MTA may take to accept a connection. On the same host it takes microseconds; a full backlog shows here.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How long the MTA may take for a reply. RFC 5321 section 4.5.3.2 gives 5 minutes; the client's own timer runs meanwhile,
/// so that more than this would only make it go away by itself.
const REPLY_TIME: Duration = Duration::from_secs(100);
const NO_CONNECTION: &str = "does not accept connections";
/// No reply is longer than this: an EHLO reply has some 20 lines.
const LONGEST_REPLY: usize = 16 * 1024;

/// The connection.
pub(super) struct Mta {
    backend: BackendAddress,
    pub(super) stream: MtaStream,
    /// Read and not yet used.
    pub(super) input: BytesMut,
}

impl fmt::Debug for Mta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mta({})", self.backend)
    }
}

impl Mta {
    /// A connection to the MTA that it believes to be that of the client in `header`: it will greet.
    pub(super) async fn open(backend: &Backend, header: &Header) -> Result<Self, HandoffError> {
        let away = |doing| move |source| HandoffError::away(&backend.address, doing, source);
        let stream = match (&backend.address, backend.handoff) {
            (BackendAddress::Unix(path), HandoffMethod::PostfixPass) => {
                let (ours, theirs) = pair().map_err(away(NO_CONNECTION))?;
                give(backend, path, theirs.as_fd(), header).await?;
                MtaStream::Unix(ours)
            }
            (BackendAddress::Unix(path), _) => {
                let connecting = async { Ok(MtaStream::Unix(UnixStream::connect(path).await?)) };
                within(CONNECT_TIME, connecting).await.map_err(away(NO_CONNECTION))?
            }
            (BackendAddress::Tcp { host, port }, _) => {
                within(CONNECT_TIME, connect(host, *port)).await.map_err(away(NO_CONNECTION))?
            }
        };
        let mut mta = Self { backend: backend.address.clone(), stream, input: BytesMut::new() };
        mta.send(&announcement(backend.handoff, header)).await?;
        Ok(mta)
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), HandoffError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let sending = async {
            let sent = self.stream.send_now(bytes)?;
            self.stream.write_all(&bytes[sent..]).await
        };
        let sent = within(REPLY_TIME, sending).await;
        sent.map_err(|source| self.away("does not take what is sent to it", source))
    }

    pub(super) async fn send_line(&mut self, line: &[u8]) -> Result<(), HandoffError> {
        self.send_lines(&[line]).await
    }

    /// Sends lines in one piece, each with its end.
    pub(super) async fn send_lines<L: AsRef<[u8]>>(&mut self, lines: &[L]) -> Result<(), HandoffError> {
        let mut wire = BytesMut::with_capacity(lines.iter().map(|line| line.as_ref().len() + 2).sum());
        for line in lines {
            wire.extend_from_slice(line.as_ref());
            wire.extend_from_slice(b"\r\n");
        }
        self.send(&wire).await
    }

    /// The next reply, all its lines.
    pub(super) async fn reply(&mut self) -> Result<MtaReply, HandoffError> {
        let reading = async {
            loop {
                if let Some(end) = end_of_reply(&self.input)? {
                    return Ok(MtaReply(self.input.split_to(end).freeze()));
                }
                if self.input.len() > LONGEST_REPLY {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "its reply does not end"));
                }
                if self.stream.read_buf(&mut self.input).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        };
        let reply = within(REPLY_TIME, reading).await;
        reply.map_err(|source| self.away("does not answer", source))
    }

    fn away(&self, doing: &'static str, source: io::Error) -> HandoffError {
        HandoffError::away(&self.backend, doing, source)
    }
}

/// Gives a descriptor to a Postfix `pass` service, and waits until it has taken it.
pub(super) async fn give(
    backend: &Backend,
    service: &Path,
    descriptor: BorrowedFd<'_>,
    header: &Header,
) -> Result<(), HandoffError> {
    let away = |doing| move |source| HandoffError::away(&backend.address, doing, source);
    let channel = within(CONNECT_TIME, pass::reach(service)).await.map_err(away(NO_CONNECTION))?;
    within(CONNECT_TIME, pass::send(&channel, descriptor, header)).await.map_err(away("takes no descriptor"))?;
    within(REPLY_TIME, pass::taken(channel)).await.map_err(away("does not take what was passed to it"))
}

/// Two ends of one connection: ours, and one for the MTA.
fn pair() -> io::Result<(UnixStream, StdUnixStream)> {
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((UnixStream::from_std(ours)?, theirs))
}

/// Connects to the first address of a name that answers; each has its share of the time, so that one that swallows
/// packets does not keep the others from being tried.
async fn connect(host: &str, port: u16) -> io::Result<MtaStream> {
    let addresses: Vec<_> = tokio::net::lookup_host((host, port)).await?.collect();
    let share = CONNECT_TIME / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    for address in addresses {
        match within(share, reach(address)).await {
            Ok(stream) => return Ok(MtaStream::Tcp(stream)),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Connects to one address.
///
/// Not by `TcpStream::connect`: it waits for an event where the connection stands already, as it does on the same host.
async fn reach(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    // The client's side has timers; an MTA that vanished with its host must not hold the relay.
    socket.set_keepalive(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let stream = TcpStream::from_std(socket.into())?;
    if stream.peer_addr().is_err() {
        stream.writable().await?;
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
    }
    Ok(stream)
}

/// A complete reply of the MTA, as on the wire.
#[derive(Debug)]
pub(super) struct MtaReply(Bytes);

impl MtaReply {
    /// The three digits.
    pub(super) fn code(&self) -> u16 {
        self.0.iter().take(3).fold(0, |code, digit| code * 10 + u16::from(digit - b'0'))
    }

    /// Whether a line of an EHLO reply names this keyword.
    pub(super) fn offers(&self, keyword: &str) -> bool {
        self.lines().any(|line| line.split(' ').next().is_some_and(|word| word.eq_ignore_ascii_case(keyword)))
    }

    pub(super) fn is_positive(&self) -> bool {
        (200..300).contains(&self.code())
    }

    pub(super) fn into_wire(self) -> Bytes {
        self.0
    }

    /// The text of each line, without codes.
    pub(super) fn lines(&self) -> impl Iterator<Item = &str> {
        self.0.split(|&byte| byte == b'\n').filter_map(|line| {
            let text = line.get(4..)?;
            std::str::from_utf8(text.strip_suffix(b"\r").unwrap_or(text)).ok()
        })
    }
}

/// Where the reply at the start of the input ends; `None` while it is incomplete; an error if it is no SMTP reply.
fn end_of_reply(input: &[u8]) -> io::Result<Option<usize>> {
    let mut start = 0;
    while let Some(newline) = input[start..].iter().position(|&byte| byte == b'\n') {
        let line = &input[start..start + newline];
        let end = start + newline + 1;
        let (code, rest) = line.split_at(line.len().min(3));
        if code.len() < 3 || !code.iter().all(u8::is_ascii_digit) {
            let line = String::from_utf8_lossy(line).trim_end().to_owned();
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("'{line}' is no SMTP reply")));
        }
        if rest.first() != Some(&b'-') {
            return Ok(Some(end));
        }
        start = end;
    }
    Ok(None)
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_ends_with_the_first_line_without_a_hyphen() {
        let input = b"250-mx\r\n250-SIZE 5\r\n250 DSN\r\n220 x";
        assert_eq!(end_of_reply(input).unwrap(), Some(29));
        for cut in 0..29 {
            assert_eq!(end_of_reply(&input[..cut]).unwrap(), None, "{cut}");
        }
        let reply = MtaReply(Bytes::from_static(&input[..29]));
        assert_eq!(reply.code(), 250);
        assert_eq!(reply.lines().collect::<Vec<_>>(), ["mx", "SIZE 5", "DSN"]);
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        assert!(end_of_reply(b"HTTP/1.1 400\r\n").is_err());
        assert!(end_of_reply(b"\r\n").is_err());
        assert_eq!(end_of_reply(b"220\r\n").unwrap(), Some(5));
    }
}
