//! A DNS server that does what it is told: a list that answers, and every way in which one can fail.
//!
//! Answers over UDP and TCP about the zones it was given; refuses everything else. Each zone has the test points of
//! RFC 5782 unless a fault says otherwise. Never asks anybody.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::dns::listed_name;
use crate::host::Host;

/// How a zone fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It does not.
    None,
    /// Questions get no answer.
    Drop,
    /// Answers come so late.
    Delay(Duration),
    /// Answers come when [`Scripted::let_go`] is called, and not before.
    Hold,
    /// Every question is answered with this code: 2 is SERVFAIL, 5 REFUSED.
    Code(u8),
    /// Every answer over UDP is cut off; over TCP it is whole.
    Truncate,
    /// Over UDP a lie with a wrong id comes first, the answer after it.
    WrongId,
    /// Over UDP nothing comes but lies with a wrong id.
    OnlyWrongIds,
    /// Every name has this address: the wildcard of a dead list, or an error code.
    Everything(Ipv4Addr),
    /// No name has an address, the test points included.
    Nothing,
}

/// A zone.
#[derive(Clone, Debug)]
struct Zone {
    listed: HashMap<String, Vec<Ipv4Addr>>,
    ttl: u32,
    /// `None`: negative answers have no SOA.
    negative_ttl: Option<u32>,
    text: Option<String>,
    fault: Fault,
    questions: Vec<String>,
    texts: usize,
    held: Vec<(Vec<u8>, SocketAddr)>,
}

/// The server; it ends when this is dropped.
#[derive(Debug)]
pub struct Scripted {
    address: SocketAddr,
    socket: UdpSocket,
    zones: Arc<Mutex<HashMap<String, Zone>>>,
    end: Arc<AtomicBool>,
}

/// An answer that is to go out later.
type Later = (Instant, Vec<u8>, SocketAddr);

const TYPE_A: u16 = 1;
const TYPE_SOA: u16 = 6;
const TYPE_TXT: u16 = 16;
/// How often the threads look whether they are to end.
const LOOK: Duration = Duration::from_millis(100);

impl Scripted {
    /// Starts on a free port of loopback.
    ///
    /// # Errors
    /// When no port is to be had.
    pub fn start(zones: &[&str]) -> Result<Self> {
        let mut last = None;
        // The port is to be free for both protocols.
        for _ in 0..20 {
            let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("a UDP port")?;
            match TcpListener::bind(udp.local_addr()?) {
                Ok(tcp) => return Self::serve(udp, tcp, zones),
                Err(error) => last = Some(error),
            }
        }
        Err(last.map_or_else(|| anyhow::anyhow!("no port"), Into::into)).context("a TCP port")
    }

    /// Starts on port 53 of a host.
    ///
    /// # Errors
    /// When it is taken.
    pub fn on(host: &Host, address: IpAddr, zones: &[&str]) -> Result<Self> {
        let udp = host.in_ns(|| UdpSocket::bind((address, 53)).context("UDP port 53"))?;
        let tcp = host.in_ns(|| TcpListener::bind((address, 53)).context("TCP port 53"))?;
        Self::serve(udp, tcp, zones)
    }

    fn serve(udp: UdpSocket, tcp: TcpListener, zones: &[&str]) -> Result<Self> {
        let address = udp.local_addr()?;
        // A thousand clients ask at once.
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&udp, 8 << 20)
            .or_else(|_| rustix::net::sockopt::set_socket_recv_buffer_size(&udp, 8 << 20))
            .context("a large buffer")?;
        udp.set_read_timeout(Some(LOOK))?;
        tcp.set_nonblocking(true)?;
        let zones: HashMap<_, _> = zones.iter().map(|&zone| (zone.to_owned(), Zone::new(zone))).collect();
        let server =
            Self { address, socket: udp.try_clone()?, zones: Arc::new(Mutex::new(zones)), end: Arc::default() };
        let (later, due) = mpsc::channel();
        let (zones, end, socket) = (Arc::clone(&server.zones), Arc::clone(&server.end), udp.try_clone()?);
        thread::spawn(move || serve_udp(&udp, &zones, &end, &later));
        thread::spawn(move || send_later(&socket, &due));
        let (zones, end) = (Arc::clone(&server.zones), Arc::clone(&server.end));
        thread::spawn(move || serve_tcp(&tcp, &zones, &end));
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Puts an address on a list.
    pub fn list(&self, zone: &str, address: &str, codes: &[[u8; 4]]) {
        let name = listed_name(address.parse().expect("an address"), zone);
        let codes = codes.iter().map(|&code| code.into()).collect();
        self.with(zone, |zone| zone.listed.insert(name, codes));
    }

    /// Takes an address off a list.
    pub fn unlist(&self, zone: &str, address: &str) {
        let name = listed_name(address.parse().expect("an address"), zone);
        self.with(zone, |zone| zone.listed.remove(&name));
    }

    /// From now on the zone fails so.
    pub fn fail(&self, zone: &str, fault: Fault) {
        self.with(zone, |zone| zone.fault = fault);
    }

    /// Sends the answers that were held back ([`Fault::Hold`]); from now on the zone is well.
    pub fn let_go(&self, zone: &str) {
        let held = self.with(zone, |zone| {
            zone.fault = Fault::None;
            std::mem::take(&mut zone.held)
        });
        for (packet, peer) in held {
            // Who has given up asking is gone.
            let _ = self.socket.send_to(&packet, peer);
        }
    }

    /// How long answers hold; `None`: negative ones come without a SOA.
    pub fn hold(&self, zone: &str, ttl: u32, negative_ttl: Option<u32>) {
        self.with(zone, |zone| (zone.ttl, zone.negative_ttl) = (ttl, negative_ttl));
    }

    /// What the zone says about whoever is listed.
    pub fn say(&self, zone: &str, text: &str) {
        self.with(zone, |zone| zone.text = Some(text.to_owned()));
    }

    /// How often an address was asked about.
    #[must_use]
    pub fn asked(&self, zone: &str, address: &str) -> usize {
        let name = listed_name(address.parse().expect("an address"), zone);
        self.with(zone, |zone| zone.questions.iter().filter(|asked| **asked == name).count())
    }

    /// How many questions for addresses there were, test points included.
    #[must_use]
    pub fn questions(&self, zone: &str) -> usize {
        self.with(zone, |zone| zone.questions.len())
    }

    /// How many questions for texts there were.
    #[must_use]
    pub fn texts(&self, zone: &str) -> usize {
        self.with(zone, |zone| zone.texts)
    }

    fn with<T>(&self, zone: &str, change: impl FnOnce(&mut Zone) -> T) -> T {
        change(lock(&self.zones).get_mut(zone).unwrap_or_else(|| panic!("no zone {zone:?} is served here")))
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}

impl Zone {
    fn new(zone: &str) -> Self {
        let points = ["127.0.0.2", "::ffff:127.0.0.2"].map(|point| point.parse().expect("an address"));
        let listed = points.iter().map(|&point| (listed_name(point, zone), vec![Ipv4Addr::new(127, 0, 0, 2)]));
        Self {
            listed: listed.collect(),
            ttl: 300,
            negative_ttl: Some(300),
            text: None,
            fault: Fault::None,
            questions: Vec::new(),
            texts: 0,
            held: Vec::new(),
        }
    }
}

fn lock(zones: &Mutex<HashMap<String, Zone>>) -> MutexGuard<'_, HashMap<String, Zone>> {
    zones.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve_udp(socket: &UdpSocket, zones: &Mutex<HashMap<String, Zone>>, end: &AtomicBool, later: &Sender<Later>) {
    let mut packet = [0; 1500];
    while !end.load(Ordering::Relaxed) {
        let Ok((length, peer)) = socket.recv_from(&mut packet) else { continue };
        let Some(answer) = answer(&packet[..length], zones, false) else { continue };
        let mut lie = answer.packet.clone();
        lie[1] ^= 0x55;
        match answer.fault {
            Fault::Drop => {}
            Fault::Hold if is_held(zones, &answer, peer) => {}
            Fault::Delay(delay) => drop(later.send((Instant::now() + delay, answer.packet, peer))),
            // The peer may have gone; that is its affair.
            Fault::OnlyWrongIds => drop(socket.send_to(&lie, peer)),
            Fault::WrongId => {
                let _ = socket.send_to(&lie, peer);
                let _ = socket.send_to(&answer.packet, peer);
            }
            _ => drop(socket.send_to(&answer.packet, peer)),
        }
    }
}

/// Keeps an answer until [`Scripted::let_go`], unless that was called in the meantime.
fn is_held(zones: &Mutex<HashMap<String, Zone>>, answer: &Answered, peer: SocketAddr) -> bool {
    let mut zones = lock(zones);
    let zone = zones.get_mut(&answer.zone).filter(|zone| zone.fault == Fault::Hold);
    zone.map(|zone| zone.held.push((answer.packet.clone(), peer))).is_some()
}

/// In the order in which they came: a zone whose delay shrinks keeps its answers waiting a little longer.
fn send_later(socket: &UdpSocket, due: &Receiver<Later>) {
    while let Ok((at, packet, peer)) = due.recv() {
        thread::sleep(at.saturating_duration_since(Instant::now()));
        let _ = socket.send_to(&packet, peer);
    }
}

fn serve_tcp(listener: &TcpListener, zones: &Arc<Mutex<HashMap<String, Zone>>>, end: &AtomicBool) {
    while !end.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => {
                let zones = Arc::clone(zones);
                thread::spawn(move || serve_stream(stream, &zones));
            }
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn serve_stream(mut stream: TcpStream, zones: &Mutex<HashMap<String, Zone>>) -> Option<()> {
    stream.set_nonblocking(false).ok()?;
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length).ok()?;
        let mut packet = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut packet).ok()?;
        let answer = answer(&packet, zones, true)?;
        if matches!(answer.fault, Fault::Drop | Fault::Hold) {
            continue;
        }
        let length = u16::try_from(answer.packet.len()).ok()?;
        stream.write_all(&length.to_be_bytes()).ok()?;
        stream.write_all(&answer.packet).ok()?;
    }
}

struct Answered {
    zone: String,
    packet: Vec<u8>,
    fault: Fault,
}

/// What a question gets; `None`: it cannot be understood.
fn answer(question: &[u8], zones: &Mutex<HashMap<String, Zone>>, tcp: bool) -> Option<Answered> {
    let (name, kind, end) = parse(question)?;
    let mut packet = question.get(..end)?.to_vec();
    // An answer, with recursion; one question, the rest is counted below.
    packet[2] = 0x81;
    packet[3] = 0x80;
    packet[6..12].fill(0);
    let mut zones = lock(zones);
    let found = zones.iter_mut().find(|(zone, _)| name.ends_with(&format!(".{zone}")) || name == **zone);
    let Some((apex, zone)) = found else {
        packet[3] |= 5;
        return Some(Answered { zone: String::new(), packet, fault: Fault::None });
    };
    if kind == TYPE_A {
        zone.questions.push(name.clone());
    } else if kind == TYPE_TXT {
        zone.texts += 1;
    }
    let fault = zone.fault;
    let nobody = Vec::new();
    let everybody = match fault {
        Fault::Everything(code) => vec![code],
        _ => Vec::new(),
    };
    let codes = match fault {
        Fault::Everything(_) => &everybody,
        Fault::Nothing => &nobody,
        _ => zone.listed.get(&name).unwrap_or(&nobody),
    };
    match fault {
        Fault::Code(code) => packet[3] |= code & 15,
        Fault::Truncate if !tcp => packet[2] |= 2,
        _ if kind == TYPE_A && !codes.is_empty() => {
            packet[7] = u8::try_from(codes.len()).ok()?;
            codes.iter().for_each(|code| record(&mut packet, TYPE_A, zone.ttl, &code.octets()));
        }
        _ if kind == TYPE_TXT && !codes.is_empty() && zone.text.is_some() => {
            packet[7] = 1;
            let text = zone.text.as_deref().unwrap_or_default().as_bytes();
            let mut data = vec![u8::try_from(text.len()).ok()?];
            data.extend(text);
            record(&mut packet, TYPE_TXT, zone.ttl, &data);
        }
        _ => {
            if codes.is_empty() {
                packet[3] |= 3;
            }
            if let Some(ttl) = zone.negative_ttl {
                packet[9] = 1;
                soa(&mut packet, apex, ttl);
            }
        }
    }
    Some(Answered { zone: apex.clone(), packet, fault })
}

/// The name that is asked for, lower case, what kind of record, and where the question ends.
fn parse(packet: &[u8]) -> Option<(String, u16, usize)> {
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(packet.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?);
    Some((labels.join("."), kind, at + 4))
}

/// A record about the name of the question.
fn record(packet: &mut Vec<u8>, kind: u16, ttl: u32, data: &[u8]) {
    packet.extend([0xc0, 12]);
    tail(packet, kind, ttl, data);
}

fn soa(packet: &mut Vec<u8>, apex: &str, ttl: u32) {
    let mut name = Vec::new();
    // The root has no label.
    for label in apex.split('.').filter(|label| !label.is_empty()) {
        // Zones of tests are short.
        name.push(label.len() as u8);
        name.extend(label.as_bytes());
    }
    name.push(0);
    let mut data = [name.as_slice(), name.as_slice()].concat();
    for number in [1, 60, 60, 60, ttl] {
        data.extend(number.to_be_bytes());
    }
    packet.extend(&name);
    tail(packet, TYPE_SOA, ttl, &data);
}

fn tail(packet: &mut Vec<u8>, kind: u16, ttl: u32, data: &[u8]) {
    packet.extend(kind.to_be_bytes());
    packet.extend(1_u16.to_be_bytes());
    packet.extend(ttl.to_be_bytes());
    packet.extend((data.len() as u16).to_be_bytes());
    packet.extend(data);
}
