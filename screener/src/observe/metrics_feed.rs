//! The feeds in the metrics: entries, ages, hits, how asking ended.
//!
//! Labels are feeds, states and results; never an address.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::control::api_feed::Feed;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    feed: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    feed: String,
    state: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    feed: String,
    result: String,
}

/// Puts everything about the feeds into a registry.
pub(super) fn register(registry: &mut Registry, feeds: &[Feed]) {
    let registry = registry.sub_registry_with_prefix("feed");
    let (entries, ages) = (Family::<Of, Gauge>::default(), Family::<Of, Gauge>::default());
    let states = Family::<State, Gauge>::default();
    let hits = Family::<Of, Counter>::default();
    let asked = Family::<Asked, Counter>::default();
    let results = Family::<Asked, Gauge>::default();
    for feed in feeds {
        let of = || Of { feed: feed.name.clone() };
        entries.get_or_create(&of()).set(feed.entries.try_into().unwrap_or(i64::MAX));
        if let Some(age) = feed.age_seconds {
            ages.get_or_create(&of()).set(age.try_into().unwrap_or(i64::MAX));
        }
        states.get_or_create(&State { feed: feed.name.clone(), state: feed.state.clone() }).set(1);
        hits.get_or_create(&of()).inc_by(feed.hits);
        for count in &feed.results {
            let labels = Asked { feed: feed.name.clone(), result: count.result.clone() };
            asked.get_or_create(&labels).inc_by(count.count);
            let last = feed.last.as_ref().is_some_and(|last| last.result == count.result);
            results.get_or_create(&labels).set(last.into());
        }
    }
    registry.register("entries", "Prefixes of each feed that are in force", entries);
    registry.register("age_seconds", "How long ago each feed's source last said that its list is in force", ages);
    registry.register("state", "How each feed stands", states);
    registry.register("hits", "Packets that each feed's entries decided about", hits);
    registry.register("refreshes", "Times each feed's source was asked, by how that ended", asked);
    registry.register("last_result", "1: so ended the last time each feed's source was asked", results);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::api_feed::{Count, Last};

    #[test]
    fn a_feed_shows_its_entries_its_age_and_how_asking_ended() {
        let count = |result: &str, count| Count { result: result.to_owned(), count };
        let feed = Feed {
            name: "drop-v4".to_owned(),
            state: "refused".to_owned(),
            entries: 1692,
            age_seconds: Some(77),
            hits: 9,
            last: Some(Last { at: String::new(), result: "refused".to_owned() }),
            results: vec![count("taken", 3), count("refused", 1)],
            ..Feed::default()
        };
        let mut registry = Registry::with_prefix("screener");
        register(&mut registry, &[feed, Feed { name: "new".to_owned(), ..Feed::default() }]);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "screener_feed_entries{feed=\"drop-v4\"} 1692",
            "screener_feed_age_seconds{feed=\"drop-v4\"} 77",
            "screener_feed_state{feed=\"drop-v4\",state=\"refused\"} 1",
            "screener_feed_hits_total{feed=\"drop-v4\"} 9",
            "screener_feed_refreshes_total{feed=\"drop-v4\",result=\"taken\"} 3",
            "screener_feed_last_result{feed=\"drop-v4\",result=\"refused\"} 1",
            "screener_feed_last_result{feed=\"drop-v4\",result=\"taken\"} 0",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} in:\n{text}");
        }
        assert!(!text.contains("screener_feed_age_seconds{feed=\"new\"}"), "it has no age yet");
    }
}
