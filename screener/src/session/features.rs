//! What EHLO offers: what the MTA offers, less what the engine cannot do on its behalf.

use bytes::{BufMut, BytesMut};

use super::Policy;
use super::reply::Reply;

/// Keywords never offered before the handoff (DESIGN.md section 5): the first three let a client send ahead, the others
/// need the MTA itself.
const WITHHELD: [&str; 7] = ["PIPELINING", "PIPECONNECT", "CHUNKING", "AUTH", "XCLIENT", "XFORWARD", "ETRN"];

/// The EHLO keywords, with their parameters, a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features(Vec<String>);

impl Features {
    /// From the lines of an MTA's EHLO reply, without the first (its name) and without codes.
    pub fn from_mta<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let usable = |line: &&str| {
            let keyword = line.split([' ', '=']).next().unwrap_or_default();
            !keyword.is_empty()
                && line.bytes().all(|byte| (0x20..0x7f).contains(&byte))
                && !WITHHELD.iter().any(|withheld| withheld.eq_ignore_ascii_case(keyword))
        };
        Self(lines.into_iter().filter(usable).map(str::to_owned).collect())
    }

    /// Whether a keyword is offered.
    pub fn offers(&self, keyword: &str) -> bool {
        self.0.iter().any(|line| line.split(' ').next().is_some_and(|word| word.eq_ignore_ascii_case(keyword)))
    }

    /// The lines.
    pub fn lines(&self) -> &[String] {
        &self.0
    }

    /// The reply to EHLO. `tls`: whether STARTTLS is offered at this point, by the MTA or by ourselves.
    pub(super) fn reply(&self, policy: &Policy, tls: bool) -> Reply {
        let mut wire = BytesMut::new();
        let is_tls = |line: &str| line.eq_ignore_ascii_case("STARTTLS");
        let ours = (tls && !self.offers("STARTTLS")).then_some("STARTTLS");
        let lines = self.0.iter().map(String::as_str).filter(|line| tls || !is_tls(line)).chain(ours);
        let mut names = std::iter::once(policy.hostname.as_str()).chain(lines).peekable();
        while let Some(name) = names.next() {
            wire.put_slice(if names.peek().is_some() { b"250-" } else { b"250 " });
            wire.put_slice(name.as_bytes());
            wire.put_slice(b"\r\n");
        }
        Reply::raw(wire.freeze())
    }
}

/// What nearly every MTA can do, for the time before the MTA could be asked. Nothing here that it might refuse later:
/// a client only uses what it needs.
impl Default for Features {
    fn default() -> Self {
        Self(["8BITMIME", "ENHANCEDSTATUSCODES"].map(str::to_owned).into())
    }
}
