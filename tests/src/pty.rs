//! A command at a terminal of its own: what it draws, and how it leaves the terminal.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

use crate::wait::{until, until_or_show};

const SOON: Duration = Duration::from_secs(20);

/// A command that thinks somebody sits before it.
#[derive(Debug)]
pub struct Pty {
    keyboard: File,
    /// Kept open: with the last one to close it, what was set goes.
    terminal: OwnedFd,
    drawn: Arc<Mutex<Vec<u8>>>,
    child: Child,
}

impl Pty {
    /// Starts a command at a terminal of this size.
    ///
    /// # Errors
    /// When there is no terminal to be had, or the command does not start.
    pub fn spawn(command: &mut Command, rows: u16, columns: u16) -> Result<Self> {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).context("a terminal")?;
        grantpt(&controller)?;
        unlockpt(&controller)?;
        let terminal = ioctl_tiocgptpeer(&controller, OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        tcsetwinsize(&terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?;
        let end = || terminal.try_clone().context("another handle of the terminal");
        let child = command.stdin(end()?).stdout(end()?).stderr(end()?).spawn().context("starting the command")?;
        let keyboard = File::from(controller);
        let drawn = Arc::new(Mutex::new(Vec::new()));
        let (mut screen, kept) = (keyboard.try_clone()?, Arc::clone(&drawn));
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(count) = screen.read(&mut chunk) {
                kept.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&chunk[..count]);
            }
        });
        Ok(Self { keyboard, terminal, drawn, child })
    }

    /// How the terminal is set.
    ///
    /// # Errors
    /// When it is gone.
    pub fn settings(&self) -> Result<Termios> {
        Ok(tcgetattr(&self.terminal)?)
    }

    /// What was drawn behind what was waited for.
    #[must_use]
    pub fn drawn(&self) -> String {
        String::from_utf8_lossy(&self.drawn.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Waits until a text is drawn, and forgets everything up to it.
    ///
    /// # Errors
    /// When it is not in time.
    pub fn wait_for(&self, part: &str) -> Result<()> {
        let shown = || self.drawn().replace('\x1b', "^");
        until_or_show(&format!("{part:?} on the screen"), SOON, shown, || {
            let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
            let found = drawn.windows(part.len()).position(|window| window == part.as_bytes());
            Ok(found.map(|at| drop(drawn.drain(..at + part.len()))))
        })
    }

    /// Hits keys.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn hit(&mut self, keys: &str) -> Result<()> {
        Ok(self.keyboard.write_all(keys.as_bytes())?)
    }

    /// The process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the command's end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        until("the command to end", SOON, || self.child.try_wait().transpose())?.context("waiting for the command")
    }
}
