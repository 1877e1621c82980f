//! Lists of addresses and networks, as in `mynetworks` and `postscreen_allowlist_interfaces`.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

use super::claims::Claims;
use super::lines::{logical, words};
use super::{Files, table};
use crate::feed::{Span, normal, quoted};

/// A list that was understood, but for some of its members.
#[derive(Debug, Default)]
pub(super) struct Networks {
    claims: Claims<bool>,
    /// The members that were not understood, each with what is to be done.
    pub(super) unclear: Vec<String>,
    /// The members that Postfix takes no notice of.
    pub(super) ignored: Vec<String>,
}

impl Networks {
    /// Reads a list. What follows a member that was not understood counts only if it takes something out: nobody is to be in it
    /// whom that member may have excluded.
    pub(super) fn read(text: &str, files: &dyn Files) -> Self {
        let mut networks = Self::default();
        networks.members(text, true, files, 0);
        networks
    }

    /// Whether an address is in it.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        let at = Span::from(IpNet::from(address.to_canonical()));
        self.claims.iter().any(|(span, is_in)| *is_in && span.covers(at))
    }

    /// What is in it.
    pub(super) fn spans(&self) -> impl Iterator<Item = Span> {
        self.claims.iter().filter(|(_, is_in)| **is_in).map(|(span, _)| span)
    }

    fn members(&mut self, text: &str, is_in: bool, files: &dyn Files, depth: usize) {
        for word in words(text) {
            let member = word.trim_start_matches('!');
            let is_in = is_in == ((word.len() - member.len()) % 2 == 0);
            if let Err(why) = self.member(member, is_in, files, depth) {
                self.unclear.push(format!("'{}': {why}", quoted(word)));
            }
        }
    }

    fn member(&mut self, member: &str, is_in: bool, files: &dyn Files, depth: usize) -> Result<(), String> {
        if member.starts_with('/') {
            if depth > 3 {
                return Err("the files lead to each other: write the networks themselves".to_owned());
            }
            for line in logical(&files.read(Path::new(member))?) {
                self.members(&line.text, is_in, files, depth + 1);
            }
            return Ok(());
        }
        if member == "static:all" || (member.starts_with("static:") && member.len() > "static:".len()) {
            self.claim(&[Span::all_v4(), Span::all_v6()], is_in);
            return Ok(());
        }
        // To Postfix a colon names a table, unless the member begins with a bracket.
        let of_a_table = member.contains(':') && !member.starts_with('[');
        if let Some(spans) = net(member) {
            if of_a_table {
                return Err("Postfix takes it for a table: write an IPv6 address in [ ]".to_owned());
            }
            self.claim(&[spans?], is_in);
            return Ok(());
        }
        if table::is_named(member) {
            // Whatever the table says of an address, it is in it.
            let rules = table::read(member, files)?;
            let spans: Vec<Span> = rules.rules.iter().flat_map(|rule| rule.spans.iter().copied()).collect();
            self.claim(&spans, is_in);
            self.ignored.extend(rules.ignored);
            return Ok(());
        }
        let of_address = |letter: char| letter.is_ascii_hexdigit() || ".:[]/".contains(letter);
        let is_compared = member.contains([':', '/']) && member.chars().all(of_address);
        if !of_a_table && !is_compared {
            // A name, for one: only addresses are compared.
            self.ignored.push(format!("'{}': Postfix takes no notice of it: it is no address", quoted(member)));
            return Ok(());
        }
        Err("is neither an address nor a network in numbers: write those".to_owned())
    }

    fn claim(&mut self, spans: &[Span], is_in: bool) {
        let is_in = is_in && self.unclear.is_empty();
        spans.iter().for_each(|span| self.claims.claim(*span, &is_in));
    }
}

/// `192.0.2.0/24`, `[2001:db8::]/32`, `[::1]`, `192.0.2.1`; `None`: it is something else.
pub(super) fn net(text: &str) -> Option<Result<Span, String>> {
    let plain = text.replace(['[', ']'], "");
    let net = plain.parse::<IpNet>().or_else(|_| plain.parse::<IpAddr>().map(IpNet::from)).ok()?;
    Some(normal(net).map(Span::from).map_err(|refused| format!("Postfix takes no notice of it: {refused}")))
}
