//! Counters for Prometheus. Labels are outcomes, tests, lists and hooks; never a client's address.

use std::fmt::Write as _;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::control::api::Status;
use crate::control::api_dnsbl::Dnsbl;
use crate::control::api_feed::Feed;
use crate::ladder::{Count, Offence, Rung};
use crate::pass::Test;

/// What is counted as it happens.
#[derive(Debug, Default)]
pub struct Metrics {
    sessions: Family<Outcome, Counter>,
    greetings: Counter,
    failed: Family<Failed, Counter>,
    handoffs_failed: Counter,
    handshakes: Family<Handshake, Counter>,
    passes_withdrawn: Counter,
    passes_renewed: Counter,
    reloads: Family<Outcome, Counter>,
    tarpit: Family<Place, Counter>,
    offences: Family<Offended, Counter>,
    climbed: Family<Stands, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Offended {
    offence: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Stands {
    rung: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Place {
    place: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Handshake {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failed {
    test: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Packets {
    name: String,
    family: String,
    hook: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfFamily {
    family: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct List {
    list: String,
    answer: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Condition {
    what: &'static str,
}

impl Metrics {
    /// A session was decided.
    pub fn session_decided(&self, outcome: &'static str) {
        self.sessions.get_or_create(&Outcome { outcome }).inc();
    }

    /// A client has been greeted by us, and may speak.
    pub fn greeted(&self) {
        self.greetings.inc();
    }

    /// A client failed a test.
    pub fn test_failed(&self, test: Test) {
        self.failed.get_or_create(&Failed { test: test.name() }).inc();
    }

    /// A TLS handshake has ended: the protocol, or `failed`.
    pub fn handshake(&self, result: &'static str) {
        self.handshakes.get_or_create(&Handshake { result }).inc();
    }

    /// The MTA did not take a session.
    pub fn handoff_failed(&self) {
        self.handoffs_failed.inc();
    }

    /// A DNS list's answer that came late, or at a renewal, spoke against a pass.
    pub fn pass_withdrawn(&self) {
        self.passes_withdrawn.inc();
    }

    /// A pass in use was renewed.
    pub fn pass_renewed(&self) {
        self.passes_renewed.inc();
    }

    /// A client was to be answered slowly, and there was a place for that or none.
    pub fn tarpit(&self, place: bool) {
        self.tarpit.get_or_create(&Place { place: if place { "taken" } else { "none" } }).inc();
    }

    /// An offence was counted.
    pub fn offence(&self, offence: Offence) {
        self.offences.get_or_create(&Offended { offence: offence.name() }).inc();
    }

    /// Somebody has climbed the offence ladder.
    pub fn climbed(&self, to: Rung) {
        self.climbed.get_or_create(&Stands { rung: to.name() }).inc();
    }

    /// The configuration was read again, and taken in or refused.
    pub fn reloaded(&self, taken: bool) {
        let outcome = if taken { "taken" } else { "refused" };
        self.reloads.get_or_create(&Outcome { outcome }).inc();
    }

    /// The text form of these and of what `status` knows.
    pub fn text(&self, status: &Status, dnsbl: &Dnsbl, feeds: &[Feed], degraded: &[&'static str]) -> String {
        let mut registry = Registry::with_prefix("screener");
        registry.register("sessions", "Sessions by outcome", self.sessions.clone());
        let help = "Greetings of ours that were sent to their end, after which a client may speak";
        registry.register("greetings", help, self.greetings.clone());
        registry.register("tests_failed", "Failed tests", self.failed.clone());
        registry.register("handoffs_failed", "Sessions that the MTA did not take", self.handoffs_failed.clone());
        registry.register("tls_handshakes", "TLS handshakes with clients, by protocol", self.handshakes.clone());
        let withdrawn = self.passes_withdrawn.clone();
        registry.register(
            "passes_withdrawn",
            "Passes that a later answer of a DNS list, or a later failure in the session, spoke against",
            withdrawn,
        );
        registry.register("passes_renewed", "Passes in use that were renewed", self.passes_renewed.clone());
        let help = "Clients to be answered slowly, by whether there was a place for them; the others were dropped";
        registry.register("tarpit", help, self.tarpit.clone());
        registry.register("reloads", "Times the configuration was read again", self.reloads.clone());
        self.register_offenders(&mut registry, &status.offenders);
        let lost: Counter = Counter::default();
        lost.inc_by(super::lost());
        registry.register("log_lines_lost", "Log lines that were not taken in time", lost);
        let gauge = |registry: &mut Registry, name: &str, help: &str, value: u64| {
            let gauge: Gauge = Gauge::default();
            gauge.set(value.try_into().unwrap_or(i64::MAX));
            registry.register(name, help, gauge);
        };
        gauge(&mut registry, "sessions_active", "Sessions that live, relays included", status.sessions.active as u64);
        let help = "Sessions that are answered slowly";
        gauge(&mut registry, "sessions_tarpitted", help, status.sessions.tarpitted as u64);
        let help = "1: so many sessions that waits are shortened";
        gauge(&mut registry, "stress", help, status.sessions.stress.into());
        gauge(&mut registry, "passes", "Clients with a pass", status.passes as u64);
        gauge(&mut registry, "denies", "Deny entries", status.denies as u64);
        gauge(&mut registry, "ledger_queued", "Changes that are not on the disk", status.ledger.queued as u64);
        if let Some(until) = status.tls.as_ref().and_then(|tls| tls.not_after_unix) {
            let help = "Until when the certificate in use is good, in seconds since 1970";
            gauge(&mut registry, "tls_certificate_not_after_seconds", help, until);
        }
        if let Some(shared) = &status.shared {
            let help = "1: passes are shared with other hosts at the moment";
            gauge(&mut registry, "shared_store_up", help, (shared.state == "sharing").into());
            gauge(
                &mut registry,
                "shared_queued",
                "Clients about whom other hosts are to be told",
                shared.queued as u64,
            );
            let counted = [
                ("shared_told", "Words of this host that were new at the shared store", shared.told),
                ("shared_heard", "Words of other hosts that were new here", shared.heard),
                ("shared_unreadable", "Records of the shared store that were not understood", shared.unreadable),
                ("shared_failures", "Times the shared store could not be used", shared.failures),
            ];
            for (name, help, count) in counted {
                let counter: Counter = Counter::default();
                counter.inc_by(count);
                registry.register(name, help, counter);
            }
        }
        if let Some(kernel) = &status.kernel {
            let help = "One of so many findings in the kernel becomes an event; 0: none";
            gauge(&mut registry, "event_sample", help, kernel.event_sample.into());
            let help = "Events that found no room since the maps were made";
            gauge(&mut registry, "events_lost", help, kernel.events_lost);
            let help = "Clients with a pass for which there is no room in the kernel";
            let left_out: usize = kernel.passes.iter().map(|room| room.left_out).sum();
            gauge(&mut registry, "kernel_passes_left_out", help, left_out as u64);
            let (entries, capacity) = (Family::<OfFamily, Gauge>::default(), Family::<OfFamily, Gauge>::default());
            for room in &kernel.passes {
                let family = OfFamily { family: room.family.clone() };
                entries.get_or_create(&family).set(room.entries.try_into().unwrap_or(i64::MAX));
                capacity.get_or_create(&family).set(room.capacity.try_into().unwrap_or(i64::MAX));
            }
            registry.register("kernel_passes", "Passes in the kernel's maps", entries);
            registry.register("kernel_passes_capacity", "Passes that the kernel's maps can hold", capacity);
        }
        let conditions = Family::<Condition, Gauge>::default();
        for &what in degraded {
            conditions.get_or_create(&Condition { what }).set(1);
        }
        registry.register("degraded", "What is not as it should be", conditions);
        let lists = Family::<List, Counter>::default();
        for list in &status.dnsbl {
            let answers =
                [("query", list.queries), ("hit", list.hits), ("error", list.errors), ("unknown", list.unknown)];
            for (answer, count) in answers {
                lists.get_or_create(&List { list: list.list.clone(), answer }).inc_by(count);
            }
        }
        registry.register("dnsbl", "Questions to DNS lists and their answers", lists);
        super::metrics_dnsbl::register(&mut registry, dnsbl);
        super::metrics_feed::register(&mut registry, feeds);
        let packets = Family::<Packets, Counter>::default();
        for counter in status.kernel.iter().flat_map(|kernel| &kernel.counters) {
            let labels =
                Packets { name: counter.name.clone(), family: counter.family.clone(), hook: counter.hook.clone() };
            packets.get_or_create(&labels).inc_by(counter.packets);
        }
        registry.register("packets", "Packets in the kernel, by what became of them", packets);
        let mut text = String::new();
        if encode(&mut text, &registry).is_err() {
            let _ = write!(text, "# incomplete\n# EOF\n");
        }
        text
    }

    fn register_offenders(&self, registry: &mut Registry, count: &Count) {
        registry.register("offences", "Offences that count on the offence ladder", self.offences.clone());
        registry.register("offenders_climbed", "Steps up on the offence ladder", self.climbed.clone());
        let standing = Family::<Stands, Gauge>::default();
        let counts =
            [(Rung::Refused, count.refused), (Rung::Tarpitted, count.tarpitted), (Rung::Dropped, count.dropped)];
        for (rung, count) in counts {
            standing.get_or_create(&Stands { rung: rung.name() }).set(count.try_into().unwrap_or(i64::MAX));
        }
        registry.register("offenders", "Clients and prefixes on the offence ladder", standing);
        let prefixes: Gauge = Gauge::default();
        prefixes.set(count.prefixes.try_into().unwrap_or(i64::MAX));
        registry.register("offender_prefixes", "Prefixes on the offence ladder", prefixes);
        let overflows: Counter = Counter::default();
        overflows.inc_by(count.overflows);
        registry.register("offenders_overflowed", "Offenders for whom there was no more room", overflows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_name_outcomes_and_tests_and_end_as_open_metrics_must() {
        let metrics = Metrics::default();
        metrics.session_decided("handed_off");
        metrics.test_failed(Test::Pregreet);
        let text = metrics.text(&Status::default(), &Dnsbl::default(), &[], &["mta"]);
        assert!(text.contains("screener_sessions_total{outcome=\"handed_off\"} 1"), "{text}");
        assert!(text.contains("screener_tests_failed_total{test=\"pregreet\"} 1"));
        assert!(text.contains("screener_degraded{what=\"mta\"} 1"));
        assert!(text.ends_with("# EOF\n"));
    }
}
