//! Netlink, as far as we need it: one question, its answer, and the attributes in it.
//!
//! Holds the wire form. Never asks for a change: the kernel's configuration is somebody else's.

use std::io::{self, Read, Write};

use socket2::{Domain, Protocol, Socket, Type};

// <linux/netlink.h>
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
/// The flag bits above an attribute's type.
const ATTRIBUTE_TYPE: u16 = 0x3fff;
/// The length of `nlmsghdr`.
const HEADER: usize = 16;

/// A question to one of netlink's families.
pub(super) struct Question {
    /// `NETLINK_ROUTE`, `NETLINK_GENERIC`.
    pub(super) protocol: libc::c_int,
    /// The type of the message.
    pub(super) kind: u16,
    /// The family's own header.
    pub(super) header: Vec<u8>,
}

impl Question {
    /// Adds an attribute.
    pub(super) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.header.extend(length.to_ne_bytes());
        self.header.extend(kind.to_ne_bytes());
        self.header.extend(value);
        self.header.resize(self.header.len().next_multiple_of(4), 0);
        self
    }

    /// Asks. The answer is the message behind netlink's header; what the kernel refuses is its errno.
    pub(super) fn ask(&self, answer_kind: u16) -> io::Result<Vec<u8>> {
        let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(Protocol::from(self.protocol)))?;
        (&socket).write_all(&self.wire())?;
        let mut answer = vec![0; 64 << 10];
        let length = (&socket).read(&mut answer)?;
        answer.truncate(length);
        body(answer, answer_kind)
    }

    fn wire(&self) -> Vec<u8> {
        let length = u32::try_from(HEADER + self.header.len()).unwrap_or(u32::MAX);
        let mut wire = Vec::from(length.to_ne_bytes());
        wire.extend(self.kind.to_ne_bytes());
        wire.extend(NLM_F_REQUEST.to_ne_bytes());
        wire.extend([0; 8]);
        wire.extend(&self.header);
        wire
    }
}

/// The first message of an answer, without its header.
pub(super) fn body(mut answer: Vec<u8>, kind: u16) -> io::Result<Vec<u8>> {
    let short = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let length = word(&answer).ok_or_else(short)? as usize;
    let met = half(answer.get(4..).ok_or_else(short)?).ok_or_else(short)?;
    answer.truncate(length);
    let body = answer.get(HEADER..).ok_or_else(short)?;
    if met == NLMSG_ERROR {
        let number = word(body).ok_or_else(short)?.cast_signed();
        return Err(io::Error::from_raw_os_error(number.saturating_neg()));
    }
    if met != kind {
        return Err(io::Error::other(format!("an answer of type {met}")));
    }
    Ok(body.to_vec())
}

/// The attributes of a netlink message: type and value.
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(half(self.0)?);
        let kind = half(self.0.get(2..)?)?;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & ATTRIBUTE_TYPE, value))
    }
}

/// 16 bits of the machine's own order.
pub(super) fn half(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|&half| u16::from_ne_bytes(half))
}

/// 32 bits of the machine's own order.
pub(super) fn word(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|&word| u32::from_ne_bytes(word))
}

/// A text that ends with a zero byte.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_cut_off_is_an_error_or_an_answer_with_less_in_it() {
        let question = Question { protocol: 0, kind: 16, header: vec![0; 16] }.with(4, &1500u32.to_ne_bytes());
        let whole = question.with(99, b"odd").with(4, &9000u32.to_ne_bytes()).wire();
        let attributes: Vec<_> = Attributes(&body(whole.clone(), 16).unwrap()[16..]).map(|(kind, _)| kind).collect();
        assert_eq!(attributes, [4, 99, 4]);
        for length in 0..whole.len() {
            if let Ok(body) = body(whole[..length].to_vec(), 16) {
                assert!(Attributes(body.get(16..).unwrap_or_default()).count() <= 3);
            }
        }
    }

    #[test]
    fn what_the_kernel_refuses_is_its_errno() {
        let mut refusal = Question { protocol: 0, kind: NLMSG_ERROR, header: Vec::new() }.wire();
        refusal.extend((-libc::ENODEV).to_ne_bytes());
        let length = u32::try_from(refusal.len()).unwrap();
        refusal[..4].copy_from_slice(&length.to_ne_bytes());
        assert_eq!(body(refusal, 16).unwrap_err().raw_os_error(), Some(libc::ENODEV));
    }
}
