//! The hosts: a Postfix with a postscreen service for each setting, a screener for each setting with the same Postfix
//! behind it, real DNS lists behind a real resolver on each, and the Internet.

use std::iter;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::dnsl::Dnsl;
use crate::host::Host;
use crate::net::{Family, INTERNET, Net, Plan};
use crate::postfix::Postfix;
use crate::screener::Screener;
use crate::unbound::Unbound;
use crate::wait::until_or_show;

use super::imported;
use super::play::{self, Outcome, Side};
use super::script::{Door, Script, Step, Who};
use super::setting::{self, SERVICES, Setting, ZONES};

const SOON: Duration = Duration::from_secs(30);

/// What both sides made of a script.
#[derive(Debug)]
pub struct Played {
    /// The setting's name and the script's.
    pub name: String,
    /// postscreen's.
    pub postscreen: Vec<String>,
    /// The screener's.
    pub screener: Vec<String>,
    /// The lines of both logs about its clients as they stand there, with their times.
    pub logs: [String; 2],
}

/// All of it.
pub struct Lab {
    internet: Host,
    mail: Host,
    postfix: Postfix,
    screeners: Vec<(Setting, Host, Screener)>,
    _lists: Dnsl,
    _resolvers: Vec<Unbound>,
}

impl Lab {
    /// Builds it, with our configuration as we write it; everything answers when this returns.
    ///
    /// # Errors
    /// When a host or a server does not come about.
    pub fn build(settings: &[Setting]) -> Result<Self> {
        Self::with(settings, |setting, host, mail| {
            let (permitted, denied) = (prefixes(&[Who::Permitted]), prefixes(&[Who::Denied]));
            Ok(setting.screener(&doors(host, Door::Primary), mail.address(Family::V4)?, &permitted, &denied))
        })
    }

    /// Builds it, with our configuration imported from postscreen's.
    ///
    /// # Errors
    /// As [`Lab::build`], and when something of it was not taken over.
    pub fn build_imported(settings: &[Setting]) -> Result<Self> {
        Self::with(settings, |setting, host, mail| {
            imported::configuration(setting, mail, &doors(host, Door::Primary), &doors(mail, Door::Backup))
        })
    }

    fn with(settings: &[Setting], configure: impl Fn(Setting, &Host, &Host) -> Result<String> + Sync) -> Result<Self> {
        let net = Net::new()?;
        let dns = net.host(&Plan { name: "dns", addresses: &["192.0.2.53", "2001:db8:25::53"], prefixes: &[] })?;
        let internet = net.host(&INTERNET)?;
        let mail = net.host(&Plan {
            name: "mail",
            addresses: &["192.0.2.10", "192.0.2.110", "2001:db8:25::10", "2001:db8:25::110"],
            prefixes: &[],
        })?;
        let mut hosts = Vec::new();
        for &setting in settings {
            let number = 20 + setting as u16;
            let addresses = [
                format!("192.0.2.{number}"),
                format!("192.0.2.{}", 100 + number),
                format!("2001:db8:25::{number}"),
                format!("2001:db8:25::{}", 100 + number),
            ];
            let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
            hosts.push((setting, net.host(&Plan { name: setting.name(), addresses: &addresses, prefixes: &[] })?));
        }
        let lists = lists(&dns)?;
        let server = lists.address(Family::V4)?;
        let zones = ZONES.map(|(zone, _)| (zone, server));
        let mut resolvers = vec![Unbound::start(&mail, &zones)?];
        let postfix = start_postfix(&mail, settings)?;
        let started: Vec<Result<_>> = thread::scope(|scope| {
            let start = |(setting, host): (Setting, Host)| {
                let resolver = setting.waits().then(|| Unbound::start(&host, &zones)).transpose()?;
                let screener = Screener::start(&host, &configure(setting, &host, &mail)?)?;
                if setting.waits() {
                    wait_for_lists(&screener)?;
                }
                Ok((resolver, (setting, host, screener)))
            };
            let threads: Vec<_> = hosts.into_iter().map(|host| scope.spawn(move || start(host))).collect();
            threads.into_iter().map(joined).collect()
        });
        let mut screeners = Vec::new();
        for started in started {
            let (resolver, screener) = started?;
            resolvers.extend(resolver);
            screeners.push(screener);
        }
        Ok(Self { internet, mail, postfix, screeners, _lists: lists, _resolvers: resolvers })
    }

    /// Plays every script under each of its settings, to both sides at the same time, all of them at once.
    ///
    /// # Errors
    /// When one cannot be played: a server does not take a connection, or there are no more addresses.
    pub fn play(&self, scripts: &[&Script]) -> Result<Vec<Played>> {
        let played: Vec<Result<Vec<Played>>> = thread::scope(|scope| {
            let threads: Vec<_> =
                self.screeners.iter().map(|screened| scope.spawn(|| self.play_under(screened, scripts))).collect();
            threads.into_iter().map(joined).collect()
        });
        let mut all = Vec::new();
        for played in played {
            all.extend(played?);
        }
        Ok(all)
    }

    /// The whole log of each side under a setting: postscreen's, and the screener's.
    ///
    /// # Errors
    /// When the lab was built without this setting.
    pub fn logs(&self, setting: Setting) -> Result<(String, String)> {
        let found = self.screeners.iter().find(|(known, ..)| *known == setting);
        let (_, _, screener) = found.with_context(|| format!("the lab has no setting {}", setting.name()))?;
        Ok((self.postfix.log(), screener.log()))
    }

    /// The host to run tools on.
    #[must_use]
    pub fn internet(&self) -> &Host {
        &self.internet
    }

    fn play_under(&self, screened: &(Setting, Host, Screener), scripts: &[&Script]) -> Result<Vec<Played>> {
        let (setting, host, screener) = screened;
        let program = format!("{}/postscreen", setting.log_name());
        let ours = |door, client| SocketAddr::new(address(host, door, client), 25);
        let theirs = |door, client| SocketAddr::new(address(&self.mail, door, client), setting.port());
        let (our_log, their_log) = (|| screener.log(), || self.postfix.log());
        let ours = Side { server: &ours, log: &our_log, program: setting::PROGRAM };
        let theirs = Side { server: &theirs, log: &their_log, program: &program };

        let mut addresses = Addresses::default();
        let mut plays = Vec::new();
        for &script in scripts.iter().filter(|script| script.under.contains(setting)) {
            plays.push((script, addresses.take(script)?));
        }
        let both = |script: &Script, sources: &[IpAddr]| -> Result<(Outcome, Outcome)> {
            let play = |side| play::play(&self.internet, sources, side, script);
            thread::scope(|scope| -> Result<_> {
                let theirs = scope.spawn(|| play(&theirs).context("on postscreen's side"));
                let ours = play(&ours).context("on the screener's side");
                Ok((joined(theirs)?, ours?))
            })
            .with_context(|| format!("{}/{}", setting.name(), script.name))
        };
        let next = AtomicUsize::new(0);
        let work = || -> Vec<(usize, Result<_>)> {
            let take = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&number| number < plays.len());
            iter::from_fn(take).map(|number| (number, both(plays[number].0, &plays[number].1))).collect()
        };
        let mut outcomes: Vec<_> = thread::scope(|scope| {
            let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
            workers.into_iter().flat_map(joined).collect()
        });
        outcomes.sort_by_key(|(number, _)| *number);
        // A log is whole when a later connection has been seen to its end.
        outcomes.push((plays.len(), both(&LAST, &[LAST_CLIENT])));
        let outcomes = outcomes.into_iter().map(|(_, outcome)| outcome);
        let outcomes = outcomes.collect::<Result<Vec<_>>>()?;
        if let Some((a, b)) = outcomes.last() {
            for (side, outcome) in [(&theirs, a), (&ours, b)] {
                play::wait_for_log(side, outcome.ends.last(), &["DISCONNECT", "PASS NEW"])?;
            }
        }
        let (our_log, their_log) = (our_log(), their_log());
        let whole = |mut outcome: Outcome, side, log: &str| {
            outcome.lines.extend(play::logged(log, side, &outcome.ends));
            outcome.lines
        };
        let played = plays.iter().zip(outcomes).map(|((script, _), (postscreen, screener))| Played {
            name: format!("{}/{}", setting.name(), script.name),
            logs: [play::about(&their_log, &theirs, &postscreen.ends), play::about(&our_log, &ours, &screener.ends)],
            postscreen: whole(postscreen, &theirs, &their_log),
            screener: whole(screener, &ours, &our_log),
        });
        Ok(played.collect())
    }
}

/// How many scripts are played at once under one setting. postscreen starts a process for each question to a DNS list, and
/// a machine that is busy with that answers late.
const AT_ONCE: usize = 10;

/// What is played last under each setting.
const LAST: Script = Script::new("last", &Setting::ALL, &[&[Step::Greeting, Step::Ask("QUIT"), Step::End]]);

const LAST_CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 19));

/// The addresses of a host behind a door: the first of each family is the primary one, the second the backup.
fn doors(host: &Host, door: Door) -> Vec<IpAddr> {
    let nth = match door {
        Door::Primary => 0,
        Door::Backup => 1,
    };
    let of = |family| host.addresses().iter().copied().filter(move |address| Family::of(*address) == family).nth(nth);
    Family::BOTH.into_iter().filter_map(of).collect()
}

fn address(host: &Host, door: Door, client: IpAddr) -> IpAddr {
    let mut doors = doors(host, door).into_iter();
    doors.find(|address| Family::of(*address) == Family::of(client)).unwrap_or(client)
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn start_postfix(mail: &Host, settings: &[Setting]) -> Result<Postfix> {
    mail.ask("mkdir", &["-p", "/var/mail/virtual"])?;
    mail.ask("chown", &["5000:5000", "/var/mail/virtual"])?;
    let mut access = String::new();
    for (who, word) in [(Who::Permitted, "permit"), (Who::Denied, "reject")] {
        for prefix in prefixes(&[who]) {
            access += &format!("{prefix} {word}\n");
        }
    }
    mail.write("/etc/postfix/postscreen_access.cidr", &access)?;
    let services: String = settings.iter().map(|setting| setting.postscreen()).collect();
    Postfix::start(mail, &setting::main_cf(&doors(mail, Door::Backup)), &format!("{SERVICES}{services}"))
}

fn lists(dns: &Host) -> Result<Dnsl> {
    let zones = ZONES.map(|(zone, _)| zone);
    let mut lists = Dnsl::start(dns, &zones)?;
    for (zone, listed) in [
        ("bl.example", &[Who::Listed, Who::ListedTwice, Who::Disputed][..]),
        ("grey.example", &[Who::ListedTwice, Who::Suspect]),
        ("wl.example", &[Who::Praised, Who::PraisedTwice, Who::Disputed]),
        ("wl2.example", &[Who::PraisedTwice]),
    ] {
        for prefix in prefixes(listed) {
            lists.list(zone, &prefix, Ipv4Addr::new(127, 0, 0, 2))?;
        }
    }
    Ok(lists)
}

/// No answer is believed before a list has passed its test points.
fn wait_for_lists(screener: &Screener) -> Result<()> {
    until_or_show(
        "the DNS lists to be asked",
        SOON,
        || screener.log(),
        || {
            let shown = screener.json(&["dnsbl", "status", "--json"])?;
            let lists = shown["lists"].as_array().context("lists")?;
            ensure!(lists.len() == ZONES.len(), "{shown}");
            Ok(lists.iter().all(|list| list["state"] == "asked").then_some(()))
        },
    )
}

/// The prefixes that somebody's addresses are in, one of each family.
fn prefixes(who: &[Who]) -> Vec<String> {
    let of = |&who: &Who| {
        let number = who as u16;
        match who {
            Who::Stranger => ["198.51.100.0/24".to_owned(), "2001:db8:a::/48".to_owned()],
            _ => [format!("203.0.113.{}/28", number * 16), format!("2001:db8:b:{number:x}00::/56")],
        }
    };
    who.iter().flat_map(of).collect()
}

/// Gives every script addresses of its own.
#[derive(Default)]
struct Addresses(std::collections::HashMap<(Who, Family), u16>);

impl Addresses {
    fn take(&mut self, script: &Script) -> Result<Vec<IpAddr>> {
        let used = self.0.entry((script.who, script.family)).or_default();
        let who = script.who as u16;
        let mut addresses = Vec::new();
        for _ in 0..script.addresses() {
            let number = *used;
            *used += 1;
            addresses.push(match (script.who, script.family) {
                (Who::Stranger, Family::V4) => {
                    let last = u8::try_from(20 + number).ok().filter(|&last| last < 255);
                    [198, 51, 100, last.context("no stranger's address is left")?].into()
                }
                (_, Family::V4) => {
                    ensure!(number < 15, "no address of {:?} is left", script.who);
                    [203, 0, 113, u8::try_from(who * 16 + number + 1)?].into()
                }
                // A network each: that is how the screener tells clients apart.
                (Who::Stranger, Family::V6) => [0x2001, 0xdb8, 0xa, 0x100 + number, 0, 0, 0, 1].into(),
                (_, Family::V6) => [0x2001, 0xdb8, 0xb, who * 0x100 + number, 0, 0, 0, 1].into(),
            });
        }
        Ok(addresses)
    }
}
