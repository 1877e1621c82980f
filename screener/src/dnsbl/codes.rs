//! Filters on the codes a list answers with. postscreen's syntax: `127.0.0.30`, `127.0.0.[2..3]`, `127.0.0.[4;7;9..11]`; and
//! two forms of our own: `127.0.0.&8` for lists whose answers are bit masks (every bit of 8 is set), `127.0.0.0/24` for all
//! under a prefix.
//!
//! Holds the parser and the match. Never weighs anything: that is the list's business.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A set of values of one octet.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Octets([u64; 4]);

impl Octets {
    fn insert(&mut self, value: u8) {
        self.0[usize::from(value >> 6)] |= 1 << (value & 63);
    }

    fn contains(self, value: u8) -> bool {
        self.0[usize::from(value >> 6)] & (1 << (value & 63)) != 0
    }

    /// The values as runs, each from its first to its last.
    fn runs(self) -> Vec<(u8, u8)> {
        let mut runs: Vec<(u8, u8)> = Vec::new();
        for value in (0..=u8::MAX).filter(|&value| self.contains(value)) {
            match runs.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(value) => *last = value,
                _ => runs.push((value, value)),
            }
        }
        runs
    }
}

/// Which of a list's answers are meant: four fields, each a number or a bracket of numbers and ranges.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CodeFilter([Octets; 4]);

impl CodeFilter {
    /// Whether an answer is meant.
    pub fn matches(&self, code: Ipv4Addr) -> bool {
        self.0.iter().zip(code.octets()).all(|(field, octet)| field.contains(octet))
    }
}

/// Why a text is no filter, and at which character.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "'{text}' is no filter for list answers: {problem} at character {position}; write 127.0.0.2 or 127.0.0.[2;4..7]"
)]
pub struct BadFilter {
    text: String,
    problem: &'static str,
    /// Counted from 1; one behind the end if something is missing there.
    position: usize,
}

/// What is left to read. Works on bytes: whatever is not ASCII is an error anyway.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, expected: &[u8]) -> bool {
        let found = self.text.as_bytes()[self.at..].starts_with(expected);
        self.at += if found { expected.len() } else { 0 };
        found
    }

    fn fail<T>(&self, at: usize, problem: &'static str) -> Result<T, BadFilter> {
        let before = self.text.as_bytes().iter().take(at);
        // Characters, not bytes: every byte that does not continue one begins one.
        let position = 1 + before.filter(|&&byte| byte & 0xc0 != 0x80).count();
        Err(BadFilter { text: self.text.to_owned(), problem, position })
    }

    fn number(&mut self) -> Result<u8, BadFilter> {
        let start = self.at;
        let mut value: u32 = 0;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            value = value.saturating_mul(10).saturating_add(u32::from(digit - b'0'));
            self.at += 1;
        }
        if self.at == start {
            return self.fail(start, "a number is expected");
        }
        u8::try_from(value).or_else(|_| self.fail(start, "the number is above 255"))
    }

    /// The values of a field, and the number if it is a plain one.
    fn field(&mut self) -> Result<(Octets, Option<u8>), BadFilter> {
        let mut field = Octets::default();
        if self.take(b"&") {
            let start = self.at;
            let bits = self.number()?;
            if bits == 0 {
                return self.fail(start, "no bit is set");
            }
            (0..=u8::MAX).filter(|value| value & bits == bits).for_each(|value| field.insert(value));
            return Ok((field, None));
        }
        if !self.take(b"[") {
            let number = self.number()?;
            field.insert(number);
            return Ok((field, Some(number)));
        }
        loop {
            let start = self.at;
            let first = self.number()?;
            let last = if self.take(b"..") { self.number()? } else { first };
            if last < first {
                return self.fail(start, "the range runs backwards");
            }
            (first..=last).for_each(|value| field.insert(value));
            if self.take(b"]") {
                return Ok((field, None));
            }
            if !self.take(b";") {
                return self.fail(self.at, "';', '..' or ']' is expected");
            }
        }
    }
}

/// The fields of everything under a prefix; `None`: bits behind the prefix are set.
fn under(address: [u8; 4], length: u8) -> Option<[Octets; 4]> {
    let mut fields = [Octets::default(); 4];
    for ((field, octet), before) in fields.iter_mut().zip(address).zip([0, 8, 16, 24]) {
        let fixed = length.saturating_sub(before).min(8);
        let mask = u8::MAX.checked_shl(u32::from(8 - fixed)).unwrap_or(0);
        if octet & !mask != 0 {
            return None;
        }
        (0..=u8::MAX).filter(|value| value & mask == octet).for_each(|value| field.insert(value));
    }
    Some(fields)
}

impl FromStr for CodeFilter {
    type Err = BadFilter;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut reader = Reader { text, at: 0 };
        let mut fields = [Octets::default(); 4];
        let mut numbers = [None; 4];
        for (index, field) in fields.iter_mut().enumerate() {
            if index > 0 && !reader.take(b".") {
                return reader.fail(reader.at, "'.' and another field are expected");
            }
            (*field, numbers[index]) = reader.field()?;
            if index == 0 && !field.contains(127) {
                return reader.fail(0, "lists answer within 127.0.0.0/8 only, so this matches nothing");
            }
        }
        if let [Some(a), Some(b), Some(c), Some(d)] = numbers
            && reader.take(b"/")
        {
            let start = reader.at;
            let length = reader.number()?;
            if !(8..=32).contains(&length) {
                return reader.fail(start, "a prefix within 127.0.0.0/8 has 8 to 32 bits");
            }
            match under([a, b, c, d], length) {
                Some(all) => fields = all,
                None => return reader.fail(0, "bits behind the prefix are set"),
            }
        }
        if reader.at < text.len() {
            return reader.fail(reader.at, "there is something behind the fourth field");
        }
        Ok(Self(fields))
    }
}

impl TryFrom<String> for CodeFilter {
    type Error = BadFilter;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<CodeFilter> for String {
    fn from(filter: CodeFilter) -> Self {
        filter.to_string()
    }
}

/// The shortest form: `127.0.0.[4;7;9..11]`.
impl fmt::Display for CodeFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, field) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            match field.runs().as_slice() {
                [(only, last)] if only == last => write!(f, "{only}")?,
                runs => {
                    for (index, (first, last)) in runs.iter().enumerate() {
                        f.write_str(if index == 0 { "[" } else { ";" })?;
                        if first == last { write!(f, "{first}")? } else { write!(f, "{first}..{last}")? }
                    }
                    f.write_str("]")?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for CodeFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CodeFilter({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter(text: &str) -> CodeFilter {
        text.parse().unwrap()
    }

    fn last_octets(filter: CodeFilter) -> Vec<u8> {
        (0..=255).filter(|&last| filter.matches([127, 0, 0, last].into())).collect()
    }

    #[test]
    fn numbers_ranges_and_sets_match_what_they_say() {
        assert_eq!(last_octets(filter("127.0.0.30")), [30]);
        assert_eq!(last_octets(filter("127.0.0.[2..3]")), [2, 3]);
        assert_eq!(last_octets(filter("127.0.0.[4;7;9..11]")), [4, 7, 9, 10, 11]);
        let trust = filter("127.0.[2..20].[1..3]");
        assert!(trust.matches([127, 0, 20, 1].into()));
        assert!(!trust.matches([127, 0, 21, 1].into()) && !trust.matches([127, 0, 2, 0].into()));
        assert!(filter("127.[0..255].[0..255].255").matches([127, 9, 255, 255].into()));
    }

    #[test]
    fn bits_and_prefixes_match_what_they_say() {
        let bit = filter("127.0.0.&8");
        assert!([8, 9, 15, 24, 255].iter().all(|&last| bit.matches([127, 0, 0, last].into())));
        assert!([1, 7, 16, 247].iter().all(|&last| !bit.matches([127, 0, 0, last].into())));
        let both = filter("127.0.1.&6");
        assert!(both.matches([127, 0, 1, 14].into()) && !both.matches([127, 0, 1, 2].into()));
        let prefix = filter("127.0.0.64/26");
        assert_eq!((last_octets(prefix).first(), last_octets(prefix).last()), (Some(&64), Some(&127)));
        let any = filter("127.0.0.0/8");
        assert!(any.matches([127, 9, 200, 1].into()) && !any.matches([126, 0, 0, 1].into()));
        assert_eq!(any.to_string(), "127.[0..255].[0..255].[0..255]");
        assert_eq!(filter("127.0.0.4/32"), filter("127.0.0.4"));
    }

    #[test]
    fn errors_say_what_and_where() {
        for (text, problem, position) in [
            ("", "a number is expected", 1),
            ("127.0.0", "'.' and another field are expected", 8),
            ("127.0.0.256", "the number is above 255", 9),
            ("127.0.0.99999999999999999999", "the number is above 255", 9),
            ("127.0.0.[2..", "a number is expected", 13),
            ("127.0.0.[2,3]", "';', '..' or ']' is expected", 11),
            ("127.0.0.[2", "';', '..' or ']' is expected", 11),
            ("127.0.0.[]", "a number is expected", 10),
            ("127.0.0.[9..4]", "the range runs backwards", 10),
            ("127.0.0.2*3", "there is something behind the fourth field", 10),
            ("10.0.0.2", "lists answer within 127.0.0.0/8 only, so this matches nothing", 1),
            ("127.0.0.&0", "no bit is set", 10),
            ("127.0.0.&256", "the number is above 255", 10),
            ("127.0.0.1/24", "bits behind the prefix are set", 1),
            ("127.0.0.0/7", "a prefix within 127.0.0.0/8 has 8 to 32 bits", 11),
            ("127.0.0.[2]/32", "there is something behind the fourth field", 12),
            ("127.0.ä.2", "a number is expected", 7),
            ("127.0.0.2 ", "there is something behind the fourth field", 10),
        ] {
            let error = text.parse::<CodeFilter>().unwrap_err();
            assert_eq!((error.problem, error.position), (problem, position), "{text}");
        }
    }

    #[test]
    fn the_shortest_form_is_written() {
        assert_eq!(filter("127.0.0.[4;5;6;9]").to_string(), "127.0.0.[4..6;9]");
        assert_eq!(filter("127.0.0.[2]").to_string(), "127.0.0.2");
        let json = serde_json::to_string(&filter("127.0.0.[2..3]")).unwrap();
        assert_eq!(serde_json::from_str::<CodeFilter>(&json).unwrap(), filter("127.0.0.[2..3]"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_text_makes_the_parser_panic(text in r"[\[\].;&/0-9ä x]{0,24}|\PC{0,12}") {
            if let Ok(filter) = text.parse::<CodeFilter>() {
                prop_assert_eq!(filter.to_string().parse::<CodeFilter>(), Ok(filter));
            }
        }

        #[test]
        fn what_is_written_is_read_back(last in proptest::collection::vec(any::<u8>(), 1..12), third: u8) {
            let set = last.iter().map(u8::to_string).collect::<Vec<_>>().join(";");
            let filter = filter(&format!("127.0.{third}.[{set}]"));
            prop_assert_eq!(filter.to_string().parse::<CodeFilter>(), Ok(filter));
            for octet in 0..=255 {
                prop_assert_eq!(filter.matches([127, 0, third, octet].into()), last.contains(&octet));
            }
        }
    }
}
