//! The simulation, run often; and that it gets anywhere.

use std::time::Instant;

use crate::session::Outcome;
use crate::session::simulation::{Entropy, Run, lines, run};

const SEEDS: u64 = 6_000;

fn of_seed(seed: u64) -> Run {
    match std::panic::catch_unwind(|| run(Entropy::Seed(seed), Instant::now())) {
        Ok(run) => run,
        Err(panic) => {
            eprintln!("the seed is {seed}");
            std::panic::resume_unwind(panic)
        }
    }
}

#[test]
fn nothing_that_happens_to_a_session_breaks_an_invariant() {
    let runs: Vec<_> = (0..SEEDS).map(of_seed).collect();
    let share = |what: fn(&Run) -> bool| runs.iter().filter(|run| what(run)).count();
    // A simulation that gets nowhere would prove nothing.
    for (what, count) in [
        ("handed off", share(|run| run.outcome == Some(Outcome::HandedOff))),
        ("deferred", share(|run| run.outcome == Some(Outcome::Deferred))),
        ("refused", share(|run| run.outcome == Some(Outcome::Refused))),
        ("left", share(|run| run.outcome == Some(Outcome::Left))),
        ("granted", share(|run| run.granted)),
        ("withdrawn", share(|run| run.withdrawn)),
        ("tarpitted", share(|run| run.tarpitted)),
        ("under TLS", share(|run| run.under_tls)),
    ] {
        assert!(count > 10, "only {count} of {SEEDS} sessions were {what}");
    }
}

#[test]
fn a_seed_is_a_run() {
    for seed in 0..200 {
        assert_eq!(of_seed(seed), of_seed(seed));
    }
}

#[test]
fn lines_are_the_same_in_any_pieces() {
    let input = b"EHLO x\r\nNOOP\nA\rB\r\nC\0\r\n\r\r\n\n\xff\r\nlonger than the limit of this test\r\n";
    for piece in 1..input.len() {
        lines(input, 24, piece);
    }
}
