//! JSON events: an object a line. A decision about a session is one of them, with its evidence.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

use crate::clock::Now;
use crate::session::{Arrival, Decision};

/// The target of decisions: only [`Json`] writes them, the postscreen form has a line for each finding already.
pub(super) const DECISION: &str = "screener::decision";

/// Tells a decision, if lines are JSON.
pub fn decision(arrival: &Arrival, decision: &Decision) {
    if super::init::is_json() {
        tell(arrival, decision);
    }
}

fn tell(arrival: &Arrival, decision: &Decision) {
    #[derive(Serialize)]
    struct Told<'a> {
        session: String,
        client: std::net::SocketAddr,
        server: std::net::SocketAddr,
        tagged: bool,
        #[serde(flatten)]
        decision: &'a Decision,
    }
    let told = Told {
        session: arrival.id.to_string(),
        client: arrival.client,
        server: arrival.server,
        tagged: arrival.tagged,
        decision,
    };
    if let Ok(told) = serde_json::to_string(&told) {
        tracing::info!(target: DECISION, decision = told.as_str());
    }
}

/// Writes each event as one object: `at`, `level`, and its fields; a decision's members stand among them.
pub(super) struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields(Map::new());
        let stamp = Now::read().unix.to_string();
        fields.0.insert("at".to_owned(), stamp.into());
        fields.0.insert("level".to_owned(), event.metadata().level().as_str().to_ascii_lowercase().into());
        let kind = if event.metadata().target() == DECISION { "decision" } else { "log" };
        fields.0.insert("event".to_owned(), kind.into());
        event.record(&mut fields);
        writeln!(writer, "{}", Value::Object(fields.0))
    }
}

struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match (field.name(), serde_json::from_str(value)) {
            ("decision", Ok(Value::Object(members))) => self.0.extend(members),
            (name, _) => {
                self.0.insert(name.to_owned(), value.into());
            }
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").into());
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::pass::Test;
    use crate::session::{Evidence, Outcome, Said, SessionId};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_decision_is_one_object_with_its_evidence() {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::fmt().event_format(Json).with_writer(move || writer.clone()).finish();
        let arrival = Arrival { id: SessionId(7), tagged: true, ..Arrival::of_a_stranger() };
        let evidence = Evidence { test: Test::Dnsbl, weight: 4, reason: "listed".into(), remedy: "ask".into() };
        tracing::subscriber::with_default(subscriber, || {
            let (outcome, evidence) = (Outcome::Refused, vec![evidence]);
            let (said, lasted) = (Said::default(), std::time::Duration::ZERO);
            let (failed, exceeded) = (crate::pass::TestSet::EMPTY, false);
            tell(&arrival, &Decision { outcome, evidence, dnsbl: None, tls: None, said, lasted, failed, exceeded });
            let (kind, client) = (crate::session::Event::Disconnect.kind(), arrival.client);
            tracing::info!(session = %arrival.id, kind, %client, "DISCONNECT");
        });
        let lines = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let objects: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(objects[0]["outcome"], "refused");
        assert_eq!(objects[0]["evidence"][0]["test"], "dnsbl");
        assert_eq!(objects[0]["client"], "203.0.113.5:34209");
        assert_eq!(objects[1]["message"], "DISCONNECT");
        assert_eq!((&objects[1]["kind"], &objects[1]["client"]), (&"disconnect".into(), &objects[0]["client"]));
        assert_eq!(objects[1]["session"], objects[0]["session"]);
    }
}
