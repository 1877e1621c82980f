//! The ledger's file under the real daemon: disks that fail, kills, and copies while it is in use.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use screener_tests::cell;
use screener_tests::cli::{expect, expect_all};
use screener_tests::client::Client;
use screener_tests::control::Control;
use screener_tests::host::Host;
use screener_tests::mta::Mta;
use screener_tests::net::{Family, Net};
use screener_tests::screener::{Screener, USUAL};
use screener_tests::wait::until_or_show;

const SOON: Duration = Duration::from_secs(20);
const PLACE: &str = "/var/lib/screener";

/// The client number `n` of those that get passes by command.
fn nth(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a40_0000 + n).into()
}

fn give_passes(mx: &Host, numbers: std::ops::Range<u32>) -> Result<()> {
    let mut control = Control::connect(mx)?;
    numbers.into_iter().try_for_each(|n| control.give_pass(nth(n)))
}

/// A small disk for the ledger.
fn small_disk(mx: &Host, size: &str) -> Result<()> {
    mx.ask("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", PLACE]).map(drop)
}

fn has_passes(screener: &Screener, clients: impl IntoIterator<Item = IpAddr>) -> Result<()> {
    let shown = screener.json(&["pass", "list", "--json"])?;
    let there: BTreeSet<IpAddr> = shown
        .as_array()
        .context("pass list is no array")?
        .iter()
        .filter_map(|pass| pass["client"].as_str()?.parse().ok())
        .collect();
    let missing: Vec<_> = clients.into_iter().filter(|client| !there.contains(client)).collect();
    ensure!(missing.is_empty(), "{} of the passes are lost, {:?} among them", missing.len(), &missing[0]);
    Ok(())
}

/// One who behaves: when this returns the MTA has taken a recipient.
fn behave(internet: &Host, source: IpAddr, server: SocketAddr) -> Result<Client> {
    let mut client = Client::connect(internet, source, server)?;
    client.expect(220)?;
    client.begin_mail(250)?;
    Ok(client)
}

#[test]
fn on_a_full_disk_screening_goes_on_and_what_waited_is_written_when_there_is_room() {
    cell::test("on_a_full_disk_screening_goes_on_and_what_waited_is_written_when_there_is_room", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        small_disk(&mx, "1m")?;
        let mut screener = Screener::start(&mx, USUAL)?;
        give_passes(&mx, 0..10)?;
        mx.ask("sh", &["-c", &format!("dd if=/dev/zero of={PLACE}/ballast bs=4k 2>/dev/null || true")])?;
        give_passes(&mx, 10..12_000)?;
        screener.wait_for_degraded("No space left on device", true)?;
        screener.wait_for_log("passes are kept in memory only", SOON)?;
        let text = Control::connect(&mx)?.metrics()?;
        ensure!(text.contains("screener_degraded{what=\"ledger\"} 1"), "{text}");
        ensure!(!text.contains("screener_ledger_queued 0"), "{text}");

        // Who comes now is screened, served, and let through the next time.
        let source: IpAddr = "198.51.100.30".parse()?;
        let server = SocketAddr::new(mx.address(Family::V4)?, 25);
        behave(&internet, source, server)?.ask("QUIT", 221)?;
        ensure!(screener.has_pass(source)?);

        mx.ask("mount", &["-o", "remount,size=64m", PLACE])?;
        screener.wait_for_degraded("No space left on device", false)?;
        screener.wait_for_log("the ledger is written to /var/lib/screener/ledger.redb again", SOON)?;
        let status = screener.json(&["status", "--json"])?;
        ensure!(status["ledger"]["queued"] == 0, "{status}");
        // Without a word, so that nothing is written at the end.
        screener.kill9()?;
        screener.restart()?;
        has_passes(&screener, (0..12_000).map(nth).chain([source]))
    });
}

#[test]
fn on_a_read_only_disk_the_passes_of_the_file_count_and_new_ones_wait() {
    cell::test("on_a_read_only_disk_the_passes_of_the_file_count_and_new_ones_wait", || {
        let mx = Net::mx()?;
        small_disk(&mx, "16m")?;
        let mut screener = Screener::start(&mx, USUAL)?;
        give_passes(&mx, 0..10)?;
        screener.stop()?;
        mx.ask("mount", &["-o", "remount,ro", PLACE])?;
        screener.restart()?;
        screener.wait_for_degraded("passes are kept in memory only", true)?;
        give_passes(&mx, 10..20)?;
        has_passes(&screener, (0..20).map(nth))?;
        mx.ask("mount", &["-o", "remount,rw", PLACE])?;
        screener.wait_for_degraded("passes are kept in memory only", false)?;
        screener.kill9()?;
        screener.restart()?;
        has_passes(&screener, (0..20).map(nth))
    });
}

#[test]
fn a_ledger_that_is_removed_while_in_use_is_written_anew() {
    cell::test("a_ledger_that_is_removed_while_in_use_is_written_anew", || {
        let mx = Net::mx()?;
        let config = USUAL.to_owned() + "[ledger]\npath = \"/var/lib/screener/deep/ledger.redb\"\n";
        let mut screener = Screener::start(&mx, &config)?;
        give_passes(&mx, 0..10)?;
        mx.ask("rm", &["-r", "/var/lib/screener/deep"])?;
        give_passes(&mx, 10..11)?;
        screener.wait_for_degraded("was removed while it was in use", true)?;
        screener.wait_for_log("was removed while it was in use", SOON)?;
        let written = || Ok((screener.json(&["status", "--json"])?["ledger"]["queued"] == 0).then_some(()));
        until_or_show("the ledger to be written", SOON, || screener.log(), written)?;
        screener.kill9()?;
        screener.restart()?;
        has_passes(&screener, (0..11).map(nth))?;
        screener.wait_for_degraded("ledger", false)
    });
}

/// How often the daemon is killed: `SCREENER_TEST_KILLS` for a long run.
fn kills() -> u32 {
    std::env::var("SCREENER_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(6)
}

#[test]
fn what_was_there_a_quarter_second_before_a_kill_is_there_after_it() {
    cell::test_within(
        "what_was_there_a_quarter_second_before_a_kill_is_there_after_it",
        Duration::from_secs(3600),
        || {
            let (mx, internet) = Net::mx_and_internet()?;
            let _mta = Mta::start(&mx, "")?;
            // The promise is about the daemon and its disk, not about a machine that lets it wait behind other tests.
            let mut screener = Screener::start_under(&mx, USUAL, &["nice", "-n", "-15"])?;
            let server = SocketAddr::new(mx.address(Family::V4)?, 25);
            let mut kept = BTreeSet::new();
            for round in 0..kills() {
                let (acknowledged, killed_at) = until_killed(&mut screener, &mx, &internet, server, round)?;
                let before = killed_at.checked_sub(Duration::from_millis(250)).context("time runs backwards")?;
                kept.extend(acknowledged.iter().filter(|(_, at)| *at <= before).map(|(client, _)| *client));
                screener.restart()?;
                screener.wait_for_degraded("ledger", false)?;
                has_passes(&screener, kept.iter().copied()).with_context(|| format!("kill number {}", round + 1))?;
            }
            ensure!(kept.len() > 100, "too few passes to tell: {}", kept.len());
            Ok(())
        },
    );
}

/// Has passes made by command and by clients, and kills the daemon in the middle of it. Who was told that he has one, and when.
fn until_killed(
    screener: &mut Screener,
    mx: &Host,
    internet: &Host,
    server: SocketAddr,
    round: u32,
) -> Result<(Vec<(IpAddr, Instant)>, Instant)> {
    let acknowledged = Mutex::new(Vec::new());
    let told = |client| acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push((client, Instant::now()));
    let over = AtomicBool::new(false);
    let killed_at = std::thread::scope(|scope| -> Result<Instant> {
        for writer in 0..2 {
            let (told, over) = (&told, &over);
            let mut control = Control::connect(mx)?;
            scope.spawn(move || {
                let first = (round * 2 + writer) * 100_000;
                // Ends when the daemon does.
                for client in (first..first + 100_000).map(nth) {
                    if over.load(Ordering::Relaxed) || control.give_pass(client).is_err() {
                        return;
                    }
                    told(client);
                }
            });
        }
        for number in 0..4 {
            let told = &told;
            scope.spawn(move || {
                let source = Ipv4Addr::from_bits(0xc633_6400 + 1 + (round * 4 + number) % 200).into();
                // Whoever meets the end of the daemon has not been told anything.
                if behave(internet, source, server).is_ok() {
                    told(source);
                }
            });
        }
        // Long enough for clients to have been let through, and another moment of the batches each time.
        std::thread::sleep(Duration::from_millis(1500 + u64::from(round * 37 % 200)));
        let now = Instant::now();
        screener.kill9()?;
        over.store(true, Ordering::Relaxed);
        Ok(now)
    })?;
    Ok((acknowledged.into_inner().unwrap_or_else(PoisonError::into_inner), killed_at))
}

#[test]
fn a_backup_under_load_is_a_whole_ledger_that_a_daemon_starts_from() {
    cell::test("a_backup_under_load_is_a_whole_ledger_that_a_daemon_starts_from", || {
        let mx = Net::mx()?;
        let mut screener = Screener::start(&mx, USUAL)?;
        give_passes(&mx, 0..5000)?;
        screener.tell(&["permit", "add", "203.0.113.0/24", "--comment", "partner"])?;
        let over = AtomicBool::new(false);
        let (during, copied) = std::thread::scope(|scope| -> Result<(u32, serde_json::Value)> {
            let mut control = Control::connect(&mx)?;
            let over = &over;
            let writing = scope.spawn(move || -> Result<u32> {
                let mut next = 100_000;
                while !over.load(Ordering::Relaxed) {
                    control.give_pass(nth(next))?;
                    next += 1;
                }
                Ok(next - 100_000)
            });
            let copied = screener.json(&["ledger", "backup", "/tmp/backup.redb", "--json"]);
            over.store(true, Ordering::Relaxed);
            let during = writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok((during, copied?))
        })?;
        let passes = copied["passes"].as_u64().with_context(|| copied.to_string())?;
        ensure!(passes >= 5000 && passes <= u64::from(5000 + during) && during > 0, "{copied}, {during} meanwhile");
        ensure!(copied["statics"] == 1, "{copied}");
        expect(&mx, &["ledger", "backup", "/tmp/backup.redb"], 2, "--force")?;
        expect_all(&mx, &["ledger", "backup", "/tmp/backup.redb", "--force"], 0, &["/tmp/backup.redb", "passes"])?;

        // As docs/ledger.md has it: stop, put it in place, start.
        screener.stop()?;
        mx.ask("cp", &["/tmp/backup.redb", "/var/lib/screener/ledger.redb"])?;
        screener.restart()?;
        has_passes(&screener, (0..5000).map(nth))?;
        screener.wait_for_degraded("ledger", false)?;
        let permits = screener.tell(&["permit", "list"])?;
        ensure!(permits.contains("203.0.113.0/24"), "{permits}");
        Ok(())
    });
}

#[test]
fn a_backup_that_cannot_be_says_why_and_leaves_nothing() {
    cell::test("a_backup_that_cannot_be_says_why_and_leaves_nothing", || {
        let mx = Net::mx()?;
        let mut screener = Screener::start(&mx, USUAL)?;
        give_passes(&mx, 0..3000)?;
        expect(&mx, &["ledger", "backup", "/tmp/no/backup.redb"], 2, "does not exist: make it first")?;
        expect(&mx, &["ledger", "backup", "/tmp"], 2, "it is a directory")?;
        mx.ask("sh", &["-c", "mkdir /tmp/small && mount -t tmpfs -o size=80k tmpfs /tmp/small"])?;
        expect(&mx, &["ledger", "backup", "/tmp/small/backup.redb"], 2, "make room, or name a file on another disk")?;
        ensure!(mx.ask("ls", &["/tmp/small"])?.is_empty(), "something is left");
        screener.stop()?;
        expect(&mx, &["ledger", "backup", "/tmp/backup.redb"], 2, "screener is not running")?;
        ensure!(mx.ask("ls", &["/tmp"])?.trim() == "small", "something is left");
        Ok(())
    });
}
