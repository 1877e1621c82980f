//! After the handoff: bytes, both ways, until both sides are done.
//!
//! What is read is written on at once, in pieces as large as they come. While a reader is slow, what did not fit waits in one
//! buffer for its direction, and nothing more is read for it; while nothing flows, there is no buffer at all.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use super::HandedOff;

/// How long a client may go on after the MTA has closed. The MTA has its own timers for a client that is silent; once it
/// has hung up there is nobody left to talk to.
const AFTER_THE_MTA: Duration = Duration::from_secs(5);
/// The most that is read at once, and the most that waits for a slow reader.
const PIECE: usize = 64 * 1024;

thread_local! {
    /// Where every relay of this thread reads into, one after the other.
    static PIECES: RefCell<Box<[u8]>> = RefCell::new(vec![0; PIECE].into());
}

/// Gives the client the reply it waits for, then copies both ways. A side that closes its half is told on, the other half
/// goes on. A slow reader holds up its peer.
///
/// # Errors
/// When either connection breaks.
pub async fn copy<C>(client: &mut C, handed_off: HandedOff) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let HandedOff { reply, mta, .. } = handed_off;
    client.write_all(&reply).await?;
    // Normally empty: what the MTA sent behind its reply.
    client.write_all(&mta.input).await?;
    client.flush().await?;
    both_ways(client, mta.stream).await
}

async fn both_ways<C, M>(client: &mut C, mut mta: M) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    M: AsyncRead + AsyncWrite + Unpin,
{
    let (mut to_mta, mut to_client) = (Direction::default(), Direction::default());
    poll_fn(|cx| {
        match to_mta.poll(cx, client, &mut mta) {
            // What the MTA has still to say, its reason perhaps, reaches the client first.
            Poll::Ready(Ok(()) | Err(End::Writing(_))) | Poll::Pending => {}
            Poll::Ready(Err(End::Reading(error))) => return Poll::Ready(Err(error)),
        }
        to_client.poll(cx, &mut mta, client).map_err(End::into_error)
    })
    .await?;
    // Whether or not the client says more: it has heard everything.
    let rest = async {
        if poll_fn(|cx| to_mta.poll(cx, client, &mut mta)).await.is_err() {
            // A socket closed with unread input resets the connection, and the last words may be lost with it.
            tokio::io::copy(client, &mut tokio::io::sink()).await.ok();
        }
    };
    timeout(AFTER_THE_MTA, rest).await.ok();
    Ok(())
}

/// Why a direction ended early.
#[derive(Debug)]
enum End {
    Reading(io::Error),
    Writing(io::Error),
}

impl End {
    fn into_error(self) -> io::Error {
        match self {
            Self::Reading(error) | Self::Writing(error) => error,
        }
    }
}

/// One direction of a relay.
#[derive(Debug, Default)]
struct Direction {
    /// Read and not yet written.
    waiting: Bytes,
    /// Something was written that the writer may still hold.
    unflushed: bool,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Copying,
    /// The reader has ended; the writer is to hear of it.
    Ending,
    Done,
    /// The writer takes no more.
    Broken,
}

impl Direction {
    fn poll<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<Result<(), End>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            match self.phase {
                Phase::Copying => {
                    let step = self.step(cx, from, to);
                    if let Poll::Ready(Err(End::Writing(_))) = &step {
                        self.phase = Phase::Broken;
                        self.waiting = Bytes::new();
                    }
                    ready!(step)?;
                }
                Phase::Ending => {
                    // A writer that is gone has heard.
                    let _ = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                    self.phase = Phase::Done;
                }
                Phase::Done => return Poll::Ready(Ok(())),
                Phase::Broken => return Poll::Ready(Err(End::Writing(io::ErrorKind::BrokenPipe.into()))),
            }
        }
    }

    /// Writes what waits, then reads once and writes that.
    fn step<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<Result<(), End>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        while !self.waiting.is_empty() {
            let count = ready!(write(cx, to, &self.waiting))?;
            self.waiting.advance(count);
        }
        PIECES.with_borrow_mut(|piece| {
            let mut piece = ReadBuf::new(piece);
            match Pin::new(from).poll_read(cx, &mut piece).map_err(End::Reading)? {
                Poll::Ready(()) if piece.filled().is_empty() => self.phase = Phase::Ending,
                Poll::Ready(()) => {
                    self.unflushed = true;
                    let mut rest = piece.filled();
                    while !rest.is_empty() {
                        match write(cx, to, rest)? {
                            Poll::Ready(count) => rest = &rest[count..],
                            Poll::Pending => {
                                self.waiting = Bytes::copy_from_slice(rest);
                                return Poll::Pending;
                            }
                        }
                    }
                }
                Poll::Pending => {
                    if self.unflushed {
                        ready!(Pin::new(to).poll_flush(cx)).map_err(End::Writing)?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
            Poll::Ready(Ok(()))
        })
    }
}

/// Writes some of these bytes; none is an error.
fn write<W: AsyncWrite + Unpin>(cx: &mut Context<'_>, to: &mut W, bytes: &[u8]) -> Poll<Result<usize, End>> {
    match ready!(Pin::new(to).poll_write(cx, bytes)) {
        Ok(0) => Poll::Ready(Err(End::Writing(io::ErrorKind::WriteZero.into()))),
        Ok(count) => Poll::Ready(Ok(count)),
        Err(error) => Poll::Ready(Err(End::Writing(error))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, DuplexStream, duplex};

    use super::*;

    type Relayed = (DuplexStream, DuplexStream, tokio::task::JoinHandle<io::Result<()>>);

    /// A relay between a client and an MTA over pipes of some size; the test holds the far ends.
    fn relayed(size: usize) -> Relayed {
        let (client, mut near_client) = duplex(size);
        let (mta, near_mta) = duplex(size);
        let task = tokio::spawn(async move { both_ways(&mut near_client, near_mta).await });
        (client, mta, task)
    }

    #[tokio::test]
    async fn a_half_close_leaves_the_other_half() {
        let (mut client, mut mta, task) = relayed(64);
        client.write_all(b"DATA\r\n").await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = String::new();
        mta.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "DATA\r\n");
        mta.write_all(b"354 go\r\n").await.unwrap();
        drop(mta);
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "354 go\r\n");
        task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn an_mta_that_closes_its_half_hears_the_client_out() {
        let (mut client, mut mta, task) = relayed(64);
        mta.write_all(b"221 bye\r\n").await.unwrap();
        mta.shutdown().await.unwrap();
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "221 bye\r\n");
        client.write_all(b"NOOP\r\n").await.unwrap();
        drop(client);
        let mut heard = String::new();
        mta.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "NOOP\r\n");
        task.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_vanished_does_not_hold_the_relay_once_the_mta_has_closed() {
        let (client, mta, task) = relayed(64);
        drop(mta);
        task.await.unwrap().unwrap();
        drop(client);
    }

    #[tokio::test]
    async fn the_mtas_last_words_reach_a_client_that_goes_on_sending() {
        let (mut client, mut mta, task) = relayed(64);
        mta.write_all(b"421 4.7.0 enough\r\n").await.unwrap();
        drop(mta);
        // More than the pipes hold: the writer is stuck until somebody throws it away.
        let sending = tokio::spawn(async move {
            let sent = client.write_all(&[b'x'; 4096]).await;
            (client, sent)
        });
        let (mut client, sent) = sending.await.unwrap();
        sent.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "421 4.7.0 enough\r\n");
        task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_reader_that_stops_holds_up_the_writer_and_loses_nothing() {
        let (mut client, mut mta, task) = relayed(64);
        let flood: Vec<u8> = (0..1_u32 << 18).flat_map(u32::to_be_bytes).collect();
        let stuck = timeout(Duration::from_millis(200), client.write_all(&flood)).await;
        assert!(stuck.is_err(), "a megabyte went somewhere");
        // How much of it was taken before is not known: the rest begins where the reader is.
        let taken = {
            let mut first = vec![0; 1];
            mta.read_exact(&mut first).await.unwrap();
            let reader = tokio::spawn(async move {
                let mut heard = first;
                mta.read_to_end(&mut heard).await.unwrap();
                heard
            });
            drop(client);
            reader.await.unwrap()
        };
        assert_eq!(taken[..], flood[..taken.len()], "in order, and nothing twice");
        assert!(taken.len() <= PIECE + 3 * 64, "{} bytes were on their way", taken.len());
        task.await.unwrap().unwrap();
    }
}
