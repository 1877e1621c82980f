//! How long a pass takes from one host to the kernel of another, beside what the store's own messages take.
//!
//! Two hosts with a daemon each, one Redis. A pass is given by hand on one (which is how it can be timed) and looked for in the
//! other's kernel map, by the map itself. The rival is a message by PUBLISH and SUBSCRIBE between the same two hosts, which is
//! the least that goes through that store; the two take turns, so that both meet the same machine.

use std::fs;
use std::io::{BufRead as _, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{HashMap, Map, MapData};

use crate::control::Control;
use crate::host::Host;
use crate::mxs::{Mxs, config};

/// A kernel map's value: when it expires, when it was used.
type Pass = [u8; 16];

/// How long one round may take before it counts as lost.
const LOST: Duration = Duration::from_secs(5);
/// The distance between two looks into the map.
const PAUSE: Duration = Duration::from_micros(20);

/// What was measured, in milliseconds, a value a round.
#[derive(Debug, Default)]
pub(crate) struct Times {
    /// From before the pass is asked for on one host until it is in the kernel map of the same.
    pub(crate) own_kernel: Vec<f64>,
    /// The same until it is in the kernel map of the other.
    pub(crate) other_kernel: Vec<f64>,
    /// From before a message is published by one host until the other has it.
    pub(crate) message: Vec<f64>,
}

/// Measures so many rounds. To be called inside a cell.
///
/// # Errors
/// When a host or the store does not work, or a pass does not arrive.
pub(crate) fn measure(rounds: u32) -> Result<Times> {
    let (net, store) = Mxs::net_and_store("")?;
    let mxs = Mxs::start(&net, store, 2, &config("redis://192.0.2.70", "[shared]\nmanual = true\n"))?;
    let [one, other] = &mxs.hosts[..] else { bail!("two hosts") };
    let mut control = Control::connect(one)?;
    let maps = [passes(one)?, passes(other)?];
    let mut messages = Messages::open(one, other)?;
    let mut times = Times::default();
    for round in 0..rounds {
        let client = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + round);
        let begun = Instant::now();
        let [own, elsewhere] = thread::scope(|scope| {
            let waiting = maps.each_ref().map(|map| scope.spawn(|| wait_for(map, client, begun)));
            control.give_pass(client.into())?;
            let [own, elsewhere] =
                waiting.map(|thread| thread.join().unwrap_or_else(|_| bail!("a look into a map broke")));
            anyhow::Ok([own?, elsewhere?])
        })?;
        times.own_kernel.push(own);
        times.other_kernel.push(elsewhere);
        times.message.push(messages.round_trip()?);
    }
    Ok(times)
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// The kernel's map of IPv4 passes on a host.
fn passes(host: &Host) -> Result<HashMap<MapData, [u8; 4], Pass>> {
    let data = host.inside(|| {
        // The directory is named after the version of the maps.
        let places = fs::read_dir("/sys/fs/bpf/screener").context("the pins")?;
        let mut places = places.filter_map(|place| Some(place.ok()?.path().join("PASS4")));
        let place = places.find(|place| place.exists()).context("no map of passes is pinned")?;
        MapData::from_pin(&place).with_context(|| place.display().to_string())
    })?;
    Ok(HashMap::try_from(Map::HashMap(data))?)
}

fn wait_for(map: &HashMap<MapData, [u8; 4], Pass>, client: Ipv4Addr, begun: Instant) -> Result<f64> {
    while map.get(&client.octets(), 0).is_err() {
        ensure!(begun.elapsed() < LOST, "{client} is in no kernel map after {LOST:?}");
        thread::sleep(PAUSE);
    }
    Ok(milliseconds(begun))
}

/// One host that publishes, another that has subscribed.
struct Messages {
    publisher: BufReader<TcpStream>,
    subscriber: BufReader<TcpStream>,
}

impl Messages {
    fn open(one: &Host, other: &Host) -> Result<Self> {
        let connect = |host: &Host| {
            host.in_ns(|| {
                let stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::new(192, 0, 2, 70), crate::redis::PORT)))?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(LOST))?;
                Ok(BufReader::new(stream))
            })
        };
        let mut messages = Self { publisher: connect(one)?, subscriber: connect(other)? };
        messages.subscriber.get_mut().write_all(b"SUBSCRIBE bench\r\n")?;
        // An array of three: the word, the channel, a number.
        lines(&mut messages.subscriber, 6)?;
        Ok(messages)
    }

    fn round_trip(&mut self) -> Result<f64> {
        let begun = Instant::now();
        self.publisher.get_mut().write_all(b"PUBLISH bench 12345678901234567890123456789012345678901234567890\r\n")?;
        // An array of three: the word, the channel, the message.
        lines(&mut self.subscriber, 7)?;
        let time = milliseconds(begun);
        lines(&mut self.publisher, 1)?;
        Ok(time)
    }
}

fn lines(from: &mut BufReader<TcpStream>, count: usize) -> Result<()> {
    let mut line = String::new();
    for _ in 0..count {
        ensure!(from.read_line(&mut line)? > 0, "the store hung up: {line}");
    }
    Ok(())
}
