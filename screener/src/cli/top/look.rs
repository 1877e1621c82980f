//! One look at the daemon: what it answers, at a moment.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::control::api::Status;
use crate::control::api_dnsbl::Dnsbl;
use crate::control::{Client, ClientError};

/// What was seen.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) at: Instant,
    pub(super) status: Status,
    pub(super) dnsbl: Dnsbl,
    pub(super) counted: Counted,
}

/// What only the metrics count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// Sessions by outcome.
    pub(super) outcomes: BTreeMap<String, u64>,
    /// Failed tests by name.
    pub(super) failed: BTreeMap<String, u64>,
    /// Sessions that the MTA did not take.
    pub(super) handoffs_failed: u64,
    /// Greetings of the daemon's own, sent to their end.
    pub(super) greetings: u64,
}

impl Look {
    pub(super) async fn take(client: &Client, at: Instant) -> Result<Self, ClientError> {
        let status = client.get("/v1/status").await?;
        let dnsbl = client.get("/v1/dnsbl").await?;
        let counted = Counted::read(&String::from_utf8_lossy(&client.text("/metrics").await?));
        Ok(Self { at, status, dnsbl, counted })
    }
}

impl Counted {
    /// From the metrics' text form.
    fn read(metrics: &str) -> Self {
        let mut counted = Self::default();
        for line in metrics.lines() {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse() else { continue };
            let label = |name: &str| Some(name.split_once("=\"")?.1.split_once('"')?.0.to_owned());
            if name.starts_with("screener_sessions_total{") {
                counted.outcomes.extend(label(name).map(|outcome| (outcome, value)));
            } else if name.starts_with("screener_tests_failed_total{") {
                counted.failed.extend(label(name).map(|test| (test, value)));
            } else if name == "screener_handoffs_failed_total" {
                counted.handoffs_failed = value;
            } else if name == "screener_greetings_total" {
                counted.greetings = value;
            }
        }
        counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Metrics;
    use crate::pass::Test;

    #[test]
    fn what_the_metrics_count_is_read_from_what_they_write() {
        let metrics = Metrics::default();
        metrics.session_decided("handed_off");
        metrics.session_decided("handed_off");
        metrics.session_decided("refused");
        metrics.test_failed(Test::Pregreet);
        metrics.handoff_failed();
        metrics.greeted();
        let counted = Counted::read(&metrics.text(&Status::default(), &Dnsbl::default(), &[], &[]));
        assert_eq!(counted.outcomes, [("handed_off".to_owned(), 2), ("refused".to_owned(), 1)].into());
        assert_eq!(counted.failed, [("pregreet".to_owned(), 1)].into());
        assert_eq!((counted.handoffs_failed, counted.greetings), (1, 1));
        assert_eq!(Counted::read("nothing of ours 1\n# EOF"), Counted::default());
    }
}
