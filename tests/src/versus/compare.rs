//! Comparing what both sides made of a script, with the table of wanted differences at hand.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use super::differences::Difference;
use super::lab::Played;

/// The table, and which of its entries have been met.
#[derive(Debug)]
pub struct Ledger<'a> {
    table: &'a [Difference],
    /// Entry, and pattern of names in it.
    met: BTreeSet<(usize, usize)>,
}

/// How a script's outcomes differ beyond what is wanted.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Both sides line by line; a mark before each line that is only on one side.
    pub text: String,
    /// How many places differ without a reason.
    pub unwanted: usize,
}

/// A stretch of both outcomes.
enum Stretch<'a> {
    Same(&'a str),
    Different { postscreen: Vec<&'a str>, screener: Vec<&'a str> },
}

impl<'a> Ledger<'a> {
    /// Nothing met yet.
    #[must_use]
    pub fn new(table: &'a [Difference]) -> Self {
        Self { table, met: BTreeSet::new() }
    }

    /// Compares what became of several scripts.
    ///
    /// # Errors
    /// When one of them differs without a reason; with all that do.
    pub fn compare_all(&mut self, played: &[Played]) -> Result<()> {
        let mut wrong = Vec::new();
        for played in played {
            let comparison = self.compare(played);
            if comparison.unwanted > 0 {
                let [theirs, ours] = &played.logs;
                wrong.push(format!("{}:\n{}\n{theirs}{ours}", played.name, comparison.text));
            }
        }
        let (count, of) = (wrong.len(), played.len());
        ensure!(count == 0, "{count} of {of} transcripts differ without a reason:\n\n{}", wrong.join("\n"));
        Ok(())
    }

    /// Compares what became of a script.
    pub fn compare(&mut self, played: &Played) -> Comparison {
        let mut comparison = Comparison::default();
        let weigh = |theirs: &str, ours: &str| self.weigh(&played.name, theirs, ours);
        let stretches = stretches(&played.postscreen, &played.screener, weigh);
        let moved = moved(&stretches);
        for stretch in stretches {
            match stretch {
                Stretch::Same(line) => comparison.text += &format!("      {line}\n"),
                Stretch::Different { postscreen, screener } => {
                    let explained = self.explain(&played.name, &postscreen, &screener, &moved);
                    comparison.unwanted += usize::from(explained.is_none());
                    let mark = if explained.is_some() { "wanted" } else { "  ????" };
                    for line in postscreen {
                        comparison.text += &format!("{mark} postscreen | {line}\n");
                    }
                    for line in screener {
                        comparison.text += &format!("{mark}   screener | {line}\n");
                    }
                    self.met.extend(explained.into_iter().flatten());
                }
            }
        }
        comparison
    }

    /// What of the table has never been met: `reason (names)`.
    #[must_use]
    pub fn unmet(&self) -> Vec<String> {
        let mut unmet = Vec::new();
        for (entry, difference) in self.table.iter().enumerate() {
            for (pattern, names) in difference.within.iter().enumerate() {
                if !self.met.contains(&(entry, pattern)) {
                    unmet.push(format!("{} ({names}): {:?}", difference.reason, difference.screener));
                }
            }
        }
        unmet
    }

    /// How much it counts that two lines stand side by side: not at all if they are neither the same nor one wanted
    /// difference, and less where it is wanted that such a line has moved.
    fn weigh(&self, name: &str, theirs: &str, ours: &str) -> usize {
        let here = |difference: &&Difference| difference.within.iter().any(|names| captures(names, name).is_some());
        let mut differences = self.table.iter().filter(here);
        if theirs != ours {
            let fits = |difference: &Difference| {
                difference.postscreen.len() == 1
                    && difference.screener.len() == 1
                    && difference.begins(&[theirs], &[ours])
            };
            return if differences.any(fits) { 2 } else { 0 };
        }
        let moves = |difference: &Difference| difference.moves().is_some_and(|line| captures(line, theirs).is_some());
        if differences.any(moves) { 1 } else { 2 }
    }

    /// The entries that make up a place where the outcomes differ, one behind the other; `None` if they do not.
    fn explain(
        &self,
        name: &str,
        postscreen: &[&str],
        screener: &[&str],
        moved: &[&str],
    ) -> Option<Vec<(usize, usize)>> {
        if postscreen.is_empty() && screener.is_empty() {
            return Some(Vec::new());
        }
        for (entry, difference) in self.table.iter().enumerate() {
            let Some(pattern) = difference.within.iter().position(|names| captures(names, name).is_some()) else {
                continue;
            };
            for (theirs, ours) in difference.ways(postscreen, screener, moved) {
                if let Some(mut rest) = self.explain(name, &postscreen[theirs..], &screener[ours..], moved) {
                    rest.push((entry, pattern));
                    return Some(rest);
                }
            }
        }
        None
    }
}

/// The lines that only one side has at some place, and only the other one at another.
fn moved<'a>(stretches: &[Stretch<'a>]) -> Vec<&'a str> {
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for stretch in stretches {
        if let Stretch::Different { postscreen, screener } = stretch {
            theirs.extend(postscreen.iter().copied());
            ours.extend(screener.iter().copied());
        }
    }
    theirs.retain(|line| ours.contains(line));
    theirs
}

impl Difference {
    /// The line that stands at another place, if that is the difference.
    fn moves(&self) -> Option<&str> {
        match (self.postscreen, self.screener) {
            ([theirs], [ours]) if theirs == ours => Some(theirs),
            _ => None,
        }
    }

    /// How many of postscreen's and of the screener's lines this difference can stand for at the beginning of a place where
    /// outcomes differ.
    fn ways(&self, postscreen: &[&str], screener: &[&str], moved: &[&str]) -> Vec<(usize, usize)> {
        if let Some(pattern) = self.moves() {
            let fits = |lines: &[&str]| {
                lines.first().is_some_and(|line| moved.contains(line) && captures(pattern, line).is_some())
            };
            let both = [((1, 0), fits(postscreen)), ((0, 1), fits(screener))];
            return both.into_iter().filter(|(_, fits)| *fits).map(|(way, _)| way).collect();
        }
        let fits = self.begins(postscreen, screener);
        fits.then_some((self.postscreen.len(), self.screener.len())).into_iter().collect()
    }

    /// Whether a place where outcomes differ begins with this difference: each `*` of postscreen's lines stands for the same
    /// text as the one of the screener's lines that has the same place.
    fn begins(&self, postscreen: &[&str], screener: &[&str]) -> bool {
        let all = |patterns: &[&str], lines: &[&str]| -> Option<Vec<String>> {
            let lines = lines.get(..patterns.len())?;
            let pairs = patterns.iter().zip(lines);
            pairs.map(|(pattern, line)| captures(pattern, line)).collect::<Option<Vec<_>>>().map(|all| all.concat())
        };
        match (all(self.postscreen, postscreen), all(self.screener, screener)) {
            (Some(theirs), Some(ours)) => theirs.iter().zip(&ours).all(|(theirs, ours)| theirs == ours),
            _ => false,
        }
    }
}

/// What each `*` of a pattern stands for in a text, as short as can be; `None`: it does not fit.
fn captures(pattern: &str, text: &str) -> Option<Vec<String>> {
    let mut parts = pattern.split('*');
    let mut rest = text.strip_prefix(parts.next().unwrap_or_default())?;
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty().then(Vec::new) };
    let mut found = Vec::new();
    for part in middle {
        let (before, after) = rest.split_once(part)?;
        found.push(before.to_owned());
        rest = after;
    }
    found.push(rest.strip_suffix(last)?.to_owned());
    Some(found)
}

/// What is the same and what is not, by the weightiest sequence of lines that stand side by side.
fn stretches<'a>(
    postscreen: &'a [String],
    screener: &'a [String],
    weigh: impl Fn(&str, &str) -> usize,
) -> Vec<Stretch<'a>> {
    let (rows, columns) = (postscreen.len(), screener.len());
    let pairs = postscreen.iter().map(|theirs| screener.iter().map(|ours| weigh(theirs, ours)).collect());
    let pairs: Vec<Vec<usize>> = pairs.collect();
    // The weight of the best sequence of what follows.
    let mut weight = vec![vec![0_usize; columns + 1]; rows + 1];
    for row in (0..rows).rev() {
        for column in (0..columns).rev() {
            let pair = pairs[row][column];
            let together = if pair > 0 { weight[row + 1][column + 1] + pair } else { 0 };
            weight[row][column] = together.max(weight[row + 1][column]).max(weight[row][column + 1]);
        }
    }
    let (mut row, mut column) = (0, 0);
    let mut all = Vec::new();
    while row < rows || column < columns {
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        let is_pair = |row: usize, column: usize| {
            let pair = pairs[row][column];
            pair > 0 && weight[row][column] == weight[row + 1][column + 1] + pair
        };
        while (row < rows || column < columns) && (row == rows || column == columns || !is_pair(row, column)) {
            if column == columns || (row < rows && weight[row + 1][column] >= weight[row][column + 1]) {
                theirs.push(postscreen[row].as_str());
                row += 1;
            } else {
                ours.push(screener[column].as_str());
                column += 1;
            }
        }
        if !theirs.is_empty() || !ours.is_empty() {
            all.push(Stretch::Different { postscreen: theirs, screener: ours });
        }
        if row < rows && column < columns {
            let (theirs, ours) = (postscreen[row].as_str(), screener[column].as_str());
            all.push(if theirs == ours {
                Stretch::Same(theirs)
            } else {
                Stretch::Different { postscreen: vec![theirs], screener: vec![ours] }
            });
            (row, column) = (row + 1, column + 1);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Difference] = &[
        Difference {
            reason: "session",
            within: &["*"],
            postscreen: &["S: 550 *"],
            screener: &["S: 550 *; session=ID"],
        },
        Difference { reason: "greeting", within: &["drop/*"], postscreen: &[], screener: &["S: 220 mx"] },
        Difference { reason: "order", within: &["order/*"], postscreen: &["log: PASS *"], screener: &["log: PASS *"] },
    ];

    fn played(name: &str, postscreen: &[&str], screener: &[&str]) -> Played {
        let owned = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect();
        Played {
            name: name.to_owned(),
            postscreen: owned(postscreen),
            screener: owned(screener),
            logs: Default::default(),
        }
    }

    #[test]
    fn what_the_table_names_is_wanted_and_all_else_is_not() {
        let mut ledger = Ledger::new(TABLE);
        let mut unwanted = |played: &Played| ledger.compare(played).unwanted;
        assert_eq!(unwanted(&played("a/b", &["C: x", "S: 550 no"], &["C: x", "S: 550 no; session=ID"])), 0);
        assert_eq!(unwanted(&played("drop/b", &["S: 550 no"], &["S: 220 mx", "S: 550 no; session=ID"])), 0);
        assert_eq!(unwanted(&played("a/b", &["S: 550 no"], &["S: 220 mx", "S: 550 no; session=ID"])), 1);
        assert_eq!(unwanted(&played("a/b", &["S: 550 no"], &["S: 550 yes; session=ID"])), 1);
        assert_eq!(unwanted(&played("a/b", &["x", "S: 250"], &["x"])), 1);
        assert_eq!(unwanted(&played("order/b", &["x", "log: PASS 1"], &["log: PASS 1", "x"])), 0);
        assert_eq!(unwanted(&played("order/b", &["x", "log: PASS 1"], &["x"])), 1, "gone is not moved");
    }

    #[test]
    fn what_the_table_names_and_nobody_meets_is_told() {
        let mut ledger = Ledger::new(TABLE);
        ledger.compare(&played("a/b", &["S: 550 no"], &["S: 550 no; session=ID"]));
        let unmet = ["greeting (drop/*): [\"S: 220 mx\"]", "order (order/*): [\"log: PASS *\"]"];
        assert_eq!(ledger.unmet(), unmet);
    }
}
