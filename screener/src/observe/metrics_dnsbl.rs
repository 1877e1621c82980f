//! The DNS lists in the metrics: states, questions and their answers, times, contributions, the cache.
//!
//! Labels are lists, answers and states; never a client's address.

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::control::api_dnsbl::Dnsbl;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct List {
    list: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    list: String,
    state: String,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    list: String,
    kind: &'static str,
}

/// A histogram for each list, counted elsewhere.
#[derive(Clone, Debug)]
struct Times(Vec<(List, f64, Buckets)>);

/// Upper bounds, and how many lie between each and the one before.
type Buckets = Vec<(f64, u64)>;

impl EncodeMetric for Times {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        for (list, sum, buckets) in &self.0 {
            let count = buckets.iter().map(|&(_, count)| count).sum();
            encoder.encode_family(list)?.encode_histogram::<[(&str, &str); 0]>(*sum, count, buckets, None)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// Puts everything about the lists into a registry.
pub(super) fn register(registry: &mut Registry, dnsbl: &Dnsbl) {
    let registry = registry.sub_registry_with_prefix("dnsbl");
    let states = Family::<State, Gauge>::default();
    let clients = Family::<Kind, Counter>::default();
    let asked = Family::<Kind, Counter>::default();
    let open = Family::<List, Gauge>::default();
    let parkings = Family::<List, Counter>::default();
    for list in &dnsbl.lists {
        let name = || list.list.clone();
        let reason = list.reason.clone().unwrap_or_default();
        states.get_or_create(&State { list: name(), state: list.state.clone(), reason }).set(1);
        open.get_or_create(&List { list: name() }).set(list.open.try_into().unwrap_or(i64::MAX));
        parkings.get_or_create(&List { list: name() }).inc_by(list.parkings);
        let kinds =
            [("answered", list.clients), ("listed", list.listed), ("alone", list.alone), ("decisive", list.decisive)];
        for (kind, count) in kinds {
            clients.get_or_create(&Kind { list: name(), kind }).inc_by(count);
        }
        for (kind, count) in [("asked", list.questions), ("cached", list.cached), ("shared", list.shared)] {
            asked.get_or_create(&Kind { list: name(), kind }).inc_by(count);
        }
    }
    registry.register("state", "How each DNS list stands, and why it is parked", states);
    registry.register("parkings", "How often each DNS list was parked", parkings);
    registry.register("clients", "Clients, each time they came, by what each DNS list contributed", clients);
    registry.register(
        "questions",
        "Questions to DNS lists: asked, answered by the cache, joined to an open one",
        asked,
    );
    registry.register("open_questions", "Questions to DNS lists that are open", open);
    let times = dnsbl.lists.iter().map(|list| {
        let buckets = list.times.iter().map(|&(bound, count)| (bound.unwrap_or(f64::INFINITY), count)).collect();
        (List { list: list.list.clone() }, list.times_sum, buckets)
    });
    registry.register("answer_seconds", "How long answers of DNS lists took", Times(times.collect()));
    let gauge = |registry: &mut Registry, name: &str, help: &str, value: u64| {
        let gauge: Gauge = Gauge::default();
        gauge.set(value.try_into().unwrap_or(i64::MAX));
        registry.register(name, help, gauge);
    };
    gauge(registry, "cached_answers", "Answers of DNS lists that are kept", dnsbl.cached_answers as u64);
    let evicted: Counter = Counter::default();
    evicted.inc_by(dnsbl.evicted_answers);
    registry.register("evicted_answers", "Answers of DNS lists that had to go before their time", evicted);
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::control::api_dnsbl;

    #[test]
    fn lists_show_their_state_and_their_times() {
        let list = api_dnsbl::List {
            list: "zen.test".to_owned(),
            state: "parked".to_owned(),
            reason: Some("silent".to_owned()),
            questions: 7,
            parkings: 2,
            times: vec![(Some(0.5), 3), (None, 1)],
            times_sum: 9.5,
            ..api_dnsbl::List::default()
        };
        let mut registry = Registry::with_prefix("screener");
        register(&mut registry, &Dnsbl { lists: vec![list], ..Dnsbl::default() });
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "screener_dnsbl_state{list=\"zen.test\",state=\"parked\",reason=\"silent\"} 1",
            "screener_dnsbl_questions_total{list=\"zen.test\",kind=\"asked\"} 7",
            "screener_dnsbl_parkings_total{list=\"zen.test\"} 2",
            "screener_dnsbl_answer_seconds_bucket{le=\"0.5\",list=\"zen.test\"} 3",
            "screener_dnsbl_answer_seconds_bucket{le=\"+Inf\",list=\"zen.test\"} 4",
            "screener_dnsbl_answer_seconds_count{list=\"zen.test\"} 4",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
