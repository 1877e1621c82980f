//! What an MTA has delivered: a mailbox of files, one a mail.
//!
//! Every receiving MTA of the lab delivers `NAME@example.com` to the maildir `/var/mail/virtual/example.com/NAME`. Never
//! knows which MTA it was.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::host::{Host, User};
use crate::wait::until_or_show;

/// Where the mailboxes are.
const PLACE: &str = "/var/mail/virtual/example.com";

/// Whose the mailboxes are.
pub const OWNER: User = User { name: "vmail", id: 5000, home: "/var/mail/virtual" };

/// A mailbox.
#[derive(Clone, Debug)]
pub struct Mailbox {
    host: Host,
    address: String,
    place: String,
}

/// A delivered mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// Header fields in their order, unfolded: name and value.
    pub headers: Vec<(String, String)>,
    /// Everything after the first empty line; what is no UTF-8 is replaced.
    pub body: String,
    /// The same, byte for byte.
    pub bytes: Vec<u8>,
}

impl Mailbox {
    /// The mailbox of an address of example.com.
    #[must_use]
    pub fn of(host: &Host, address: &str) -> Self {
        let name = address.split('@').next().unwrap_or(address);
        Self { host: host.clone(), address: address.to_owned(), place: format!("{PLACE}/{name}/new") }
    }

    /// Makes the directory of all mailboxes and its owner.
    ///
    /// # Errors
    /// When one cannot be made.
    pub fn make_room(host: &Host) -> Result<()> {
        host.add_user(&OWNER)?;
        host.directory(OWNER.home, &OWNER, 0o755)?;
        host.directory(PLACE, &OWNER, 0o755)
    }

    /// The mail in it, oldest first.
    ///
    /// # Errors
    /// When the mailbox cannot be read; one that nobody has mailed yet is empty.
    pub fn mails(&self) -> Result<Vec<Mail>> {
        let read = |file| Ok(Mail::parse(&fs::read(file).context("reading a mail")?));
        self.files()?.into_iter().map(read).collect()
    }

    /// Waits until it holds `count` mails; `log` is the evidence that an error shows.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn wait_for_mail(&self, count: usize, timeout: Duration, log: impl Fn() -> String) -> Result<Vec<Mail>> {
        let what = format!("{count} mails in the mailbox");
        until_or_show(&what, timeout, log, || Ok((self.files()?.len() >= count).then_some(())))?;
        self.mails()
    }

    /// Waits for a mail with this `Message-ID` (without the angle brackets), which must be there once.
    ///
    /// # Errors
    /// When it does not come in time, or is there twice.
    pub fn wait_for_message(&self, id: &str, timeout: Duration, log: impl Fn() -> String) -> Result<Mail> {
        let what = format!("mail {id} in the mailbox of {}", self.address);
        let files = until_or_show(&what, timeout, log, || {
            let found = self.with_id(id)?;
            Ok((!found.is_empty()).then_some(found))
        })?;
        ensure!(files.len() == 1, "mail {id} is {} times in the mailbox of {}", files.len(), self.address);
        let file = files.first().context("one mail")?;
        Ok(Mail::parse(&fs::read(file).context("reading a mail")?))
    }

    /// How many mails have this `Message-ID`.
    ///
    /// # Errors
    /// When the mailbox cannot be read.
    pub fn count(&self, id: &str) -> Result<usize> {
        Ok(self.with_id(id)?.len())
    }

    /// Looks at the heads only: a mail may be large, and who waits looks often.
    fn with_id(&self, id: &str) -> Result<Vec<PathBuf>> {
        let mut found = self.files()?;
        let mut trouble = None;
        found.retain(|file| match head(file) {
            Ok(mail) => mail.has_id(id),
            Err(error) => {
                trouble = Some(error);
                false
            }
        });
        trouble.map_or(Ok(found), Err)
    }

    fn files(&self) -> Result<Vec<PathBuf>> {
        let place = self.host.path(&self.place);
        if !place.exists() {
            return Ok(Vec::new());
        }
        let mut files = Vec::new();
        for entry in fs::read_dir(&place).context("reading the mailbox")? {
            files.push(entry.context("reading the mailbox")?.path());
        }
        // A maildir name starts with the time: seconds, then the microseconds after an `M`.
        files.sort_by_key(|file| maildir_time(&file.display().to_string()));
        Ok(files)
    }
}

impl Mail {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(2).position(|pair| pair == b"\n\n");
        let (head, body) = match end {
            Some(end) => (&bytes[..end], &bytes[end + 2..]),
            None => (bytes, &bytes[bytes.len()..]),
        };
        let mut headers: Vec<(String, String)> = Vec::new();
        for line in String::from_utf8_lossy(head).lines() {
            if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = headers.last_mut() {
                    value.push(' ');
                    value.push_str(line.trim());
                }
            } else if let Some((name, value)) = line.split_once(':') {
                headers.push((name.to_owned(), value.trim().to_owned()));
            }
        }
        Self { headers, body: String::from_utf8_lossy(body).into_owned(), bytes: body.to_vec() }
    }

    /// The first header field of a name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter();
        all.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Whether this is its `Message-ID` (without the angle brackets).
    #[must_use]
    pub fn has_id(&self, id: &str) -> bool {
        self.header("Message-ID").is_some_and(|found| found.trim_matches(['<', '>']) == id)
    }

    /// Whether the topmost `Received` field, the MTA's own, names this client.
    #[must_use]
    pub fn was_received_from(&self, client: IpAddr) -> bool {
        // OpenSMTPD writes no `IPv6:` tag.
        let (shown, untagged) = match client {
            IpAddr::V4(address) => (format!("[{address}]"), format!("[{address}]")),
            IpAddr::V6(address) => (format!("[IPv6:{address}]"), format!("[{address}]")),
        };
        self.header("Received").is_some_and(|received| received.contains(&shown) || received.contains(&untagged))
    }
}

/// The head of a mail, and whatever follows it in the first 16 KiB.
fn head(file: &Path) -> Result<Mail> {
    let mut bytes = Vec::new();
    let mut reader = File::open(file).context("opening a mail")?.take(16 * 1024);
    reader.read_to_end(&mut bytes).context("reading the head of a mail")?;
    Ok(Mail::parse(&bytes))
}

fn maildir_time(path: &str) -> (u64, u64) {
    let name = path.rsplit('/').next().unwrap_or_default();
    let number = |text: &str| -> u64 {
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or_default()
    };
    let micros = name.split_once('M').map_or(0, |(_, rest)| number(rest));
    (number(name), micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folded_headers_are_one_value() {
        let mail = Mail::parse(b"Received: from a\n\tby b [IPv6:2001:db8::1]\nTo: c\n\nText\n");
        assert_eq!(mail.header("received"), Some("from a by b [IPv6:2001:db8::1]"));
        assert!(mail.was_received_from("2001:db8::1".parse().unwrap()));
        assert_eq!(mail.body, "Text\n");
    }

    #[test]
    fn a_mail_of_8_bits_is_kept_byte_for_byte() {
        let mail = Mail::parse(b"Message-ID: <7@x>\n\na\xff\nb\n\nc");
        assert!(mail.has_id("7@x") && !mail.has_id("7@"));
        assert_eq!(mail.bytes, b"a\xff\nb\n\nc");
    }

    #[test]
    fn mails_of_one_second_keep_their_order() {
        assert!(maildir_time("/new/17.Vfe01M999.mx") < maildir_time("/new/17.Vfe01M1000.mx"));
    }
}
