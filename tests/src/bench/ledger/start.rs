//! How long a daemon with many passes takes to serve, beside one with none.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::crowd::{Mx, STRANGER, in_kernel};
use crate::bench::greeting::greeted;
use crate::bench::report::Rows;
use crate::control::Control;
use crate::host::Host;

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(1);
/// How long a daemon may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Seconds from the daemon's execution.
struct Start {
    /// Until the first stranger was greeted.
    greeting: f64,
    /// Until `status` was answered and said that the kernel had every pass.
    kernel: f64,
}

/// Stops and starts the daemons of a host with so many passes and of one with none, so many times.
///
/// # Errors
/// When a daemon does not start.
pub(super) fn measure(
    clients: &Host,
    full: &mut Mx,
    passes: u32,
    empty: &mut Mx,
    rounds: u32,
    rows: &mut Rows,
) -> Result<()> {
    let [mut boot, mut again, mut bare] = [(); 3].map(|()| Vec::new());
    for round in 1..=rounds {
        eprintln!("bench: starts: round {round} of {rounds}");
        // As after a boot: the kernel's maps are made anew.
        full.screener.stop()?;
        full.screener.tell(&["kernel", "detach"])?;
        boot.push(start(clients, full, passes)?);
        // As after a crash or an update: the maps are there.
        full.screener.stop()?;
        again.push(start(clients, full, passes)?);
        empty.screener.stop()?;
        empty.screener.tell(&["kernel", "detach"])?;
        bare.push(start(clients, empty, 0)?);
    }
    for (name, starts) in [("start_full", boot), ("start_again", again), ("start_empty", bare)] {
        let of = |of: fn(&Start) -> f64| starts.iter().map(of).collect();
        rows.put(&format!("{name}_greeting_seconds"), "s", of(|start| start.greeting));
        rows.put(&format!("{name}_kernel_seconds"), "s", of(|start| start.kernel));
    }
    Ok(())
}

fn start(clients: &Host, mx: &mut Mx, passes: u32) -> Result<Start> {
    let begun = Instant::now();
    mx.screener.begin()?;
    let (host, server) = (&mx.host, mx.server);
    thread::scope(|scope| {
        let greeting = scope.spawn(|| clients.in_ns(|| first_greeting(server, begun)));
        let kernel = scope.spawn(|| whole_status(host, begun, passes));
        let greeting = greeting.join().unwrap_or_else(|_| bail!("the first client broke"))?;
        let kernel = kernel.join().unwrap_or_else(|_| bail!("the first question broke"))?;
        Ok(Start { greeting, kernel })
    })
}

fn first_greeting(server: SocketAddr, begun: Instant) -> Result<f64> {
    loop {
        let came = begun.elapsed();
        match greeted(STRANGER, server) {
            Ok(waited) => return Ok((came + waited).as_secs_f64()),
            Err(error) => ensure!(begun.elapsed() < LIMIT, "nobody is greeted: {error:#}"),
        }
        thread::sleep(PAUSE);
    }
}

/// When `status` says that the kernel has every pass.
fn whole_status(host: &Host, begun: Instant, passes: u32) -> Result<f64> {
    loop {
        let seen = Control::connect(host).and_then(|mut control| control.status());
        let at = begun.elapsed();
        if seen.as_ref().is_ok_and(|status| in_kernel(status) == Some(passes.into())) {
            return Ok(at.as_secs_f64());
        }
        ensure!(at < LIMIT, "the kernel does not get its passes: {seen:?}");
        thread::sleep(PAUSE);
    }
}
