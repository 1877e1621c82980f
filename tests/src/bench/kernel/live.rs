//! Live frames against each filter: how long they take, and whether each had the end that it should have.

use std::collections::HashMap;

use anyhow::{Context as _, Result};

use super::object::Object;
use super::receiver::{Filter, Receiver};
use super::traffic::{Column, Segment};

/// Frames that nobody sent: a host's neighbour discovery.
const STRAY: u64 = 16;

/// What was measured, round by round.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// Nanoseconds for a frame, the generator's part included.
    raw: HashMap<(Filter, Column), Vec<f64>>,
    /// Nanoseconds for a frame that is made and goes nowhere.
    pub(crate) made: Vec<f64>,
    sent: u64,
    lost: u64,
    /// Wrong verdicts, in words.
    pub(crate) wrong: Vec<String>,
}

impl Live {
    /// Sends the frames of every column to every filter, beginning with another filter each round.
    pub(crate) fn round(
        &mut self,
        object: &mut Object,
        receivers: &[Receiver],
        frames: u32,
        round: usize,
    ) -> Result<()> {
        self.made.push(f64::from(object.generate(&Column::MAIN[0].job(0), frames)?));
        for number in 0..receivers.len() {
            let receiver = &receivers[(number + round) % receivers.len()];
            for column in columns(receiver.filter) {
                self.run(object, receiver, column, frames)
                    .with_context(|| format!("{column} frames to {}", receiver.filter.name()))?;
            }
        }
        Ok(())
    }

    fn run(&mut self, object: &mut Object, receiver: &Receiver, column: Column, frames: u32) -> Result<()> {
        let filter = receiver.filter;
        let before = receiver.counts()?;
        let ns = object.generate(&column.job(receiver.wire), frames)?;
        let after = receiver.counts()?;
        self.raw.entry((filter, column)).or_default().push(f64::from(ns));
        if filter == Filter::DeadEnd {
            return Ok(());
        }
        let sent = u64::from(frames);
        let (received, dropped) = (after.received - before.received, after.dropped - before.dropped);
        let lost = sent.saturating_sub(received);
        self.sent += sent;
        self.lost += lost;
        let expected = if filter.drops(column) { sent - lost } else { 0 };
        if dropped.abs_diff(expected) > STRAY {
            let name = filter.name();
            self.wrong.push(format!("{name} dropped {dropped} of {received} {column} frames and not {expected}"));
        }
        Ok(())
    }

    /// Whether a filter was measured with a column.
    pub(crate) fn has(&self, filter: Filter, column: Column) -> bool {
        self.raw.contains_key(&(filter, column))
    }

    /// Nanoseconds for a frame in each round, the generator's part included.
    pub(crate) fn raw(&self, filter: Filter, column: Column) -> Vec<f64> {
        self.raw.get(&(filter, column)).cloned().unwrap_or_default()
    }

    /// Nanoseconds for a frame in each round, without the generator's part.
    pub(crate) fn own(&self, filter: Filter, column: Column) -> Vec<f64> {
        let generator = self.raw(Filter::DeadEnd, column);
        // On a disturbed machine the generator alone may seem slower: a nanosecond stands for nothing.
        self.raw(filter, column).iter().zip(&generator).map(|(all, own)| (all - own).max(1.0)).collect()
    }

    /// How many frames the wire lost, in words.
    pub(crate) fn losses(&self) -> String {
        format!("{} of {} frames were lost before a filter saw them", self.lost, self.sent)
    }
}

/// What a filter is measured with.
pub(crate) fn columns(filter: Filter) -> Vec<Column> {
    let few = Column::Syn(Segment::Few);
    let all = || Column::MAIN.into_iter().chain(Column::FAMILIES);
    match filter {
        Filter::DeadEnd | Filter::Ours => all().chain([few]).collect(),
        // The limits: of dropping, and of letting through.
        Filter::EmptyDrop => all().chain([few]).filter(|column| column.is_dropped()).collect(),
        Filter::EmptyPass => all().filter(|column| !column.is_dropped()).collect(),
        Filter::Nftables | Filter::Ipset => Column::MAIN.to_vec(),
        // It holds but a few of the list.
        Filter::XdpTools => vec![few, Column::MAIN[1], Column::MAIN[2]],
    }
}
