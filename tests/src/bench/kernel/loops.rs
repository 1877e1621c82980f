//! Without a wire: lookups in loops inside the kernel, and whole programs on one frame again and again.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, Result};

use super::object::{Object, run_warm};
use super::shared::{SEGMENT, programs};
use super::traffic::{Column, Segment};

/// The structures, by the names that rows have, and the programs that loop around them.
pub(crate) const STRUCTURES: [(&str, &str); 3] =
    [("", programs::LOOP_OURS), ("trie_", programs::LOOP_TRIE), ("ranked_", programs::LOOP_RANKED)];

/// The segments that are looked up, by the names that rows have.
pub(crate) const SEGMENTS: [(&str, Segment); 5] = [
    ("unlisted_v4", Segment::Unlisted4),
    ("listed_v4", Segment::Listed4),
    ("unlisted_v6", Segment::Unlisted6),
    ("neighbours_v6", Segment::Neighbours6),
    ("listed_v6", Segment::Listed6),
];

/// What the lookups took.
#[derive(Debug, Default)]
pub(crate) struct Loops {
    /// Nanoseconds for one lookup, less the empty loop, round by round.
    ns: HashMap<(&'static str, &'static str), Vec<f64>>,
    /// Wrong answers, in words.
    pub(crate) wrong: Vec<String>,
}

impl Loops {
    /// Looks up every segment in every structure.
    pub(crate) fn round(&mut self, object: &mut Object) -> Result<()> {
        for (name, segment) in SEGMENTS {
            let (empty, _) = object.run_loop(programs::LOOP_EMPTY, segment)?;
            for (structure, program) in STRUCTURES {
                let (took, hits) = object.run_loop(program, segment).with_context(|| program.to_owned())?;
                let ns = (took.as_nanos() as f64 - empty.as_nanos() as f64) / f64::from(SEGMENT);
                self.ns.entry((structure, name)).or_default().push(ns);
                let expected = if segment.is_listed() { SEGMENT } else { 0 };
                if hits != expected {
                    self.wrong.push(format!("{program} found {hits} of {name} on the list and not {expected}"));
                }
            }
        }
        Ok(())
    }

    /// Nanoseconds for one lookup in each round.
    pub(crate) fn ns(&self, structure: &'static str, segment: &'static str) -> Vec<f64> {
        self.ns.get(&(structure, segment)).cloned().unwrap_or_default()
    }
}

/// The frames that whole programs are run on: name, segment, number in the column of other traffic (none: a SYN), and
/// whether `screen` drops it.
const FRAMES: [(&str, Segment, Option<u32>, bool); 8] = [
    ("listed_v4", Segment::Listed4, None, true),
    ("listed_v6", Segment::Listed6, None, true),
    ("unlisted_v4", Segment::Unlisted4, None, false),
    ("unlisted_v6", Segment::Unlisted6, None, false),
    ("established_v4", Segment::Unlisted4, Some(0), false),
    ("established_v6", Segment::Unlisted6, Some(0), false),
    ("udp_v4", Segment::Unlisted4, Some(1), false),
    ("udp_v6", Segment::Unlisted6, Some(1), false),
];

const DROP: u32 = 1;
const PASS: u32 = 2;

/// What whole programs took, on one frame: with warm caches.
#[derive(Debug, Default)]
pub(crate) struct Warm {
    /// Nanoseconds of `screen`, round by round.
    ns: HashMap<&'static str, Vec<f64>>,
    /// What `screen` takes more than the program that passes at once, on frames that are no SYNs: the mean of them.
    pub(crate) other_extra: Vec<f64>,
    /// The empty program that passes.
    pub(crate) empty_pass: Vec<f64>,
}

impl Warm {
    /// Runs `screen` and the empty program on every frame.
    pub(crate) fn round(&mut self, object: &mut Object, screen: &OwnedFd) -> Result<()> {
        let mut extra = Vec::new();
        for (name, segment, other, dropped) in FRAMES {
            let (column, number) = match other {
                None => (Column::Syn(segment), 0),
                Some(number) => (Column::Other, number),
            };
            let job = super::shared::Job { first: segment.first(), ..column.job(0) };
            let frame = object.frame(&job, number)?;
            let empty = run_warm(object.program(programs::EMPTY_PASS)?, &frame, PASS)?;
            let answer = if dropped { DROP } else { PASS };
            let ours = run_warm(screen.as_fd(), &frame, answer).with_context(|| format!("screen on {name}"))?;
            self.ns.entry(name).or_default().push(ours);
            self.empty_pass.push(empty);
            if other.is_some() {
                extra.push(ours - empty);
            }
        }
        self.other_extra.push(extra.iter().sum::<f64>() / extra.len() as f64);
        Ok(())
    }

    /// The names of the frames, and what `screen` took on them.
    pub(crate) fn screen(&self) -> impl Iterator<Item = (&'static str, Vec<f64>)> {
        FRAMES.iter().map(|(name, ..)| (*name, self.ns.get(name).cloned().unwrap_or_default()))
    }
}
