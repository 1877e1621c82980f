//! Where the daemon of this host is found, for commands that are not told.
//!
//! Looks at two keys and judges nothing: with a file that is wrong elsewhere the daemon has to be found too, or nobody could ask it what
//! is wrong.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{DEFAULT_PATH, DEFAULT_SOCKET};
use crate::kernel::DEFAULT_PIN;

/// What the configuration at [`DEFAULT_PATH`] says, or the defaults: where there is none, or it is not for this user to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// `control.socket`
    pub socket: PathBuf,
    /// `kernel.pin`
    pub pin: PathBuf,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Written {
    control: Control,
    kernel: Kernel,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Control {
    socket: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Kernel {
    pin: Option<PathBuf>,
}

impl Places {
    /// Of this host.
    pub fn usual() -> Self {
        Self::of(&std::fs::read_to_string(DEFAULT_PATH).unwrap_or_default())
    }

    fn of(text: &str) -> Self {
        let Written { control, kernel } = toml::from_str(text).unwrap_or_default();
        let or = |written: Option<PathBuf>, usual| written.unwrap_or_else(|| Path::new(usual).to_owned());
        Self { socket: or(control.socket, DEFAULT_SOCKET), pin: or(kernel.pin, DEFAULT_PIN) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_in_a_file_that_is_wrong_elsewhere_and_have_defaults() {
        let of = |text: &str| {
            let Places { socket, pin } = Places::of(text);
            [socket, pin].map(|place| place.display().to_string())
        };
        assert_eq!(of(""), [DEFAULT_SOCKET, DEFAULT_PIN]);
        assert_eq!(
            of("[control]\nsocket = \"/run/mx.sock\"\n[limits]\ncommands = 0\nno = 1\n"),
            ["/run/mx.sock", DEFAULT_PIN]
        );
        assert_eq!(of("[kernel]\npin = \"/sys/fs/bpf/mx\"\n"), [DEFAULT_SOCKET, "/sys/fs/bpf/mx"]);
        assert_eq!(of("[control\n"), [DEFAULT_SOCKET, DEFAULT_PIN]);
    }
}
