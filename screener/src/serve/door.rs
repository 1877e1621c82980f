//! Who is at the door: the other end of the connection, or, if that is a proxy of `listen.proxy_from`, whomever its PROXY
//! header names.
//!
//! Takes the header's bytes from the socket and not one more: what a client says behind it is the session's to read, and
//! counts as speaking before the greeting. A peer that is not configured is an ordinary client, whatever it sends.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::feed::StaticAction;
use crate::observe;
use crate::proxy::{self, Header, LONGEST, Origin, ProxyError, Tlv};
use crate::session::Escaped;

use super::daemon::{Daemon, Mode, canonical};
use super::live::Live;

/// How long a proxy may take for its header: postscreen's `postscreen_upstream_proxy_timeout`.
const HEADER_TIME: Duration = Duration::from_secs(5);
/// postscreen's words when it cannot tell who the client is.
const NO_HEADER: &[u8] = b"421 4.3.2 No system resources\r\n";
/// How long, and for how much, a peer that was turned away is listened to, so that the reply arrives.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 64 * 1024;

/// A connection's two ends, as far as they matter.
#[derive(Debug)]
pub(super) struct Visit {
    /// Where the client is; of a connection without a client, the proxy.
    pub(super) client: SocketAddr,
    /// What it connected to.
    pub(super) server: SocketAddr,
    /// Whose connection it is.
    pub(super) whose: Whose,
    /// What the proxy said beside the addresses.
    pub(super) tlvs: Vec<Tlv>,
}

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// A client's.
    Client,
    /// A proxy's own, which names itself: haproxy's health checks with version 1, or mail that its host sends by way of itself.
    Proxy,
    /// Without a client's address: a proxy's health check, or a client that it cannot name.
    Nobody,
}

/// Why there is no header.
#[derive(Debug)]
enum Trouble {
    /// It left without a word: how load balancers look whether a port is open.
    Left,
    /// It left within its header.
    Eof,
    /// Nothing, or not all of it, in time.
    Late,
    /// No header that is taken; what came.
    Bad(ProxyError, Vec<u8>),
    /// The daemon is going down.
    GoingDown,
    Broken(io::Error),
}

/// Finds out who it is. `None`: nobody who could be served, and everything is said and done.
pub(super) async fn open(daemon: &Daemon, live: &Live, stream: TcpStream) -> Option<(TcpStream, Visit)> {
    let (client, server) = match ends(&stream) {
        Ok(ends) => ends,
        // It has gone before it could be looked at.
        Err(error) => {
            debug!("a connection without an end: {error}");
            return None;
        }
    };
    let visit = Visit { client, server, whose: Whose::Client, tlvs: Vec::new() };
    if !live.config.listen.is_proxy(client.ip()) {
        return Some((stream, visit));
    }
    // Boxed: most connections have no header.
    Box::pin(proxied(daemon, stream, visit)).await
}

async fn proxied(daemon: &Daemon, stream: TcpStream, own: Visit) -> Option<(TcpStream, Visit)> {
    let header = tokio::select! {
        header = timeout(HEADER_TIME, header(&stream)) => header.unwrap_or(Err(Trouble::Late)),
        () = daemon.going_down.cancelled() => Err(Trouble::GoingDown),
    };
    let visit = match header {
        Ok(Header { origin: Origin::Client { client, server }, tlvs }) => {
            debug!("{} comes by way of {}", observe::endpoint(client), observe::endpoint(own.client));
            let whose = if client.ip() == own.client.ip() { Whose::Proxy } else { Whose::Client };
            Visit { client, server, whose, tlvs }
        }
        Ok(Header { origin: Origin::Local | Origin::Unknown, .. }) => {
            daemon.metrics.session_decided("health_check");
            Visit { whose: Whose::Nobody, ..own }
        }
        Err(trouble) => {
            report(daemon, own.client, &trouble);
            if !matches!(trouble, Trouble::Left | Trouble::Broken(_)) {
                turn_away(stream).await;
            }
            return None;
        }
    };
    Some((stream, visit))
}

fn ends(stream: &TcpStream) -> io::Result<(SocketAddr, SocketAddr)> {
    Ok((canonical(stream.peer_addr()?), canonical(stream.local_addr()?)))
}

/// Reads the header, in whatever pieces it comes.
async fn header(stream: &TcpStream) -> Result<Header, Trouble> {
    let mut seen = Vec::new();
    let mut chunk = [0; LONGEST];
    loop {
        // A look first: only once the end is known it is known which bytes are the header's.
        let count = match stream.peek(&mut chunk).await {
            Ok(0) if seen.is_empty() => return Err(Trouble::Left),
            Ok(0) => return Err(Trouble::Eof),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset && seen.is_empty() => {
                return Err(Trouble::Left);
            }
            Err(error) => return Err(Trouble::Broken(error)),
        };
        let before = seen.len();
        seen.extend_from_slice(&chunk[..count]);
        match proxy::parse(&seen) {
            Ok(Some((header, length))) => {
                take(stream, &mut chunk[..length - before]).await.map_err(Trouble::Broken)?;
                return Ok(header);
            }
            Ok(None) => take(stream, &mut chunk[..count]).await.map_err(Trouble::Broken)?,
            Err(error) => return Err(Trouble::Bad(error, seen)),
        }
    }
}

/// Takes bytes from the socket that are known to be there.
async fn take(stream: &TcpStream, mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.try_read(bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => bytes = &mut bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.readable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Says what was wrong and what to do: in postscreen's words first (reference/postscreen.md section 3.2).
fn report(daemon: &Daemon, peer: SocketAddr, trouble: &Trouble) {
    let what = match trouble {
        Trouble::Left => return debug!("{} left without a header", observe::endpoint(peer)),
        Trouble::Broken(error) => return debug!("{} broke off: {error}", observe::endpoint(peer)),
        Trouble::GoingDown => return,
        Trouble::Eof => "EOF".to_owned(),
        Trouble::Late => "time limit exceeded".to_owned(),
        Trouble::Bad(error, seen) => format!("{error} (it began with \"{}\")", Escaped(seen)),
    };
    let advice = match trouble {
        Trouble::Bad(ProxyError::NoHeader, _) | Trouble::Late | Trouble::Eof => {
            "let it send one (haproxy: send-proxy-v2), or take it out of listen.proxy_from"
        }
        Trouble::Bad(ProxyError::Long(_), _) => "let it send fewer TLVs",
        _ => "look into its configuration",
    };
    let peer = observe::endpoint(peer);
    let text = format!(
        "haproxy read: {what}: {peer} is in listen.proxy_from, so that each of its connections begins with a PROXY header: \
         {advice}"
    );
    warn!("{text}");
    daemon.metrics.session_decided("no_proxy_header");
    daemon.degraded.set_for_a_while("proxy", text);
}

async fn turn_away(mut stream: TcpStream) {
    let farewell = async {
        stream.write_all(NO_HEADER).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    // Whether it hears it or has gone is its own affair.
    let _ = timeout(LINGER, farewell).await;
}

/// In steer mode the kernel gives whoever is permitted to the MTA: says so where that may be a proxy, whose header the MTA
/// does not expect.
pub(super) fn look_for_permits(daemon: &Daemon) {
    if daemon.mode != Mode::Steer {
        return;
    }
    let live = daemon.live();
    let statics = daemon.statics();
    let permits = statics.entries().filter(|entry| entry.action == StaticAction::Permit);
    let met: Vec<_> = permits
        .filter(|permit| live.config.listen.meets_proxy(permit.prefix))
        .map(|permit| format!("{} ({})", permit.prefix, permit.source))
        .collect();
    if met.is_empty() {
        // What a reload before this one may have noted.
        daemon.degraded.clear("proxy-permits");
    } else {
        let text = format!(
            "listen.proxy_from and the permits {} meet: in steer mode the MTA gets connections from there, with a header that \
             it does not expect; take them apart, or set listen.mode = \"front\"",
            met.join(", ")
        );
        warn!("{text}");
        daemon.degraded.set("proxy-permits", text);
    }
}
