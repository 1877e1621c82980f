//! A client's connection, plain or under TLS that we terminate.
//!
//! Holds the two forms behind one face. Most clients never come to TLS, so what TLS needs is boxed and a client that waits in
//! silence carries no buffer. Never decides when TLS begins: the engine does.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustls::ServerConfig;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::session::TlsSession;
use crate::tls;

use super::delivered;

/// The connection.
#[derive(Debug)]
pub(super) enum ClientStream {
    /// As it was accepted.
    Plain(TcpStream),
    /// After the handshake.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Why a handshake failed, with the connection, on which the client has been sent the alert that says so.
pub(super) struct HandshakeFailed {
    /// In a few words, for the log.
    pub(super) why: String,
    pub(super) stream: ClientStream,
}

impl ClientStream {
    /// The socket, while what goes over it is what the client says.
    pub(super) fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(tcp) => Some(tcp),
            Self::Tls(_) => None,
        }
    }

    /// Waits until the client resets the connection. One that only closes its half may still want to hear an answer.
    pub(super) async fn reset(&self) {
        let tcp = match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        };
        // Failing to wait is no sign of a reset.
        if tcp.ready(Interest::ERROR).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Carries out the handshake, with the certificate of `config`. Takes as long as the client likes: the engine has the
    /// deadline.
    pub(super) async fn start_tls(self, config: Arc<ServerConfig>) -> Result<(Self, TlsSession), HandshakeFailed> {
        let tcp = match self {
            Self::Plain(tcp) => tcp,
            // The engine refuses STARTTLS under TLS.
            Self::Tls(_) => {
                return Err(HandshakeFailed { why: "TLS is active already".to_owned(), stream: self });
            }
        };
        match TlsAcceptor::from(config).accept(tcp).into_fallible().await {
            Ok(stream) => {
                let session = tls::agreed(stream.get_ref().1);
                Ok((Self::Tls(Box::new(stream)), session))
            }
            Err((error, tcp)) => Err(HandshakeFailed { why: tls::why_failed(&error), stream: Self::Plain(tcp) }),
        }
    }

    /// Sends what the socket takes at once, and says how much that was: nothing under TLS, where there is more to be done.
    ///
    /// # Errors
    /// When the connection is broken.
    pub(super) fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        let Self::Plain(tcp) = self else { return Ok(0) };
        match tcp.try_write(bytes) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
            sent => sent,
        }
    }

    /// Reads what a client without TLS has sent, also where tokio does not know of it yet. The socket itself is asked: tokio
    /// learns of bytes when it next polls, and a task may be woken by the clock before that.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when there is nothing, and always under TLS; otherwise the connection is broken.
    pub(super) fn read_now(&self, room: &mut [u8]) -> io::Result<usize> {
        let Self::Plain(tcp) = self else { return Err(io::ErrorKind::WouldBlock.into()) };
        match rustix::net::recv(tcp, room, RecvFlags::empty()) {
            Ok((read, _)) => Ok(read),
            Err(Errno::INTR) => Err(io::ErrorKind::WouldBlock.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until there is something to [`ClientStream::try_read`]: bytes, or the end.
    pub(super) async fn readable(&mut self) -> io::Result<()> {
        match self {
            // Not by the `readable` of a TcpStream: each who waits there takes a hundred bytes more.
            Self::Plain(tcp) => std::future::poll_fn(|cx| tcp.poll_read_ready(cx)).await,
            Self::Tls(tls) => std::future::poll_fn(|cx| Pin::new(&mut **tls).poll_fill_buf(cx).map_ok(drop)).await,
        }
    }

    /// Whether everything that was written has reached the client. A connection that cannot say so any more is as good as
    /// delivered: it accuses nobody.
    pub(super) fn is_delivered(&self) -> bool {
        let tcp = match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        };
        delivered::to_client(tcp).unwrap_or(true)
    }

    /// Reads what has arrived, as much of it as there is room for; 0 is the end. Under TLS that is all records together:
    /// whether the client has sent more than one command at a time must not depend on how it cut them.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when there is nothing yet; otherwise the connection is broken.
    pub(super) fn try_read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let tls = match self {
            Self::Plain(tcp) => return tcp.try_read(room),
            Self::Tls(tls) => tls,
        };
        // Whoever waits does so in `readable`, which leaves a waker of its own.
        let mut nobody = Context::from_waker(Waker::noop());
        let mut read = ReadBuf::new(room);
        loop {
            let before = read.filled().len();
            match Pin::new(&mut **tls).poll_read(&mut nobody, &mut read) {
                Poll::Ready(Ok(())) if read.filled().len() > before && read.remaining() > 0 => {}
                Poll::Ready(Ok(())) => return Ok(read.filled().len()),
                // What was read comes first; the error comes back at the next call.
                Poll::Ready(Err(_)) | Poll::Pending if before > 0 => return Ok(before),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Err(io::ErrorKind::WouldBlock.into()),
            }
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => match Pin::new(&mut **tls).poll_read(cx, buf) {
                // The client has closed without close_notify, as many do. SMTP says by itself where a message ends, so
                // that nobody can cut one off unseen: to the MTA it is the end like any other.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
                other => other,
            },
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use tokio::net::TcpListener;

    use super::*;

    async fn connected() -> (std::net::TcpStream, ClientStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, ClientStream::Plain(listener.accept().await.unwrap().0))
    }

    #[tokio::test]
    async fn the_first_words_to_a_client_do_not_wait_for_tokio_to_look() {
        let (_client, stream) = connected().await;
        assert_eq!(stream.send_now(b"220 mx.example.com ESMTP\r\n").unwrap(), 26);
    }

    #[tokio::test]
    async fn what_has_come_is_read_though_tokio_has_not_looked() {
        let (mut client, mut stream) = connected().await;
        let mut room = [0; 64];
        let nothing = |read: io::Result<usize>| read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        assert!(nothing(stream.read_now(&mut room)));
        assert!(nothing(stream.try_read(&mut room)), "which tokio takes for ready until it has tried");
        client.write_all(b"EHLO early.example.net\r\n").unwrap();
        // From here on nothing is awaited, so tokio does not look.
        let mut arrived = [PollFd::new(stream.plain().unwrap(), PollFlags::IN)];
        assert_eq!(poll(&mut arrived, Some(&Timespec { tv_sec: 10, tv_nsec: 0 })).unwrap(), 1);
        assert!(nothing(stream.try_read(&mut room)));
        assert_eq!(stream.read_now(&mut room).unwrap(), 24);
        assert!(nothing(stream.read_now(&mut room)), "it is read once");
        drop(client);
        assert!(stream.readable().await.is_ok());
        assert_eq!(stream.try_read(&mut room).unwrap(), 0);
    }
}
