//! Where log lines go: standard error, with the stamp that its reader expects.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, time::FormatTime};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use super::json::{DECISION, Json};

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As postscreen writes them, program `screener`.
    Postscreen,
    /// A JSON object each.
    Json,
}

/// Whether lines are JSON now.
static JSON: AtomicBool = AtomicBool::new(false);

/// Writes lines in another form from now on.
pub fn set_format(format: Format) {
    JSON.store(format == Format::Json, Ordering::Relaxed);
}

/// Whether lines are written as JSON: only then is a decision told with its evidence.
pub(super) fn is_json() -> bool {
    JSON.load(Ordering::Relaxed)
}

/// The form that is wanted at the moment.
struct Either {
    syslog: Syslog,
}

impl<S, N> FormatEvent<S, N> for Either
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if is_json() {
            Json.format_event(ctx, writer, event)
        } else if event.metadata().target() == DECISION {
            Ok(())
        } else {
            self.syslog.format_event(ctx, writer, event)
        }
    }
}

/// Starts logging to standard error. `RUST_LOG` overrides what is shown (default `info`).
///
/// # Errors
/// When logging was started before.
pub fn init(format: Format) -> anyhow::Result<()> {
    let mut filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    for secretive in ["hickory_resolver=off", "hickory_net=off", "hickory_proto=off"] {
        // What it logs holds the names that it asks, and those may hold the secret key of a DNS list.
        filter = filter.add_directive(secretive.parse()?);
    }
    set_format(format);
    let syslog = Syslog { journal: std::env::var_os("JOURNAL_STREAM").is_some() };
    // The session's name stands in the text where it is wanted; as a field it is for JSON.
    let fields = tracing_subscriber::fmt::format::debug_fn(|writer, field, value| match field.name() {
        "message" => write!(writer, "{value:?}"),
        _ => Ok(()),
    });
    let layer =
        tracing_subscriber::fmt::layer().with_writer(io::stderr).event_format(Either { syslog }).fmt_fields(fields);
    tracing_subscriber::registry().with(layer.with_filter(filter)).try_init().context("logging could not be started")
}

/// The classic form, `Nov 24 04:30:00 host screener[77]: text`. Under systemd the journal adds all of that itself; there
/// the line only carries its priority (sd-daemon(3)).
struct Syslog {
    journal: bool,
}

impl<S, N> FormatEvent<S, N> for Syslog
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let level = *event.metadata().level();
        if self.journal {
            let priority = match level {
                Level::ERROR => 3,
                Level::WARN => 4,
                Level::INFO => 6,
                Level::DEBUG | Level::TRACE => 7,
            };
            write!(writer, "<{priority}>")?;
        } else {
            SyslogTime.format_time(&mut writer)?;
            let host = rustix::system::uname();
            write!(writer, " {} screener[{}]: ", host.nodename().to_string_lossy(), std::process::id())?;
        }
        match level {
            Level::ERROR => writer.write_str("error: ")?,
            Level::WARN => writer.write_str("warning: ")?,
            Level::INFO | Level::DEBUG | Level::TRACE => {}
        }
        ctx.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

struct SyslogTime;

impl FormatTime for SyslogTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", jiff::ZonedDateTime::now().strftime("%b %e %H:%M:%S"))
    }
}
