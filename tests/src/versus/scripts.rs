//! The transcripts.
//!
//! Holds data only, by what the clients in them do. Each script's own addresses are found when it is played.

mod commands;
mod deep;
mod early;
mod limits;
mod lists;

use super::script::{Script, Step};
use super::setting::Setting;

use Step::{Ask, End, Greeting};

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Script> {
    [early::ALL, lists::ALL, deep::ALL, commands::ALL, limits::ALL].into_iter().flatten()
}

/// Every test, with each action.
const ACTIONS: &[Setting] = &[Setting::Enforce, Setting::Drop, Setting::Ignore];

/// Every test, with each action, and the screener's own way after them.
const MOST: &[Setting] = &[Setting::Enforce, Setting::Drop, Setting::Ignore, Setting::Relay];

/// The tests after the greeting, with each action.
const DEEP: &[Setting] = &[Setting::Deep, Setting::DeepDrop, Setting::DeepIgnore];

/// Where it does not matter under which setting: one where nobody waits.
const ANY: &[Setting] = &[Setting::Deep];

/// A client's first words.
const HELLO: &[Step] = &[Greeting, Ask("EHLO c.test")];

/// A sender.
const MAIL: &[Step] = &[Ask("MAIL FROM:<a@b.test>")];

/// A recipient whom the MTA has.
const RCPT: &[Step] = &[Ask("RCPT TO:<bob@example.com>")];

/// A client's last words.
const BYE: &[Step] = &[Ask("QUIT"), End];
