//! Clients that come without a pause while something is done to the server, of whom none may be refused.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::client::open;
use crate::host::Host;
use crate::wait::until;

/// How many connect at a time.
const AT_A_TIME: usize = 24;
/// How long each waits for a connection, and for each piece of its greeting.
const PATIENCE: Duration = Duration::from_secs(20);
/// How many have to be greeted after what was done.
const AFTERWARDS: usize = 50;

/// Does something while they come; each wants to hear the beginning of a greeting, and every tenth a whole one. Gives what was
/// done, and how many were greeted.
///
/// # Errors
/// When what is done fails, or one of them was not greeted.
pub fn during<T>(internet: &Host, server: SocketAddr, body: impl FnOnce() -> Result<T>) -> Result<(T, usize)> {
    let (stop, greeted) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let crowd = scope.spawn(|| come(internet, server, &stop, &greeted));
        let done = body();
        let wanted = greeted.load(Ordering::Relaxed) + AFTERWARDS;
        let after = until("clients that come afterwards", PATIENCE, || {
            let enough = greeted.load(Ordering::Relaxed) >= wanted;
            (enough || stop.load(Ordering::Relaxed)).then_some(())
        });
        stop.store(true, Ordering::Relaxed);
        // First who was not greeted: it explains the rest.
        let crowd = crowd.join().unwrap_or_else(|panic| resume_unwind(panic));
        match (crowd, done) {
            (Err(refused), Err(failed)) => Err(failed.context(format!("{refused:#}"))),
            (crowd, done) => crowd.and(after).and(done),
        }
    })
    .map(|done| (done, greeted.into_inner()))
}

fn come(internet: &Host, server: SocketAddr, stop: &AtomicBool, greeted: &AtomicUsize) -> Result<()> {
    let next = AtomicUsize::new(0);
    let worker = || -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            visit(next.fetch_add(1, Ordering::Relaxed), server).inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
            greeted.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    internet.in_ns(|| {
        thread::scope(|scope| {
            let workers: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)))
        })
    })
}

fn visit(number: usize, server: SocketAddr) -> Result<()> {
    // 198.51.100.64 to .191, and another port each time: none is near the ceiling of one client.
    let source = Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 51, 100, 64)) + u32::try_from(number % 128)?);
    let begun = Instant::now();
    let told = |what: &str| format!("client {number}, {what} after {:?}", begun.elapsed());
    let mut stream = open(source.into(), server, PATIENCE).with_context(|| told("connecting"))?;
    let mut heard = Vec::new();
    let whole = number.is_multiple_of(10);
    while !(heard.starts_with(b"220-") && !whole || heard.windows(4).any(|four| four == b"220 ")) {
        let mut chunk = [0; 512];
        let count = stream.read(&mut chunk).with_context(|| told("waiting for the greeting"))?;
        ensure!(count > 0, "{}: {}", told("closed"), heard.escape_ascii());
        heard.extend_from_slice(&chunk[..count]);
        ensure!(heard.starts_with(b"220"), "{}: {}", told("heard"), heard.escape_ascii());
    }
    Ok(())
}
