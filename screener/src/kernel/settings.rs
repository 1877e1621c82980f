//! The settings of the programs by name: shown, and changed at run time where nothing else must change with them.
//!
//! Holds the names and the forms of the values. Never writes the map: [`Pinned`](super::Pinned) does.

use screener_ebpf::{self as abi, MAX_PORTS, Settings};
use serde::Serialize;
use thiserror::Error;

use crate::rate::SynRate;

/// One setting as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: String,
}

/// Why a setting was not changed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BadSetting {
    /// There is none of that name.
    #[error("there is no setting {name}: there are {known}")]
    Unknown {
        /// As it was given.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// It follows from something else.
    #[error("{name} cannot be set: {why}")]
    Fixed {
        /// The setting.
        name: &'static str,
        /// What it follows from.
        why: &'static str,
    },
    /// The value makes no sense.
    #[error("{name} = '{value}': {wanted}")]
    Value {
        /// The setting.
        name: &'static str,
        /// As it was given.
        value: String,
        /// What would make sense.
        wanted: &'static str,
    },
}

/// How a setting is changed.
enum Change {
    /// Reads a value into the settings; `None`: it makes no sense. And what would.
    To(fn(&mut Settings, &str) -> Option<()>, &'static str),
    /// Not at all, and why.
    Never(&'static str),
}

struct Field {
    name: &'static str,
    show: fn(&Settings) -> String,
    change: Change,
}

/// Every setting, in the order in which they are shown.
const FIELDS: [Field; 7] = [
    Field {
        name: "ports",
        show: |settings| {
            let ports = settings.ports.iter().map(|port| u16::from_be_bytes(*port)).filter(|&port| port != 0);
            ports.map(|port| port.to_string()).collect::<Vec<_>>().join(",")
        },
        change: Change::To(set_ports, "name one to eight ports between 1 and 65535, for example 25,587"),
    },
    Field {
        name: "event_sample",
        show: |settings| settings.event_sample.to_string(),
        change: Change::To(
            |settings, value| {
                let sample = value.parse().ok().filter(|&sample: &u32| sample == 0 || sample.is_power_of_two());
                sample.map(|sample| settings.event_sample = sample)
            },
            "say of how many findings one is told, as a power of two: 1 is each, 0 none (a daemon chooses by itself)",
        ),
    },
    Field {
        name: "syn_rate",
        show: |settings| {
            let rate = abi::rate::rate(settings.syn_interval_ns, settings.syn_tolerance_ns);
            rate.map_or_else(|| "off".to_owned(), |(per_second, burst)| SynRate { per_second, burst }.to_string())
        },
        change: Change::To(set_syn_rate, "write it like 20/s burst 40, or off"),
    },
    Field {
        name: "reject_early",
        show: |settings| {
            let by = if settings.has(Settings::REJECT_BY_HAND) { "by hand" } else { "auto" };
            format!("{} ({by})", if settings.has(Settings::REJECT_EARLY) { "on" } else { "off" })
        },
        change: Change::To(
            set_reject_early,
            "write on (screen answers itself), off (steer does), or auto (what the interfaces allow, from the next attach)",
        ),
    },
    Field {
        name: "ipv6_prefix",
        show: |settings| u128::from_be_bytes(settings.key_mask).count_ones().to_string(),
        change: Change::Never("the keys of all IPv6 passes hang on it; set ledger.ipv6_prefix in the configuration"),
    },
    Field {
        name: "steered",
        show: |settings| (settings.flags & Settings::STEERED != 0).to_string(),
        change: Change::Never(
            "it tells whether `steer` is attached; `screener kernel attach` and `detach` change that",
        ),
    },
    Field {
        name: "abi",
        show: |settings| settings.abi.to_string(),
        change: Change::Never("it is the version of the maps"),
    },
];

/// Every setting with its value.
pub(super) fn all(settings: &Settings) -> Vec<Setting> {
    FIELDS.iter().map(|field| Setting { name: field.name, value: (field.show)(settings) }).collect()
}

/// Changes one.
pub(super) fn set(settings: &mut Settings, name: &str, value: &str) -> Result<(), BadSetting> {
    let Some(field) = FIELDS.iter().find(|field| field.name == name) else {
        let known = FIELDS.map(|field| field.name).join(", ");
        return Err(BadSetting::Unknown { name: name.to_owned(), known });
    };
    match field.change {
        Change::Never(why) => Err(BadSetting::Fixed { name: field.name, why }),
        Change::To(change, wanted) => change(settings, value.trim()).ok_or_else(|| BadSetting::Value {
            name: field.name,
            value: value.to_owned(),
            wanted,
        }),
    }
}

fn set_syn_rate(settings: &mut Settings, value: &str) -> Option<()> {
    let rate = if value == "off" { None } else { Some(value.parse::<SynRate>().ok()?) };
    (settings.syn_interval_ns, settings.syn_tolerance_ns) =
        rate.map_or((0, 0), |rate| abi::rate::parameters(rate.per_second, rate.burst));
    Some(())
}

fn set_reject_early(settings: &mut Settings, value: &str) -> Option<()> {
    let on = match value {
        "on" => Some(true),
        "off" => Some(false),
        "auto" => None,
        _ => return None,
    };
    settings.set(Settings::REJECT_BY_HAND, on.is_some());
    if let Some(on) = on {
        settings.set(Settings::REJECT_EARLY, on);
    }
    Some(())
}

fn set_ports(settings: &mut Settings, value: &str) -> Option<()> {
    let mut ports = [[0; 2]; MAX_PORTS];
    let words: Vec<_> = value.split([',', ' ']).filter(|word| !word.is_empty()).collect();
    if words.is_empty() || words.len() > MAX_PORTS {
        return None;
    }
    for (slot, word) in ports.iter_mut().zip(words) {
        *slot = word.parse::<u16>().ok().filter(|&port| port != 0)?.to_be_bytes();
    }
    settings.ports = ports;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        let mut ports = [[0; 2]; MAX_PORTS];
        ports[0] = 25_u16.to_be_bytes();
        let key_mask = (u128::MAX << 64).to_be_bytes();
        Settings { abi: 1, flags: Settings::STEERED, event_sample: 1, ports, key_mask, ..Settings::NOTHING }
    }

    fn shown(settings: &Settings, name: &str) -> String {
        all(settings).into_iter().find(|setting| setting.name == name).unwrap().value
    }

    #[test]
    fn settings_have_names_and_show_what_they_are() {
        let mut settings = settings();
        assert_eq!(shown(&settings, "ports"), "25");
        assert_eq!(
            (shown(&settings, "ipv6_prefix"), shown(&settings, "steered")),
            ("64".to_owned(), "true".to_owned())
        );
        set(&mut settings, "ports", "25,587, 465").unwrap();
        set(&mut settings, "event_sample", "128").unwrap();
        for (name, value, shows) in [
            ("syn_rate", "20/s burst 40", "20/s burst 40"),
            ("syn_rate", "7/s", "7/s burst 7"),
            ("syn_rate", "off", "off"),
            ("reject_early", "on", "on (by hand)"),
            ("reject_early", "auto", "on (auto)"),
            ("reject_early", "off", "off (by hand)"),
        ] {
            set(&mut settings, name, value).unwrap();
            assert_eq!(shown(&settings, name), shows, "{name} {value}");
        }
        assert_eq!(
            (shown(&settings, "ports"), shown(&settings, "event_sample")),
            ("25,587,465".to_owned(), "128".to_owned())
        );
    }

    #[test]
    fn what_makes_no_sense_changes_nothing_and_says_what_would() {
        let before = settings();
        let mut settings = before;
        for (name, value, part) in [
            ("ports", "0", "between 1 and 65535"),
            ("ports", "", "between 1 and 65535"),
            ("ports", "smtp", "between 1 and 65535"),
            ("ports", "1,2,3,4,5,6,7,8,9", "one to eight"),
            ("event_sample", "-1", "0 none"),
            ("event_sample", "100", "power of two"),
            ("syn_rate", "many", "20/s burst 40"),
            ("reject_early", "maybe", "auto"),
            ("abi", "2", "cannot be set"),
            ("ipv6_prefix", "48", "ledger.ipv6_prefix"),
            ("prots", "25", "there are ports, event_sample"),
        ] {
            let error = set(&mut settings, name, value).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
            assert_eq!(settings, before);
        }
    }
}
