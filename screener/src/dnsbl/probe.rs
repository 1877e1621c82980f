//! One question to one server, over UDP, without anything in between: how a resolver itself behaves.
//!
//! For the doctor. hickory asks whichever server it likes and hides the flags of an answer.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_resolver::proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// How long the answer is waited for.
const WAIT: Duration = Duration::from_secs(3);

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) code: ResponseCode,
    /// How many records it has.
    pub(super) answers: usize,
    /// Whether the server says that it has validated it (AD).
    pub(super) authentic: bool,
    /// Whether the server asks others (RA).
    pub(super) recursion: bool,
    pub(super) took: Duration,
}

/// Asks.
///
/// # Errors
/// When there is no answer.
pub(super) async fn ask(server: SocketAddr, name: &str, kind: RecordType) -> io::Result<Reply> {
    let name = Name::from_ascii(name).map_err(io::Error::other)?;
    // Low bits of a hash with a key that nobody knows.
    let id = RandomState::new().hash_one(0) as u16;
    let mut question = Message::new(id, MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    // Asks to be told of validation (RFC 6840 section 5.7).
    question.metadata.authentic_data = true;
    question.add_query(Query::query(name, kind));
    let question = question.to_vec().map_err(io::Error::other)?;
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let began = Instant::now();
    socket.send(&question).await?;
    let answer = async {
        let mut packet = [0; 4096];
        loop {
            let length = socket.recv(&mut packet).await?;
            match Message::from_vec(&packet[..length]) {
                Ok(answer) if answer.metadata.id == id => return Ok::<_, io::Error>(answer),
                // Not the answer to this question.
                _ => {}
            }
        }
    };
    let answer = timeout(WAIT, answer).await.map_err(|_| io::ErrorKind::TimedOut)??;
    Ok(Reply {
        code: answer.metadata.response_code,
        answers: answer.answers.len(),
        authentic: answer.metadata.authentic_data,
        recursion: answer.metadata.recursion_available,
        took: began.elapsed(),
    })
}
