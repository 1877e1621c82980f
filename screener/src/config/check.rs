//! From what is written to what cannot be wrong.
//!
//! Holds every rule about a value and the rules between values, in one place. Never stops at the first problem: the
//! person who wrote the file sees all of them at once.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use super::error::{ConfigError, Problem};
use super::raw::{At, Ladder as RawLadder, List, Raw};
use super::source::Source;
use super::tree::{
    Backend, Config, Control, DeepTest, Deny, Kernel, Ledger, Limits, Listen, Observe, Permit, PregreetTest, Tests, Tls,
};
use super::value::{
    BackendAddress, HandoffMethod, Hostname, LocalAddress, Mode, Stressed, Word, absolute_path, prefix, socket_path,
};
use crate::client::Ipv6KeyLength;
use crate::ladder::Rules;

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(3_600);
/// Nobody is held to what he did a month ago.
const DAYS: Duration = Duration::from_secs(30 * 86_400);
/// The most points, or clients, that a rung of the ladder may take.
const MOST_POINTS: i64 = 10_000;
/// Ten of them, as humantime counts years.
pub(super) const YEARS: Duration = Duration::from_secs(10 * 31_557_600);

/// A client may give up on a greeting after five minutes (RFC 5321 section 4.5.3.2.1), and many do much earlier.
pub(super) const LONGEST_WAIT: Duration = MINUTE;
/// Longer than the longest wait, so that whoever waited has the time for a dialogue.
const SHORTEST_SESSION: Duration = Duration::from_secs(120);
/// What is faster is no tarpit.
const FASTEST_TARPIT: Duration = Duration::from_millis(10);

/// The widest prefixes that a single deny covers without a note.
const WIDE_V4: u8 = 8;
const WIDE_V6: u8 = 16;

/// The configuration of an empty file.
pub(super) fn defaults() -> Config {
    let config = Source::read("", "defaults").and_then(|(source, raw)| config(&raw, &source));
    // A test reads them; there is no input that could make this fail.
    config.unwrap_or_else(|error| unreachable!("the defaults are refused: {error}"))
}

/// Judges everything in a file.
pub(super) fn config(raw: &Raw, source: &Source<'_>) -> Result<Config, ConfigError> {
    let mut judge = Judge { source, problems: Vec::new() };
    let config = judge.all(raw);
    if judge.problems.is_empty() {
        return Ok(config);
    }
    judge.problems.sort_by_key(|(start, _)| *start);
    Err(ConfigError::Invalid(judge.problems.into_iter().map(|(_, problem)| problem).collect()))
}

/// What is worth knowing though nothing is wrong.
pub(super) fn notes(config: &Config) -> Vec<String> {
    let mut notes = Vec::new();
    if config.file.is_none() {
        notes.push("no configuration file: every setting has its default".to_owned());
    }
    if !config.hostname.is_full() {
        notes.push(format!("hostname: the system's is {}, not a full name: set hostname", config.hostname));
    }
    if config.tests.pregreet.wait.normal.is_zero() {
        notes.push("tests.pregreet: off, its wait is 0s".to_owned());
    }
    if config.tests.dnsbl.lists.is_empty() {
        notes.push("tests.dnsbl: off, there is no [[tests.dnsbl.list]]".to_owned());
    }
    notes.extend(super::dnsbl::notes(&config.tests.dnsbl));
    if config.kernel.interfaces.is_empty() && config.kernel.xdp != super::XdpMode::Off {
        notes.push("kernel.interfaces: none is named, so XDP is attached where a default route leads".to_owned());
    }
    if config.kernel.syn_rate.is_some() && !config.listen.proxy_from.is_empty() {
        notes.push(
            "kernel.syn_rate: to the kernel a proxy of listen.proxy_from is one client; with [[permit]] in front mode it is exempt"
                .to_owned(),
        );
    }
    if config.backend.handoff == super::HandoffMethod::None {
        notes.push(
            "backend.handoff: with \"none\" the MTA takes every client for this host itself; if it lets this host relay \
             (permit_mynetworks), that is an open relay"
                .to_owned(),
        );
    }
    notes.extend(super::shared::notes(config));
    notes.extend(super::feed::notes(&config.feeds));
    for deny in &config.denies {
        if let Some(permit) = config.permits.iter().find(|permit| permit.prefix.contains(&deny.prefix)) {
            notes.push(format!("deny {} never acts: permit {} covers it", deny.prefix, permit.prefix));
        }
        let wide = if matches!(deny.prefix, IpNet::V4(_)) { WIDE_V4 } else { WIDE_V6 };
        if deny.prefix.prefix_len() < wide {
            notes.push(format!("deny {} covers a large part of the Internet", deny.prefix));
        }
    }
    notes
}

/// Collects the problems; where a value is refused something harmless stands in for it, which nobody will see.
pub(super) struct Judge<'s, 't> {
    pub(super) source: &'s Source<'t>,
    /// With the offset of each, for the order.
    problems: Vec<(usize, Problem)>,
}

impl Judge<'_, '_> {
    pub(super) fn refuse(&mut self, span: Range<usize>, message: impl Into<String>) {
        let place = self.source.place(&span);
        self.problems.push((span.start, Problem { place, message: message.into() }));
    }

    /// Whether nothing was refused so far. With stand-ins in the tree the rules between settings would report what nobody
    /// wrote.
    pub(super) fn is_content(&self) -> bool {
        self.problems.is_empty()
    }

    /// Runs one value through its parser.
    pub(super) fn with<T, E: Display>(
        &mut self,
        value: &At<String>,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match parse(value.get_ref()) {
            Ok(good) => Some(good),
            Err(why) => {
                self.refuse(value.span(), why.to_string());
                None
            }
        }
    }

    pub(super) fn parsed<T: FromStr<Err: Display>>(&mut self, value: &At<String>) -> Option<T> {
        self.with(value, str::parse)
    }

    /// Each member through its parser; two members alike are refused.
    pub(super) fn each<T: PartialEq, E: Display>(
        &mut self,
        list: &List,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Vec<T> {
        let mut good = Vec::new();
        for member in list.get_ref() {
            if let Some(value) = self.with(member, &parse) {
                if good.contains(&value) {
                    self.refuse(member.span(), format!("{:?} stands here twice: keep one", member.get_ref()));
                } else {
                    good.push(value);
                }
            }
        }
        good
    }

    pub(super) fn word<W: Word>(&mut self, value: &At<String>) -> W {
        let found = W::WORDS.iter().find(|(word, _)| word == value.get_ref());
        found.map_or_else(
            || {
                let choices: Vec<&str> = W::WORDS.iter().map(|(word, _)| *word).collect();
                self.refuse(value.span(), format!("{:?} is none of: {}", value.get_ref(), choices.join(", ")));
                W::WORDS[0].1
            },
            |(_, meaning)| *meaning,
        )
    }

    pub(super) fn duration(&mut self, value: &At<String>, range: RangeInclusive<Duration>) -> Duration {
        let parsed = self.with(value, |text| {
            humantime::parse_duration(text).map_err(|why| {
                format!("{text:?} is no duration ({why}): write it like \"6s\", \"5m\", \"12h\" or \"30d\"")
            })
        });
        let Some(duration) = parsed else { return *range.start() };
        if !range.contains(&duration) {
            let [least, most] = [*range.start(), *range.end()].map(humantime::format_duration);
            let message = format!("{:?} is out of range: {least} to {most}", value.get_ref());
            self.refuse(value.span(), message);
        }
        duration
    }

    /// A number in a range; `why` says what the ends mean.
    pub(super) fn number<N: TryFrom<i64> + Default>(
        &mut self,
        value: &At<i64>,
        range: RangeInclusive<i64>,
        why: &str,
    ) -> N {
        let number = *value.get_ref();
        if let (true, Ok(good)) = (range.contains(&number), N::try_from(number)) {
            return good;
        }
        let (least, most) = (range.start(), range.end());
        self.refuse(value.span(), format!("{number} is out of range: {least} to {most}{why}"));
        N::default()
    }

    fn count(&mut self, value: &At<i64>, most: i64) -> NonZeroU32 {
        NonZeroU32::new(self.number(value, 1..=most, "")).unwrap_or(NonZeroU32::MIN)
    }

    fn path(&mut self, value: &At<String>) -> PathBuf {
        self.with(value, absolute_path).unwrap_or_default()
    }

    /// `None` if it is empty.
    pub(super) fn unless_blank<T>(
        &mut self,
        value: &At<String>,
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<T> {
        if value.get_ref().is_empty() { None } else { read(self) }
    }

    fn all(&mut self, raw: &Raw) -> Config {
        let hostname = raw.hostname.as_ref().and_then(|name| self.parsed(name));
        let config = Config {
            file: None,
            hostname: hostname.unwrap_or_else(Hostname::of_the_system),
            listen: self.listen(raw),
            backend: Backend {
                address: self.parsed(&raw.backend.address).unwrap_or(BackendAddress::Unix(PathBuf::new())),
                handoff: self.word(&raw.backend.handoff),
                after_tests: self.word(&raw.backend.after_tests),
            },
            replies: self.replies(raw),
            limits: self.limits(raw),
            tls: self.tls(raw),
            tests: self.tests(raw),
            ledger: self.ledger(raw),
            shared: self.shared(raw),
            kernel: self.kernel(raw),
            ladder: self.ladder(raw),
            permits: self.permits(raw),
            denies: self.denies(raw),
            feeds: self.feeds(&raw.feed),
            pools: self.pools(&raw.pool),
            link: self.link(&raw.link),
            control: Control {
                socket: self.with(&raw.control.socket, socket_path).unwrap_or_default(),
                group: Some(raw.control.group.get_ref().clone()).filter(|group| !group.is_empty()),
            },
            observe: Observe {
                metrics: self
                    .unless_blank(&raw.observe.metrics, |judge| judge.with(&raw.observe.metrics, metrics_address)),
                log: self.word(&raw.observe.log),
                program: self.parsed(&raw.observe.program).unwrap_or_default(),
            },
        };
        if self.is_content() {
            self.between(raw, &config);
        }
        config
    }

    fn listen(&mut self, raw: &Raw) -> Listen {
        let raw = &raw.listen;
        if raw.addresses.get_ref().is_empty() {
            self.refuse(raw.addresses.span(), "empty: name at least one address, like \"0.0.0.0:25\"");
        }
        Listen {
            mode: self.word(&raw.mode),
            addresses: self.each(&raw.addresses, address),
            pass_on: self.each(&raw.pass_on, str::parse),
            own_networks: self.each(&raw.own_networks, prefix),
            proxy_from: self.each(&raw.proxy_from, prefix),
        }
    }

    fn limits(&mut self, raw: &Raw) -> Limits {
        let raw = &raw.limits;
        Limits {
            connections: self.count(&raw.connections, 1_000_000),
            per_client: NonZeroU32::new(self.number(&raw.per_client, 0..=1_000_000, "; 0 is no limit")),
            command_time: Stressed::new(self.duration(&raw.command_time, SECOND..=HOUR), Stressed::COMMAND_TIME),
            session_time: self.duration(&raw.session_time, SHORTEST_SESSION..=HOUR),
            commands: self.count(&raw.commands, 10_000),
            tarpit: self.number(&raw.tarpit, 0..=1_000_000, "; 0 is nobody"),
            tarpit_pace: self.duration(&raw.tarpit_pace, FASTEST_TARPIT..=MINUTE),
        }
    }

    fn tls(&mut self, raw: &Raw) -> Option<Tls> {
        let (certificate, key) = (&raw.tls.certificate, &raw.tls.key);
        match (certificate.get_ref().is_empty(), key.get_ref().is_empty()) {
            (true, true) => None,
            (false, false) => Some(Tls { certificate: self.path(certificate), key: self.path(key) }),
            (false, true) => {
                self.refuse(certificate.span(), "a certificate needs its key: set tls.key too");
                None
            }
            (true, false) => {
                self.refuse(key.span(), "a key needs its certificate: set tls.certificate too");
                None
            }
        }
    }

    fn tests(&mut self, raw: &Raw) -> Tests {
        let raw = &raw.tests;
        Tests {
            tagged: self.word(&raw.tagged),
            pregreet: PregreetTest {
                action: self.word(&raw.pregreet.action),
                wait: Stressed::new(self.duration(&raw.pregreet.wait, Duration::ZERO..=LONGEST_WAIT), Stressed::WAIT),
                ttl: self.duration(&raw.pregreet.ttl, SECOND..=YEARS),
                pipeconnect_weight: self.number(&raw.pregreet.pipeconnect_weight, 0..=1_000, "; 0 is nothing"),
            },
            dnsbl: self.dnsbl(raw),
            pipelining: self.deep(raw.pipelining.enable, &raw.pipelining.action, &raw.pipelining.ttl),
            non_smtp_command: self.deep(
                raw.non_smtp_command.enable,
                &raw.non_smtp_command.action,
                &raw.non_smtp_command.ttl,
            ),
            forbidden: self.parsed(&raw.non_smtp_command.forbidden).unwrap_or_default(),
            bare_newline: self.deep(raw.bare_newline.enable, &raw.bare_newline.action, &raw.bare_newline.ttl),
        }
    }

    fn deep(&mut self, enable: bool, action: &At<String>, ttl: &At<String>) -> DeepTest {
        DeepTest { enable, action: self.word(action), ttl: self.duration(ttl, SECOND..=YEARS) }
    }

    fn ledger(&mut self, raw: &Raw) -> Ledger {
        let raw = &raw.ledger;
        let bits: u8 = self.number(&raw.ipv6_prefix, 32..=128, ": 64 is one customer's network, 128 one address");
        Ledger {
            path: self.path(&raw.path),
            ipv6_prefix: Ipv6KeyLength::try_from(bits).unwrap_or_default(),
            retention: self.duration(&raw.retention, Duration::ZERO..=YEARS),
            shared: self.shared_store(&raw.shared),
        }
    }

    fn kernel(&mut self, raw: &Raw) -> Kernel {
        let raw = &raw.kernel;
        let mut ports = Vec::new();
        for port in raw.ports.get_ref() {
            let number: u16 = self.number(port, 1..=65_535, "");
            if ports.contains(&number) {
                self.refuse(port.span(), format!("{number} stands here twice: keep one"));
            }
            ports.push(number);
        }
        if ports.is_empty() {
            self.refuse(raw.ports.span(), "empty: name at least one port, like 25");
        }
        Kernel {
            interfaces: self.each(&raw.interfaces, str::parse),
            xdp: self.word(&raw.xdp),
            ports,
            pin: self.path(&raw.pin),
            offenders: raw.offenders,
            syn_rate: self.unless_blank(&raw.syn_rate, |judge| judge.parsed(&raw.syn_rate)),
        }
    }

    fn ladder(&mut self, raw: &Raw) -> Option<Rules> {
        let raw = &raw.ladder;
        let (tarpit_at, drop_at) = (&raw.tarpit_at, &raw.drop_at);
        let rules = Rules {
            tarpit_at: self.number(tarpit_at, 1..=MOST_POINTS, ""),
            drop_at: self.number(drop_at, 1..=MOST_POINTS, ""),
            half_life: self.duration(&raw.half_life, MINUTE..=DAYS),
            first_drop: self.duration(&raw.first_drop, SECOND..=DAYS),
            longest_drop: self.duration(&raw.longest_drop, SECOND..=DAYS),
            prefix_clients: self.number(&raw.prefix_clients, 0..=MOST_POINTS, "; 0: prefixes do not climb"),
        };
        raw.enable.then_some(rules)
    }

    fn permits(&mut self, raw: &Raw) -> Vec<Permit> {
        let mut permits = Vec::new();
        for permit in raw.permit.iter().map(At::get_ref) {
            if let Some(prefix) = self.with(&permit.prefix, prefix) {
                permits.push((permit.prefix.span(), Permit { prefix, comment: permit.comment.clone() }));
            }
        }
        self.twice(permits.iter().map(|(span, permit)| (permit.prefix, span.clone())), |prefix| {
            format!("{prefix} is permitted twice: keep one")
        });
        permits.into_iter().map(|(_, permit)| permit).collect()
    }

    fn denies(&mut self, raw: &Raw) -> Vec<Deny> {
        let mut denies = Vec::new();
        for deny in raw.deny.iter().map(At::get_ref) {
            let action = self.word(&deny.action);
            if let Some(prefix) = self.with(&deny.prefix, prefix) {
                let (span, comment) = (deny.prefix.span(), deny.comment.clone());
                let place = self.source.place(&span);
                denies.push((span, Deny { prefix, action, comment, place }));
            }
        }
        self.twice(denies.iter().map(|(span, deny)| (deny.prefix, span.clone())), |prefix| {
            format!("{prefix} is denied twice: keep one")
        });
        denies.into_iter().map(|(_, deny)| deny).collect()
    }

    /// Refuses each value that stood before.
    pub(super) fn twice<K: Eq + Hash>(
        &mut self,
        values: impl Iterator<Item = (K, Range<usize>)>,
        say: impl Fn(&K) -> String,
    ) {
        let mut seen = HashMap::new();
        for (value, span) in values {
            let message = say(&value);
            if let Some(first) = seen.insert(value, span.clone()) {
                let line = self.source.place(&first).line;
                self.refuse(span, format!("{message}; the first is in line {line}"));
            }
        }
    }

    /// The rules between settings. Each points at a setting that is written: defaults agree with each other.
    fn between(&mut self, raw: &Raw, config: &Config) {
        let dnsbl = &config.tests.dnsbl;
        if dnsbl.min_ttl > dnsbl.max_ttl {
            let span = written(&[raw.tests.dnsbl.min_ttl.span(), raw.tests.dnsbl.max_ttl.span()]);
            let [least, most] = [dnsbl.min_ttl, dnsbl.max_ttl].map(humantime::format_duration);
            self.refuse(span, format!("min_ttl ({least}) is longer than max_ttl ({most}): swap or change them"));
        }
        for raw in raw.listen.pass_on.get_ref() {
            let Ok(address) = raw.get_ref().parse::<LocalAddress>() else { continue };
            if !config.listen.covers(address.ip, address.port) {
                self.refuse(raw.span(), "no client connects to this address: it is not one of listen.addresses");
            }
        }
        for address in &config.listen.addresses {
            let (mode, ports) = (config.listen.mode, &config.kernel.ports);
            if mode != Mode::Front && !ports.contains(&address.port()) {
                let span = written(&[raw.kernel.ports.span(), raw.listen.addresses.span()]);
                let message = format!(
                    "listen.addresses has {address}, but port {} is not one of kernel.ports: add it",
                    address.port()
                );
                self.refuse(span, message);
            }
        }
        if let Some(rules) = &config.ladder {
            self.rungs_stand_in_order(&raw.ladder, rules);
        }
        self.backend_is_another_port(raw, config);
        self.proxies_are_steered(raw, config);
        if config.backend.handoff == HandoffMethod::PostfixPass
            && matches!(config.backend.address, BackendAddress::Tcp { .. })
        {
            let span = written(&[raw.backend.address.span(), raw.backend.handoff.span()]);
            let message = "\"postfix-pass\" passes descriptors, which takes a Unix socket: set backend.address = \
                           \"unix:/var/spool/postfix/private/smtpd\" and add `smtpd pass - - n - - smtpd` to master.cf";
            self.refuse(span, message);
        }
    }

    fn rungs_stand_in_order(&mut self, raw: &RawLadder, rules: &Rules) {
        if rules.drop_at <= rules.tarpit_at {
            let (tarpit, drop) = (rules.tarpit_at, rules.drop_at);
            let message =
                format!("drop_at ({drop}) is not above tarpit_at ({tarpit}): nobody would be tarpitted first");
            self.refuse(written(&[raw.drop_at.span(), raw.tarpit_at.span()]), message);
        }
        if rules.first_drop > rules.longest_drop {
            let [first, longest] = [rules.first_drop, rules.longest_drop].map(humantime::format_duration);
            let message = format!("first_drop ({first}) is longer than longest_drop ({longest}): swap or change them");
            self.refuse(written(&[raw.first_drop.span(), raw.longest_drop.span()]), message);
        }
    }

    /// What is permitted goes to the MTA in the kernel, where a proxy's header would meet it unprepared.
    fn proxies_are_steered(&mut self, raw: &Raw, config: &Config) {
        if config.listen.mode == Mode::Front {
            return;
        }
        for (raw, proxy) in raw.listen.proxy_from.get_ref().iter().zip(&config.listen.proxy_from) {
            let meets = |prefix: &IpNet| proxy.contains(prefix) || prefix.contains(proxy);
            let own = config.listen.own_networks.iter().map(|prefix| (prefix, "listen.own_networks"));
            let permits = config.permits.iter().map(|permit| (&permit.prefix, "[[permit]]"));
            if let Some((prefix, place)) = own.chain(permits).find(|(prefix, _)| meets(prefix)) {
                let message = format!(
                    "{proxy} and {prefix} of {place} meet: in steer mode the kernel gives what is permitted to the MTA, which \
                     expects no PROXY header; take them apart, or set listen.mode = \"front\""
                );
                self.refuse(raw.span(), message);
            }
        }
    }

    /// Clients that have passed reach the MTA's screened port directly, without a PROXY header; in front mode the port
    /// is our own.
    fn backend_is_another_port(&mut self, raw: &Raw, config: &Config) {
        let Some(backend) = config.backend.address.socket_address() else { return };
        let same = config.listen.addresses.iter().any(|listen| {
            listen.port() == backend.port()
                && (listen.ip() == backend.ip() || (listen.ip().is_unspecified() && backend.ip().is_loopback()))
        });
        let span =
            if raw.backend.address.span() == (0..0) { raw.listen.addresses.span() } else { raw.backend.address.span() };
        if same && config.listen.mode == Mode::Front {
            self.refuse(span, format!("{backend} is where we listen ourselves: give the MTA a port of its own"));
        } else if same && matches!(config.backend.handoff, HandoffMethod::ProxyV1 | HandoffMethod::ProxyV2) {
            let message = format!(
                "{backend} also serves clients directly, which send no PROXY header: give the MTA a second port for us"
            );
            self.refuse(span, message);
        }
    }
}

/// The first of these places that is written.
fn written(spans: &[Range<usize>]) -> Range<usize> {
    spans.iter().find(|span| **span != (0..0)).cloned().unwrap_or(0..0)
}

/// An address for clients to connect to.
fn address(text: &str) -> Result<SocketAddr, String> {
    with_port(text, 25, "0.0.0.0:25\" or \"[::]:25")
}

/// An address for whoever reads the metrics.
fn metrics_address(text: &str) -> Result<SocketAddr, String> {
    with_port(text, 9725, "127.0.0.1:9725\" or \"[::1]:9725")
}

/// The address of somebody who answers questions to the DNS.
pub(super) fn resolver_address(text: &str) -> Result<SocketAddr, String> {
    with_port(text, 53, "127.0.0.1:53\" or \"[::1]:53")
}

/// An address with a port; which is usual, and how that is written, is said to whoever has written no such thing.
fn with_port(text: &str, usual: u16, like: &str) -> Result<SocketAddr, String> {
    let Ok(address) = text.parse::<SocketAddr>() else {
        let hint = match text.parse::<IpAddr>() {
            Ok(ip) => format!("add the port: \"{}\"", SocketAddr::new(ip, usual)),
            Err(_) => format!("write it like \"{like}\""),
        };
        return Err(format!("{text:?} is no address with a port: {hint}"));
    };
    if address.port() == 0 {
        return Err(format!("{text:?}: port 0 is no port: it is usually {usual}"));
    }
    match address.ip().to_canonical() {
        IpAddr::V4(v4) if address.is_ipv6() && v4 != Ipv4Addr::UNSPECIFIED => {
            Err(format!("{text:?} is IPv4 in IPv6's clothes: write \"{v4}:{}\"", address.port()))
        }
        _ => Ok(address),
    }
}
