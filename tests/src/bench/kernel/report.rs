//! The rows of the report, their goals, and the filters side by side.

use super::live::{Live, columns};
use super::loops::{Loops, SEGMENTS, STRUCTURES, Warm};
use super::receiver::Filter;
use super::traffic::{Column, Segment};
use super::{Effort, Fills};
use crate::bench::report::{Goal, Report, Rows, median, quotients, sorted, table};

const LISTED: Column = Column::Syn(Segment::Listed);

/// What is to be reached, with a million IPv4 and a hundred thousand IPv6 prefixes.
const GOALS: [Goal; 9] = [
    ("drop_listed_ratio", ">= 0.7"),
    ("lookup_unlisted_v4_ns", "<= 15"),
    ("lookup_listed_v4_ns", "<= 50"),
    ("lookup_unlisted_v6_ns", "<= 40"),
    ("other_traffic_extra_ns", "<= 5"),
    ("vs_nftables", ">= 8"),
    ("vs_ipset", ">= 5"),
    ("fill_seconds", "<= 0.5"),
    ("fill_mib", "<= 60"),
];

/// The filters, in the order of the table.
const FILTERS: [Filter; 7] = [
    Filter::EmptyDrop,
    Filter::EmptyPass,
    Filter::Ours,
    Filter::XdpTools,
    Filter::Nftables,
    Filter::Ipset,
    Filter::DeadEnd,
];

/// Makes the report.
pub(super) fn make(
    effort: &Effort,
    live: &Live,
    loops: &Loops,
    warm: &Warm,
    fills: &Fills,
    mut notes: Vec<String>,
) -> Report {
    let mut rows = Rows::new(&GOALS);
    let ratio = |of: Filter, to: Filter, column| quotients(&live.own(of, column), &live.own(to, column));
    rows.put("drop_listed_ratio", "", ratio(Filter::EmptyDrop, Filter::Ours, LISTED));
    for (name, _) in SEGMENTS {
        rows.put(&format!("lookup_{name}_ns"), "ns", loops.ns("", name));
    }
    rows.put("other_traffic_extra_ns", "ns", warm.other_extra.clone());
    rows.put("vs_nftables", "", ratio(Filter::Nftables, Filter::Ours, LISTED));
    rows.put("vs_ipset", "", ratio(Filter::Ipset, Filter::Ours, LISTED));
    rows.put("fill_seconds", "s", vec![fills.ours.fill_seconds.unwrap_or(fills.ours.load_seconds)]);
    rows.put("fill_mib", "MiB", vec![fills.ours.fill_mib]);
    rows.put("load_seconds", "s", vec![fills.ours.load_seconds]);
    if fills.ours.fill_seconds.is_none() {
        notes.push("screener does not say how long it filled: fill_seconds is all of the loading".to_owned());
    }
    for (name, filled) in &fills.others {
        rows.put(&format!("{name}_fill_seconds"), "s", vec![filled.seconds]);
        rows.put(&format!("{name}_fill_mib"), "MiB", vec![filled.mib]);
    }

    let raw = |of: Filter, to: Filter, column| quotients(&live.raw(of, column), &live.raw(to, column));
    rows.put("drop_listed_raw_ratio", "", raw(Filter::EmptyDrop, Filter::Ours, LISTED));
    rows.put("vs_nftables_raw", "", raw(Filter::Nftables, Filter::Ours, LISTED));
    rows.put("vs_ipset_raw", "", raw(Filter::Ipset, Filter::Ours, LISTED));
    let other = live.own(Filter::Ours, Column::Other);
    let empty = live.own(Filter::EmptyPass, Column::Other);
    rows.put("other_traffic_extra_live_ns", "ns", other.iter().zip(&empty).map(|(ours, empty)| ours - empty).collect());
    rows.put("generator_made_listed_ns", "ns", live.made.clone());
    for filter in FILTERS {
        for column in columns(filter) {
            figures(&mut rows, live, filter, column);
        }
    }
    for (structure, _) in STRUCTURES.iter().filter(|(structure, _)| !structure.is_empty()) {
        for (name, _) in SEGMENTS {
            rows.put(&format!("{structure}lookup_{name}_ns"), "ns", loops.ns(structure, name));
        }
    }
    rows.put("empty_pass_warm_ns", "ns", warm.empty_pass.clone());
    for (name, ns) in warm.screen() {
        rows.put(&format!("screen_{name}_warm_ns"), "ns", ns);
    }

    let (v4, v6) = (effort.size.v4, effort.size.v6);
    notes.insert(0, format!("{v4} IPv4 and {v6} IPv6 prefixes; {} frames a run", effort.frames));
    if effort.size.v4 < 1_000_000 {
        notes.insert(
            1,
            "the goals are for a million prefixes and a quiet machine: this run only shows that it works".to_owned(),
        );
    }
    let wrong = live.wrong.iter().chain(&loops.wrong).cloned().collect();
    Report { rows: rows.rows(), notes, wrong, beside: matrix(live) }
}

/// The rows of one filter and column.
fn figures(rows: &mut Rows, live: &Live, filter: Filter, column: Column) {
    let name = format!("{}_{column}", filter.name());
    if filter == Filter::DeadEnd {
        rows.put(&format!("{name}_ns"), "ns", live.raw(filter, column));
        return;
    }
    let own = live.own(filter, column);
    rows.put(&format!("{name}_mpps"), "Mpps", own.iter().map(|ns| 1000.0 / ns).collect());
    rows.put(&format!("{name}_ratio"), "", quotients(&live.own(limit(column), column), &own));
    rows.put(&format!("{name}_ns"), "ns", own);
    rows.put(&format!("{name}_raw_ns"), "ns", live.raw(filter, column));
}

/// The empty program that a column is compared with.
fn limit(column: Column) -> Filter {
    if column.is_dropped() { Filter::EmptyDrop } else { Filter::EmptyPass }
}

/// A line a filter: rate, time and ratio for each of the main columns.
fn matrix(live: &Live) -> String {
    let cell = |filter: Filter, column: Column| {
        if filter == Filter::DeadEnd {
            return format!("({:.0} ns, subtracted)", median(&sorted(live.raw(filter, column))));
        }
        let few = Column::Syn(Segment::Few);
        // What xdp-filter can hold stands for the list.
        let column = if live.has(filter, column) || column != LISTED { column } else { few };
        if !live.has(filter, column) {
            return "-".to_owned();
        }
        let own = live.own(filter, column);
        let ns = median(&sorted(own.clone()));
        let ratio = median(&sorted(quotients(&live.own(limit(column), column), &own)));
        format!("{:.2} Mpps  {ns:.0} ns  {ratio:.2}", 1000.0 / ns)
    };
    let measured = FILTERS.iter().filter(|&&filter| columns(filter).iter().any(|&column| live.has(filter, column)));
    let mut matrix = table();
    matrix.set_header(["receiver", "listed SYNs", "unlisted SYNs", "other traffic"]);
    for &filter in measured {
        let cells = Column::MAIN.iter().map(|&column| cell(filter, column));
        matrix.add_row(std::iter::once(filter.name().to_owned()).chain(cells));
    }
    format!("A receiver's own rate, its time for a frame, and its rate as a part of the empty program's:\n{matrix}")
}
