//! Whether a list is believed: what its answers and its test points say about the list itself.
//!
//! Holds a state machine: what happened goes in with the time, what to do comes out. Asks nobody and knows no clock.

use std::fmt;
use std::time::{Duration, Instant};

use super::answer::{BadAnswer, Failure};

/// So many questions in a row without an answer: the list is dead.
const SILENT_IN_A_ROW: u32 = 8;
/// At least so many questions for a share of those without an answer.
const LEAST_SAMPLE: u32 = 40;
/// From this share on a list costs more than it tells.
const SICK: f64 = 0.5;
/// After so many hits in a row the test points are asked at once: a list that died may list the world.
const HITS_IN_A_ROW: u32 = 20;
/// No sooner again than this.
const BETWEEN_TESTS: Duration = Duration::from_secs(30);
/// At least so many answers for a hit rate.
const LEAST_ANSWERS: u32 = 200;
/// A list that lists more than this share of all clients lists the world.
const THE_WORLD: f64 = 0.95;
/// What its test points say for it holds as long as it lists at least this share.
const MANY: f64 = 0.85;
/// A rate so many times the usual one is a jump: above [`A_LOT`] it parks the list, above [`NOT_FEW`] the test points are asked.
const JUMP: f64 = 5.0;
const A_LOT: f64 = 0.5;
const NOT_FEW: f64 = 0.1;
/// What is usual is taken from so many answers at a time: what comes suddenly is not usual at once.
const BLOCK: u32 = 1000;
/// How many of the blocks weigh.
const BLOCKS: f64 = 10.0;
/// How long a list is left alone at first and at most, if it was silent.
const SILENCE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// The same if it refuses or lies: asking on makes the one worse, and the other takes people to mend.
const LIES: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));
/// A list that has been well for so long starts over with the shortest pause.
const FORGIVEN: Duration = Duration::from_secs(600);

/// Why a list is left alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Why {
    /// It does not answer.
    Fails(Failure),
    /// It answered with something that is no answer.
    Bad(BadAnswer),
    /// It lists 127.0.0.1 or an address at random.
    ListsTheWorld,
    /// It does not list 127.0.0.2.
    Empty,
    /// It lists far more clients than it used to.
    HitRate { now: f64, usual: Option<f64> },
}

impl Why {
    fn pauses(self) -> (Duration, Duration) {
        match self {
            Self::Fails(Failure::Refused) | Self::Bad(_) | Self::ListsTheWorld | Self::Empty | Self::HitRate { .. } => {
                LIES
            }
            Self::Fails(_) => SILENCE,
        }
    }

    /// Whether the list is parked as soon as its test points say so once. Without an answer they say less than the clients'
    /// questions: those decide.
    pub(super) fn parks_at_once(self) -> bool {
        !matches!(self, Self::Fails(failure) if failure != Failure::Refused)
    }

    /// Whether what it said before is not to be believed either.
    pub(super) fn spoils_the_past(self) -> bool {
        matches!(self, Self::ListsTheWorld | Self::HitRate { .. } | Self::Bad(_))
    }

    /// Its name in JSON and metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Fails(failure) => failure.name(),
            Self::Bad(_) => "bad_answer",
            Self::ListsTheWorld => "lists_the_world",
            Self::Empty => "empty",
            Self::HitRate { .. } => "hit_rate",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fails(failure) => failure.fmt(f),
            Self::Bad(bad) => bad.fmt(f),
            Self::ListsTheWorld => f.write_str(
                "it lists 127.0.0.1 or an address at random: the list has died, somebody else has its zone, or the \
                 resolver rewrites NXDOMAIN",
            ),
            Self::Empty => f.write_str("it does not list 127.0.0.2, as every list must: it is empty or gone"),
            Self::HitRate { now, usual } => {
                write!(f, "it lists {:.0} % of all clients", now * 100.0)?;
                usual.map_or(Ok(()), |usual| write!(f, ", where {:.0} % are usual", usual * 100.0))
            }
        }
    }
}

/// What comes of a piece of news.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Step {
    /// Nothing.
    Stay,
    /// The test points are to be asked now.
    Test,
    /// The list is left alone from now on.
    Park(Why),
    /// It is left alone on.
    ParkOn(Why),
    /// It is asked again from now on.
    Return,
}

/// How a list stands.
#[derive(Debug)]
pub(super) struct Health {
    parked: Option<Parked>,
    /// When it was last asked again, and how often it has been parked without being well for long in between.
    returned: Option<Instant>,
    times: u32,
    silent_in_a_row: u32,
    hits_in_a_row: u32,
    last_alarm: Option<Instant>,
    failing: Average,
    recent: Average,
    block: Average,
    usual: Option<f64>,
    /// Whether a list like this may be right about nearly everybody: a block list in a wave of junk, never an allow list.
    may_be_right: bool,
    /// Whether it was parked for listing nearly everybody, and its test points were right.
    vouched_for: bool,
}

/// A list that is left alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Parked {
    pub(super) why: Why,
    pub(super) since: Instant,
    /// When its test points are asked again.
    pub(super) until: Instant,
}

/// A share that forgets: after `memory` samples the old ones weigh a third.
#[derive(Clone, Copy, Debug)]
struct Average {
    memory: f64,
    share: f64,
    samples: u32,
}

impl Average {
    fn new(memory: f64) -> Self {
        Self { memory, share: 0.0, samples: 0 }
    }

    fn add(&mut self, yes: bool) {
        self.samples = self.samples.saturating_add(1);
        // At first it is the plain average.
        let weight = (1.0 / self.memory).max(1.0 / f64::from(self.samples));
        self.share += weight * (f64::from(u8::from(yes)) - self.share);
    }
}

impl Health {
    /// `may_be_right`: whether it may be right about nearly everybody, as a block list in a wave of junk is.
    pub(super) fn new(may_be_right: bool) -> Self {
        Self {
            parked: None,
            returned: None,
            times: 0,
            silent_in_a_row: 0,
            hits_in_a_row: 0,
            last_alarm: None,
            failing: Average::new(50.0),
            recent: Average::new(200.0),
            block: Average::new(f64::from(BLOCK)),
            usual: None,
            may_be_right,
            vouched_for: false,
        }
    }

    pub(super) fn parked(&self) -> Option<Parked> {
        self.parked
    }

    /// The share of clients that it has listed lately.
    pub(super) fn hit_rate(&self) -> f64 {
        self.recent.share
    }

    /// A client's question was answered as a question should be.
    pub(super) fn answered(&mut self, hit: bool, now: Instant) -> Step {
        self.silent_in_a_row = 0;
        self.failing.add(false);
        if self.parked.is_some() {
            return Step::Stay;
        }
        self.recent.add(hit);
        self.hits_in_a_row = if hit { self.hits_in_a_row + 1 } else { 0 };
        let recent = self.recent.share;
        let jumped = self.usual.is_some_and(|usual| recent > JUMP * usual) && self.recent.samples >= LEAST_ANSWERS;
        self.vouched_for &= self.recent.samples < LEAST_ANSWERS || recent > MANY;
        let world = recent > THE_WORLD && self.recent.samples >= LEAST_ANSWERS && !self.vouched_for;
        if world || jumped && recent > A_LOT {
            return self.park(Why::HitRate { now: recent, usual: self.usual }, now);
        }
        self.block.add(hit);
        if self.block.samples == BLOCK {
            let share = self.block.share;
            self.usual = Some(self.usual.map_or(share, |usual| usual + (share - usual) / BLOCKS));
            self.block = Average::new(self.block.memory);
        }
        let alarmed = self.last_alarm.is_some_and(|at| now.saturating_duration_since(at) < BETWEEN_TESTS);
        let odd = self.hits_in_a_row >= HITS_IN_A_ROW || jumped && recent > NOT_FEW;
        if odd && !alarmed {
            self.hits_in_a_row = 0;
            self.last_alarm = Some(now);
            return Step::Test;
        }
        Step::Stay
    }

    /// A client's question was not answered.
    pub(super) fn failed(&mut self, failure: Failure, now: Instant) -> Step {
        self.silent_in_a_row += 1;
        self.failing.add(true);
        if self.parked.is_some() {
            return Step::Stay;
        }
        let sick = self.failing.samples >= LEAST_SAMPLE && self.failing.share >= SICK;
        if self.silent_in_a_row >= SILENT_IN_A_ROW || sick {
            return self.park(Why::Fails(failure), now);
        }
        Step::Stay
    }

    /// A client's question was answered with something that speaks against the list.
    pub(super) fn lied(&mut self, bad: BadAnswer, now: Instant) -> Step {
        if self.parked.is_some() { Step::Stay } else { self.park(Why::Bad(bad), now) }
    }

    /// The test points were asked: what is wrong with them, if anything.
    pub(super) fn tested(&mut self, wrong: Option<Why>, now: Instant) -> Step {
        match (wrong, self.parked) {
            (None, None) => Step::Stay,
            (None, Some(Parked { why, .. })) => {
                self.parked = None;
                self.vouched_for = self.may_be_right && matches!(why, Why::HitRate { .. });
                self.returned = Some(now);
                self.silent_in_a_row = 0;
                self.hits_in_a_row = 0;
                self.failing = Average::new(self.failing.memory);
                // What it lists now is what is usual from now on: a true wave of junk parks a list once, not for ever.
                self.recent = Average::new(self.recent.memory);
                self.block = Average::new(self.block.memory);
                self.usual = None;
                Step::Return
            }
            (Some(why), Some(Parked { since, .. })) => {
                self.park(why, now);
                if let Some(parked) = &mut self.parked {
                    parked.since = since;
                }
                Step::ParkOn(why)
            }
            (Some(Why::Fails(failure)), None) if !Why::Fails(failure).parks_at_once() => self.failed(failure, now),
            (Some(why), None) => self.park(why, now),
        }
    }

    fn park(&mut self, why: Why, now: Instant) -> Step {
        // Once: while it stays parked, each test that fails makes the pause longer, however long ago it was well.
        if self.returned.take().is_some_and(|at| now.saturating_duration_since(at) >= FORGIVEN) {
            self.times = 0;
        }
        let (first, most) = why.pauses();
        let pause = first.saturating_mul(1 << self.times.min(20)).min(most);
        self.times += 1;
        self.parked = Some(Parked { why, since: now, until: now + pause });
        Step::Park(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn parked_for(health: &Health, now: Instant) -> Duration {
        health.parked().expect("parked").until - now
    }

    #[test]
    fn a_silent_list_is_parked_after_some_questions_and_asked_again_ever_more_rarely() {
        let (mut health, mut now) = (Health::new(true), Instant::now());
        for _ in 1..SILENT_IN_A_ROW {
            assert_eq!(health.failed(Failure::Silent, now), Step::Stay);
        }
        assert_eq!(health.failed(Failure::Silent, now), Step::Park(Why::Fails(Failure::Silent)));
        assert_eq!(health.failed(Failure::Silent, now), Step::Stay, "said once");
        let mut pauses = Vec::new();
        for _ in 0..9 {
            pauses.push(parked_for(&health, now).as_secs());
            now += parked_for(&health, now);
            assert!(matches!(health.tested(Some(Why::Fails(Failure::Silent)), now), Step::ParkOn(_)));
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        assert_eq!(health.tested(None, now), Step::Return);
        assert!(health.parked().is_none());
    }

    #[test]
    fn a_list_that_answers_every_other_question_is_parked_too() {
        let (mut health, now) = (Health::new(true), Instant::now());
        let mut step = Step::Stay;
        for _ in 0..LEAST_SAMPLE {
            health.answered(false, now);
            step = health.failed(Failure::ServFail, now);
            if step != Step::Stay {
                break;
            }
        }
        assert_eq!(step, Step::Park(Why::Fails(Failure::ServFail)));
    }

    #[test]
    fn a_list_that_falls_back_soon_waits_longer_and_one_that_was_well_is_forgiven() {
        let (mut health, mut now) = (Health::new(true), Instant::now());
        let bad = BadAnswer::Refused([127, 255, 255, 254].into());
        assert_eq!(health.lied(bad, now), Step::Park(Why::Bad(bad)));
        assert_eq!(parked_for(&health, now), 60 * SECOND);
        health.tested(None, now);
        health.lied(bad, now);
        assert_eq!(parked_for(&health, now), 120 * SECOND);
        health.tested(None, now);
        now += FORGIVEN;
        health.lied(bad, now);
        assert_eq!(parked_for(&health, now), 60 * SECOND);
    }

    #[test]
    fn a_list_that_was_well_for_long_is_asked_ever_more_rarely_when_it_dies_again() {
        let (mut health, mut now) = (Health::new(true), Instant::now());
        let silent = Some(Why::Fails(Failure::Silent));
        for outage in 0..2 {
            let steps = (0..SILENT_IN_A_ROW).map(|_| health.failed(Failure::Silent, now));
            assert_eq!(steps.last(), Some(Step::Park(Why::Fails(Failure::Silent))));
            let mut pauses = Vec::new();
            for _ in 0..4 {
                pauses.push(parked_for(&health, now).as_secs());
                now += parked_for(&health, now);
                health.tested(silent, now);
            }
            assert_eq!(pauses, [5, 10, 20, 40], "outage {outage}");
            assert_eq!(health.tested(None, now), Step::Return);
            now += FORGIVEN;
        }
    }

    #[test]
    fn test_points_that_are_wrong_park_and_silence_at_them_alone_does_not() {
        let now = Instant::now();
        for why in [Why::ListsTheWorld, Why::Empty, Why::Fails(Failure::Refused)] {
            assert_eq!(Health::new(true).tested(Some(why), now), Step::Park(why));
        }
        let mut health = Health::new(true);
        assert_eq!(health.tested(Some(Why::Fails(Failure::Silent)), now), Step::Stay);
        assert_eq!(health.tested(None, now), Step::Stay);
    }

    #[test]
    fn hits_in_a_row_ask_for_a_test_now_and_then() {
        let (mut health, now) = (Health::new(true), Instant::now());
        let steps: Vec<_> = (0..60).map(|_| health.answered(true, now)).collect();
        assert_eq!(steps.iter().filter(|&&step| step == Step::Test).count(), 1);
        assert_eq!(steps[HITS_IN_A_ROW as usize - 1], Step::Test);
        assert!((0..HITS_IN_A_ROW).any(|_| health.answered(true, now + BETWEEN_TESTS) == Step::Test));
    }

    #[test]
    fn a_list_that_lists_everybody_or_jumps_is_parked_and_a_true_wave_parks_it_once() {
        let (mut health, now) = (Health::new(true), Instant::now());
        let parked = (0..LEAST_ANSWERS).map(|_| health.answered(true, now)).any(|step| matches!(step, Step::Park(_)));
        assert!(parked);

        let mut health = Health::new(true);
        for number in 0..2 * BLOCK {
            assert_eq!(health.answered(number % 20 == 0, now), Step::Stay);
        }
        let wave = |health: &mut Health| {
            (0..2000).map(|number| health.answered(number % 4 != 0, now)).any(|step| matches!(step, Step::Park(_)))
        };
        assert!(wave(&mut health), "from 5 % to 75 %");
        assert_eq!(health.tested(None, now), Step::Return);
        assert!(!wave(&mut health), "75 % is what is usual now");
    }

    #[test]
    fn a_rate_that_jumps_though_not_to_half_asks_for_a_test() {
        let (mut health, now) = (Health::new(true), Instant::now());
        for number in 0..2 * BLOCK {
            assert_eq!(health.answered(number % 50 == 0, now), Step::Stay);
        }
        let steps: Vec<_> = (0..BLOCK).map(|number| health.answered(number % 3 == 0, now)).collect();
        assert_eq!(steps.iter().filter(|&&step| step == Step::Test).count(), 1, "from 2 % to 33 %");
        assert!(!steps.iter().any(|step| matches!(step, Step::Park(_))));
    }

    #[test]
    fn a_block_list_that_is_right_about_everybody_is_parked_once_and_an_allow_list_each_time() {
        for (may_be_right, times) in [(true, 1), (false, 3)] {
            let (mut health, now) = (Health::new(may_be_right), Instant::now());
            let mut parked = 0;
            for _ in 0..3 * LEAST_ANSWERS {
                if let Step::Park(_) = health.answered(true, now) {
                    parked += 1;
                    health.tested(None, now);
                }
            }
            assert_eq!(parked, times);
        }
    }

    #[test]
    fn a_busy_list_with_a_high_but_steady_rate_is_left_in_peace() {
        let (mut health, now) = (Health::new(true), Instant::now());
        for number in 0..20_000 {
            let step = health.answered(number % 10 != 0, now);
            assert!(matches!(step, Step::Stay | Step::Test), "{step:?} at {number}");
        }
    }
}
