//! A list with everything that is known about it, and the questions to it that are open.
//!
//! Each question is a task of its own and belongs to no client: an answer that comes late still goes to the cache, and two
//! clients that want to know the same ask once. Never waits for another list; when a list is parked, whoever waits for it is
//! told at once.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;
use tracing::{info, warn};

use super::answer::{Failure, Known, Looked, Records, Said};
use super::cache::Cache;
use super::health::{Health, Parked, Step, Why};
use super::list::List;
use super::points::{self, Tested};
use super::resolver::Resolver;
use super::stats::{Stats, add};

/// How many questions to one list may be on the way: each has a socket. A list that answers in 100 ms gets 10,000 a second.
const MOST_ASKED: usize = 1000;
/// How many may be open, those that wait for their turn included: thousands of clients come at once when a daemon starts.
const MOST_OPEN: usize = 10_000;
/// How many questions for texts may be on the way; who gets none has only the list's name and the URL to show.
const MOST_TEXTS: usize = 200;
/// How long "not listed" is kept at most: a client may be listed any minute.
const LONGEST_NEGATIVE: Duration = Duration::from_secs(900);
/// How long a failure is kept at first and at most (RFC 9520 section 3.2).
const FAILURE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// How long an answer waits for the list's test points at most: they have their own times, far below that.
const TESTED_WITHIN: Duration = Duration::from_secs(15);
/// So many tests in a row without an answer, and a list that was never tested is believed all the same: what it says of
/// clients tells what it is. Those tests take less than [`TESTED_WITHIN`].
const BELIEVED_AFTER: u32 = 3;

/// What all lists share.
pub(super) struct Shared {
    pub(super) resolver: Resolver,
    pub(super) cache: Arc<Cache>,
    /// The next number of a zone; zones outlive a reload, so it does too.
    pub(super) numbers: Arc<AtomicU32>,
}

impl Shared {
    pub(super) fn next_number(&self) -> u32 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }
}

/// A list, as it is configured now.
#[derive(Clone)]
pub(super) struct Watched {
    pub(super) list: Arc<List>,
    pub(super) zone: Arc<Zone>,
}

/// What is known about a zone, whatever its configuration: it stays over a reload.
pub(super) struct Zone {
    /// Under which number its answers are kept.
    number: AtomicU32,
    pub(super) stats: Stats,
    health: Mutex<Health>,
    open: Mutex<HashMap<IpAddr, Vec<Subscriber>>>,
    /// Whether its test points have been asked. Until then no answer of it is given out.
    tested: watch::Sender<bool>,
    /// How many tests in a row have had no answer.
    unanswered: AtomicU32,
    no_v6: AtomicBool,
    /// For each question that is on its way.
    places: Semaphore,
    /// The same for texts: a list that has none must not keep those waiting who ask for addresses.
    texts: Semaphore,
    /// Wakes whoever asks the test points.
    pub(super) test_now: tokio::sync::Notify,
}

/// Who wants to know, and under which number it knows the list.
#[derive(Clone, Debug)]
pub(super) struct Subscriber {
    pub(super) list: usize,
    pub(super) to: mpsc::UnboundedSender<News>,
}

/// What a client hears of a list.
#[derive(Clone, Debug)]
pub(super) struct News {
    pub(super) list: usize,
    pub(super) what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    /// What is known, and for how long it holds.
    Known(Known, Duration),
    /// The list was parked in the meantime; the answer may still come.
    GivenUp,
    /// The list turned out not to know such addresses.
    Never,
    /// The list's text about the client.
    Text(Arc<Records>),
}

/// What comes of asking.
pub(super) enum Asked {
    /// It is known already.
    Known(Known, Duration),
    /// The list cannot say.
    Unknown(Failure),
    /// The list does not know such addresses.
    Never,
    /// The subscriber will hear.
    Open,
}

impl Zone {
    pub(super) fn new(number: u32, list: &List, now: Instant) -> Self {
        Self {
            number: AtomicU32::new(number),
            stats: Stats::new(now),
            health: Mutex::new(Health::new(!list.is_allow())),
            open: Mutex::default(),
            tested: watch::Sender::new(true),
            unanswered: AtomicU32::new(0),
            no_v6: AtomicBool::new(false),
            places: Semaphore::new(MOST_ASKED),
            texts: Semaphore::new(MOST_TEXTS),
            test_now: tokio::sync::Notify::new(),
        }
    }

    pub(super) fn parked(&self) -> Option<Parked> {
        self.health().parked()
    }

    pub(super) fn hit_rate(&self) -> f64 {
        self.health().hit_rate()
    }

    /// Whether it turned out to know IPv4 only.
    pub(super) fn has_no_v6(&self) -> bool {
        self.no_v6.load(Ordering::Relaxed)
    }

    pub(super) fn open_questions(&self) -> usize {
        self.open().len()
    }

    /// From now on answers wait for the test points.
    pub(super) fn distrust(&self) {
        self.tested.send_replace(false);
    }

    pub(super) fn is_tested(&self) -> bool {
        *self.tested.borrow()
    }

    /// How many tests in a row have had no answer.
    pub(super) fn unanswered(&self) -> u32 {
        self.unanswered.load(Ordering::Relaxed)
    }

    fn number(&self) -> u32 {
        self.number.load(Ordering::Relaxed)
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, Vec<Subscriber>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    /// Asks about a client. `fresh`: whatever the cache says.
    pub(super) fn ask(&self, shared: &Arc<Shared>, address: IpAddr, subscriber: Subscriber, fresh: bool) -> Asked {
        let address = address.to_canonical();
        let Some(name) = self.list.query_name(address) else { return Asked::Never };
        if address.is_ipv6() && self.zone.has_no_v6() {
            return Asked::Never;
        }
        if self.zone.parked().is_some() {
            return Asked::Unknown(Failure::Parked);
        }
        let now = Instant::now();
        if !fresh && let Some((known, left)) = shared.cache.get(self.zone.number(), address, now) {
            add(&self.zone.stats.cached);
            return match known {
                Known::Failed(failure, _) => Asked::Unknown(failure),
                known => Asked::Known(known, left),
            };
        }
        let mut open = self.zone.open();
        let full = open.len() >= MOST_OPEN;
        match open.get_mut(&address) {
            Some(waiting) => {
                add(&self.zone.stats.shared);
                waiting.push(subscriber);
                return Asked::Open;
            }
            None if full => {
                self.zone.stats.failed(Failure::Busy);
                return Asked::Unknown(Failure::Busy);
            }
            None => open.insert(address, vec![subscriber]),
        };
        drop(open);
        let question = Question { watched: self.clone(), shared: Arc::clone(shared), address, closed: false };
        tokio::spawn(question.carry_out(name));
        Asked::Open
    }

    /// Asks the test points and draws the consequences.
    pub(super) async fn test(&self, shared: &Shared) -> Tested {
        let tested = points::test(&shared.resolver, &self.list).await;
        let now = Instant::now();
        if let Some(knows) = tested.knows_v6 {
            let knew = !self.zone.no_v6.swap(!knows, Ordering::Relaxed);
            if knew && !knows {
                info!("DNS list {} knows no IPv6: it is asked about IPv4 clients only", self.list.name());
            }
        }
        let step = self.zone.health().tested(tested.wrong, now);
        self.take(step, shared);
        let silent = matches!(tested.wrong, Some(Why::Fails(_)));
        let unanswered = if silent { self.zone.unanswered().saturating_add(1) } else { 0 };
        self.zone.unanswered.store(unanswered, Ordering::Relaxed);
        // Silence has shown nothing: a resolver that is about to start makes no list a good one.
        if !silent || unanswered >= BELIEVED_AFTER || self.zone.parked().is_some() {
            self.zone.tested.send_replace(true);
        }
        tested
    }

    /// What follows from what the list did.
    fn take(&self, step: Step, shared: &Shared) {
        let name = self.list.name();
        match step {
            Step::Stay => {}
            Step::Test => self.zone.test_now.notify_one(),
            Step::Park(why) => {
                self.zone.stats.error(why.to_string());
                add(&self.zone.stats.parkings);
                warn!("DNS list {name} is left alone: {why}");
                self.forget_what_is_spoilt(why, shared);
                // Nobody waits for it any longer.
                for (_, waiting) in self.zone.open().iter_mut() {
                    for Subscriber { list, to } in waiting.iter() {
                        let _ = to.send(News { list: *list, what: What::GivenUp });
                    }
                }
                self.zone.test_now.notify_one();
            }
            Step::ParkOn(why) => {
                self.zone.stats.error(why.to_string());
                // It was silent, and is found to lie.
                self.forget_what_is_spoilt(why, shared);
            }
            Step::Return => info!("DNS list {name} is well again and asked from now on"),
        }
    }

    fn forget_what_is_spoilt(&self, why: Why, shared: &Shared) {
        if why.spoils_the_past() {
            self.zone.number.store(shared.next_number(), Ordering::Relaxed);
        }
    }

    /// What an answer means for the list, and what is kept of it, for how long.
    fn learn(&self, looked: Looked, took: Duration, shared: &Shared, failures: u8) -> (Known, Duration) {
        let (stats, now) = (&self.zone.stats, Instant::now());
        let (least, most) = self.list.ttl;
        match looked {
            Looked::Nothing(ttl) => {
                stats.took(took);
                add(&stats.misses);
                let step = self.zone.health().answered(false, now);
                self.take(step, shared);
                let most = most.min(LONGEST_NEGATIVE).max(least);
                (Known::Nothing, ttl.unwrap_or(least).clamp(least, most))
            }
            Looked::Records(records, ttl) => {
                stats.took(took);
                let step = match self.list.judge(&records) {
                    Said::Listed { .. } => {
                        add(&stats.hits);
                        self.zone.health().answered(true, now)
                    }
                    Said::NotListed => {
                        add(&stats.misses);
                        self.zone.health().answered(false, now)
                    }
                    Said::Bad(bad) => {
                        add(&stats.errors);
                        stats.error(bad.to_string());
                        if self.list.is_parked_for(bad) { self.zone.health().lied(bad, now) } else { Step::Stay }
                    }
                };
                self.take(step, shared);
                let known = Known::Records(Arc::new(Records { codes: records.into(), text: None }));
                (known, ttl.clamp(least, most))
            }
            Looked::Failed(failure) => {
                stats.failed(failure);
                let step = self.zone.health().failed(failure, now);
                self.take(step, shared);
                let times = failures.saturating_add(1);
                let pause = FAILURE.0.saturating_mul(1 << u32::from(failures.min(10))).min(FAILURE.1);
                (Known::Failed(failure, times), pause)
            }
        }
    }
}

/// One question that is open.
struct Question {
    watched: Watched,
    shared: Arc<Shared>,
    address: IpAddr,
    /// Whether the subscribers were taken: what stands there from then on belongs to another question.
    closed: bool,
}

impl Question {
    async fn carry_out(mut self, name: String) {
        let Watched { list, zone } = self.watched.clone();
        let Ok(Ok(place)) = timeout(list.deadline, zone.places.acquire()).await else {
            zone.stats.failed(Failure::Busy);
            self.tell(&What::Known(Known::Failed(Failure::Busy, 0), Duration::ZERO));
            return;
        };
        // While this waited for its turn.
        if zone.parked().is_some() {
            self.tell(&What::GivenUp);
            return;
        }
        let began = Instant::now();
        zone.stats.asked(began);
        // Boxed, so that it takes no room while this waits for its turn.
        let looked = Box::pin(self.shared.resolver.a(name.clone())).await;
        let took = began.elapsed();
        drop(place);
        let mut tested = zone.tested.subscribe();
        // A list that was taken out of the configuration during its first test is never tested again.
        if timeout(TESTED_WITHIN, tested.wait_for(|&tested| tested)).await.is_err() {
            zone.stats.failed(Failure::Parked);
            self.tell(&What::GivenUp);
            return;
        }
        if self.address.is_ipv6() && zone.has_no_v6() {
            self.tell(&What::Never);
            return;
        }

        let number = zone.number();
        let failures = match looked {
            Looked::Failed(_) => self.shared.cache.failures(number, self.address),
            _ => 0,
        };
        let (known, ttl) = self.watched.learn(looked, took, &self.shared, failures);
        let believed = zone.parked().is_none_or(|parked| matches!(parked.why, Why::Fails(_)));
        if believed {
            self.shared.cache.put(number, self.address, known.clone(), ttl, Instant::now());
        }
        let waiting = self.tell(&if believed { What::Known(known.clone(), ttl) } else { What::GivenUp });
        let text = match &known {
            Known::Records(records) if believed && list.text => {
                matches!(list.judge(&records.codes), Said::Listed { .. }).then(|| Arc::clone(records))
            }
            _ => None,
        };
        let Some(records) = text else { return };
        let Ok(_place) = zone.texts.try_acquire() else { return };
        let Some(text) = self.shared.resolver.text(name, &list).await else { return };
        let records = Arc::new(Records { codes: records.codes.clone(), text: Some(text.into()) });
        let left = ttl.saturating_sub(began.elapsed());
        self.shared.cache.put(number, self.address, Known::Records(Arc::clone(&records)), left, Instant::now());
        for Subscriber { list, to } in waiting {
            let _ = to.send(News { list, what: What::Text(Arc::clone(&records)) });
        }
    }

    /// Tells everybody who wants to know; the question is closed by that.
    fn tell(&mut self, what: &What) -> Vec<Subscriber> {
        let waiting = self.close();
        for Subscriber { list, to } in &waiting {
            let _ = to.send(News { list: *list, what: what.clone() });
        }
        waiting
    }

    fn close(&mut self) -> Vec<Subscriber> {
        if std::mem::replace(&mut self.closed, true) {
            return Vec::new();
        }
        self.watched.zone.open().remove(&self.address).unwrap_or_default()
    }
}

/// A question that ends without an answer must not stand in the way of the next about the same client.
impl Drop for Question {
    fn drop(&mut self) {
        self.close();
    }
}
