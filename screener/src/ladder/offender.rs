//! One offender: its score, how that decays, and what follows from it.
//!
//! Holds the arithmetic. A score halves every half-life; the length of the next drop is forgotten a step for each longest drop
//! that passes without an offence. So nothing has to be done for somebody to come down, and a host that was off for a week
//! finds everybody where he would be.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::density::Dense;
use super::offence::Offence;
use crate::clock::UnixTime;

/// Scores are kept in thousandths of a point.
const POINT: u32 = 1000;
/// Less than this is nothing.
const NOTHING: u32 = POINT / 2;
/// More doublings than any span has.
const MOST_DROPS: u8 = 32;

/// Where somebody stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// Refused when it fails, as everybody is.
    Refused,
    /// Answered slowly when it fails.
    Tarpitted,
    /// Kept out.
    Dropped,
}

impl Rung {
    /// Every rung, from the ground up.
    pub const ALL: [Self; 3] = [Self::Refused, Self::Tarpitted, Self::Dropped];

    /// The name in commands, JSON and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Tarpitted => "tarpitted",
            Self::Dropped => "dropped",
        }
    }
}

/// How the ladder is climbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// From this score on, in points, a client that fails is answered slowly. Below [`Rules::drop_at`].
    pub tarpit_at: u32,
    /// From this score on it is kept out.
    pub drop_at: u32,
    /// In this time a score halves.
    pub half_life: Duration,
    /// How long it is kept out for the first time; the next time for twice as long.
    pub first_drop: Duration,
    /// And never for longer than this.
    pub longest_drop: Duration,
    /// How many clients of a /24, or /48 in IPv6, must stand above the ground for all of it to be answered slowly when it
    /// fails; four times as many for all of it to be kept out. 0: prefixes do not climb.
    pub prefix_clients: u32,
}

impl Default for Rules {
    fn default() -> Self {
        let hour = Duration::from_secs(3600);
        Self {
            tarpit_at: 6,
            drop_at: 12,
            half_life: 2 * hour,
            first_drop: hour,
            longest_drop: 24 * hour,
            prefix_clients: 8,
        }
    }
}

impl Rules {
    /// What somebody begins with who was kept out: between the two upper rungs.
    fn halfway(&self) -> u32 {
        self.tarpit_at.midpoint(self.drop_at).saturating_mul(POINT)
    }

    /// How long the drop after so many others is.
    fn span(&self, drops: u8) -> Duration {
        let factor = 1_u32.checked_shl(drops.into()).unwrap_or(u32::MAX);
        self.first_drop.saturating_mul(factor).min(self.longest_drop)
    }
}

/// What is known of one. In the file and between hosts as JSON: fields that are not known are left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offender {
    /// When it came onto the ladder.
    pub since: UnixTime,
    /// Its last offence.
    pub last: UnixTime,
    /// What that was.
    pub offence: Offence,
    /// How many were counted.
    pub offences: u32,
    /// Thousandths of a point, at [`Offender::as_of`].
    score: u32,
    /// From when on the score decays: the last offence, or the end of a drop.
    as_of: UnixTime,
    /// How many drops are remembered: as many times the next one is doubled.
    drops: u8,
    /// It is kept out before this moment; the beginning of time: it never was.
    pub until: UnixTime,
}

impl Offender {
    /// One that has done nothing yet.
    pub(super) fn new(offence: Offence, now: UnixTime) -> Self {
        let nothing = UnixTime(0);
        Self { since: now, last: nothing, offence, offences: 0, score: 0, as_of: now, drops: 0, until: nothing }
    }

    /// Its score in points.
    pub fn points(&self, rules: &Rules, now: UnixTime) -> f64 {
        f64::from(self.score_at(rules, now)) / f64::from(POINT)
    }

    /// Where it stands.
    pub fn rung(&self, rules: &Rules, now: UnixTime) -> Rung {
        if now < self.until {
            Rung::Dropped
        } else if self.score_at(rules, now) >= rules.tarpit_at.saturating_mul(POINT) {
            Rung::Tarpitted
        } else {
            Rung::Refused
        }
    }

    /// Whether nothing is left of it.
    pub fn is_over(&self, rules: &Rules, now: UnixTime) -> bool {
        now >= self.until && self.score_at(rules, now) < NOTHING && self.drops_at(rules, now) == 0
    }

    /// When nothing will be left of it, to the second or a little later.
    pub fn end(&self, rules: &Rules) -> UnixTime {
        let halvings = (f64::from(self.score.max(NOTHING)) / f64::from(NOTHING)).log2();
        let decayed = self.as_of.plus(rules.half_life.mul_f64(halvings)).0.saturating_add(2);
        let forgotten = self.as_of.plus(rules.longest_drop.saturating_mul(self.drops.into()));
        UnixTime(decayed).max(forgotten).max(self.until)
    }

    /// It has failed once more.
    pub(super) fn fails(&mut self, rules: &Rules, offence: Offence, now: UnixTime) {
        self.offences = self.offences.saturating_add(1);
        (self.last, self.offence) = (now, offence);
        if now < self.until {
            // A session that had begun before it was kept out. It cannot fall deeper.
            return;
        }
        let score = self.score_at(rules, now).saturating_add(offence.weight().saturating_mul(POINT));
        (self.drops, self.score, self.as_of) = (self.drops_at(rules, now), score, now);
        if score >= rules.drop_at.saturating_mul(POINT) {
            self.is_kept_out(rules, now);
        }
    }

    /// A prefix is put onto a rung for its density.
    pub(super) fn is_put(&mut self, rules: &Rules, dense: &Dense, now: UnixTime) {
        (self.last, self.offence, self.offences) = (now, Offence::Density, dense.clients);
        (self.drops, self.score, self.as_of) = (self.drops_at(rules, now), rules.halfway(), now);
        if dense.rung == Rung::Dropped {
            self.is_kept_out(rules, now);
        }
    }

    fn is_kept_out(&mut self, rules: &Rules, now: UnixTime) {
        self.until = now.plus(rules.span(self.drops));
        self.drops = self.drops.saturating_add(1).min(MOST_DROPS);
        // It comes back to where one failure or two lead here again.
        (self.score, self.as_of) = (rules.halfway(), self.until);
    }

    /// Kept out no longer, because there is no room for so many.
    pub(super) fn is_let_in(&mut self, now: UnixTime) {
        (self.until, self.as_of) = (now, now);
    }

    /// What both say, joined: whatever is worse. In whichever order and however often, the same comes out.
    pub(super) fn joined(&self, other: &Self) -> Self {
        let later = if (other.last, other.offence) > (self.last, self.offence) { other } else { self };
        let newer = if (other.as_of, other.score) > (self.as_of, self.score) { other } else { self };
        Self {
            since: self.since.min(other.since),
            last: later.last,
            offence: later.offence,
            offences: self.offences.max(other.offences),
            score: newer.score,
            as_of: newer.as_of,
            drops: self.drops.max(other.drops),
            until: self.until.max(other.until),
        }
    }

    /// The same, with nothing in it that these rules would not allow: another host may have other ones, or a clock that is wrong.
    pub(super) fn within(mut self, rules: &Rules, now: UnixTime) -> Self {
        let furthest = now.plus(rules.longest_drop);
        self.until = self.until.min(furthest);
        self.as_of = self.as_of.min(furthest);
        self.last = self.last.min(now);
        self.since = self.since.min(now);
        self.score = self.score.min(rules.drop_at.saturating_mul(POINT).saturating_sub(1));
        self.drops = self.drops.min(MOST_DROPS);
        self
    }

    fn score_at(&self, rules: &Rules, now: UnixTime) -> u32 {
        let passed = now.since(self.as_of);
        if passed.is_zero() {
            return self.score;
        }
        let halvings = passed.as_secs_f64() / rules.half_life.as_secs_f64().max(1.0);
        // It cannot be more than it was, so it fits.
        (f64::from(self.score) * (-halvings).exp2()) as u32
    }

    fn drops_at(&self, rules: &Rules, now: UnixTime) -> u8 {
        let forgotten = now.since(self.as_of).as_secs() / rules.longest_drop.as_secs().max(1);
        self.drops.saturating_sub(u8::try_from(forgotten).unwrap_or(u8::MAX))
    }
}
