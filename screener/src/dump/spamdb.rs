//! The database of OpenBSD's spamd, as `spamdb` prints it: `WHITE|address|||first|pass|expire|blocked|passed`, seconds since
//! 1970 (spamdb(8), "Database output format").
//!
//! A client that spamd has on its white list has shown that it comes again: here it counts as having passed every test. It has
//! not, so it stays a pass that screening may take back. GREY, TRAPPED and SPAMTRAP lines are no passes.

use crate::feed::quoted;
use crate::ledger::{Origin, Pass};
use crate::pass::Stamps;

use super::{Line, address, seconds};

const OTHER: [&str; 3] = ["GREY", "TRAPPED", "SPAMTRAP"];
const WHITE: &str = "WHITE";
/// What stands in the comment of a pass that came from there.
const FROM: &str = "spamd";

pub(super) fn begins(line: &str) -> bool {
    line.split_once('|').is_some_and(|(word, _)| word == WHITE || OTHER.contains(&word))
}

pub(super) fn read(line: &str) -> Result<Line, String> {
    let mut fields = line.split('|');
    let kind = fields.next().unwrap_or_default();
    if let Some(other) = OTHER.into_iter().find(|other| *other == kind) {
        return Ok(Line::Other(other));
    }
    if kind != WHITE {
        return Err(format!(
            "'{}' is no line of spamdb: it begins with WHITE, GREY, TRAPPED or SPAMTRAP",
            quoted(line)
        ));
    }
    let fields: Vec<_> = fields.collect();
    let [client, _, _, first, _, expire, _, _] = fields[..] else {
        return Err(format!("'{}': a WHITE line has 9 fields, and this one {}", quoted(line), fields.len() + 1));
    };
    let stamps = Stamps::all_until(seconds(expire)?);
    let comment = Some(FROM.to_owned());
    Ok(Line::Pass(address(client)?, Pass { stamps, created: seconds(first)?, origin: Origin::Screened, comment }))
}
