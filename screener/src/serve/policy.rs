//! From configuration to what the engine, the static set and the kernel want to hear.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context;
use ipnet::IpNet;
use jiff::tz::TimeZone;

use crate::clock::UnixTime;
use crate::config::{self, Config, ConfigError, DeepTest, Stressed, TestAction};
use crate::feed::{Entry, Origin, Source, StaticAction, StaticSet};
use crate::host;
use crate::ledger::{Ledger, StoredStatic};
use crate::session::{Action, AfterTests, DeepPolicy, DnsblPolicy, Pace, Policy, PregreetPolicy, Replies};

/// The longest command line, its end included: Postfix's `line_length_limit` (reference/postscreen.md section 1.1).
const LINE_LENGTH: usize = 2048;

/// How much a client may send before the greeting is complete: plenty for a session's commands sent at once, and little
/// enough for every client to do so.
const EARLY_INPUT: usize = 8 * 1024;

/// The engine's policy.
pub(super) fn policy(config: &Config) -> Policy {
    let (tests, limits, replies) = (&config.tests, &config.limits, &config.replies);
    let deep = |test: &DeepTest| DeepPolicy { enable: test.enable, action: action(test.action), ttl: test.ttl };
    let dnsbl = &tests.dnsbl;
    Policy {
        hostname: config.hostname.to_string(),
        replies: Replies {
            banner: replies.banner.clone(),
            footer: replies.footer.clone(),
            zone: TimeZone::system(),
            withheld: replies.withhold_ehlo.clone(),
            soft_bounce: replies.soft_bounce,
        },
        pregreet: PregreetPolicy {
            action: action(tests.pregreet.action),
            wait: pace(tests.pregreet.wait),
            pipeconnect_weight: tests.pregreet.pipeconnect_weight,
            ttl: tests.pregreet.ttl,
        },
        dnsbl: (!dnsbl.lists.is_empty()).then(|| DnsblPolicy {
            action: action(dnsbl.action),
            threshold: dnsbl.threshold,
            allow_threshold: dnsbl.allow_threshold,
            // Under stress nobody waits for a list for longer than for the greeting.
            deadline: pace(Stressed::new(dnsbl.deadline, Stressed::WAIT)),
            min_ttl: dnsbl.min_ttl,
            max_ttl: dnsbl.max_ttl,
        }),
        pipelining: deep(&tests.pipelining),
        non_smtp_command: deep(&tests.non_smtp_command),
        forbidden: tests.forbidden.clone(),
        bare_newline: deep(&tests.bare_newline),
        after_tests: match config.backend.after_tests {
            config::AfterTests::Relay => AfterTests::Relay,
            config::AfterTests::Defer => AfterTests::Defer,
        },
        link: config.link.map(|link| link.deadline),
        command_time: pace(limits.command_time),
        session_time: limits.session_time,
        commands: limits.commands.get(),
        line_length: LINE_LENGTH,
        early_input: EARLY_INPUT,
        tarpit_pace: limits.tarpit_pace,
    }
}

fn pace(span: Stressed) -> Pace {
    Pace { normal: span.normal, stress: span.stress }
}

fn action(action: TestAction) -> Action {
    match action {
        TestAction::Ignore => Action::Ignore,
        TestAction::Enforce => Action::Enforce,
        TestAction::Drop => Action::Drop,
        TestAction::Tarpit => Action::Tarpit,
    }
}

/// Everything static: the host's own addresses and networks, what the configuration says, what commands have said.
///
/// # Errors
/// As [`configured_statics`].
pub(super) fn statics(config: &Config, ledger: &Ledger, now: UnixTime) -> anyhow::Result<StaticSet> {
    let mut set = configured_statics(config, now)?;
    // The entries of a list share what they have in common, in the ledger as in the set.
    let mut origins: HashMap<*const StoredStatic, Arc<Origin>> = HashMap::new();
    let stored = ledger.statics();
    for (prefix, stored) in &stored {
        let origin = origins.entry(Arc::as_ptr(stored)).or_insert_with(|| {
            let (comment, added) = (stored.comment.clone(), stored.added);
            Arc::new(Origin { source: Source::Cli, comment, added })
        });
        // It was let in when the command was given; a permit that came later wins anyway.
        set.say(*prefix, stored.action, origin)?;
    }
    Ok(set)
}

/// The host's own addresses and networks, and what the configuration says.
///
/// # Errors
/// When the configuration denies what it must not; or the system does not tell the host's addresses.
pub(super) fn configured_statics(config: &Config, now: UnixTime) -> anyhow::Result<StaticSet> {
    let mut set = StaticSet::new();
    let mut permit = |prefix: IpNet, source: Source, comment: &str| {
        let comment = (!comment.is_empty()).then(|| comment.to_owned());
        set.insert(Entry { prefix, action: StaticAction::Permit, source, comment, added: now })
    };
    for &network in &config.listen.own_networks {
        permit(network, Source::OwnNetwork, "listen.own_networks")?;
    }
    for address in host::own_addresses().context("the host's own addresses cannot be read")? {
        permit(address.into(), Source::OwnAddress, "")?;
    }
    for entry in &config.permits {
        permit(entry.prefix, Source::Config, &entry.comment)?;
    }
    set.guard_gateways(host::gateways());
    for deny in &config.denies {
        let comment = (!deny.comment.is_empty()).then(|| deny.comment.clone());
        let action = StaticAction::Deny(deny.action);
        set.insert(Entry { prefix: deny.prefix, action, source: Source::Config, comment, added: now })
            .map_err(|refused| ConfigError::at(&deny.place, refused.to_string()))?;
    }
    Ok(set)
}
