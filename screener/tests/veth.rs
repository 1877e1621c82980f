//! `screen` in a driver, between two hosts: a denied client gets no answer or a refusal, everybody else is let through, and
//! a second daemon takes over without a gap. Each test in a cell of its own; the cell's own network is the mail host's, and the clients are
//! behind a veth.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use ipnet::IpNet;
use screener::feed::{DenyAction, StaticAction};
use screener::kernel::{Kernel, Mode, Options, XdpPolicy};
use screener_tests::cell;
use screener_tests::client::{Trouble, open};
use screener_tests::host::Host;
use screener_tests::listener::port_25;
use screener_tests::net::{MX, Net, TO_INTERNET};
use screener_tests::wait::until;

/// Long enough for an answer on a busy machine.
const SOON: Duration = Duration::from_secs(10);
/// Short enough to ask often; who gets no answer in this time may get one later, and is asked again.
const MOMENT: Duration = Duration::from_millis(20);
/// Long enough to believe that there will be no answer: the second SYN comes after a second.
const NEVER: Duration = Duration::from_millis(1500);
/// Out of the clients' networks, those that get no answer.
const DROPPED: [&str; 2] = ["198.51.100.16/28", "2001:db8:a:10::/64"];
/// Out of them, those that are refused.
const REJECTED: [&str; 2] = ["198.51.100.32/28", "2001:db8:a:20::/64"];

fn options() -> Options {
    Options { interfaces: vec![TO_INTERNET.to_owned()], xdp: XdpPolicy::Native, ..Options::default() }
}

/// The mail host and, behind a wire, the clients.
struct Lab {
    clients: Host,
    mta: [TcpListener; 2],
}

/// What a client sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Connected,
    Refused,
    Silence,
}

impl Lab {
    fn new() -> Result<Self> {
        Ok(Self { clients: Net::internet_and_mx_here()?, mta: port_25()? })
    }

    /// Tries to connect from an address, in the clients' network.
    fn ask(&self, client: &str, patience: Duration) -> Result<Answer> {
        self.clients.in_ns(|| self.ask_here(client, patience))
    }

    /// The same on a thread that is in the clients' network.
    fn ask_here(&self, client: &str, patience: Duration) -> Result<Answer> {
        let client: IpAddr = client.parse()?;
        let family = usize::from(client.is_ipv6());
        match open(client, SocketAddr::new(MX.addresses[family].parse()?, 25), patience) {
            Ok(_) => {
                // The queue must not fill up; whoever is in front of it.
                self.mta[family].accept().context("the MTA's queue is empty")?;
                Ok(Answer::Connected)
            }
            Err(Trouble::Refused) => Ok(Answer::Refused),
            Err(Trouble::Silence(_)) => Ok(Answer::Silence),
            Err(other) => Err(other).with_context(|| format!("from {client}")),
        }
    }
}

fn deny(kernel: &Kernel) -> Result<()> {
    for (prefixes, action) in [(DROPPED, DenyAction::Drop), (REJECTED, DenyAction::Reject)] {
        for prefix in prefixes {
            kernel.put_static(prefix.parse::<IpNet>()?, StaticAction::Deny(action))?;
        }
    }
    Ok(())
}

fn ensure_native(kernel: &Kernel) -> Result<()> {
    let status = kernel.status()?;
    let Some(wire) = status.interfaces.iter().find(|interface| interface.name == TO_INTERNET) else {
        bail!("{TO_INTERNET} is not in the status");
    };
    ensure!(wire.mode == Mode::Native, "{TO_INTERNET} is in mode {}: {:?}", wire.mode, wire.reason);
    Ok(())
}

#[test]
fn in_native_mode_each_client_gets_the_answer_that_is_its_due() {
    cell::test("in_native_mode_each_client_gets_the_answer_that_is_its_due", || {
        let lab = Lab::new()?;
        let kernel = Kernel::start(&options())?;
        ensure_native(&kernel)?;
        for client in ["198.51.100.17", "2001:db8:a:10::1"] {
            ensure!(lab.ask(client, SOON)? == Answer::Connected, "{client}, before it is denied");
        }
        deny(&kernel)?;
        for (client, patience, expected) in [
            ("198.51.100.15", SOON, Answer::Connected),
            ("198.51.100.16", NEVER, Answer::Silence),
            ("198.51.100.31", NEVER, Answer::Silence),
            ("198.51.100.32", SOON, Answer::Refused),
            ("198.51.100.47", SOON, Answer::Refused),
            ("198.51.100.48", SOON, Answer::Connected),
            ("2001:db8:a:f:ffff::1", SOON, Answer::Connected),
            ("2001:db8:a:10::1", NEVER, Answer::Silence),
            ("2001:db8:a:11::1", SOON, Answer::Connected),
            ("2001:db8:a:20::1", SOON, Answer::Refused),
            ("2001:db8:a:21::1", SOON, Answer::Connected),
        ] {
            let answer = lab.ask(client, patience)?;
            ensure!(answer == expected, "{client}: {answer:?} instead of {expected:?}");
        }
        Ok(())
    });
}

#[test]
fn a_second_daemon_takes_over_while_clients_keep_trying() {
    cell::test("a_second_daemon_takes_over_while_clients_keep_trying", || {
        let lab = Lab::new()?;
        let first = Kernel::start(&options())?;
        deny(&first)?;
        let (rounds, over) = (AtomicUsize::new(0), AtomicBool::new(false));
        let try_on = || {
            while !over.load(Ordering::SeqCst) {
                for (client, patience, expected) in [
                    ("198.51.100.17", MOMENT, Answer::Silence),
                    ("198.51.100.33", SOON, Answer::Refused),
                    ("198.51.100.1", SOON, Answer::Connected),
                    ("2001:db8:a:10::1", MOMENT, Answer::Silence),
                    ("2001:db8:a:20::1", SOON, Answer::Refused),
                    ("2001:db8:a:1::1", SOON, Answer::Connected),
                ] {
                    let answer = lab.ask_here(client, patience)?;
                    ensure!(answer == expected, "{client}: {answer:?} instead of {expected:?}");
                }
                rounds.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        };
        thread::scope(|scope| {
            let clients = scope.spawn(|| lab.clients.in_ns(try_on));
            let some_rounds = || {
                let before = rounds.load(Ordering::SeqCst);
                let gone_on = || rounds.load(Ordering::SeqCst) > before + 2 || clients.is_finished();
                until("the clients to try again", SOON, || gone_on().then_some(()))
            };
            let takeover = || {
                some_rounds()?;
                drop(first);
                some_rounds()?;
                let second = Kernel::start(&options())?;
                ensure_native(&second)?;
                some_rounds()?;
                deny(&second)?;
                some_rounds()
            };
            let taken_over = takeover();
            over.store(true, Ordering::SeqCst);
            let tried = clients.join();
            taken_over?;
            tried.unwrap_or_else(|_| bail!("the clients' thread panicked"))
        })
    });
}
