//! One command line, classified before anything is normalised.
//!
//! What is thrown away here can never be tested again: the line keeps how it ended and what was odd in it.

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};

/// A complete line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Without CR LF or LF at the end; everything else as sent.
    pub(super) bytes: Bytes,
    /// What is odd about it.
    pub(super) flaws: Flaws,
    /// What kind of text it is.
    pub(super) text: Text,
}

/// Where a line breaks the rule that CR and LF only occur together, at its end (RFC 5321 section 2.3.8), and that there
/// is no NUL (section 4.1.1.4: commands are printable). Each is a way to make two servers see different lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flaws {
    /// The LF at the end had no CR.
    pub(super) bare_lf: bool,
    /// A CR stands somewhere else than before the LF; CR CR LF is such a line.
    pub(super) bare_cr: bool,
    /// A NUL.
    pub(super) nul: bool,
}

impl Flaws {
    /// Whether there is any.
    pub(super) fn any(self) -> bool {
        self.bare_lf || self.bare_cr || self.nul
    }

    /// Whether something stands within the line that may not be shown to the MTA as part of a command.
    pub(super) fn within(self) -> bool {
        self.bare_cr || self.nul
    }
}

/// For a reason: `a bare LF and a NUL`.
impl fmt::Display for Flaws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = [(self.bare_lf, "a bare LF"), (self.bare_cr, "a bare CR"), (self.nul, "a NUL")];
        let mut found = found.into_iter().filter(|(there, _)| *there);
        if let Some((_, first)) = found.next() {
            f.write_str(first)?;
        }
        found.try_for_each(|(_, name)| write!(f, " and {name}"))
    }
}

/// What kind of text a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Text {
    /// Seven bits.
    Ascii,
    /// UTF-8 with more than that: what SMTPUTF8 allows (RFC 6531 section 3.3).
    Utf8,
    /// Neither: no text.
    Binary,
}

/// What the input holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// A line, taken out of the input.
    Line(Line),
    /// No line end yet.
    Incomplete,
    /// More than the limit without a line end.
    TooLong,
}

/// Takes the first line, of at most `limit` bytes with its end.
pub(super) fn take(input: &mut BytesMut, limit: usize) -> Taken {
    let Some(newline) = input.iter().take(limit).position(|&byte| byte == b'\n') else {
        return if input.len() >= limit { Taken::TooLong } else { Taken::Incomplete };
    };
    let mut bytes = input.split_to(newline).freeze();
    input.advance(1);
    let crlf = bytes.last() == Some(&b'\r');
    if crlf {
        bytes.truncate(newline - 1);
    }
    let flaws = Flaws { bare_lf: !crlf, bare_cr: bytes.contains(&b'\r'), nul: bytes.contains(&0) };
    let text = if bytes.is_ascii() {
        Text::Ascii
    } else if std::str::from_utf8(&bytes).is_ok() {
        Text::Utf8
    } else {
        Text::Binary
    };
    Taken::Line(Line { bytes, flaws, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(input: &[u8]) -> (Taken, Vec<u8>) {
        let mut input = BytesMut::from(input);
        let taken = take(&mut input, 16);
        (taken, input.to_vec())
    }

    fn flaws(input: &[u8]) -> Flaws {
        match taken(input).0 {
            Taken::Line(line) => line.flaws,
            other => panic!("{other:?}"),
        }
    }

    const NONE: Flaws = Flaws { bare_lf: false, bare_cr: false, nul: false };

    fn line(bytes: &'static [u8], flaws: Flaws) -> Taken {
        Taken::Line(Line { bytes: Bytes::from_static(bytes), flaws, text: Text::Ascii })
    }

    #[test]
    fn a_line_ends_in_cr_lf_and_leaves_what_follows() {
        assert_eq!(taken(b"NOOP\r\nQU"), (line(b"NOOP", NONE), b"QU".to_vec()));
    }

    #[test]
    fn every_other_kind_of_line_end_is_told_apart() {
        assert_eq!(taken(b"NOOP\n").0, line(b"NOOP", Flaws { bare_lf: true, ..NONE }));
        assert_eq!(taken(b"NO\rOP\r\n").0, line(b"NO\rOP", Flaws { bare_cr: true, ..NONE }));
        assert_eq!(taken(b"NOOP\r\r\n").0, line(b"NOOP\r", Flaws { bare_cr: true, ..NONE }));
        assert_eq!(taken(b"NO\0OP\r\n").0, line(b"NO\0OP", Flaws { nul: true, ..NONE }));
        assert_eq!(flaws(b"\0\r\n\n").to_string(), "a NUL");
        assert_eq!(flaws(b"\0\rx\n").to_string(), "a bare LF and a bare CR and a NUL");
    }

    #[test]
    fn the_kind_of_text_is_told_apart() {
        let text = |input: &[u8]| match taken(input).0 {
            Taken::Line(line) => line.text,
            other => panic!("{other:?}"),
        };
        assert_eq!(text(b"NOOP\r\n"), Text::Ascii);
        assert_eq!(text("NOOP é\r\n".as_bytes()), Text::Utf8);
        assert_eq!(text(b"NOOP \xe9\r\n"), Text::Binary);
    }

    #[test]
    fn a_line_is_incomplete_until_its_newline() {
        assert_eq!(taken(b"").0, Taken::Incomplete);
        assert_eq!(taken(b"NOOP\r").0, Taken::Incomplete);
    }

    #[test]
    fn the_limit_counts_the_line_end() {
        assert_eq!(taken(b"12345678901234\r\n").0, line(b"12345678901234", NONE));
        assert_eq!(taken(b"123456789012345\r\n").0, Taken::TooLong);
    }
}
