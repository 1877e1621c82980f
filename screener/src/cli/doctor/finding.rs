//! A finding of `doctor`: what was looked at, how it is, what was found, what to do.

use std::fmt;

use serde::Serialize;

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// As it should be.
    Ok,
    /// It works, and could be better.
    Warning,
    /// It does not work.
    Problem,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What was looked at.
    pub(super) check: String,
    pub(super) state: State,
    pub(super) found: String,
    /// What to do about it.
    pub(super) advice: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Ok => "ok",
            State::Warning => "warning",
            State::Problem => "problem",
        };
        write!(f, "{state:8} {}: {}", self.check, self.found)?;
        match &self.advice {
            Some(advice) => write!(f, ": {advice}"),
            None => Ok(()),
        }
    }
}

/// All of them, in the order in which they were found.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    pub(super) fn ok(&mut self, check: impl Into<String>, found: impl Into<String>) {
        self.add(State::Ok, check.into(), found.into(), None);
    }

    pub(super) fn warning(&mut self, check: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) {
        self.add(State::Warning, check.into(), found.into(), Some(advice.into()));
    }

    pub(super) fn problem(&mut self, check: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) {
        self.add(State::Problem, check.into(), found.into(), Some(advice.into()));
    }

    fn add(&mut self, state: State, check: String, found: String, advice: Option<String>) {
        self.0.push(Finding { check, state, found, advice });
    }

    pub(super) fn into_list(self) -> Vec<Finding> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_that_begins_with_its_state() {
        let mut findings = Findings::default();
        findings.ok("kernel", "Linux 6.1");
        findings.warning("JIT", "off", "turn it on");
        findings.problem("bpffs", "not mounted", "mount it");
        let lines: Vec<_> = findings.into_list().iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            ["ok       kernel: Linux 6.1", "warning  JIT: off: turn it on", "problem  bpffs: not mounted: mount it"]
        );
    }
}
