//! Events as postscreen's log lines, to the byte (reference/postscreen.md section 3.2): other tools parse them.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::session::{Arrival, Ceiling, Escaped, Event, Moment, Printable, TlsSession};

/// The line for an event of a session, without time and program.
pub fn line(arrival: &Arrival, event: &Event) -> String {
    let client = Endpoint(arrival.client);
    match event {
        Event::Connect => format!("CONNECT from {client} to {}", Endpoint(arrival.server)),
        Event::Allowlisted => format!("ALLOWLISTED {client}"),
        Event::Denylisted => format!("DENYLISTED {client}"),
        Event::AllowlistVeto => format!("ALLOWLIST VETO {client}"),
        Event::PassNew => format!("PASS NEW {client}"),
        Event::PassOld => format!("PASS OLD {client}"),
        Event::Linked(other, name) => format!("LINKED {client} with [{other}]: both are addresses of {name}"),
        Event::Pregreet(count, after, said) => {
            format!("PREGREET {count} after {} from {client}: {}", Span(*after), Escaped(said))
        }
        Event::DnsblRank(score) => format!("DNSBL rank {score} for {client}"),
        Event::Hangup(after, moment) => {
            let moment = match moment {
                Moment::BeforeHandshake => "before",
                Moment::AfterHandshake => "after",
            };
            format!("HANGUP after {} from {client} in tests {moment} SMTP handshake", Span(*after))
        }
        Event::Disconnect => format!("DISCONNECT {client}"),
        // postscreen writes the second without NOQUEUE and in another case, unlike its documentation; this is the
        // documented form, which parsers know (reference/postscreen.md section 9, item 4).
        Event::Limited(ceiling) => {
            let why = match ceiling {
                Ceiling::Client => "too many connections",
                Ceiling::Screening => "all screening ports busy",
                Ceiling::Server => "all server ports busy",
            };
            format!("NOQUEUE: reject: CONNECT from {client}: {why}")
        }
        // postscreen leaves out the colon behind the bracket.
        Event::KeywordsWithheld(keywords) => format!("{client}: discarding EHLO keywords: {keywords}"),
        // These three are ours alone.
        Event::EarlyHello(after, said) => {
            format!("EARLY EHLO after {} from {client}: {}", Span(*after), Escaped(said))
        }
        Event::Tarpit => format!("TARPIT {client}"),
        Event::TarpitFull => format!("TARPIT FULL {client}"),
        Event::Pipelining(verb, ahead) => {
            format!("COMMAND PIPELINING from {client} after {}: {}", Escaped(verb.as_bytes()), Escaped(ahead))
        }
        Event::NonSmtpCommand(verb, said) => {
            format!("NON-SMTP COMMAND from {client} after {}: {}", Escaped(verb.as_bytes()), Printable(said, 100))
        }
        Event::BareNewline(said) => format!("BARE NEWLINE from {client} after {}", Escaped(said)),
        Event::TimeLimit(verb) => format!("COMMAND TIME LIMIT from {client} after {}", Escaped(verb.as_bytes())),
        Event::CountLimit(verb) => format!("COMMAND COUNT LIMIT from {client} after {}", Escaped(verb.as_bytes())),
        Event::LengthLimit(verb) => format!("COMMAND LENGTH LIMIT from {client} after {}", Escaped(verb.as_bytes())),
        Event::TlsEstablished(TlsSession { protocol, cipher, bits, key_exchange }) => {
            let key_exchange = key_exchange.map_or_else(String::new, |name| format!(" key-exchange {name}"));
            // "Anonymous": the client has shown no certificate, as none was asked for.
            format!(
                "Anonymous TLS connection established from {client}: {protocol} with cipher {cipher} ({bits}/{bits} bits)\
                 {key_exchange}"
            )
        }
        Event::TlsFailed(why) => format!("TLS handshake failed for service=smtpd peer={client}: {why}"),
        Event::DataWithoutRcpt(verb) => format!("{verb} without valid RCPT from {client}"),
        Event::Reject { reply, from, to, proto, helo } => format!(
            "NOQUEUE: reject: RCPT from {client}: {reply}; from=<{}>, to=<{}>, proto={proto}, helo=<{}>",
            Printable(from, usize::MAX),
            Printable(to, usize::MAX),
            Printable(helo, usize::MAX)
        ),
    }
}

/// How an end of a connection is written, e.g. `[192.0.2.1]:25`.
pub fn endpoint(address: SocketAddr) -> String {
    Endpoint(address).to_string()
}

/// `[192.0.2.1]:25`, for both families.
struct Endpoint(SocketAddr);

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.ip() {
            IpAddr::V4(v4) => write!(f, "[{v4}]:{}", self.0.port()),
            IpAddr::V6(v6) => write!(f, "[{v6}]:{}", self.0.port()),
        }
    }
}

/// Seconds with two significant digits, at most two behind the point, no trailing zeros: Postfix's delay format.
struct Span(Duration);

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.0.as_secs_f64();
        if seconds >= 9.95 {
            return write!(f, "{seconds:.0}");
        }
        let digits = if seconds >= 0.995 { 1 } else { 2 };
        let mut text = String::new();
        write!(text, "{seconds:.digits$}")?;
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn arrival(client: &str) -> Arrival {
        let server = "198.51.100.10:25".parse().unwrap();
        Arrival { client: client.parse().unwrap(), server, ..Arrival::of_a_stranger() }
    }

    /// Each line of reference/postscreen.md section 3.2 that a session has, with the two irregular ones in the form that is
    /// documented and that parsers know.
    #[test]
    fn lines_are_postscreens_own() {
        let bytes = Bytes::from_static;
        let seconds = |tenths: u64| Duration::from_millis(100 * tenths);
        let reject = |reply: &str, helo| Event::Reject {
            reply: reply.to_owned(),
            from: bytes(b"a@b.test"),
            to: bytes(b"x@example.test"),
            proto: "ESMTP",
            helo: bytes(helo),
        };
        let listed = "550 5.7.1 Service unavailable; client [203.0.113.5] blocked using zen.test";
        let cases = [
            (Event::Connect, "CONNECT from [203.0.113.5]:34209 to [198.51.100.10]:25"),
            (Event::Allowlisted, "ALLOWLISTED [203.0.113.5]:34209"),
            (Event::Denylisted, "DENYLISTED [203.0.113.5]:34209"),
            (Event::AllowlistVeto, "ALLOWLIST VETO [203.0.113.5]:34209"),
            (Event::PassNew, "PASS NEW [203.0.113.5]:34209"),
            (Event::PassOld, "PASS OLD [203.0.113.5]:34209"),
            (
                Event::Pregreet(13, seconds(12), bytes(b"EHLO c.test\r\n")),
                "PREGREET 13 after 1.2 from [203.0.113.5]:34209: EHLO c.test\\r\\n",
            ),
            (Event::DnsblRank(3), "DNSBL rank 3 for [203.0.113.5]:34209"),
            (
                Event::Hangup(seconds(7), Moment::BeforeHandshake),
                "HANGUP after 0.7 from [203.0.113.5]:34209 in tests before SMTP handshake",
            ),
            (
                Event::Hangup(seconds(31), Moment::AfterHandshake),
                "HANGUP after 3.1 from [203.0.113.5]:34209 in tests after SMTP handshake",
            ),
            (Event::Disconnect, "DISCONNECT [203.0.113.5]:34209"),
            (
                Event::Pipelining("MAIL".into(), bytes(b"RCPT TO:<x@example.test>\r\n")),
                "COMMAND PIPELINING from [203.0.113.5]:34209 after MAIL: RCPT TO:<x@example.test>\\r\\n",
            ),
            (
                Event::NonSmtpCommand("CONNECT".into(), bytes(b"GET / HTTP/1.1")),
                "NON-SMTP COMMAND from [203.0.113.5]:34209 after CONNECT: GET / HTTP/1.1",
            ),
            (Event::BareNewline(bytes(b"EHLO c.test")), "BARE NEWLINE from [203.0.113.5]:34209 after EHLO c.test"),
            (Event::TimeLimit("CONNECT".into()), "COMMAND TIME LIMIT from [203.0.113.5]:34209 after CONNECT"),
            (Event::CountLimit("NOOP".into()), "COMMAND COUNT LIMIT from [203.0.113.5]:34209 after NOOP"),
            (Event::LengthLimit("CONNECT".into()), "COMMAND LENGTH LIMIT from [203.0.113.5]:34209 after CONNECT"),
            (Event::DataWithoutRcpt("DATA"), "DATA without valid RCPT from [203.0.113.5]:34209"),
            (Event::DataWithoutRcpt("BDAT"), "BDAT without valid RCPT from [203.0.113.5]:34209"),
            (
                reject(listed, b"c.test"),
                "NOQUEUE: reject: RCPT from [203.0.113.5]:34209: 550 5.7.1 Service unavailable; client [203.0.113.5] \
                 blocked using zen.test; from=<a@b.test>, to=<x@example.test>, proto=ESMTP, helo=<c.test>",
            ),
            (
                reject("450 4.3.2 Service currently unavailable", "\u{e4}\\\u{7}".as_bytes()),
                "NOQUEUE: reject: RCPT from [203.0.113.5]:34209: 450 4.3.2 Service currently unavailable; \
                 from=<a@b.test>, to=<x@example.test>, proto=ESMTP, helo=<\u{e4}\\?>",
            ),
            (
                Event::Limited(Ceiling::Client),
                "NOQUEUE: reject: CONNECT from [203.0.113.5]:34209: too many connections",
            ),
            (
                Event::Limited(Ceiling::Server),
                "NOQUEUE: reject: CONNECT from [203.0.113.5]:34209: all server ports busy",
            ),
            (
                Event::Limited(Ceiling::Screening),
                "NOQUEUE: reject: CONNECT from [203.0.113.5]:34209: all screening ports busy",
            ),
            (
                Event::TlsEstablished(TlsSession {
                    protocol: "TLSv1.3",
                    cipher: "TLS_AES_256_GCM_SHA384",
                    bits: 256,
                    key_exchange: Some("X25519"),
                }),
                "Anonymous TLS connection established from [203.0.113.5]:34209: TLSv1.3 with cipher \
                 TLS_AES_256_GCM_SHA384 (256/256 bits) key-exchange X25519",
            ),
            (
                Event::TlsFailed("lost connection".into()),
                "TLS handshake failed for service=smtpd peer=[203.0.113.5]:34209: lost connection",
            ),
            (Event::KeywordsWithheld("SIZE, DSN".into()), "[203.0.113.5]:34209: discarding EHLO keywords: SIZE, DSN"),
        ];
        let four = arrival("203.0.113.5:34209");
        for (event, expected) in cases {
            assert_eq!(line(&four, &event), expected);
        }
        assert_eq!(line(&arrival("[2001:db8::1]:25"), &Event::Disconnect), "DISCONNECT [2001:db8::1]:25");
    }

    /// What fail2ban's postfix filter bans by in its ddos mode (reference/postscreen.md section 3.2) must not be a line about
    /// a client that did nothing wrong.
    #[test]
    fn lines_of_our_own_look_like_none_of_postscreens() {
        let four = arrival("203.0.113.5:34209");
        let hello = Event::EarlyHello(Duration::from_millis(100), Bytes::from_static(b"EHLO c\r\n"));
        assert_eq!(line(&four, &hello), "EARLY EHLO after 0.1 from [203.0.113.5]:34209: EHLO c\\r\\n");
        assert_eq!(line(&four, &Event::Tarpit), "TARPIT [203.0.113.5]:34209");
        assert_eq!(line(&four, &Event::TarpitFull), "TARPIT FULL [203.0.113.5]:34209");
    }

    #[test]
    fn what_a_client_sent_is_escaped_and_cut_at_100_characters() {
        assert_eq!(Escaped(b"a\0\xff\\\n").to_string(), "a\\000\\377\\\\\\n");
        assert_eq!(Escaped(&[b'x'; 300]).to_string().len(), 100);
    }

    #[test]
    fn times_have_two_significant_digits() {
        let span = |ms| Span(Duration::from_millis(ms)).to_string();
        assert_eq!(
            [span(0), span(4), span(70), span(120), span(999), span(1_230), span(9_940), span(12_700)],
            ["0", "0", "0.07", "0.12", "1", "1.2", "9.9", "13"]
        );
    }
}
