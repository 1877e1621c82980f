//! Giving a descriptor to a Postfix `pass` service, as postscreen does: the descriptor, four attributes that say who the client
//! is, and then waiting until the service has taken both (reference/postscreen.md section 4.1).
//!
//! A service that gets a descriptor without attributes takes its peer for a client on localhost, which may relay. So
//! descriptor and attributes go out in one message, and there is no way to make a message without the attributes: a
//! message that is cut off anywhere makes Postfix hang up.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::UnixStream;

use crate::proxy::{Header, Origin};

/// How long after an attempt to connect that found the service's queue full the next one comes: at first, and at most.
const PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Connects to the service. Its queue is short (Postfix's process limit): while it is full, tries again for as long as the
/// caller lets it.
///
/// Not by tokio's `connect`: it waits for an event, and a Unix socket is connected at once or not at all (connect(2)).
pub(super) async fn reach(service: &Path) -> io::Result<UnixStream> {
    let address = SockAddr::unix(service)?;
    let mut pause = PAUSE;
    loop {
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
        match socket.connect(&address) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(pause).await,
            Err(error) => return Err(error),
            Ok(()) => return UnixStream::from_std(socket.into()),
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Sends a descriptor over a new connection to the service.
pub(super) async fn send(channel: &UnixStream, descriptor: BorrowedFd<'_>, header: &Header) -> io::Result<()> {
    let message = message(header)?;
    let send = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        let descriptors = [descriptor];
        if !rights.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::Error::other("no room for a descriptor"));
        }
        Ok(sendmsg(channel.as_fd(), &[IoSlice::new(&message)], &mut rights, SendFlags::NOSIGNAL)?)
    };
    // At once, as nearly always: tokio would wait for the new socket's first event.
    let sent = match send() {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => channel.async_io(Interest::WRITABLE, send).await?,
        sent => sent?,
    };
    if sent == message.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Waits until the service has taken what was sent: it closes the connection then.
pub(super) async fn taken(mut channel: UnixStream) -> io::Result<()> {
    match channel.read(&mut [0]).await? {
        0 => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it speaks, so that it is no `pass` service; master.cf needs a line like `smtpd pass - - n - - smtpd`",
        )),
    }
}

/// A byte for the descriptor to travel with, then the attributes, each name and value ended by a NUL, and a NUL for the end.
fn message(header: &Header) -> io::Result<Vec<u8>> {
    let (client, server): (SocketAddr, SocketAddr) = match header.origin {
        Origin::Client { client, server } => (client, server),
        // Ourselves, on the host that Postfix runs on: what it would see of us if we came by TCP.
        Origin::Local => ((Ipv4Addr::LOCALHOST, 65535).into(), (Ipv4Addr::LOCALHOST, 25).into()),
        Origin::Unknown => return Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no client to name")),
    };
    let attributes = [
        ("client_address", client.ip().to_string()),
        ("client_port", client.port().to_string()),
        ("server_address", server.ip().to_string()),
        ("server_port", server.port().to_string()),
    ];
    let mut message = vec![0];
    for (name, value) in attributes {
        message.extend_from_slice(name.as_bytes());
        message.push(0);
        message.extend_from_slice(value.as_bytes());
        message.push(0);
    }
    message.push(0);
    Ok(message)
}

#[cfg(test)]
mod tests {
    use std::io::{IoSliceMut, Read, Write};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream as StdStream;

    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

    use super::*;

    fn client(client: &str, server: &str) -> Header {
        Header::for_client(client.parse().unwrap(), server.parse().unwrap())
    }

    /// What a `pass` service does: one byte with the descriptor, and the rest byte by byte.
    fn receive(service: &mut StdStream) -> (OwnedFd, Vec<u8>) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0xff];
        let got = recvmsg(&*service, &mut [IoSliceMut::new(&mut byte)], &mut rights, RecvFlags::empty()).unwrap();
        assert_eq!((got.bytes, byte), (1, [0]));
        let mut descriptors = rights.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        let descriptor = descriptors.next().expect("a descriptor").next().expect("a descriptor");
        let mut rest = Vec::new();
        service.set_nonblocking(true).unwrap();
        let _ = service.read_to_end(&mut rest);
        (descriptor, rest)
    }

    #[tokio::test]
    async fn a_descriptor_never_travels_without_its_four_attributes() {
        for (header, named) in [
            (client("203.0.113.7:49152", "192.0.2.10:25"), ["203.0.113.7", "49152", "192.0.2.10", "25"]),
            (client("[2001:db8::7]:1", "[2001:db8:25::10]:25"), ["2001:db8::7", "1", "2001:db8:25::10", "25"]),
            (Header::local(), ["127.0.0.1", "65535", "127.0.0.1", "25"]),
        ] {
            let (channel, service) = UnixStream::pair().unwrap();
            let mut service = service.into_std().unwrap();
            let (mut ours, theirs) = StdStream::pair().unwrap();
            send(&channel, theirs.as_fd(), &header).await.unwrap();
            drop(theirs);
            // All of it is there as soon as the descriptor is: nothing can come between them.
            let (descriptor, rest) = receive(&mut service);
            let names = ["client_address", "client_port", "server_address", "server_port"];
            let pairs: Vec<String> =
                names.iter().zip(named).map(|(name, value)| format!("{name}\0{value}\0")).collect();
            assert_eq!(String::from_utf8(rest).unwrap(), pairs.concat() + "\0");
            StdStream::from(descriptor).write_all(b"220").unwrap();
            let mut heard = String::new();
            ours.read_to_string(&mut heard).unwrap();
            assert_eq!(heard, "220", "the descriptor is the one that was sent");
            drop(service);
            taken(channel).await.unwrap();
        }
    }

    #[tokio::test]
    async fn nobody_is_passed_without_a_name() {
        let (channel, service) = UnixStream::pair().unwrap();
        let unknown = Header { origin: Origin::Unknown, tlvs: Vec::new() };
        send(&channel, channel.as_fd(), &unknown).await.unwrap_err();
        drop(channel);
        let mut heard = Vec::new();
        service.into_std().unwrap().read_to_end(&mut heard).unwrap_or_default();
        assert!(heard.is_empty(), "not even the descriptor went out");
    }

    #[tokio::test]
    async fn a_service_that_speaks_or_leaves_what_was_sent_has_taken_nothing() {
        let (channel, service) = UnixStream::pair().unwrap();
        service.into_std().unwrap().write_all(b"220 mx ESMTP\r\n").unwrap();
        assert!(taken(channel).await.unwrap_err().to_string().contains("`smtpd pass - - n - - smtpd`"));
        let (channel, service) = UnixStream::pair().unwrap();
        let (_ours, theirs) = StdStream::pair().unwrap();
        send(&channel, theirs.as_fd(), &Header::local()).await.unwrap();
        drop(service);
        assert_eq!(taken(channel).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}
