//! One command line, classified before anything is normalised.
//!
//! What is thrown away here can never be tested again: the line keeps how it ended and what was odd in it.

use bytes::{Buf, Bytes, BytesMut};

/// A complete line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Without CR LF or LF at the end; everything else as sent.
    pub(super) bytes: Bytes,
    /// The LF at the end had no CR, or a CR, an LF or a NUL stands where SMTP has none (RFC 5321 section 2.3.8).
    pub(super) bare_newline: bool,
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
    let odd = bytes.iter().any(|&byte| byte == b'\r' || byte == 0);
    Taken::Line(Line { bytes, bare_newline: !crlf || odd })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(input: &[u8]) -> (Taken, Vec<u8>) {
        let mut input = BytesMut::from(input);
        let taken = take(&mut input, 16);
        (taken, input.to_vec())
    }

    fn line(bytes: &'static [u8], bare_newline: bool) -> Taken {
        Taken::Line(Line { bytes: Bytes::from_static(bytes), bare_newline })
    }

    #[test]
    fn a_line_ends_in_cr_lf_and_leaves_what_follows() {
        assert_eq!(taken(b"NOOP\r\nQU"), (line(b"NOOP", false), b"QU".to_vec()));
    }

    #[test]
    fn every_other_kind_of_line_end_is_a_bare_newline() {
        assert_eq!(taken(b"NOOP\n").0, line(b"NOOP", true));
        assert_eq!(taken(b"NO\rOP\r\n").0, line(b"NO\rOP", true));
        assert_eq!(taken(b"NOOP\r\r\n").0, line(b"NOOP\r", true));
        assert_eq!(taken(b"NO\0OP\r\n").0, line(b"NO\0OP", true));
    }

    #[test]
    fn a_line_is_incomplete_until_its_newline() {
        assert_eq!(taken(b"").0, Taken::Incomplete);
        assert_eq!(taken(b"NOOP\r").0, Taken::Incomplete);
    }

    #[test]
    fn the_limit_counts_the_line_end() {
        assert_eq!(taken(b"12345678901234\r\n").0, line(b"12345678901234", false));
        assert_eq!(taken(b"123456789012345\r\n").0, Taken::TooLong);
    }
}
