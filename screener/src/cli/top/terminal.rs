//! The terminal while it is ours: another screen, no cursor, keys as they are hit. Whatever ends this, it is given back as it was.

use std::io::{self, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// To the top.
const HOME: &str = "\x1b[H";
/// Clear what was there before, from the cursor on: before anything is written there, for behind a line that is as wide as the
/// terminal the cursor still stands on its last character.
const REST_OF_LINE: &str = "\x1b[K";
const REST_OF_SCREEN: &str = "\x1b[J";

/// Keys that end it: q, Ctrl-C, Ctrl-D.
const QUIT: &[u8] = b"qQ\x03\x04";

/// The terminal; given back when this goes.
pub(super) struct Terminal {
    before: Termios,
}

impl Terminal {
    pub(super) fn take() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut ours = before.clone();
        // Ctrl-C is a key: whoever is stopped or killed by one could not give the terminal back.
        ours.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        tcsetattr(io::stdin(), OptionalActions::Flush, &ours)?;
        let terminal = Self { before };
        say(ENTER)?;
        Ok(terminal)
    }

    /// Draws lines, as many and as much of each as there is room for.
    pub(super) fn draw(&self, lines: &[String]) -> io::Result<()> {
        let (width, height) = match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
            _ => (80, 24),
        };
        say(&frame(lines, width, height))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back.
        let _ = say(LEAVE);
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.before);
    }
}

/// What is written for one picture.
fn frame(lines: &[String], width: usize, height: usize) -> String {
    let fitting = lines.iter().take(height).map(|line| {
        // What a daemon says is no command for the terminal.
        let plain = line.chars().map(|c| if c.is_control() { '?' } else { c });
        REST_OF_LINE.chars().chain(plain.take(width)).collect::<String>()
    });
    let mut picture = HOME.to_owned() + &fitting.collect::<Vec<_>>().join("\r\n");
    if lines.len() < height {
        picture += "\r\n";
        picture += REST_OF_SCREEN;
    }
    picture
}

fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Keys as they are hit.
pub(super) struct Keys(mpsc::UnboundedReceiver<u8>);

impl Keys {
    /// Reads them on a thread of its own, which ends with the process: reading a terminal cannot be given up.
    pub(super) fn listen() -> io::Result<Self> {
        let (hit, keys) = mpsc::unbounded_channel();
        let read = move || {
            let mut key = [0];
            while io::stdin().read(&mut key).is_ok_and(|count| count == 1) && hit.send(key[0]).is_ok() {}
        };
        std::thread::Builder::new().name("keys".to_owned()).spawn(read)?;
        Ok(Self(keys))
    }

    /// Waits for a key that ends it, or for the end of keys.
    pub(super) async fn quit(&mut self) {
        while let Some(key) = self.0.recv().await {
            if QUIT.contains(&key) {
                return;
            }
        }
    }
}

/// Waits for a signal that ends a process.
pub(super) async fn ended() -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_fits_and_holds_no_command_of_anybody_elses() {
        let lines = ["12345678".to_owned(), "a\x1b[2Jb".to_owned(), "below".to_owned()];
        let picture = frame(&lines, 5, 2);
        assert_eq!(picture, "\x1b[H\x1b[K12345\r\n\x1b[Ka?[2J");
        assert_eq!(frame(&lines[2..], 5, 2), "\x1b[H\x1b[Kbelow\r\n\x1b[J");
    }
}
