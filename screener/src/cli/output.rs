//! How answers are shown: JSON for machines, a table on a terminal, tab-separated lines for everything else.

use std::io::{self, IsTerminal, Write};

use clap::Args;
use comfy_table::Table;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use serde::Serialize;

/// What every verb that reads can be told.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Form {
    /// As JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Prints a value as JSON.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    Ok(writeln!(out)?)
}

/// Prints a line.
pub(super) fn line(text: impl AsRef<str>) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{}", text.as_ref())
}

/// Prints rows: on a terminal as a table under its heads, otherwise as lines with tabs and no heads.
pub(super) fn rows<const N: usize>(heads: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if !out.is_terminal() {
        for row in rows {
            writeln!(out, "{}", row.join("\t"))?;
        }
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_header(heads);
    for row in rows {
        table.add_row(row);
    }
    writeln!(out, "{table}")
}

/// A time in milliseconds, in a column. What takes less than one is not nothing.
pub(super) fn ms(seconds: Option<f64>) -> String {
    match seconds.map(|seconds| seconds * 1e3) {
        None => "-".to_owned(),
        Some(ms) if ms < 1.0 => format!("{ms:.1} ms"),
        Some(ms) => format!("{ms:.0} ms"),
    }
}

/// What is not known, in a column.
pub(super) fn or_dash(value: Option<&String>) -> String {
    value.cloned().unwrap_or_else(|| "-".to_owned())
}
