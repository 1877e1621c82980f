//! After the handoff: bytes, both ways, until both sides are done.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy_bidirectional_with_sizes};

use super::HandedOff;

/// Bytes in flight in each direction. A mail of 20 MB goes through it 8 KiB at a time: a slow reader holds up its peer, and
/// memory stays what it is.
const BUFFER: usize = 8 * 1024;

/// Gives the client the reply it waits for, then copies until both sides have closed; a side that closes its half is
/// told on, the other half goes on. Returns the bytes from and to the client.
///
/// # Errors
/// When either connection breaks.
pub async fn copy<C>(client: &mut C, handed_off: HandedOff) -> io::Result<(u64, u64)>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let HandedOff { reply, mut mta } = handed_off;
    client.write_all(&reply).await?;
    // Normally empty: what the MTA sent behind its reply.
    client.write_all(&mta.input.split()).await?;
    copy_bidirectional_with_sizes(client, &mut mta.stream, BUFFER, BUFFER).await
}
