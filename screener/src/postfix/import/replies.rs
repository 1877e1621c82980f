//! What clients are told, and how much of everything they may have: `[replies]` and `[limits]`.

use super::super::lines::words;
use super::Import;
use super::draft::{Setting, list, quoted};
use super::values::{self, Kind};
use crate::config::Config;

impl Import<'_> {
    pub(super) fn replies(&mut self) {
        let (banner, teaser) = (self.value("smtpd_banner"), self.value("postscreen_greet_banner"));
        if let (Some(banner), Some(name)) = (banner, self.value("myhostname")) {
            match banner.strip_prefix(&name).filter(|rest| rest.is_empty() || rest.starts_with(' ')) {
                Some(rest) => {
                    let value = quoted(rest.trim());
                    self.take(
                        "smtpd_banner",
                        vec![Setting { table: "replies", key: "banner", value, from: "smtpd_banner".to_owned() }],
                    );
                }
                None => self.leave("smtpd_banner", "a greeting begins with the hostname here: see replies.banner"),
            }
            if teaser.is_some_and(|teaser| teaser != banner && !teaser.is_empty()) {
                self.note(
                    "postscreen_greet_banner differs from smtpd_banner; here both lines of the greeting say the same",
                );
            }
        }
        self.same("soft_bounce", Kind::Switch, "replies", "soft_bounce");
        self.see("postscreen_reject_footer");
        // Its $ are replaced when a client is answered, not before.
        let footer = ["postscreen_reject_footer", "smtpd_reject_footer"]
            .iter()
            .find_map(|name| self.parameters.raw(name).filter(|text| text != "$smtpd_reject_footer"))
            .unwrap_or_default();
        let setting = Setting {
            table: "replies",
            key: "footer",
            value: quoted(&footer),
            from: "postscreen_reject_footer".to_owned(),
        };
        self.take("postscreen_reject_footer", vec![setting]);
        self.absent("postscreen_reject_footer_maps", "there is one footer for all replies: see replies.footer");
        self.absent(
            "postscreen_command_filter",
            "commands are taken as they come: mend them in the MTA (smtpd_command_filter)",
        );
        self.absent(
            "postscreen_discard_ehlo_keyword_address_maps",
            "EHLO keywords are withheld from all clients alike: see replies.withhold_ehlo",
        );
        let name = "postscreen_discard_ehlo_keywords";
        if let Some(keywords) = self.value(name) {
            let keywords = words(&keywords).into_iter().filter(|word| !word.eq_ignore_ascii_case("silent-discard"));
            let value = list(keywords.map(str::to_ascii_uppercase));
            self.take(name, vec![Setting { table: "replies", key: "withhold_ehlo", value, from: name.to_owned() }]);
        }
        let is_on = |value: Option<String>| value.is_some_and(|word| values::switch(&word) == Ok(true));
        if is_on(self.value("postscreen_disable_vrfy_command")) && !is_on(self.value("disable_vrfy_command")) {
            self.leave(
                "postscreen_disable_vrfy_command",
                "VRFY is offered here if the MTA offers it: set disable_vrfy_command = yes in main.cf",
            );
        }
        if self.value("respectful_logging").is_some_and(|word| word == "no") {
            self.note(
                "the log says ALLOWLISTED and DENYLISTED, where this postscreen says WHITELISTED and BLACKLISTED",
            );
        }
    }

    /// A parameter without a counterpart: left out if it says anything.
    fn absent(&mut self, name: &str, why: &str) {
        if self.value(name).is_some_and(|value| !value.is_empty()) {
            self.leave(name, why);
        }
    }

    pub(super) fn limits(&mut self) {
        self.same("postscreen_client_connection_count_limit", Kind::Number, "limits", "per_client");
        self.same("postscreen_command_count_limit", Kind::Number, "limits", "commands");
        self.same("postscreen_command_time_limit", Kind::Time('s'), "limits", "command_time");
        self.under_stress("postscreen_command_time_limit", Config::default().limits.command_time.stress.as_secs());
        self.same("postscreen_cache_retention_time", Kind::Time('d'), "ledger", "retention");
        self.see("postscreen_pre_queue_limit");
        if self.parameters.is_set("postscreen_pre_queue_limit") {
            self.same("postscreen_pre_queue_limit", Kind::Number, "limits", "connections");
        }
        if self.value("line_length_limit").is_some_and(|limit| limit != "2048") {
            self.leave("line_length_limit", "a command line has 2048 bytes at the most here");
        }
    }

    /// Says what becomes of a time under stress, if that is another than here.
    pub(super) fn under_stress(&mut self, name: &str, ours: u64) {
        let (Ok(normal), Ok(stressed)) = (self.parameters.value(name), self.parameters.value_under_stress(name)) else {
            return;
        };
        let (Ok(normal), Ok(theirs)) = (values::seconds(normal.trim(), 's'), values::seconds(stressed.trim(), 's'))
        else {
            return;
        };
        let ours = ours.min(normal);
        if ours != theirs {
            self.note(format!("{name}: under stress it is {theirs} s there and {ours} s here (docs/screening.md)"));
        }
    }
}
