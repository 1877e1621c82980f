//! The rungs of the offence ladder as they are configured.

use super::refusal;
use crate::config::Config;
use crate::ladder::Rules;

#[test]
fn rungs_that_stand_in_no_order_are_refused_where_they_are_written() {
    for (text, message) in [
        ("drop_at = 5", "11: ladder.drop_at: drop_at (5) is not above tarpit_at (6): nobody would be tarpitted first"),
        (
            "tarpit_at = 12",
            "13: ladder.tarpit_at: drop_at (12) is not above tarpit_at (12): nobody would be tarpitted first",
        ),
        (
            "first_drop = \"2days\"",
            "14: ladder.first_drop: first_drop (2days) is longer than longest_drop (1day): swap or change them",
        ),
        (
            "longest_drop = \"5m\"",
            "16: ladder.longest_drop: first_drop (1h) is longer than longest_drop (5m): swap or change them",
        ),
        ("half_life = \"1s\"", "13: ladder.half_life: \"1s\" is out of range: 1m to 30days"),
        ("prefix_clients = -1", "18: ladder.prefix_clients: -1 is out of range: 0 to 10000; 0: prefixes do not climb"),
    ] {
        assert_eq!(refusal(&format!("[ladder]\n{text}\n")), format!("s.toml:2:{message}"));
    }
}

#[test]
fn a_ladder_is_there_unless_it_is_switched_off() {
    assert_eq!(Config::default().ladder, Some(Rules::default()));
    assert_eq!(Config::parse("[ladder]\nenable = false\ndrop_at = 9\n", "s.toml").unwrap().ladder, None);
}
