//! The offence ladder in the daemon: what sessions show goes in, what comes of it is logged, noted, and brought to the kernel.
//!
//! Holds who may climb at all: nobody who is permitted, who has a valid pass, or who belongs to a pool of senders; and no
//! prefix in which there is one of these. What an offence weighs, and where it leads, is `ladder/`'s.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tracing::{debug, info, warn};

use crate::clock::{Now, UnixTime};
use crate::config::Config;
use crate::control::api_offender;
use crate::feed::{StaticAction, StaticSet};
use crate::kernel::{self, Kernel, KernelError};
use crate::ladder::{Dense, Offence, Offender, Rules, Rung, Step};
use crate::ledger::{Ledger, OffenderChange, What};
use crate::pass::Stamps;
use crate::session::{Arrival, Decision, Outcome, Standing};

use super::answers::stamp;
use super::daemon::Daemon;
use super::live::Live;

/// How often it is looked whose time is over. The kernel knows it to the nanosecond by itself.
const SWEEP: Duration = Duration::from_secs(1);
/// How many changes are taken at a time.
const PAGE: usize = 4096;

/// What the configuration makes of the ladder.
pub(super) fn rules(config: &Config) -> Option<Rules> {
    config.ladder
}

/// Until when the kernel is to keep a network out; `None`: it is not. A proxy's address is nobody's but the operator's.
fn kernel_until(
    ledger: &Ledger,
    config: &Config,
    statics: &StaticSet,
    network: IpNet,
    now: UnixTime,
) -> Option<UnixTime> {
    let until = ledger.dropped_until(network, now).filter(|_| config.kernel.offenders)?;
    (statics.permit_over(network).is_none() && !config.listen.meets_proxy(network)).then_some(until)
}

/// Makes the kernel's offenders equal to the ladder's.
pub(super) fn align(ledger: &Ledger, config: &Config, statics: &StaticSet, kernel: &Kernel) -> Result<(), KernelError> {
    let now = Now::read().unix;
    let kept_out = ledger
        .offenders()
        .into_iter()
        .filter_map(|(network, _)| Some((network, kernel_until(ledger, config, statics, network, now)?)));
    kernel.sync_offenders(kept_out).map(drop)
}

/// Follows the ladder: brings each change to the kernel, and tells of whatever ends.
pub(super) async fn follow(daemon: Arc<Daemon>) {
    let mut changes = daemon.ledger.offender_changes();
    let mut overflows = daemon.ledger.offender_count(Now::read().unix).overflows;
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            news = changes.next(PAGE) => daemon.bring_offenders(&news),
            _ = sweep.tick() => {
                for step in daemon.ledger.sweep_offenders(Now::read().unix) {
                    daemon.stepped(&step);
                }
                daemon.look_for_overflow(&mut overflows);
            }
            () = daemon.retired.cancelled() => return,
        }
    }
}

/// What a session is worth on the ladder; `None`: nothing. Who is told to come again, in a trial too, is blamed for nothing;
/// nor is who is not screened at all, or refused for what the operator says of it.
fn offence(live: &Live, arrival: &Arrival, decision: &Decision) -> Option<Offence> {
    let judged = arrival.standing == Standing::Screened && !live.policy.replies.soft_bounce;
    let blamed = match decision.outcome {
        Outcome::Refused | Outcome::Left => judged,
        Outcome::HandedOff | Outcome::Deferred | Outcome::Limited => false,
    };
    if blamed { Offence::heaviest(decision.failed.iter(), decision.exceeded) } else { None }
}

impl Daemon {
    /// A session was decided: if the client failed, that is held against it.
    pub(super) fn judged(&self, live: &Live, arrival: &Arrival, decision: &Decision) {
        let Some(offence) = offence(live, arrival, decision) else { return };
        let address = arrival.client.ip();
        if let Some(why) = self.never_climbs(live, address) {
            debug!("{address} failed ({offence}) and stays off the offence ladder: {why}");
            return;
        }
        let now = Now::read().unix;
        // To the nearest second: the rest of the arithmetic knows no finer ones.
        let lasted = (decision.lasted + Duration::from_millis(500)).as_secs();
        let outcome = self.ledger.offend(address, offence, UnixTime(now.0.saturating_sub(lasted)), now);
        if outcome.counted {
            self.metrics.offence(offence);
        }
        if let Some(step) = &outcome.step {
            self.stepped(step);
        }
        if let Some(dense) = &outcome.dense {
            self.weigh(live, dense, now);
        }
    }

    /// On which rung a client arrives; `None`: on none, or it has passed everything that is asked, which outranks that.
    pub(super) fn rung(&self, live: &Live, address: IpAddr, stamps: Option<Stamps>) -> Option<Rung> {
        let now = Now::read().unix;
        let rung = self.ledger.rung(address, now).filter(|rung| *rung > Rung::Refused)?;
        let until = stamps.and_then(|stamps| stamps.complete_until(live.policy.enabled()));
        if until.is_some_and(|until| until > now) || self.pools.find(address).is_some() {
            return None;
        }
        Some(rung)
    }

    /// Why an address is never held to anything; `None`: it may be.
    fn never_climbs(&self, live: &Live, address: IpAddr) -> Option<&'static str> {
        if self.statics().lookup(address).is_some_and(|found| found.action == StaticAction::Permit) {
            return Some("it is permitted");
        }
        if live.config.listen.is_proxy(address) {
            return Some("it is a proxy");
        }
        if self.pools.find(address).is_some() {
            return Some("it belongs to a pool");
        }
        let pass = self.ledger.pass(self.key(address));
        pass.and_then(|pass| self.valid_until(&pass)).map(|_| "it has a valid pass")
    }

    /// A prefix is full of offenders: it climbs, unless there is somebody in it whom that would hurt.
    fn weigh(&self, live: &Live, dense: &Dense, now: UnixTime) {
        let prefix = dense.prefix;
        let spared = if let Some(permit) = self.statics().permit_meeting(prefix) {
            Some(format!("{permit} is permitted"))
        } else if live.config.listen.meets_proxy(prefix) {
            Some("a proxy is there".to_owned())
        } else if self.pools.meets(prefix) {
            Some("members of a pool are there".to_owned())
        } else {
            let pass = self.ledger.valid_pass_within(prefix, live.policy.enabled(), now);
            pass.map(|client| format!("{client} has a valid pass"))
        };
        if let Some(why) = spared {
            debug!("{prefix} is full of offenders ({} clients), but {why}", dense.clients);
            return;
        }
        if let Some(step) = self.ledger.condemn(dense, now) {
            self.stepped(&step);
        }
    }

    /// Somebody has climbed, or come down: logged, and noted in the client's history.
    pub(super) fn stepped(&self, step: &Step) {
        let Step { network, offender, from, to } = step;
        let name = shown(*network);
        let what = match to {
            Some(Rung::Dropped) => format!("kept out until {}", offender.until),
            Some(Rung::Tarpitted) if *from == Some(Rung::Dropped) => {
                "let in again; if it fails it is answered slowly".to_owned()
            }
            Some(Rung::Refused) if *from == Some(Rung::Dropped) => "let in again".to_owned(),
            Some(Rung::Tarpitted) => "from now on answered slowly when it fails".to_owned(),
            Some(Rung::Refused) => "treated like everybody".to_owned(),
            None => "off the ladder".to_owned(),
        };
        let why = match (to, offender.offence) {
            (Some(to), Offence::Density) if *to > from.unwrap_or(Rung::Refused) => {
                format!(", {} of its clients keep failing", offender.offences)
            }
            (Some(to), last) if *to > from.unwrap_or(Rung::Refused) => {
                format!(", after {} offences, the last: {last}", offender.offences)
            }
            _ => String::new(),
        };
        info!(client = %name, "OFFENDER {name}: {what}{why}");
        if let Some(to) = to.filter(|to| *to > from.unwrap_or(Rung::Refused)) {
            self.metrics.climbed(to);
            if !self.is_shared(*network) {
                let detail = format!("{what}{why}");
                self.ledger.note(self.key(network.addr()), What::Climbed, detail, Now::read().unix);
            }
        }
    }

    /// Whether a network is a prefix of several clients.
    fn is_shared(&self, network: IpNet) -> bool {
        network.prefix_len() < self.key(network.addr()).network(self.key_length).prefix_len()
    }

    /// Brings changes to the kernel.
    fn bring_offenders(&self, changes: &[OffenderChange]) {
        let Some(kernel) = &self.kernel else { return };
        let (live, now) = (self.live(), Now::read().unix);
        for OffenderChange { network, .. } in changes {
            let until = kernel_until(&self.ledger, &live.config, &self.statics(), *network, now);
            let done = match until {
                Some(until) => kernel.put_offender(*network, until),
                None => kernel.del_offender(*network).map(drop),
            };
            match done {
                Ok(()) => {
                    if self.degraded.clear("offenders-kernel") {
                        info!("offenders reach the kernel again");
                    }
                }
                Err(error) => {
                    let text = format!("offenders do not reach the kernel, so the daemon refuses them itself: {error}");
                    if self.degraded.set("offenders-kernel", text.clone()) {
                        warn!("{text}");
                    }
                }
            }
        }
    }

    fn look_for_overflow(&self, known: &mut u64) {
        let overflows = self.ledger.offender_overflows();
        if overflows <= *known {
            return;
        }
        let text = format!(
            "the offence ladder is full: {overflows} had to make room or could not climb since the start; those whose time \
             ends soonest go first"
        );
        *known = overflows;
        if self.degraded.set_for_a_while("offenders", text.clone()) {
            warn!("{text}");
        }
    }

    /// Takes everybody off the ladder whom a new permit concerns.
    pub(super) fn pardon(&self, permit: IpNet) {
        for network in self.ledger.forgive_meeting(permit, Now::read().unix) {
            info!("OFFENDER {}: off the ladder, {permit} is permitted now", shown(network));
            self.forgiven(network, format!("{permit} was permitted"));
        }
    }

    fn forgiven(&self, network: IpNet, why: String) {
        if !self.is_shared(network) {
            self.ledger.note(self.key(network.addr()), What::Forgiven, why, Now::read().unix);
        }
    }

    /// Takes off the ladder by command: the client of an address, or a prefix with everybody in it; `None`: everybody. Returns
    /// who that were.
    pub(super) fn forgive(&self, network: Option<IpNet>) -> api_offender::Forgiven {
        let now = Now::read().unix;
        let Some(network) = network else {
            let forgiven = self.ledger.forgive_all(now);
            info!("OFFENDER: {forgiven} taken off the ladder by command, that is everybody");
            return api_offender::Forgiven { count: forgiven, ..api_offender::Forgiven::default() };
        };
        let one = self.key(network.addr()).network(self.key_length).contains(&network);
        let forgiven: Vec<_> = if one {
            self.ledger.forgive(network, now).map(|(client, _)| client).into_iter().collect()
        } else {
            self.ledger.forgive_meeting(network, now)
        };
        for &network in &forgiven {
            info!("OFFENDER {}: off the ladder by command", shown(network));
            self.forgiven(network, "taken off the offence ladder by command".to_owned());
        }
        let still = self.ledger.offender(network.addr(), now).filter(|_| one);
        api_offender::Forgiven {
            count: forgiven.len(),
            networks: forgiven.into_iter().map(shown).collect(),
            still: still.map(|(prefix, ..)| shown(prefix)),
        }
    }

    /// Where an address stands on the ladder, by itself or with its prefix; `None`: nowhere.
    pub(super) fn offender(&self, address: IpAddr) -> Option<api_offender::Offender> {
        let (now, rules) = (Now::read().unix, self.ledger.ladder()?);
        let (network, offender, _) = self.ledger.offender(address.to_canonical(), now)?;
        let kept_out = self.kernel.as_ref().and_then(|kernel| kernel.offender(network).ok()?);
        Some(self.offender_shown(network, &offender, &rules, kept_out, now))
    }

    /// Everybody on the ladder, in the order of the networks.
    pub(super) fn offenders_shown(&self) -> Vec<api_offender::Offender> {
        let (now, Some(rules)) = (Now::read().unix, self.ledger.ladder()) else { return Vec::new() };
        let kept_out = self.kernel.as_ref().and_then(|kernel| kernel.offenders().ok()).unwrap_or_default();
        let all = self.ledger.offenders().into_iter().filter(|(_, offender)| !offender.is_over(&rules, now));
        all.map(|(network, offender)| {
            let at = kept_out.binary_search_by_key(&network, |kept_out| kept_out.network);
            self.offender_shown(network, &offender, &rules, at.ok().map(|at| kept_out[at]), now)
        })
        .collect()
    }

    fn offender_shown(
        &self,
        network: IpNet,
        offender: &Offender,
        rules: &Rules,
        kept_out: Option<kernel::KeptOut>,
        now: UnixTime,
    ) -> api_offender::Offender {
        let rung = offender.rung(rules, now);
        let dropped = rung == Rung::Dropped;
        api_offender::Offender {
            network: shown(network),
            rung: rung.name().to_owned(),
            score: (offender.points(rules, now) * 10.0).round() / 10.0,
            offences: offender.offences,
            last_offence: offender.offence.name().to_owned(),
            last_at: stamp(offender.last),
            since: stamp(offender.since),
            until: dropped.then(|| stamp(offender.until)),
            by: dropped.then(|| self.kept_out_by(kept_out.is_some()).to_owned()),
            hits: kept_out.map_or(0, |kept_out| kept_out.hits),
            last_hit: kept_out.and_then(|kept_out| kept_out.last_hit).map(stamp),
            ends: stamp(offender.end(rules)),
        }
    }

    /// Who keeps an offender out.
    fn kept_out_by(&self, in_kernel: bool) -> &'static str {
        let status = self.kernel.as_ref().filter(|_| in_kernel).and_then(|kernel| kernel.status().ok());
        match status {
            Some(status) if status.interfaces.iter().any(|interface| interface.mode != kernel::Mode::None) => "xdp",
            Some(status) if status.steer.attached => "steer",
            _ => "daemon",
        }
    }
}

/// A client alone without its length.
pub(super) fn shown(network: IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() { network.addr().to_string() } else { network.to_string() }
}
