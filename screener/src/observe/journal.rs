//! The journal's own protocol (systemd's "Native Journal Protocol"): a datagram an entry, a line `NAME=value` a field.
//!
//! By it an entry has beside its text the session, the client, the kind of event, and the program's configured name; over
//! standard error the journal would learn none of these. Entries go through the sink as all lines do, so nobody waits for the
//! journal: here is what they look like there, and how they are sent on from it.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, sendmsg_addr};
use tracing::field::{Field, Visit};
use tracing::{Event, Level};
use tracing_subscriber::fmt::format::Writer;

use super::json::DECISION;

/// Where the journal takes entries.
const SOCKET: &str = "/run/systemd/journal/socket";
/// What ends an entry on its way through the sink: no field has an empty line.
const END: &str = "\n\n";
/// Mail, as Postfix says of its lines.
const FACILITY: u8 = 2;

/// Whether standard error is read by the journal: systemd.exec(5) on `JOURNAL_STREAM`. The variable alone says nothing, as it is
/// inherited by whoever is started with another standard error.
pub(super) fn reads_standard_error() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    fstat(io::stderr()).is_ok_and(|stderr| named == format!("{}:{}", stderr.st_dev, stderr.st_ino))
}

/// The way to the journal.
#[derive(Debug)]
pub(super) struct Journal(UnixDatagram);

impl Journal {
    /// # Errors
    /// When the journal takes no entries here.
    pub(super) fn open() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // What cannot be connected now is not to be found out with the first line that gets lost.
        UnixDatagram::unbound()?.connect(SOCKET)?;
        Ok(Self(socket))
    }
}

impl Journal {
    /// Sends an entry of any length, as the protocol has it: in a file without a name that can change no more.
    fn send_as_file(&self, entry: &[u8]) -> io::Result<()> {
        let mut file = File::from(memfd_create("journal-entry", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
        file.write_all(entry)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?;
        let files = [file.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        rights.push(SendAncillaryMessage::ScmRights(&files));
        sendmsg_addr(&self.0, &SocketAddrUnix::new(SOCKET)?, &[], &mut rights, SendFlags::empty())?;
        Ok(())
    }
}

impl Write for Journal {
    /// Sends the first of the entries.
    fn write(&mut self, entries: &[u8]) -> io::Result<usize> {
        let (entry, length) = first(entries);
        // By name each time: a journal that was started anew is found again.
        match self.0.send_to(entry, Path::new(SOCKET)) {
            // How long a datagram may be is the system's business: some 200 KiB, or what `net.core.wmem_default` says.
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => self.send_as_file(entry)?,
            sent => drop(sent?),
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The first entry, and how many bytes it takes with its end.
fn first(entries: &[u8]) -> (&[u8], usize) {
    match entries.windows(END.len()).position(|bytes| bytes == END.as_bytes()) {
        // The last field keeps the end of its line.
        Some(at) => (&entries[..=at], at + END.len()),
        None => (entries, entries.len()),
    }
}

/// Writes an event as an entry; `text` writes what it says.
pub(super) fn entry(
    writer: &mut Writer<'_>,
    program: &str,
    event: &Event<'_>,
    text: impl FnOnce(Writer<'_>) -> fmt::Result,
) -> fmt::Result {
    let priority = priority(*event.metadata().level());
    write!(writer, "PRIORITY={priority}\nSYSLOG_FACILITY={FACILITY}\nSYSLOG_IDENTIFIER={program}\n")?;
    if event.metadata().target() == DECISION {
        writer.write_str("SCREENER_EVENT=decision\n")?;
    }
    let mut fields = Fields { writer: writer.by_ref(), done: Ok(()) };
    event.record(&mut fields);
    fields.done?;
    writer.write_str("MESSAGE=")?;
    text(Writer::new(&mut OneLine::new(writer)))?;
    writer.write_str(END)
}

/// syslog's word for a level, as sd-daemon(3) has it too.
pub(super) fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// Writes the fields that an entry has beside its text.
struct Fields<'a> {
    writer: Writer<'a>,
    done: fmt::Result,
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let name = match field.name() {
            "session" => "SCREENER_SESSION",
            "client" => "SCREENER_CLIENT",
            "kind" => "SCREENER_EVENT",
            _ => return,
        };
        self.done = self.done.and_then(|()| {
            write!(self.writer, "{name}=")?;
            write!(OneLine::new(&mut self.writer), "{value:?}")?;
            self.writer.write_str("\n")
        });
    }
}

/// What is written through it has no line breaks: spaces in their place, and nothing for those at the end.
struct OneLine<'a, W> {
    out: &'a mut W,
    breaks: usize,
}

impl<'a, W> OneLine<'a, W> {
    fn new(out: &'a mut W) -> Self {
        Self { out, breaks: 0 }
    }
}

impl<W: fmt::Write> fmt::Write for OneLine<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive('\n') {
            let words = part.strip_suffix('\n').unwrap_or(part);
            if !words.is_empty() {
                for _ in 0..std::mem::take(&mut self.breaks) {
                    self.out.write_char(' ')?;
                }
                self.out.write_str(words)?;
            }
            self.breaks += usize::from(words.len() < part.len());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_ends_where_the_next_begins() {
        let entries = b"PRIORITY=6\nMESSAGE=one\n\nPRIORITY=4\nMESSAGE=two\n\n";
        let (one, length) = first(entries);
        assert_eq!(one, b"PRIORITY=6\nMESSAGE=one\n");
        let (two, rest) = first(&entries[length..]);
        assert_eq!((two, length + rest), (&b"PRIORITY=4\nMESSAGE=two\n"[..], entries.len()));
    }

    #[test]
    fn a_text_stays_on_its_line() {
        let mut line = String::new();
        let mut writer = OneLine::new(&mut line);
        for part in ["\na", "b\n", "\nc\n", "\n"] {
            writer.write_str(part).unwrap();
        }
        assert_eq!(line, " ab  c");
    }
}
