//! `postscreen_access_list`: who is let in and who is kept out, address by address, as the first match decides.

use super::claims::Claims;
use super::lines::words;
use super::networks::Networks;
use super::{Files, table};
use crate::feed::{Span, WIDEST_V4, WIDEST_V6, quoted};

/// What is decided about addresses, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// They are in `mynetworks`.
    OwnNetwork,
    Permit(String),
    Reject(String),
    /// They are rejected together with a large part of the Internet.
    RejectMany(String),
    /// Nothing is decided, and nothing that follows is asked.
    End,
}

/// The list, but for some of its members.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) claims: Claims<Verdict>,
    /// The members and lines that were not understood, each with what is to be done.
    pub(super) unclear: Vec<String>,
    /// The lines that Postfix takes no notice of.
    pub(super) ignored: Vec<String>,
    /// Whether `permit_mynetworks` stands in it.
    pub(super) has_own_networks: bool,
}

impl Access {
    /// Reads the list. Behind a member that was not understood nobody is let in any more: that member may have kept them out.
    pub(super) fn read(list: &str, own: &Networks, files: &dyn Files) -> Self {
        let mut access =
            Self { claims: Claims::new(), unclear: Vec::new(), ignored: Vec::new(), has_own_networks: false };
        for word in words(list) {
            let everybody = [Span::all_v4(), Span::all_v6()];
            match word.to_ascii_lowercase().as_str() {
                "permit_mynetworks" => {
                    access.has_own_networks = true;
                    own.spans().for_each(|span| access.decide(span, &Verdict::OwnNetwork));
                }
                "permit" => everybody.iter().for_each(|span| access.decide(*span, &Verdict::Permit(word.to_owned()))),
                "reject" => {
                    everybody.iter().for_each(|span| access.decide(*span, &Verdict::RejectMany(word.to_owned())));
                }
                "dunno" => everybody.iter().for_each(|span| access.decide(*span, &Verdict::End)),
                _ if table::is_named(word) => access.table(word, files),
                _ => access.unclear.push(format!(
                    "'{}' is nothing that Postfix knows here: it ends the list for everybody; take it out",
                    quoted(word)
                )),
            }
        }
        access
    }

    fn table(&mut self, word: &str, files: &dyn Files) {
        let table = match table::read(word, files) {
            Ok(table) => table,
            Err(why) => return self.unclear.push(format!("'{}': {why}", quoted(word))),
        };
        self.ignored.extend(table.ignored);
        // A table decides for itself which of its lines counts; `dunno` there leaves it to the list's next member.
        let mut lines: Claims<Option<Verdict>> = Claims::new();
        for rule in table.rules {
            let first =
                rule.says.split(|letter: char| letter.is_whitespace() || letter == ',').next().unwrap_or_default();
            let verdict = match first.to_ascii_lowercase().as_str() {
                "permit" => Some(Verdict::Permit(rule.place)),
                "reject" if rule.spans.iter().any(|span| is_wide(*span)) => Some(Verdict::RejectMany(rule.place)),
                "reject" => Some(Verdict::Reject(rule.place)),
                "dunno" => None,
                _ => {
                    self.unclear.push(format!(
                        "{}: '{}' is none of permit, reject and dunno: write one of them",
                        rule.place,
                        quoted(&rule.says)
                    ));
                    Some(Verdict::End)
                }
            };
            rule.spans.iter().for_each(|span| lines.claim(*span, &verdict));
        }
        for (span, verdict) in lines.iter() {
            if let Some(verdict) = verdict {
                self.decide(span, verdict);
            }
        }
    }

    /// Gives a verdict on whoever has none yet.
    fn decide(&mut self, span: Span, verdict: &Verdict) {
        let lets_in = matches!(verdict, Verdict::OwnNetwork | Verdict::Permit(_));
        let verdict = if lets_in && !self.unclear.is_empty() { &Verdict::End } else { verdict };
        self.claims.claim(span, verdict);
    }
}

/// Whether no single entry of ours may deny as many.
fn is_wide(span: Span) -> bool {
    let free = if span.is_v4() { 32 - WIDEST_V4 } else { 128 - WIDEST_V6 };
    span.reach() >> free > 0
}
