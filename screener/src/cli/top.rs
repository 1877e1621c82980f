//! `screener top`: what the daemon does now, on one screen that is always current; or, for machines, an object a line.
//!
//! What is shown is made of answers that the control socket has anyway: of the difference between two looks. Asks for no list of
//! clients or prefixes: there may be a million of them. Drawn with a few escape sequences: a library for that is eighty crates.

mod look;
mod screen;
mod terminal;
mod view;

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use clap::Args;
use tokio::time::{MissedTickBehavior, interval};

use super::Answer;
use super::output::Form;
use crate::control::{Client, ClientError};

use look::Look;
use terminal::{Keys, Terminal};
use view::{Shown, View};

/// What the help ends with.
const HELP: &str = "\
q or Ctrl-C ends it. Where standard output is no terminal, or with --json, it prints one JSON object a look. When the daemon goes, it says
so and waits for the next one; rates begin anew with a new daemon.";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct Top {
    /// How long between two looks
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = pause)]
    interval: Duration,
    /// End after so many looks
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    #[command(flatten)]
    form: Form,
}

/// A tenth of a second at least: a look is work for the daemon.
fn pause(text: &str) -> Result<Duration, String> {
    let pause = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if pause < Duration::from_millis(100) {
        return Err("100ms at the least: a look is work for the daemon".to_owned());
    }
    Ok(pause)
}

impl Top {
    /// Yes, unless no daemon was met at the last look.
    pub(super) async fn carry_out(self, client: &Client) -> anyhow::Result<Answer> {
        if self.form.json || !io::stdout().is_terminal() || !io::stdin().is_terminal() {
            return tokio::select! {
                done = self.watch(client, print) => done,
                ended = terminal::ended() => Ok(ended.map(|()| Answer::Yes)?),
            };
        }
        let terminal = Terminal::take()?;
        let mut keys = Keys::listen()?;
        tokio::select! {
            done = self.watch(client, |shown| terminal.draw(&screen::lines(shown))) => done,
            () = keys.quit() => Ok(Answer::Yes),
            ended = terminal::ended() => Ok(ended.map(|()| Answer::Yes)?),
        }
    }

    async fn watch(&self, client: &Client, show: impl Fn(&Shown) -> io::Result<()>) -> anyhow::Result<Answer> {
        let mut ticks = interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut before: Option<Look> = None;
        // Whoever saw one waits for the next, which at its start may not answer as one that stands.
        let mut met = false;
        let mut looks = 0;
        loop {
            ticks.tick().await;
            let shown = match Look::take(client, Instant::now()).await {
                Ok(now) => {
                    let view = View::between(before.as_ref(), &now);
                    before = Some(now);
                    met = true;
                    Shown::Daemon(Box::new(view))
                }
                // Waiting would not help.
                Err(error @ (ClientError::NotAllowed(_) | ClientError::Broken { .. })) if !met => {
                    return Err(error.into());
                }
                Err(error) => {
                    before = None;
                    Shown::Away { error: error.to_string() }
                }
            };
            show(&shown)?;
            looks += 1;
            if self.count.is_some_and(|count| looks >= count) {
                return Ok(if before.is_some() { Answer::Yes } else { Answer::No });
            }
        }
    }
}

/// As an object on a line.
fn print(shown: &Shown) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, shown)?;
    writeln!(out)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{UnixListener, UnixStream};

    use super::*;
    use crate::control::api::Status;
    use crate::control::api_dnsbl::Dnsbl;

    #[test]
    fn a_pause_is_a_duration_and_not_too_short() {
        assert_eq!(pause("500ms"), Ok(Duration::from_millis(500)));
        assert!(pause("10ms").is_err() && pause("often").is_err() && pause("0s").is_err());
    }

    /// Answers a look as a daemon does.
    async fn answer(mut stream: UnixStream) -> io::Result<()> {
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            stream.read_buf(&mut asked).await?;
        }
        let body = match String::from_utf8_lossy(&asked).split(' ').nth(1) {
            Some("/v1/status") => serde_json::to_string(&Status::default())?,
            Some("/v1/dnsbl") => serde_json::to_string(&Dnsbl::default())?,
            _ => "# EOF\n".to_owned(),
        };
        let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).await
    }

    #[tokio::test]
    async fn whoever_met_a_daemon_waits_for_the_next_though_it_breaks_off() {
        let place = tempfile::tempdir().unwrap();
        let socket = place.path().join("control.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            // A look is three questions. The second and the third look end with their first one.
            for question in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                if ![3, 4].contains(&question) {
                    answer(stream).await.unwrap();
                }
            }
        });
        let top = Top { interval: Duration::from_millis(100), count: Some(4), form: Form { json: true } };
        let shown = RefCell::new(Vec::new());
        let show = |seen: &Shown| {
            shown.borrow_mut().push(matches!(seen, Shown::Daemon(_)));
            Ok(())
        };
        assert_eq!(top.watch(&Client::new(socket), show).await.unwrap(), Answer::Yes);
        assert_eq!(shown.into_inner(), [true, false, false, true]);
    }
}
