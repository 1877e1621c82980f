//! The link to Redis or Valkey: two connections, one for questions and one that waits for news.
//!
//! Holds the only use of the `redis` crate, and the names of the keys. Every question has a deadline. Never decides what
//! follows from an answer, and never shows a password.
//!
//! | key | holds |
//! |---|---|
//! | `PREFIX:meta` | version, length of IPv6 keys, and a number that is new after a flush |
//! | `PREFIX:c:ADDRESS` | the word of all hosts about a client; expires with it |
//! | `PREFIX:o:NETWORK` | the last word about an offender (JSON); expires days after it |
//! | `PREFIX:news` | a stream of the words that changed, the last [`STREAM`] or so |

use std::fmt;
use std::fs;
use std::future::Future;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, IntoConnectionInfo as _, RedisConnectionInfo, TlsCertificates,
    TlsMode, cmd, pipe,
};

use super::error::Error;
use super::offence::{OFFENCES_REMEMBERED, OffenceWord};
use super::state::{REMEMBERED, State};
use crate::clock::UnixTime;
use crate::config::{Secret, Shared, SharedStore, StoreHost, StorePlace};

/// How long an answer may take, a connection too.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long finding the master and connecting may take, with several sentinels of which some are silent.
const FINDING: Duration = Duration::from_secs(15);
/// How long the store holds back its answer when there is no news.
const BLOCK: Duration = Duration::from_secs(1);
/// About how many changes are kept for those who were away for a moment. About 20 MB.
const STREAM: usize = 100_000;
/// How many changes are heard at a time, and how many clients looked at.
pub(super) const PAGE: usize = 1000;

const SCRIPT: &str = include_str!("merge.lua");
const VERSION: u32 = 1;

/// Which store, and how it is talked to.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `ledger.shared`
    pub store: SharedStore,
    /// `[shared]`
    pub shared: Shared,
}

/// A word about a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Whom it is about; an IPv6 client by the first address of its network.
    pub client: IpAddr,
    /// What it says.
    pub state: State,
}

/// A place in the stream of news.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(u64, u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

impl FromStr for Position {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let numbers = text.split_once('-').and_then(|(a, b)| Some(Self(a.parse().ok()?, b.parse().ok()?)));
        numbers.ok_or_else(|| Error::Other(format!("{text:?} is no place in a stream")))
    }
}

/// Which content the store has: another one after a flush, after a restart, with another master.
#[derive(Clone, Debug)]
pub struct Content {
    generation: String,
    /// The process; empty where it does not say.
    server: String,
}

impl Content {
    /// Whether what was read of one need not be read again of the other.
    pub fn is_the_same_as(&self, other: &Self) -> bool {
        self.generation == other.generation && self.server == other.server && !self.server.is_empty()
    }
}

/// What was read of the stream.
#[derive(Debug, Default)]
pub struct News {
    /// What others said.
    pub words: Vec<Word>,
    /// What they said about offenders.
    pub offenders: Vec<(IpNet, OffenceWord)>,
    /// Records that could not be understood.
    pub unreadable: u64,
    /// There may be more at once.
    pub more: bool,
}

/// The connection for questions.
#[derive(Clone)]
pub struct Link {
    connection: MultiplexedConnection,
    prefix: String,
    /// This process among the writers of the stream.
    me: String,
    script: String,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// The connection that waits for news.
pub struct Reader {
    connection: MultiplexedConnection,
    stream: String,
    me: String,
    position: Position,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("position", &self.position).finish_non_exhaustive()
    }
}

/// Finds the server, and finds it again where sentinels say.
#[derive(Debug)]
pub struct Finder {
    settings: Settings,
    me: String,
}

impl Finder {
    /// For a store.
    pub fn new(settings: Settings) -> Self {
        let me = format!("{:016x}", RandomState::new().build_hasher().finish());
        Self { settings, me }
    }

    /// Connects, both for questions and for news.
    ///
    /// # Errors
    /// When the store is away, silent, or does not let us in.
    pub async fn connect(&self) -> Result<(Link, Reader), Error> {
        let work = async {
            let client = self.client().await?;
            let config = |patience| {
                AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE)).set_response_timeout(Some(patience))
            };
            let mut connection = client.get_multiplexed_async_connection_with_config(&config(PATIENCE)).await?;
            let reading = client.get_multiplexed_async_connection_with_config(&config(PATIENCE + BLOCK)).await?;
            let script: String = cmd("SCRIPT").arg("LOAD").arg(SCRIPT).query_async(&mut connection).await?;
            let prefix = self.settings.shared.prefix.clone();
            let stream = format!("{prefix}:news");
            let reader = Reader { connection: reading, stream, me: self.me.clone(), position: Position::default() };
            Ok((Link { connection, prefix, me: self.me.clone(), script }, reader))
        };
        match within(FINDING, work).await {
            Err(Error::Silent) if self.settings.store.tls => {
                Err(Error::Away("no answer to TLS in time; a port that does not speak TLS behaves so".to_owned()))
            }
            outcome => outcome,
        }
    }

    /// The server that the sentinels lead to; `None` where none are asked.
    ///
    /// # Errors
    /// When no sentinel can be asked.
    pub async fn master(&self) -> Result<Option<String>, Error> {
        let StorePlace::Sentinel { .. } = self.settings.store.place else { return Ok(None) };
        let client = within(FINDING, self.client()).await?;
        Ok(Some(client.get_connection_info().addr().to_string()))
    }

    async fn client(&self) -> Result<Client, Error> {
        let Settings { store, shared } = &self.settings;
        let password = match &shared.password_file {
            Some(path) => Some(secret("shared.password_file", path)?),
            None => store.password.clone(),
        };
        let certificates = self.certificates()?;
        let tcp = TcpSettings::default().set_nodelay(true);
        let StorePlace::Sentinel { sentinels, master } = &store.place else {
            let mut login = RedisConnectionInfo::default().set_db(store.database.into());
            if let Some(user) = &store.user {
                login = login.set_username(user);
            }
            if let Some(password) = &password {
                login = login.set_password(password.expose());
            }
            let address = match &store.place {
                StorePlace::Server(host) => self.address(host),
                StorePlace::Unix(path) => ConnectionAddr::Unix(path.clone()),
                StorePlace::Sentinel { .. } => unreachable!("handled above"),
            };
            let info = address.into_connection_info()?.set_redis_settings(login).set_tcp_settings(tcp);
            return Ok(match certificates {
                Some(certificates) => Client::build_with_tls(info, certificates)?,
                None => Client::open(info)?,
            });
        };
        let addresses = sentinels.iter().map(|host| self.address(host));
        let mut builder = SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?
            .set_client_to_redis_db(store.database.into())
            .set_client_to_redis_tcp_settings(tcp.clone())
            .set_client_to_sentinel_tcp_settings(tcp);
        if let Some(user) = &store.user {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = &password {
            builder = builder.set_client_to_redis_password(password.expose());
        }
        if let Some(path) = &shared.sentinel_password_file {
            builder = builder.set_client_to_sentinel_password(secret("shared.sentinel_password_file", path)?.expose());
        }
        if store.tls {
            builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
            builder = builder.set_client_to_sentinel_tls_mode(TlsMode::Secure);
        }
        if let Some(certificates) = certificates {
            builder = builder.set_client_to_redis_certificates(certificates.clone());
            builder = builder.set_client_to_sentinel_certificates(certificates);
        }
        let mut sentinels: SentinelClient = builder.build()?;
        Ok(sentinels.async_get_client().await?)
    }

    fn address(&self, StoreHost { host, port }: &StoreHost) -> ConnectionAddr {
        if self.settings.store.tls {
            ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host.clone(), *port)
        }
    }

    fn certificates(&self) -> Result<Option<TlsCertificates>, Error> {
        let (true, Some(path)) = (self.settings.store.tls, &self.settings.shared.ca_file) else { return Ok(None) };
        let root_cert = read("shared.ca_file", path)?;
        Ok(Some(TlsCertificates { client_tls: None, root_cert: Some(root_cert) }))
    }
}

impl Link {
    /// Makes the store ours or finds that it is, and says which content it has.
    ///
    /// # Errors
    /// When other hosts mean something else by a client.
    pub async fn content(&mut self, key_length: u8) -> Result<Content, Error> {
        let key = self.key("meta");
        let wanted = format!("{VERSION} {key_length} {:016x}", RandomState::new().build_hasher().finish());
        let mut pipeline = pipe();
        pipeline.cmd("SET").arg(&key).arg(wanted).arg("NX").ignore().cmd("GET").arg(&key);
        let (found,): (String,) =
            within(PATIENCE, async { Ok(pipeline.query_async(&mut self.connection).await?) }).await?;
        let mut words = found.split(' ');
        let mut number = || words.next().and_then(|word| word.parse::<u32>().ok());
        let (version, theirs) = (number(), number());
        let (Some(VERSION), Some(theirs), Some(generation)) = (version, theirs, words.next()) else {
            return Err(Error::Foreign(key));
        };
        if theirs != u32::from(key_length) {
            return Err(Error::KeyLength { theirs: u8::try_from(theirs).unwrap_or(u8::MAX), ours: key_length });
        }
        let server = self.server().await.unwrap_or_default();
        Ok(Content { generation: generation.to_owned(), server })
    }

    /// The process that serves; `None` where it does not say.
    async fn server(&mut self) -> Option<String> {
        let text: String = self.ask(cmd("INFO").arg("server")).await.ok()?;
        text.lines().find_map(|line| line.strip_prefix("run_id:")).map(|id| id.trim().to_owned())
    }

    /// Whether the store still has this content.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn still_has(&mut self, content: &Content) -> Result<bool, Error> {
        let found: Option<String> = self.ask(cmd("GET").arg(self.key("meta"))).await?;
        Ok(found.is_some_and(|found| found.ends_with(&content.generation)))
    }

    /// The store's clock.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn clock(&mut self) -> Result<UnixTime, Error> {
        let (seconds, _): (u64, u64) = self.ask(&cmd("TIME")).await?;
        Ok(UnixTime(seconds))
    }

    /// The end of the news.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn end(&mut self) -> Result<Position, Error> {
        let last = cmd("XREVRANGE").arg(self.key("news")).arg("+").arg("-").arg("COUNT").arg(1).to_owned();
        Ok(self.one(&last).await?.unwrap_or_default())
    }

    /// Whether all news behind a position are there.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn reaches_back_to(&mut self, position: Position) -> Result<bool, Error> {
        let first = cmd("XRANGE").arg(self.key("news")).arg("-").arg("+").arg("COUNT").arg(1).to_owned();
        Ok(self.one(&first).await?.is_some_and(|first| first <= position))
    }

    async fn one(&mut self, command: &Cmd) -> Result<Option<Position>, Error> {
        let found: Vec<(String, Vec<Vec<u8>>)> = self.ask(command).await?;
        found.first().map(|(id, _)| id.parse()).transpose()
    }

    /// Some of what is known, and where to go on; 0 at the beginning, and again at the end.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn some(&mut self, cursor: u64) -> Result<(u64, News), Error> {
        let pattern = self.key("[co]:*");
        let (next, keys): (u64, Vec<String>) =
            self.ask(cmd("SCAN").arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(PAGE)).await?;
        let mut news = News::default();
        if keys.is_empty() {
            return Ok((next, news));
        }
        let values: Vec<Option<Vec<u8>>> = self.ask(cmd("MGET").arg(&keys)).await?;
        let (clients, offenders) = (self.key("c:"), self.key("o:"));
        for (key, value) in keys.iter().zip(values) {
            let Some(value) = value else { continue };
            match key.strip_prefix(&offenders) {
                Some(network) => news.push_offender(network.as_bytes(), &value),
                None => news.push(key.strip_prefix(&clients).and_then(|text| text.parse().ok()), State::decode(&value)),
            }
        }
        Ok((next, news))
    }

    /// Says something. Returns how much of it was new.
    ///
    /// # Errors
    /// When the store does not answer, or does not take it; then some of it may be known there all the same.
    pub async fn tell(&mut self, words: &[Word]) -> Result<u64, Error> {
        if words.is_empty() {
            return Ok(0);
        }
        let stream = self.key("news");
        let mut pipeline = pipe();
        for Word { client, state } in words {
            let command =
                pipeline.cmd("EVALSHA").arg(&self.script).arg(2).arg(self.key(&format!("c:{client}"))).arg(&stream);
            command.arg(state.encode()).arg(client.to_string()).arg(&self.me).arg(STREAM).arg(REMEMBERED.as_secs());
        }
        let connection = &mut self.connection;
        let new: Vec<u64> = within(PATIENCE, async { Ok(pipeline.query_async(connection).await?) }).await?;
        Ok(new.into_iter().sum())
    }

    /// Says something about offenders. The last one who says something is what the store keeps; those who hear it join it.
    ///
    /// # Errors
    /// As [`Link::tell`].
    pub async fn tell_offenders(&mut self, words: &[(IpNet, OffenceWord)], now: UnixTime) -> Result<(), Error> {
        if words.is_empty() {
            return Ok(());
        }
        let stream = self.key("news");
        let mut pipeline = pipe();
        for (network, word) in words {
            let Ok(json) = serde_json::to_vec(word) else { continue };
            let key = self.key(&format!("o:{network}"));
            let until =
                word.offender.as_ref().map_or(now, |offender| offender.until.max(now)).plus(OFFENCES_REMEMBERED);
            pipeline.cmd("SET").arg(&key).arg(&json).ignore().cmd("EXPIREAT").arg(&key).arg(until.0).ignore();
            pipeline.cmd("XADD").arg(&stream).arg("MAXLEN").arg("~").arg(STREAM).arg("*");
            pipeline.arg("o").arg(network.to_string()).arg("s").arg(&json).arg("h").arg(&self.me).ignore();
        }
        let connection = &mut self.connection;
        within(PATIENCE, async { Ok(pipeline.query_async::<()>(connection).await?) }).await
    }

    async fn ask<T: redis::FromRedisValue>(&mut self, command: &Cmd) -> Result<T, Error> {
        within(PATIENCE, async { Ok(command.query_async(&mut self.connection).await?) }).await
    }

    fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.prefix)
    }
}

impl Reader {
    /// Where the next news will be read from.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Reads on from there.
    pub fn go_on_from(&mut self, position: Position) {
        self.position = position;
    }

    /// What others have said since; nothing, if that is so for a second.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn news(&mut self) -> Result<News, Error> {
        type Entries = Vec<(String, Vec<Vec<u8>>)>;
        let mut read = cmd("XREAD");
        read.arg("COUNT").arg(PAGE).arg("BLOCK").arg(BLOCK.as_millis() as u64);
        read.arg("STREAMS").arg(&self.stream).arg(self.position.to_string());
        let connection = &mut self.connection;
        let found: Option<Vec<(String, Entries)>> =
            within(PATIENCE + BLOCK, async { Ok(read.query_async(connection).await?) }).await?;
        let mut news = News::default();
        for (id, fields) in found.into_iter().flatten().flat_map(|(_, entries)| entries) {
            self.position = id.parse()?;
            let field =
                |name: &[u8]| fields.chunks_exact(2).find(|pair| pair[0] == name).map(|pair| pair[1].as_slice());
            if field(b"h") == Some(self.me.as_bytes()) {
                continue;
            }
            if let Some(network) = field(b"o") {
                news.push_offender(network, field(b"s").unwrap_or_default());
                continue;
            }
            let client = field(b"c").and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
            news.push(client, field(b"s").and_then(State::decode));
        }
        news.more = news.heard() >= PAGE;
        Ok(news)
    }
}

impl News {
    fn heard(&self) -> usize {
        self.words.len() + self.offenders.len() + self.unreadable as usize
    }

    fn push_offender(&mut self, network: &[u8], json: &[u8]) {
        let network = std::str::from_utf8(network).ok().and_then(|text| text.parse().ok());
        match (network, serde_json::from_slice(json)) {
            (Some(network), Ok(word)) => self.offenders.push((network, word)),
            _ => self.unreadable += 1,
        }
    }

    fn push(&mut self, client: Option<IpAddr>, state: Option<State>) {
        match (client, state) {
            (Some(client), Some(state)) => self.words.push(Word { client, state }),
            _ => self.unreadable += 1,
        }
    }
}

/// What `doctor` wants to know of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Its kind and version.
    pub version: String,
    /// What it does when it is full.
    pub policy: String,
}

impl Link {
    /// What the server says of itself; empty where it may not be asked.
    pub async fn report(&mut self) -> Report {
        let info: String = self.ask(&cmd("INFO")).await.unwrap_or_default();
        let field = |name: &str| {
            info.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(|value| value.trim().to_owned())
        };
        let valkey = field("valkey_version").map(|version| format!("Valkey {version}"));
        let redis = || field("redis_version").map(|version| format!("Redis {version}"));
        Report {
            version: valkey.or_else(redis).unwrap_or_else(|| "a server that does not say what it is".to_owned()),
            policy: field("maxmemory_policy").unwrap_or_default(),
        }
    }
}

/// With a deadline: the library has its own, but not for everything.
async fn within<T>(deadline: Duration, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    // A little later than the library's, whose word says more.
    let late = deadline + Duration::from_millis(200);
    tokio::time::timeout(late, work).await.unwrap_or(Err(Error::Silent))
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| Error::File { key, path: path.to_owned(), why: error.to_string() })
}

/// A password from a file: its first line.
fn secret(key: &'static str, path: &Path) -> Result<Secret, Error> {
    let wrong = |why: &str| Error::File { key, path: path.to_owned(), why: why.to_owned() };
    let text = String::from_utf8(read(key, path)?).map_err(|_| wrong("it is not UTF-8"))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned().into()),
        _ => Err(wrong("its first line, which is the password, is empty")),
    }
}
