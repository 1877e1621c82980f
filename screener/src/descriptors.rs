//! A line and descriptors over a Unix socket (`SCM_RIGHTS`, unix(7)).
//!
//! Holds the two calls. Never knows what the line says; whatever came with a message that is refused is closed.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// The most descriptors in a message: the kernel's own limit (`SCM_MAX_FD`).
pub const MOST: usize = 253;
/// The longest line, its end included.
const LONGEST: usize = 64 * 1024;

/// Sends a line, which must hold no line end, and descriptors with it.
///
/// # Errors
/// When the other end is gone or takes nothing, or it is too much.
pub fn send(stream: &UnixStream, line: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    if line.len() >= LONGEST || descriptors.len() > MOST {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too much for one message"));
    }
    let bytes = [line.as_bytes(), b"\n"].concat();
    let mut rest = bytes.as_slice();
    let mut space = vec![MaybeUninit::uninit(); SendAncillaryMessage::ScmRights(descriptors).size()];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !rights.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one message"));
    }
    while !rest.is_empty() {
        let sent = match sendmsg(stream, &[IoSlice::new(rest)], &mut rights, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => continue,
            sent => sent?,
        };
        rest = &rest[sent..];
        // They went with the first byte.
        rights.clear();
    }
    Ok(())
}

/// Receives a line, without its end, and the descriptors that came with it. `None`: the other end has closed.
///
/// Reads no byte behind the line end: what follows may carry descriptors of its own.
///
/// # Errors
/// When nothing comes within the socket's own time limit, the line is too long or no text, or the other end is gone.
pub fn receive(stream: &UnixStream) -> io::Result<Option<(String, Vec<OwnedFd>)>> {
    let (mut line, mut descriptors) = (Vec::new(), Vec::new());
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    loop {
        // Byte by byte costs nothing here, a handful of lines in all.
        let mut byte = [0];
        let mut rights = RecvAncillaryBuffer::new(&mut space);
        let received = match recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut rights, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => continue,
            received => received?,
        };
        for message in rights.drain() {
            if let RecvAncillaryMessage::ScmRights(came) = message {
                descriptors.extend(came);
            }
        }
        match (received.bytes, byte) {
            (0, _) if line.is_empty() => return Ok(None),
            (0, _) => return Err(io::ErrorKind::UnexpectedEof.into()),
            (_, [b'\n']) => break,
            (_, [byte]) if line.len() < LONGEST => line.push(byte),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "a line without an end")),
        }
    }
    let line = String::from_utf8(line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Some((line, descriptors)))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn descriptors_arrive_with_their_line_and_work() {
        let (here, there) = UnixStream::pair().unwrap();
        let (given, mut kept) = UnixStream::pair().unwrap();
        send(&here, "first", &[]).unwrap();
        send(&here, "two", &[given.as_fd(), here.as_fd()]).unwrap();
        send(&here, &"x".repeat(LONGEST - 1), &[]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(receive(&there).unwrap().map(|(line, fds)| (line, fds.len())), Some(("first".to_owned(), 0)));
        let (line, fds) = receive(&there).unwrap().unwrap();
        assert_eq!((line.as_str(), fds.len()), ("two", 2));
        let mut copy = UnixStream::from(fds.into_iter().next().unwrap());
        copy.write_all(b"!").unwrap();
        let mut read = [0];
        kept.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"!");
        given.shutdown(std::net::Shutdown::Both).unwrap();
        assert_eq!(receive(&there).unwrap().unwrap().0.len(), LONGEST - 1);
        drop(here);
        assert!(receive(&there).unwrap().is_none(), "closed, and the copy of it too");
    }

    #[test]
    fn what_is_too_much_or_no_line_is_an_error_and_never_a_panic() {
        let (mut here, there) = UnixStream::pair().unwrap();
        assert_eq!(send(&here, &"x".repeat(LONGEST), &[]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        here.write_all(b"\xff\xfe\n").unwrap();
        assert_eq!(receive(&there).unwrap_err().kind(), io::ErrorKind::InvalidData);
        here.write_all(b"half").unwrap();
        drop(here);
        assert_eq!(receive(&there).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
