//! What EHLO offers: what the MTA offers, less what the engine cannot do on its behalf.

use bytes::{BufMut, BytesMut};

use super::Policy;
use super::reply::Reply;

/// Keywords never offered before the handoff (DESIGN.md section 5): the first three let a client send ahead, the others
/// need the MTA itself.
/// `X_PIPE_CONNECT` is what Exim called `PIPECONNECT` before it had a name.
const WITHHELD: [&str; 8] =
    ["PIPELINING", "PIPECONNECT", "X_PIPE_CONNECT", "CHUNKING", "AUTH", "XCLIENT", "XFORWARD", "ETRN"];

/// The EHLO keywords, with their parameters, a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    lines: Vec<String>,
    /// The MTA lets clients send EHLO before its greeting, so that who has talked to it may try that here.
    pipe_connect: bool,
}

impl Features {
    /// From the lines of an MTA's EHLO reply, without the first (its name) and without codes.
    pub fn from_mta<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut features = Self { lines: Vec::new(), pipe_connect: false };
        for line in lines {
            let keyword = keyword(line);
            let printable = line.bytes().all(|byte| (0x20..0x7f).contains(&byte));
            features.pipe_connect |=
                ["PIPECONNECT", "X_PIPE_CONNECT"].iter().any(|name| name.eq_ignore_ascii_case(keyword));
            if printable && !keyword.is_empty() && !WITHHELD.iter().any(|name| name.eq_ignore_ascii_case(keyword)) {
                features.lines.push(line.to_owned());
            }
        }
        features
    }

    /// Whether a keyword is offered.
    pub fn offers(&self, name: &str) -> bool {
        self.lines.iter().any(|line| keyword(line).eq_ignore_ascii_case(name))
    }

    /// The lines.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// Whether the MTA lets its clients speak before its greeting.
    pub(super) fn pipe_connect(&self) -> bool {
        self.pipe_connect
    }

    /// The reply to EHLO, and the keywords of the MTA that the operator does not want in it. `tls`: whether STARTTLS is
    /// offered at this point, by the MTA or by ourselves.
    pub(super) fn reply(&self, policy: &Policy, tls: bool) -> (Reply, Vec<&str>) {
        let (withheld, offered): (Vec<_>, Vec<_>) =
            self.lines.iter().map(String::as_str).partition(|line| policy.replies.withholds(keyword(line)));
        let ours = (tls && !self.offers("STARTTLS")).then_some("STARTTLS");
        let lines = offered.into_iter().filter(|line| tls || !line.eq_ignore_ascii_case("STARTTLS")).chain(ours);
        let mut wire = BytesMut::new();
        let mut names = std::iter::once(policy.hostname.as_str()).chain(lines).peekable();
        while let Some(name) = names.next() {
            wire.put_slice(if names.peek().is_some() { b"250-" } else { b"250 " });
            wire.put_slice(name.as_bytes());
            wire.put_slice(b"\r\n");
        }
        (Reply::raw(wire.freeze()), withheld.into_iter().map(keyword).collect())
    }
}

/// The first word of a line; `AUTH=` is an old form of `AUTH `.
fn keyword(line: &str) -> &str {
    line.split([' ', '=']).next().unwrap_or_default()
}

/// What nearly every MTA can do, for the time before the MTA could be asked. Nothing here that it might refuse later:
/// a client only uses what it needs.
impl Default for Features {
    fn default() -> Self {
        Self { lines: ["8BITMIME", "ENHANCEDSTATUSCODES"].map(str::to_owned).into(), pipe_connect: false }
    }
}
