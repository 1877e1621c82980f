//! A line as an SMTP command.
//!
//! Holds the verbs, the two arguments that the engine must understand (an address behind `FROM:` or `TO:`), and the signs
//! of a peer that does not speak SMTP at all. The arguments are kept as sent: the MTA judges them.

use bytes::Bytes;

use super::forbidden::Forbidden;
use super::line::{Line, Text};

/// What a line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Helo,
    Ehlo,
    Mail,
    Rcpt,
    Data,
    Bdat,
    Rset,
    Noop,
    Quit,
    Vrfy,
    StartTls,
    /// A command that postscreen knows and the engine does not carry out.
    Other,
    /// None that postscreen knows.
    Unknown,
}

/// A command with its argument.
#[derive(Clone, Debug)]
pub(super) struct Command {
    pub(super) verb: Verb,
    /// The first word as sent, at most 32 bytes, for the log.
    pub(super) name: String,
    /// What follows the first word, without the white space around it.
    pub(super) argument: Bytes,
}

impl Command {
    pub(super) fn parse(line: &Bytes) -> Self {
        let line = line.slice_ref(line.trim_ascii());
        let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
        let name = String::from_utf8_lossy(&line[..end.min(32)]).into_owned();
        let verb = match name.to_ascii_uppercase().as_str() {
            "HELO" => Verb::Helo,
            "EHLO" => Verb::Ehlo,
            "MAIL" => Verb::Mail,
            "RCPT" => Verb::Rcpt,
            "DATA" => Verb::Data,
            "BDAT" => Verb::Bdat,
            "RSET" => Verb::Rset,
            "NOOP" => Verb::Noop,
            "QUIT" => Verb::Quit,
            "VRFY" => Verb::Vrfy,
            "STARTTLS" => Verb::StartTls,
            "AUTH" | "ETRN" | "XCLIENT" | "XFORWARD" => Verb::Other,
            _ => Verb::Unknown,
        };
        let argument = line.slice_ref(line[end..].trim_ascii());
        Self { verb, name, argument }
    }

    /// How postscreen's log calls the command once it has been carried out.
    pub(super) fn label(&self) -> String {
        match self.verb {
            Verb::Unknown => "UNIMPLEMENTED".to_owned(),
            _ => self.name.to_ascii_uppercase(),
        }
    }

    /// Why this is something other than SMTP, if it is: a word that no mail client begins with, a mail header, or no text
    /// at all (reference/postscreen.md section 1.4).
    pub(super) fn non_smtp<'a>(&self, line: &Line, forbidden: &'a Forbidden) -> Option<&'a str> {
        if self.verb != Verb::Unknown {
            return None;
        }
        let first = line.bytes.trim_ascii_start();
        let word = first.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        if is_header(first) {
            return Some("a mail header");
        }
        if line.text == Text::Binary {
            return Some("no text");
        }
        forbidden.says(word)
    }

    /// The address of `MAIL FROM:<…>` or `RCPT TO:<…>`, without the brackets; `None` if there is none.
    ///
    /// As lenient as Postfix's smtpd is by default (white space behind the colon, no brackets): the MTA gets the line as
    /// it was sent and has the last word.
    pub(super) fn address(&self, keyword: &[u8]) -> Option<Bytes> {
        let colon = self.argument.iter().position(|&byte| byte == b':')?;
        if !self.argument[..colon].trim_ascii_end().eq_ignore_ascii_case(keyword) {
            return None;
        }
        let path = self.argument[colon + 1..].trim_ascii_start();
        let address = match path.strip_prefix(b"<") {
            Some(rest) => {
                let end = closing_bracket(rest)?;
                // Parameters stand behind a space (RFC 5321 section 4.1.2).
                if rest.get(end + 1).is_some_and(|&byte| byte != b' ') {
                    return None;
                }
                &rest[..end]
            }
            None => &path[..path.iter().position(|&byte| byte == b' ').unwrap_or(path.len())],
        };
        let bracketed = path.starts_with(b"<");
        (bracketed || !address.is_empty()).then(|| self.argument.slice_ref(address))
    }
}

/// Where the `>` of a path stands: not within a quoted local part.
fn closing_bracket(path: &[u8]) -> Option<usize> {
    let mut quoted = false;
    let mut escaped = false;
    for (position, &byte) in path.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Some(position),
            _ => {}
        }
    }
    None
}

/// `Word:` at the start of a line, as in a mail header. With a space before the colon postscreen takes it for a command.
fn is_header(line: &[u8]) -> bool {
    line.iter().position(|&byte| byte == b':').is_some_and(|colon| {
        colon > 0 && line[..colon].iter().all(|&byte| byte == b'-' || byte.is_ascii_alphanumeric())
    })
}

#[cfg(test)]
mod tests {
    use super::super::line::{self, Taken};
    use super::*;

    fn command(line: &'static str) -> Command {
        Command::parse(&Bytes::from_static(line.as_bytes()))
    }

    #[test]
    fn a_verb_is_known_in_any_case_and_keeps_its_argument_as_sent() {
        let command = command("mAiL  FROM:<A@b.test> SIZE=1 ");
        assert_eq!(command.verb, Verb::Mail);
        assert_eq!((command.name.as_str(), command.label().as_str()), ("mAiL", "MAIL"));
        assert_eq!(command.argument, "FROM:<A@b.test> SIZE=1");
    }

    #[test]
    fn the_address_stands_between_brackets_or_up_to_a_space() {
        let from = |line| command(line).address(b"FROM").map(|address| String::from_utf8_lossy(&address).into_owned());
        assert_eq!(from("MAIL FROM:<a@b.test> SIZE=1").as_deref(), Some("a@b.test"));
        assert_eq!(from("MAIL FROM:<>").as_deref(), Some(""));
        assert_eq!(from("MAIL from: a@b.test BODY=7BIT").as_deref(), Some("a@b.test"));
        assert_eq!(from("MAIL FROM:<\"a>b\\\"c\"@d.test>").as_deref(), Some("\"a>b\\\"c\"@d.test"));
        for wrong in
            ["MAIL", "MAIL FROM", "MAIL FROM:", "MAIL TO:<a@b>", "MAIL FROM:<a@b", "MAIL a@b", "MAIL FROM:<a@b>x"]
        {
            assert_eq!(from(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn http_headers_and_binary_are_no_smtp_and_unknown_words_are() {
        let forbidden = Forbidden::default();
        let non_smtp = |text: &[u8]| {
            let mut input = bytes::BytesMut::from(text);
            input.extend_from_slice(b"\r\n");
            let Taken::Line(line) = line::take(&mut input, 100) else { panic!("{text:?}") };
            Command::parse(&line.bytes).non_smtp(&line, &forbidden).is_some()
        };
        for line in ["GET / HTTP/1.1", "post /x", "CONNECT a:25 HTTP/1.0", "Subject: x", "X-Y: z", "\u{16}\u{3}", "1"] {
            assert!(non_smtp(line.as_bytes()), "{line}");
        }
        for line in ["XYZZY 1", "MAIL FROM:<a@b>", "HELP", "RCPT TO: x", "", "Subject : x", "GRÜSSE"] {
            assert!(!non_smtp(line.as_bytes()), "{line}");
        }
        assert!(non_smtp(b"A\xff\xfe"));
    }
}
