//! The attachments over time: made at the start, looked after while the daemon runs, since interfaces come and go.
//!
//! Holds what should be attached where, and what became of it. Never undoes what an operator did: what was taken out with
//! `screener kernel detach` stays out.

use std::collections::BTreeMap;

use super::attach::{self, Look};
use super::error::KernelError;
use super::interface::{self, Interface, Mode};
use super::load::{self, Program, SettingsMap};
use super::options::{Options, XdpPolicy};
use super::pin::{self, PinDirectory};

const TAKEN_OUT: &str =
    "taken out of the kernel by `screener kernel detach` or by hand: start the daemon again to attach";

/// What came about on an interface since the last look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The interface.
    pub interface: String,
    /// How `screen` stands there now.
    pub now: Now,
}

/// How `screen` stands on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Now {
    /// It runs.
    Attached {
        /// How.
        mode: Mode,
        /// Why not in a better way.
        reason: Option<String>,
    },
    /// It runs, and the interface is called otherwise.
    Renamed {
        /// The name.
        to: String,
    },
    /// It does not run.
    Missing {
        /// Why not.
        why: String,
    },
}

/// What should be attached, and how it stands.
pub(super) struct Life {
    interfaces: Vec<String>,
    policy: XdpPolicy,
    /// Interfaces that do not exist yet may come.
    follow: bool,
    /// `screen`; or why it could not be loaded. `None`: it is not wanted.
    screens: Option<Result<Vec<Program>, String>>,
    /// `steer`; or why it could not be loaded. `None`: it is not wanted.
    steer: Option<Result<Program, String>>,
    state: BTreeMap<String, Now>,
    /// Why `steer` is not attached.
    steer_reason: Option<String>,
    /// How an interface was when attaching to it failed; `None`: it did not exist. While it stays so, nothing is tried
    /// again: an attempt can make a driver set up its queues anew.
    failed_at: BTreeMap<String, Option<Interface>>,
}

impl Life {
    /// Loads what is wanted. It is an error if something is and nothing of it can be loaded.
    pub(super) fn load(object: &mut aya::Ebpf, options: &Options) -> Result<Self, KernelError> {
        let interfaces = if options.xdp == XdpPolicy::Off { Vec::new() } else { options.interfaces.clone() };
        let steer = options.steer.then(|| load::steer(object));
        let screens = (!interfaces.is_empty()).then(|| load::screen(object));
        let loaded = matches!(steer, Some(Ok(_))) || matches!(screens, Some(Ok(_)));
        let mut first_error = None;
        let mut text = |error: KernelError| {
            let error = error.explained();
            let text = error.to_string();
            first_error.get_or_insert(error);
            text
        };
        let steer = steer.map(|steer| steer.map_err(&mut text));
        let screens = screens.map(|screens| screens.map_err(&mut text));
        match first_error {
            Some(error) if !loaded => Err(error),
            _ => Ok(Self {
                interfaces,
                policy: options.xdp,
                follow: options.follow,
                screens,
                steer,
                state: BTreeMap::new(),
                steer_reason: None,
                failed_at: BTreeMap::new(),
            }),
        }
    }

    /// Whether these options ask for the same attachments.
    pub(super) fn is_for(&self, options: &Options) -> bool {
        let interfaces: &[String] = if options.xdp == XdpPolicy::Off { &[] } else { &options.interfaces };
        (interfaces, options.xdp, options.steer) == (&self.interfaces, self.policy, self.steer.is_some())
    }

    /// Attaches both programs as far as possible, and detaches what is not wanted any more. It is an error if something
    /// is wanted and nothing of it could be attached.
    pub(super) fn attach(&mut self, pin: &PinDirectory, settings: &mut SettingsMap) -> Result<(), KernelError> {
        let mut attached = false;
        let mut first_error = None;
        match &self.steer {
            Some(Ok(program)) => match attach::steer(program, pin) {
                Ok(()) => (attached, self.steer_reason) = (true, None),
                Err(error) => {
                    self.steer_reason = Some(error.to_string());
                    first_error = Some(error);
                }
            },
            Some(Err(why)) => self.steer_reason = Some(why.clone()),
            None => {
                pin::remove_link(&pin.steer_link())?;
                self.steer_reason = Some("not asked for".to_owned());
            }
        }
        // Before `screen` comes: from its first packet on it must know whether `steer` stands behind it.
        self.tell(pin, settings)?;
        for name in self.interfaces.clone() {
            match self.attach_screen(pin, &name) {
                Ok(()) => attached = true,
                Err(KernelError::NoInterface { .. }) if self.follow => {}
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        // After the new ones: an interface that has another name now keeps its attachment.
        for (name, path) in pin::screen_links(pin.path())? {
            if !self.interfaces.contains(&name) {
                pin::remove_link(&path)?;
            }
        }
        self.tell(pin, settings)?;
        match first_error {
            Some(error) if !attached => Err(error.explained()),
            _ => Ok(()),
        }
    }

    /// Looks after the attachments: what has lost its interface and has it again, or has one for the first time, is
    /// attached. Returns what is different from the last time.
    pub(super) fn tend(&mut self, pin: &PinDirectory, settings: &mut SettingsMap) -> Vec<Change> {
        let before = self.state.clone();
        for name in self.interfaces.clone() {
            if let Err(error) = self.look_after(pin, &name) {
                self.state.insert(name, Now::Missing { why: error.to_string() });
            }
        }
        if self.steer_reason.is_none() && (pin.is_gone() || !pin.steer_link().exists()) {
            self.steer_reason = Some(TAKEN_OUT.to_owned());
        }
        if let Err(error) = self.tell(pin, settings) {
            log::warn!("{error}");
        }
        let changed = self.state.iter().filter(|&(name, now)| before.get(name) != Some(now));
        changed.map(|(name, now)| Change { interface: name.clone(), now: now.clone() }).collect()
    }

    fn look_after(&mut self, pin: &PinDirectory, name: &str) -> Result<(), KernelError> {
        let missing = |why: &str| Now::Missing { why: why.to_owned() };
        let now = match attach::look(pin.path(), name)? {
            Look::Ours { mode, .. } => match self.state.get(name) {
                Some(Now::Attached { mode: before, .. }) if *before == mode => return Ok(()),
                _ => Now::Attached { mode, reason: None },
            },
            Look::Renamed { to, .. } => Now::Renamed { to },
            look => {
                let stood = matches!(self.state.get(name), Some(Now::Attached { .. } | Now::Renamed { .. }));
                let out = matches!(self.state.get(name), Some(Now::Missing { why }) if why == TAKEN_OUT);
                if out || pin.is_gone() || stood && !pin.screen_link(name).exists() {
                    missing(TAKEN_OUT)
                } else if self.failed_at.get(name).map(Option::as_ref) == Some(look.interface()) {
                    return Ok(());
                } else {
                    return self.attach_screen(pin, name);
                }
            }
        };
        self.state.insert(name.to_owned(), now);
        Ok(())
    }

    /// Attaches `screen` to one interface, and notes what came of it.
    fn attach_screen(&mut self, pin: &PinDirectory, name: &str) -> Result<(), KernelError> {
        let outcome = match &self.screens {
            Some(Ok(programs)) => attach::screen(programs, pin, name, self.policy),
            Some(Err(why)) => {
                self.state.insert(name.to_owned(), Now::Missing { why: why.clone() });
                return Ok(());
            }
            None => return Ok(()),
        };
        let (now, outcome) = match outcome {
            Ok(attached) => {
                self.failed_at.remove(name);
                (Now::Attached { mode: attached.mode, reason: attached.reason }, Ok(()))
            }
            Err(error) => {
                // As it is after the attempt, which may have changed something.
                self.failed_at.insert(name.to_owned(), interface::look_up(name).ok());
                (Now::Missing { why: error.to_string() }, Err(error))
            }
        };
        self.state.insert(name.to_owned(), now);
        outcome
    }

    /// Tells the programs where they stand.
    fn tell(&self, pin: &PinDirectory, settings: &mut SettingsMap) -> Result<(), KernelError> {
        let steered = attach::is_steered(pin.path())?;
        let reject_early = reject_early(&self.looks(pin)).is_ok();
        let attached = load::Attached { steered, reject_early };
        settings.update(|settings| load::put_attached(settings, attached)).map(drop)
    }

    fn looks(&self, pin: &PinDirectory) -> Vec<Look> {
        self.interfaces.iter().filter_map(|name| attach::look(pin.path(), name).ok()).collect()
    }

    /// Whether every attachment runs a program that was loaded here.
    pub(super) fn is_everywhere(&self, pin: &PinDirectory) -> Result<bool, KernelError> {
        let screens = self.screens.iter().flatten().flatten();
        let ids: Vec<_> = screens.chain(self.steer.iter().flatten()).map(|program| program.id).collect();
        pin.all_run(&ids)
    }

    /// How `screen` stands on each interface where it is wanted.
    pub(super) fn state(&self) -> &BTreeMap<String, Now> {
        &self.state
    }

    /// Why `steer` is not attached, and whether it should be.
    pub(super) fn steer(&self) -> (Option<&str>, bool) {
        (self.steer_reason.as_deref(), self.steer.is_some())
    }
}

/// Whether `screen` may answer a `reject` entry by itself; if not, why.
///
/// Where a veth's other end does not poll, which cannot be seen from this end, a frame that is sent back is lost: the
/// client would hear nothing at all. There `steer` refuses, by a RST of the kernel's own.
pub(super) fn reject_early(looks: &[Look]) -> Result<(), String> {
    for look in looks {
        if let Look::Ours { interface, mode: Mode::Native, .. } = look
            && interface.kind.as_deref() == Some("veth")
        {
            return Err(format!("{} is a veth, whose other end may lose what XDP sends back", interface.name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(kind: Option<&str>, mode: Mode) -> Look {
        let interface = Interface { name: "eth0".into(), kind: kind.map(str::to_owned), ..Interface::default() };
        Look::Ours { interface, mode, pin: "/sys/fs/bpf/screener/link_screen_eth0".into() }
    }

    #[test]
    fn a_native_veth_keeps_refusals_with_steer() {
        assert_eq!(reject_early(&[ours(None, Mode::Native), Look::Gone]), Ok(()));
        assert_eq!(reject_early(&[ours(Some("veth"), Mode::Generic)]), Ok(()));
        let why = reject_early(&[ours(None, Mode::Native), ours(Some("veth"), Mode::Native)]).unwrap_err();
        assert!(why.starts_with("eth0 is a veth"), "{why}");
    }
}
