//! The time from connecting to the greeting: of one client, and of one after the other while something else goes on.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::client::{PATIENCE, open};
use crate::host::Host;

/// Between two of the clients that come beside something else: they are to see it, not to be it.
const PAUSE: Duration = Duration::from_millis(3);

/// Connects, hears the whole greeting, and leaves in good order; how long it was from the one to the other.
pub(super) fn greeted(client: IpAddr, server: SocketAddr) -> Result<Duration> {
    let begun = Instant::now();
    let mut stream = open(client, server, PATIENCE).context("connecting")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut heard = Vec::new();
    let mut bytes = [0; 512];
    while !heard.split(|&byte| byte == b'\n').any(|line: &[u8]| line.starts_with(b"220 ")) {
        let count = stream.read(&mut bytes).context("waiting for the greeting")?;
        ensure!(count > 0, "closed after {}", heard.escape_ascii());
        heard.extend_from_slice(&bytes[..count]);
    }
    let taken = begun.elapsed();
    stream.write_all(b"QUIT\r\n").context("leaving")?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).context("leaving")?;
    ensure!(rest.starts_with(b"221 "), "heard {} after QUIT", rest.escape_ascii());
    Ok(taken)
}

/// Does something while clients come one after the other; gives what came of it and how long they waited for the greeting,
/// in milliseconds.
pub(super) fn beside<T>(
    clients: &Host,
    client: IpAddr,
    server: SocketAddr,
    work: impl FnOnce() -> Result<T>,
) -> Result<(T, Vec<f64>)> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let coming = scope.spawn(|| {
            clients.in_ns(|| {
                let mut times = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    times.push(greeted(client, server)?.as_secs_f64() * 1e3);
                    thread::sleep(PAUSE);
                }
                Ok(times)
            })
        });
        let worked = work();
        done.store(true, Ordering::Relaxed);
        let times = coming.join().unwrap_or_else(|_| bail!("a client broke")).context("a client beside it");
        Ok((worked?, times?))
    })
}
