//! What log lines look like, with the stamp that their reader expects. Where they go is the sink's.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::io;
use std::sync::OnceLock;
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

use super::journal::{self, Journal};
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

/// Why the journal gets lines instead of entries, if that is so.
static WITHOUT_FIELDS: OnceLock<String> = OnceLock::new();

/// A sentence about a journal that gets lines only.
pub fn without_fields() -> Option<String> {
    WITHOUT_FIELDS.get().cloned()
}

/// Writes lines in another form from now on.
pub fn set_format(format: Format) {
    JSON.store(format == Format::Json, Ordering::Relaxed);
}

/// Whether lines are written as JSON: only then is a decision told with its evidence.
pub(super) fn is_json() -> bool {
    JSON.load(Ordering::Relaxed)
}

/// What a line looks like: its text in the form that is wanted at the moment, and what its reader needs around it.
enum Form {
    /// An entry of the journal's, of a program with this name.
    Journal(String),
    /// A line that the journal reads from standard error: it only carries its priority (sd-daemon(3)).
    Stream,
    /// The classic one, `Nov 24 04:30:00 host screener[77]: text`, with who writes.
    Classic(String),
}

impl<S, N> FormatEvent<S, N> for Form
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let json = is_json();
        if !json && event.metadata().target() == DECISION {
            return Ok(());
        }
        let text =
            |writer: Writer<'_>| if json { Json.format_event(ctx, writer, event) } else { plain(ctx, writer, event) };
        match self {
            Self::Journal(program) => return journal::entry(&mut writer, program, event, text),
            Self::Stream => write!(writer, "<{}>", journal::priority(*event.metadata().level()))?,
            // An object has the time in it.
            Self::Classic(_) if json => {}
            Self::Classic(program) => {
                SyslogTime.format_time(&mut writer)?;
                write!(writer, " {program}: ")?;
            }
        }
        text(writer)
    }
}

/// The text of an event, with its level where it is not the usual one.
fn plain<S, N>(ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    match *event.metadata().level() {
        Level::ERROR => writer.write_str("error: ")?,
        Level::WARN => writer.write_str("warning: ")?,
        Level::INFO | Level::DEBUG | Level::TRACE => {}
    }
    ctx.format_fields(writer.by_ref(), event)?;
    writeln!(writer)
}

/// Starts logging as `program`: to the journal where that reads standard error, else there. `RUST_LOG` overrides what is shown
/// (default `info`). What it returns writes the last lines when it is dropped.
///
/// # Errors
/// When logging was started before, or the system has no thread for it.
pub fn init(format: Format, program: &str) -> anyhow::Result<Flush> {
    let mut filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    for secretive in ["hickory_resolver=off", "hickory_net=off", "hickory_proto=off"] {
        // What it logs holds the names that it asks, and those may hold the secret key of a DNS list.
        filter = filter.add_directive(secretive.parse()?);
    }
    let (form, out): (_, Box<dyn io::Write + Send>) = match journal::reads_standard_error().then(Journal::open) {
        Some(Ok(journal)) => (Form::Journal(program.to_owned()), Box::new(journal)),
        Some(Err(why)) => {
            let _ = WITHOUT_FIELDS.set(format!(
                "the journal reads standard error but takes no entries ({why}), so lines have no fields and the unit's name: does \
                 the unit hide /run/systemd/journal?"
            ));
            (Form::Stream, Box::new(io::stderr()))
        }
        None => (Form::Classic(writer(program)), Box::new(io::stderr())),
    };
    let (sink, flush) = Sink::new(out).context("the log's writer cannot be started")?;
    set_format(format);
    // The session's name stands in the text where it is wanted; as a field it is for JSON and the journal.
    let fields = tracing_subscriber::fmt::format::debug_fn(|writer, field, value| match field.name() {
        "message" => write!(writer, "{value:?}"),
        _ => Ok(()),
    });
    let layer = tracing_subscriber::fmt::layer().with_writer(sink.clone());
    let layer = layer.event_format(form).fmt_fields(fields);
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init()
        .context("logging could not be started")?;
    sink.announce();
    if let Some(why) = WITHOUT_FIELDS.get() {
        tracing::warn!("{why}");
    }
    Ok(flush)
}

/// Who writes, as it stands in each line.
fn writer(program: &str) -> String {
    let host = rustix::system::uname();
    format!("{} {program}[{}]", host.nodename().to_string_lossy(), std::process::id())
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
