//! `[replies]`: how the daemon words what it says for the MTA.

use super::check::Judge;
use super::raw::Raw;
use super::tree::Replies;

/// A greeting line has 512 bytes with its name (RFC 5321 section 4.5.3.1.5).
const LONGEST_BANNER: usize = 200;

impl Judge<'_, '_> {
    pub(super) fn replies(&mut self, raw: &Raw) -> Replies {
        let raw = &raw.replies;
        Replies {
            banner: self.with(&raw.banner, banner).unwrap_or_default(),
            footer: self.parsed(&raw.footer).unwrap_or_default(),
            withhold_ehlo: self.each(&raw.withhold_ehlo, keyword),
            soft_bounce: raw.soft_bounce,
        }
    }
}

fn banner(text: &str) -> Result<String, String> {
    if let Some(odd) = text.chars().find(|c| !(' '..='~').contains(c)) {
        return Err(format!("only printable ASCII can stand in a greeting, not {odd:?}"));
    }
    if text.len() > LONGEST_BANNER {
        return Err(format!("{} characters: a greeting has room for {LONGEST_BANNER} behind the name", text.len()));
    }
    Ok(text.trim().to_owned())
}

/// An EHLO keyword (RFC 5321 section 4.1.1.1).
fn keyword(text: &str) -> Result<String, String> {
    // `X_` and `_` are Postfix's and Exim's custom, the RFC has letters, digits and hyphens.
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if text.is_empty() || !text.bytes().all(fits) {
        return Err(format!("{text:?} is no EHLO keyword: write it like \"SIZE\" or \"DSN\""));
    }
    Ok(text.to_ascii_uppercase())
}
