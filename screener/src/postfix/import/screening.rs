//! The tests, but for the DNS lists: `[tests.pregreet]` and those behind the greeting.

use super::Import;
use super::draft::{Setting, quoted};
use super::values::{self, Kind};
use crate::config::Config;

/// The tests behind the greeting: postscreen's name and our table.
const DEEP: [(&str, &str); 3] = [
    ("pipelining", "tests.pipelining"),
    ("non_smtp_command", "tests.non_smtp_command"),
    ("bare_newline", "tests.bare_newline"),
];

impl Import<'_> {
    pub(super) fn tests(&mut self) {
        if self.value("postscreen_greet_banner").is_some_and(|banner| banner.is_empty()) {
            // That is how postscreen's test is switched off.
            let from = "postscreen_greet_banner".to_owned();
            self.take(
                "postscreen_greet_banner",
                vec![Setting { table: "tests.pregreet", key: "wait", value: quoted("0s"), from }],
            );
            for name in ["postscreen_greet_wait", "postscreen_greet_action", "postscreen_greet_ttl"] {
                self.see(name);
            }
        } else {
            self.same("postscreen_greet_wait", Kind::Time('s'), "tests.pregreet", "wait");
            self.same("postscreen_greet_action", Kind::Action, "tests.pregreet", "action");
            self.same("postscreen_greet_ttl", Kind::Time('d'), "tests.pregreet", "ttl");
            self.under_stress("postscreen_greet_wait", Config::default().tests.pregreet.wait.stress.as_secs());
        }
        let mut any = false;
        for (test, table) in DEEP {
            let [enable, action, ttl] = ["enable", "action", "ttl"].map(|what| format!("postscreen_{test}_{what}"));
            self.same(&enable, Kind::Switch, table, "enable");
            if self.value(&enable).is_some_and(|word| values::switch(&word) == Ok(false)) {
                self.see(&action);
                self.see(&ttl);
                continue;
            }
            any = true;
            self.same(&action, Kind::Action, table, "action");
            self.same(&ttl, Kind::Time('d'), table, "ttl");
            if test == "non_smtp_command" {
                self.same("postscreen_forbidden_commands", Kind::Text, table, "forbidden");
            }
        }
        self.see("postscreen_forbidden_commands");
        // Also where no pass can be earned a client is put off, and not let in.
        let vetoes = !Config::parse(&self.draft.written(), "").unwrap_or_default().listen.pass_on.is_empty();
        if any || vetoes {
            let from = "as postscreen does; \"relay\" spares senders the second visit".to_owned();
            self.take(
                "tests after the greeting",
                vec![Setting { table: "backend", key: "after_tests", value: quoted("defer"), from }],
            );
        }
    }
}
