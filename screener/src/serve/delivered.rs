//! Whether what was sent has reached the client: what a client sends before that, it sends without having read it.

use std::io;
use std::os::fd::AsRawFd as _;

use tokio::net::TcpStream;

/// Whether the client has acknowledged everything that was written.
///
/// Every data segment of TCP carries an acknowledgement of all that its sender has received (RFC 9293 section 3.10.7.4). So
/// where data has come and something of ours is still unacknowledged, the data was sent before our bytes arrived. The
/// opposite does not hold: an acknowledgement may overtake the reading of the data. This never accuses anybody wrongly.
pub(super) fn to_client(stream: &TcpStream) -> io::Result<bool> {
    let mut unacknowledged: libc::c_int = 0;
    // SAFETY: the descriptor is open for as long as `stream` is borrowed, and SIOCOUTQ (tcp(7); the same number as TIOCOUTQ)
    // writes one int to the address that is given.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut unacknowledged) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(unacknowledged == 0) }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn what_an_open_window_took_is_delivered_and_what_a_full_one_did_not_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        server.write_all(b"220 mx.test ESMTP\r\n").await.unwrap();
        client.read_exact(&mut [0; 19]).await.unwrap();
        assert!(to_client(&server).unwrap());
        while server.try_write(&[0; 65_536]).is_ok() {}
        assert!(!to_client(&server).unwrap());
    }
}
