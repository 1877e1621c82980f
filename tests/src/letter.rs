//! A mail as a test writes it, and what a sender says became of it.
//!
//! Knows no program: [`crate::mailer`] sends, [`crate::mailbox`] shows what arrived.

use std::sync::atomic::{AtomicU32, Ordering};

/// A mail with its envelope.
#[derive(Clone, Debug)]
pub struct Letter {
    /// The `Message-ID`, without the angle brackets.
    pub id: String,
    /// The envelope sender. It chooses the way out: see [`crate::mailer::Way`].
    pub from: String,
    /// The envelope recipients, in the order in which the sender is told them.
    pub to: Vec<String>,
    /// What follows the head, with LF line ends.
    pub body: Vec<u8>,
    /// Asks the MTA for a notification of success (RFC 3461, `NOTIFY=SUCCESS`).
    pub notify: bool,
}

/// What a sender says of one recipient of a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fate {
    /// The recipient.
    pub to: String,
    /// Whether the sender takes the letter for delivered to it.
    pub accepted: bool,
    /// The sender's own words, with the MTA's reply in them.
    pub said: String,
}

/// Numbers the letters of a cell.
static WRITTEN: AtomicU32 = AtomicU32::new(0);

impl Letter {
    /// A short letter.
    #[must_use]
    pub fn new(from: &str, to: &[&str]) -> Self {
        let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
        Self {
            id: format!("letter{number}.{}", from.replace('@', "@at.")),
            from: from.to_owned(),
            to: to.iter().map(|&address| address.to_owned()).collect(),
            body: b"Hello.\n.\n..\n.dots at the start of a line\nFrom here on nothing.\n".to_vec(),
            notify: false,
        }
    }

    /// With another body.
    #[must_use]
    pub fn with_body(mut self, body: Vec<u8>) -> Self {
        self.body = body;
        self
    }

    /// Asking for a notification of success.
    #[must_use]
    pub fn with_notification(mut self) -> Self {
        self.notify = true;
        self
    }

    /// Head and body, with LF line ends.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        let mut text = format!(
            "From: <{from}>\nTo: {to}\nSubject: {id}\nMessage-ID: <{id}>\nDate: Mon, 02 Nov 2026 10:00:00 +0000\n\
             MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: {encoding}\n\n",
            from = self.from,
            to = self.to.join(", "),
            id = self.id,
            encoding = if self.body.is_ascii() { "7bit" } else { "8bit" },
        )
        .into_bytes();
        text.extend_from_slice(&self.body);
        text
    }
}

/// A body of at least `size` bytes in lines of 1 to 78: no two parts of it are alike, some lines begin with a dot, and
/// some are a dot.
#[must_use]
pub fn large_body(size: usize) -> Vec<u8> {
    const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.=";
    let mut body = Vec::with_capacity(size + 80);
    // Xorshift: the same body in every run.
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    while body.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let [first, length, ..] = state.to_le_bytes();
        if first < 8 {
            body.push(b'.');
        }
        let mut rest = state;
        for _ in 0..length % 78 {
            body.push(SIGNS[usize::from(rest.to_le_bytes()[0] & 63)]);
            rest = rest.rotate_right(7).wrapping_add(state);
        }
        body.push(b'\n');
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_body_has_legal_lines_and_dots() {
        let body = large_body(1_000_000);
        assert!(body.len() >= 1_000_000 && body.ends_with(b"\n"));
        let lines: Vec<&[u8]> = body.split(|&byte| byte == b'\n').collect();
        assert!(lines.iter().all(|line| line.len() <= 78));
        assert!(lines.contains(&b".".as_slice()) && lines.iter().any(|line| line.len() > 1 && line.starts_with(b".")));
        assert_eq!(body, large_body(1_000_000));
    }
}
