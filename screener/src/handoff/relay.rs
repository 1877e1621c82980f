//! After the handoff: bytes, both ways, until both sides are done.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::HandedOff;

/// How long a client may go on after the MTA has closed. The MTA has its own timers for a client that is silent; once it
/// has hung up there is nobody left to talk to.
const AFTER_THE_MTA: Duration = Duration::from_secs(5);

/// Gives the client the reply it waits for, then copies both ways. A side that closes its half is told on, the other half
/// goes on. A slow reader holds up its peer: nothing is kept but one small buffer for each direction.
///
/// # Errors
/// When either connection breaks.
pub async fn copy<C>(client: &mut C, handed_off: HandedOff) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let HandedOff { reply, mut mta } = handed_off;
    client.write_all(&reply).await?;
    // Normally empty: what the MTA sent behind its reply.
    client.write_all(&mta.input.split()).await?;
    let (mut client_reads, mut client_writes) = tokio::io::split(client);
    let (mut mta_reads, mut mta_writes) = tokio::io::split(mta.stream);
    let to_mta = async {
        tokio::io::copy(&mut client_reads, &mut mta_writes).await?;
        mta_writes.shutdown().await
    };
    let to_client = async {
        tokio::io::copy(&mut mta_reads, &mut client_writes).await?;
        client_writes.shutdown().await
    };
    tokio::pin!(to_mta, to_client);
    tokio::select! {
        done = &mut to_mta => {
            done?;
            to_client.await
        }
        done = &mut to_client => {
            done?;
            // Whether or not it says more: it has heard everything.
            timeout(AFTER_THE_MTA, to_mta).await.unwrap_or(Ok(()))
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};

    use super::*;
    use crate::config::BackendAddress;
    use crate::handoff::mta::Mta;

    /// A relay between a client and an MTA; the test holds the far ends.
    fn relayed(reply: &'static str) -> (DuplexStream, DuplexStream, tokio::task::JoinHandle<io::Result<()>>) {
        let (client, mut near_client) = duplex(64);
        let (mta, near_mta) = duplex(64);
        let backend = BackendAddress::Unix("/nowhere".into());
        let mta_side = Mta { backend, stream: Box::pin(near_mta), input: BytesMut::from("250 pipelined\r\n") };
        let handed_off = HandedOff { reply: Bytes::from(reply), mta: mta_side };
        let task = tokio::spawn(async move { copy(&mut near_client, handed_off).await });
        (client, mta, task)
    }

    #[tokio::test]
    async fn the_reply_comes_first_and_a_half_close_leaves_the_other_half() {
        let (mut client, mut mta, task) = relayed("250 rcpt\r\n");
        client.write_all(b"DATA\r\n").await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = String::new();
        mta.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "DATA\r\n");
        mta.write_all(b"354 go\r\n").await.unwrap();
        drop(mta);
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "250 rcpt\r\n250 pipelined\r\n354 go\r\n");
        task.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_vanished_does_not_hold_the_relay_once_the_mta_has_closed() {
        let (client, mta, task) = relayed("250 rcpt\r\n");
        drop(mta);
        task.await.unwrap().unwrap();
        drop(client);
    }

    #[tokio::test]
    async fn a_reader_that_stops_holds_up_the_writer() {
        let (mut client, mta, task) = relayed("250 rcpt\r\n");
        let flood = vec![b'x'; 1 << 20];
        let stuck = timeout(Duration::from_millis(200), client.write_all(&flood)).await;
        assert!(stuck.is_err(), "a megabyte went somewhere");
        drop((client, mta));
        // Whether the copy ends well or with an error is up to who noticed first.
        let _ = task.await.unwrap();
    }
}
