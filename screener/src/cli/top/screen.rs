//! The lines of the screen. Knows no terminal: whoever draws cuts them to its size.

use std::time::Duration;

use super::super::output::ms;
use super::view::{Rate, Shown, View};

/// How many of the kernel's counters are shown.
const PACKETS: usize = 10;

/// From above to below, the most important first.
pub(super) fn lines(shown: &Shown) -> Vec<String> {
    match shown {
        Shown::Away { error } => vec![error.clone(), String::new(), "waiting for it; q ends".to_owned()],
        Shown::Daemon(view) => of_daemon(view),
    }
}

fn of_daemon(view: &View) -> Vec<String> {
    let uptime = humantime::format_duration(Duration::from_secs(view.uptime_seconds));
    let state = if view.state == "draining" { ", GOING DOWN" } else { "" };
    let connections = &view.connections;
    let stress = if connections.stress { ", STRESS: waits are shortened" } else { "" };
    let mut lines = vec![
        format!("screener {} in {} mode, process {}, up {uptime}{state}", view.version, view.mode, view.pid),
        format!(
            "connections {} of {}, {} in the tarpit{stress}; {} accepted, {} of them tagged; {} greeted",
            connections.now,
            connections.limit,
            connections.tarpitted,
            rate(connections.accepted),
            rate(connections.tagged),
            rate(connections.greeted)
        ),
        format!(
            "passes {}, deny entries {}; offenders: {} dropped, {} tarpitted, {} that failed lately",
            view.passes, view.denies, view.offenders.dropped, view.offenders.tarpitted, view.offenders.refused
        ),
    ];
    if view.degraded.is_empty() {
        lines.push("nothing is degraded".to_owned());
    }
    lines.extend(view.degraded.iter().map(|sentence| format!("DEGRADED: {sentence}")));
    let counts = |title: &str, counts: Vec<(&str, Rate)>| {
        let rows =
            counts.into_iter().map(|(name, count)| format!("  {:>10}  {:>12}  {name}", rate(count), count.total));
        let head = format!("{title:<14}{:>12}", "in all");
        [String::new(), head].into_iter().chain(rows).collect::<Vec<_>>()
    };
    let mut outcomes: Vec<_> = view.outcomes.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    outcomes.push(("not taken by the MTA", view.handoffs_failed));
    lines.extend(counts("sessions", outcomes));
    if !view.failed.is_empty() {
        lines.extend(counts("failed tests", view.failed.iter().map(|(name, count)| (name.as_str(), *count)).collect()));
    }
    let packets = view.kernel.iter().filter(|packets| packets.packets.total > 0).take(PACKETS);
    let packets: Vec<_> = packets
        .map(|packets| (format!("{} ({}, {})", packets.name, packets.hook, packets.family), packets.packets))
        .collect();
    if !packets.is_empty() {
        lines.extend(counts("kernel", packets.iter().map(|(name, count)| (name.as_str(), *count)).collect()));
    }
    if !view.lists.is_empty() {
        lines.push(String::new());
        lines.push(format!("{:<14}{:>12}{:>9}{:>8}{:>7}", "DNS lists", "in all", "listed", "half in", "open"));
        lines.extend(view.lists.iter().map(|list| {
            format!(
                "  {:>10}  {:>12}  {:>6.1}%  {:>7} {:>5}  {} ({})",
                rate(list.questions),
                list.questions.total,
                list.hit_rate * 100.0,
                ms(list.p50),
                list.open,
                list.list,
                list.state
            )
        }));
    }
    lines
}

fn rate(count: Rate) -> String {
    match count.rate {
        None => "-/s".to_owned(),
        Some(rate) if rate > 0.0 && rate < 10.0 => format!("{rate:.1}/s"),
        Some(rate) => format!("{rate:.0}/s"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::view::tests::look;
    use super::*;

    #[test]
    fn one_screen_has_it_all() {
        let begin = Instant::now();
        let (before, mut now) = (look(begin, 1, 100), look(begin + Duration::from_secs(1), 1, 108));
        now.status.degraded.push("eth0: gone".to_owned());
        let text = lines(&Shown::Daemon(Box::new(View::between(Some(&before), &now)))).join("\n");
        for part in [
            "screener 0.1.0 in steer mode, process 1, up 0s",
            "connections 7 of 100, 0 in the tarpit; 8.0/s accepted, 0/s of them tagged; 4.0/s greeted",
            "DEGRADED: eth0: gone",
            "       8.0/s           108  handed_off",
            "pregreet",
            "many (screen, ipv4)",
            "zen.example",
        ] {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
    }

    #[test]
    fn small_rates_have_a_digit_more_and_unknown_ones_none() {
        let of = |known| rate(Rate { total: 1, rate: known });
        assert_eq!([of(None), of(Some(0.0)), of(Some(0.25)), of(Some(1234.5))], ["-/s", "0/s", "0.2/s", "1234/s"]);
    }
}
