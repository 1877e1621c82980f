//! A file that a command is given by name, or standard input as `-`.
//!
//! Holds the reading. Never looks into what was read.

use std::borrow::Cow;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Args;

/// What a list of millions does not reach. Beyond it is no list.
const MOST: u64 = 1 << 30;

/// The longest line of a file that is read line by line, in bytes.
pub(super) const LINE_MOST: usize = 16 << 10;

/// A file, or standard input.
#[derive(Clone, Debug, Args)]
pub(super) struct Input {
    /// The file; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Input {
    /// The file of that name.
    pub(super) fn at(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into() }
    }

    /// As messages name it.
    pub(super) fn name(&self) -> String {
        if self.is_stdin() { "standard input".to_owned() } else { self.file.display().to_string() }
    }

    /// Its lines one by one, so that it need not fit into memory, and its size in bytes; 0: not known.
    pub(super) fn lines(&self) -> anyhow::Result<(Lines, u64)> {
        if self.is_stdin() {
            return Ok((Lines::of(Box::new(BufReader::new(io::stdin()))), 0));
        }
        let file = std::fs::File::open(&self.file).with_context(|| format!("cannot read {}", self.name()))?;
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        Ok((Lines::of(Box::new(BufReader::new(file))), size))
    }

    fn is_stdin(&self) -> bool {
        self.file == Path::new("-")
    }

    /// Everything in it. What is no UTF-8 is replaced, so that a complaint can name the line.
    pub(super) fn read(&self) -> anyhow::Result<String> {
        let mut bytes = Vec::new();
        let mut read = |from: &mut dyn Read| from.take(MOST + 1).read_to_end(&mut bytes);
        let done = if self.is_stdin() {
            read(&mut std::io::stdin().lock())
        } else {
            std::fs::File::open(&self.file).and_then(|mut file| read(&mut file))
        };
        done.with_context(|| format!("cannot read {}", self.name()))?;
        ensure!(bytes.len() as u64 <= MOST, "{} is longer than {} MiB: that is no list", self.name(), MOST >> 20);
        Ok(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }
}

/// The lines of a file.
pub(super) struct Lines {
    from: Box<dyn BufRead>,
    line: Vec<u8>,
    number: usize,
    end: usize,
}

/// One of them.
pub(super) struct Numbered<'a> {
    /// Counted from 1.
    pub(super) number: usize,
    /// Without its end. What is no UTF-8 is replaced.
    pub(super) text: Cow<'a, str>,
    /// It was longer than [`LINE_MOST`]: the rest of it is not here.
    pub(super) too_long: bool,
    /// How many bytes of the file were read with it.
    pub(super) end: usize,
}

impl Lines {
    fn of(from: Box<dyn BufRead>) -> Self {
        Self { from, line: Vec::new(), number: 0, end: 0 }
    }

    /// The number of the last line that was read.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    pub(super) fn next(&mut self) -> io::Result<Option<Numbered<'_>>> {
        self.line.clear();
        let read = (&mut self.from).take(LINE_MOST as u64 + 1).read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        self.end += read;
        let too_long = self.line.last() != Some(&b'\n') && read > LINE_MOST;
        if too_long {
            self.end += self.from.skip_until(b'\n')?;
        }
        let text = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        let text = String::from_utf8_lossy(text.strip_suffix(b"\r").unwrap_or(text));
        Ok(Some(Numbered { number: self.number, text, too_long, end: self.end }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_numbered_and_one_that_is_too_long_is_passed_over() {
        let long = "x".repeat(3 * LINE_MOST);
        let text = format!("one\r\n\n{long}\nlast");
        let mut lines = Lines::of(Box::new(io::Cursor::new(text.clone())));
        let mut seen = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            seen.push((line.number, line.text.len(), line.too_long, line.end));
        }
        let whole = text.len();
        assert_eq!(
            seen,
            [(1, 3, false, 5), (2, 0, false, 6), (3, LINE_MOST + 1, true, whole - 4), (4, 4, false, whole)]
        );
    }
}
