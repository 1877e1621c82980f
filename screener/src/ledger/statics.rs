//! Static entries made by command, which must outlive a restart: their form in the file.
//!
//! Holds the encoding. Never judges an entry: guard rails and precedence are `feed::StaticSet`'s.

use crate::clock::UnixTime;
use crate::feed::{DenyAction, StaticAction};

use super::pass::shortened;

/// A static entry as it is kept. The entries of one list share one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredStatic {
    /// What it says.
    pub action: StaticAction,
    /// What the operator wrote about it; at most 1024 bytes are kept.
    pub comment: Option<Box<str>>,
    /// When it was made.
    pub added: UnixTime,
}

const VERSION: u8 = 1;
const FIXED: usize = 1 + 1 + 8;

impl StoredStatic {
    pub(super) fn encode(&self) -> Vec<u8> {
        let action = match self.action {
            StaticAction::Permit => 0,
            StaticAction::Deny(DenyAction::Drop) => 1,
            StaticAction::Deny(DenyAction::Reject) => 2,
            StaticAction::Deny(DenyAction::Tag) => 3,
            StaticAction::Deny(DenyAction::Count) => 4,
        };
        let mut bytes = vec![VERSION, action];
        bytes.extend_from_slice(&self.added.0.to_be_bytes());
        bytes.extend_from_slice(shortened(self.comment.as_deref().unwrap_or_default()).as_bytes());
        bytes
    }

    /// `None` for what [`StoredStatic::encode`] cannot have written.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (fixed, comment) = bytes.split_at_checked(FIXED)?;
        let action = match fixed[..2] {
            [VERSION, 0] => StaticAction::Permit,
            [VERSION, 1] => StaticAction::Deny(DenyAction::Drop),
            [VERSION, 2] => StaticAction::Deny(DenyAction::Reject),
            [VERSION, 3] => StaticAction::Deny(DenyAction::Tag),
            [VERSION, 4] => StaticAction::Deny(DenyAction::Count),
            _ => return None,
        };
        let added = UnixTime(u64::from_be_bytes(fixed[2..].try_into().ok()?));
        let comment = std::str::from_utf8(comment).ok()?;
        Some(Self { action, comment: (!comment.is_empty()).then(|| comment.into()), added })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_comes_back_and_damage_is_seen() {
        let denies = [DenyAction::Drop, DenyAction::Reject, DenyAction::Tag, DenyAction::Count];
        for action in denies.map(StaticAction::Deny).into_iter().chain([StaticAction::Permit]) {
            let entry = StoredStatic { action, comment: Some("spam run".into()), added: UnixTime(77) };
            let bytes = entry.encode();
            assert_eq!(StoredStatic::decode(&bytes), Some(entry));
            assert_eq!(StoredStatic::decode(&bytes[..FIXED - 1]), None);
        }
        assert_eq!(StoredStatic::decode(&[1, 9, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}
