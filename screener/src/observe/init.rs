//! What log lines look like, with the stamp that their reader expects. Where they go is the sink's.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
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
use super::sink::{Flush, Sink};

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As postscreen writes them.
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

/// Starts logging to standard error, as `program`. `RUST_LOG` overrides what is shown (default `info`). What it returns
/// writes the last lines when it is dropped.
///
/// # Errors
/// When logging was started before, or the system has no thread for it.
pub fn init(format: Format, program: &str) -> anyhow::Result<Flush> {
    let mut filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    for secretive in ["hickory_resolver=off", "hickory_net=off", "hickory_proto=off"] {
        // What it logs holds the names that it asks, and those may hold the secret key of a DNS list.
        filter = filter.add_directive(secretive.parse()?);
    }
    let (sink, flush) = Sink::new(io::stderr()).context("the log's writer cannot be started")?;
    set_format(format);
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let syslog = if journal { Syslog::Journal } else { Syslog::Classic(writer(program)) };
    // The session's name stands in the text where it is wanted; as a field it is for JSON.
    let fields = tracing_subscriber::fmt::format::debug_fn(|writer, field, value| match field.name() {
        "message" => write!(writer, "{value:?}"),
        _ => Ok(()),
    });
    let layer = tracing_subscriber::fmt::layer().with_writer(sink.clone());
    let layer = layer.event_format(Either { syslog }).fmt_fields(fields);
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init()
        .context("logging could not be started")?;
    sink.announce();
    Ok(flush)
}

/// Who writes, as it stands in each line.
fn writer(program: &str) -> String {
    let host = rustix::system::uname();
    format!("{} {program}[{}]", host.nodename().to_string_lossy(), std::process::id())
}

/// The classic form, `Nov 24 04:30:00 host screener[77]: text`. Under systemd the journal adds all of that itself; there
/// the line only carries its priority (sd-daemon(3)).
enum Syslog {
    Journal,
    /// With who writes.
    Classic(String),
}

impl<S, N> FormatEvent<S, N> for Syslog
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let level = *event.metadata().level();
        match self {
            Self::Journal => {
                let priority = match level {
                    Level::ERROR => 3,
                    Level::WARN => 4,
                    Level::INFO => 6,
                    Level::DEBUG | Level::TRACE => 7,
                };
                write!(writer, "<{priority}>")?;
            }
            Self::Classic(program) => {
                SyslogTime.format_time(&mut writer)?;
                write!(writer, " {program}: ")?;
            }
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

/// Seconds, so that the text is made once for all lines of one.
struct SyslogTime;

thread_local! {
    /// The last second that was written on this thread, and its text.
    static STAMP: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
}

impl FormatTime for SyslogTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let now = jiff::Timestamp::now();
        STAMP.with_borrow_mut(|(second, text)| {
            if *second != now.as_second() {
                text.clear();
                write!(text, "{}", now.to_zoned_datetime(jiff::tz::TimeZone::system()).strftime("%b %e %H:%M:%S"))?;
                *second = now.as_second();
            }
            writer.write_str(text)
        })
    }
}
