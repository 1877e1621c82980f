//! A connection to the MTA, as far as the replay needs one: lines out, whole replies in, each within a time.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::config::BackendAddress;

use super::HandoffError;

/// How long the MTA may take to accept a connection. On the same host it takes microseconds; a full backlog shows here.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How long the MTA may take for a reply. RFC 5321 section 4.5.3.2 gives 5 minutes; the client's own timer runs meanwhile,
/// so that more than this would only make it go away by itself.
const REPLY_TIME: Duration = Duration::from_secs(100);
/// No reply is longer than this: an EHLO reply has some 20 lines.
const LONGEST_REPLY: usize = 16 * 1024;

/// Either kind of connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

/// The connection.
pub(super) struct Mta {
    pub(super) backend: BackendAddress,
    pub(super) stream: Pin<Box<dyn Stream>>,
    /// Read and not yet used.
    pub(super) input: BytesMut,
}

impl fmt::Debug for Mta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mta({})", self.backend)
    }
}

impl Mta {
    pub(super) async fn connect(backend: &BackendAddress) -> Result<Self, HandoffError> {
        let connecting = async {
            let stream: Pin<Box<dyn Stream>> = match backend {
                BackendAddress::Tcp { host, port } => {
                    let stream = TcpStream::connect((host.as_str(), *port)).await?;
                    stream.set_nodelay(true)?;
                    Box::pin(stream)
                }
                BackendAddress::Unix(path) => Box::pin(UnixStream::connect(path).await?),
            };
            Ok(stream)
        };
        let stream = within(CONNECT_TIME, connecting).await.map_err(|source| HandoffError::Away {
            backend: backend.clone(),
            doing: "does not accept connections",
            source,
        })?;
        Ok(Self { backend: backend.clone(), stream, input: BytesMut::new() })
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), HandoffError> {
        let sent = within(REPLY_TIME, self.stream.write_all(bytes)).await;
        sent.map_err(|source| self.away("does not take what is sent to it", source))
    }

    pub(super) async fn send_line(&mut self, line: &[u8]) -> Result<(), HandoffError> {
        let mut wire = BytesMut::with_capacity(line.len() + 2);
        wire.extend_from_slice(line);
        wire.extend_from_slice(b"\r\n");
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
        HandoffError::Away { backend: self.backend.clone(), doing, source }
    }
}

/// A complete reply of the MTA, as on the wire.
#[derive(Debug)]
pub(super) struct MtaReply(Bytes);

impl MtaReply {
    /// The three digits.
    pub(super) fn code(&self) -> u16 {
        self.0.iter().take(3).fold(0, |code, digit| code * 10 + u16::from(digit - b'0'))
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
