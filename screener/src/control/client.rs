//! The CLI's end of the control socket.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::api;

/// No answer takes longer than this.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// But that to a long list, which the daemon checks, builds, gives to the kernel and writes to the disk.
const LIST_TIME: Duration = Duration::from_secs(600);

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("screener is not running: nobody answers at {}; start it with `screener run`, or name its socket with --socket", .0.display())]
    NotRunning(PathBuf),
    /// Not for this user.
    #[error("not allowed to use {}: be root, or in the group of control.group", .0.display())]
    NotAllowed(PathBuf),
    /// The daemon does not do it; why.
    #[error("{0}")]
    Refused(String),
    /// The daemon has no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The daemon does not answer as it should.
    #[error("the daemon at {} does not answer as this version expects: {reason}; is it of the same version?", socket.display())]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// What happened.
        reason: String,
    },
}

/// The client: a connection a question.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// For the daemon at this socket.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Asks.
    ///
    /// # Errors
    /// When there is no daemon, or it does not answer.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let body = self.ask(Method::GET, path, Bytes::new()).await?;
        serde_json::from_slice(&body).map_err(|error| self.broken(&error))
    }

    /// Tells.
    ///
    /// # Errors
    /// When there is no daemon, or it refuses.
    pub async fn put<T: DeserializeOwned>(&self, path: &str, request: &impl Serialize) -> Result<T, ClientError> {
        let request = serde_json::to_vec(request).map_err(|error| self.broken(&error))?;
        let body = self.ask(Method::PUT, path, request.into()).await?;
        serde_json::from_slice(&body).map_err(|error| self.broken(&error))
    }

    /// Gives a long list.
    ///
    /// # Errors
    /// When there is no daemon, or it refuses.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, request: &impl Serialize) -> Result<T, ClientError> {
        let request = serde_json::to_vec(request).map_err(|error| self.broken(&error))?;
        let body = self.ask_within(LIST_TIME, Method::POST, path, request.into()).await?;
        serde_json::from_slice(&body).map_err(|error| self.broken(&error))
    }

    /// Gives the same to several places: what the daemon has done, and why it has not done the rest.
    ///
    /// # Errors
    /// When there is no daemon, or it does not know one of the places.
    pub async fn post_to_each<T: DeserializeOwned>(
        &self,
        paths: impl IntoIterator<Item = String>,
        request: &impl Serialize,
    ) -> Result<(Vec<T>, Vec<String>), ClientError> {
        let (mut done, mut refused) = (Vec::new(), Vec::new());
        for path in paths {
            match self.post(&path, request).await {
                Ok(answer) => done.push(answer),
                Err(ClientError::Refused(why)) => refused.push(why),
                Err(error) => return Err(error),
            }
        }
        Ok((done, refused))
    }

    /// Asks for text.
    ///
    /// # Errors
    /// When there is no daemon, or it does not answer.
    pub async fn text(&self, path: &str) -> Result<Bytes, ClientError> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    /// Removes.
    ///
    /// # Errors
    /// When there is no daemon, it refuses, or there is no such thing.
    pub async fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.ask(Method::DELETE, path, Bytes::new()).await.map(drop)
    }

    /// Removes, and hears what came of it.
    ///
    /// # Errors
    /// When there is no daemon, it refuses, or there is no such thing.
    pub async fn delete_told<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let body = self.ask(Method::DELETE, path, Bytes::new()).await?;
        serde_json::from_slice(&body).map_err(|error| self.broken(&error))
    }

    /// Asks for a text that comes bit by bit, for as long as the daemon has something to tell.
    ///
    /// # Errors
    /// When there is no daemon, or it does not answer.
    pub async fn lines(&self, path: &str) -> Result<Lines, ClientError> {
        let asking = async {
            let response = self.respond(Method::GET, path, Bytes::new()).await?;
            let status = response.status();
            if status.is_success() {
                return Ok(response.into_body());
            }
            let body = response.into_body().collect().await.map_err(|error| self.broken(&error))?.to_bytes();
            self.judge(status, body)?;
            Err(self.broken(&status))
        };
        let body = timeout(ANSWER_TIME, asking).await.unwrap_or_else(|elapsed| Err(self.broken(&elapsed)))?;
        Ok(Lines { body, client: self.clone(), read: BytesMut::new() })
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        self.ask_within(ANSWER_TIME, method, path, body).await
    }

    async fn ask_within(&self, time: Duration, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let asking = async {
            let response = self.respond(method, path, body).await?;
            let status = response.status();
            let body = response.into_body().collect().await.map_err(|error| self.broken(&error))?.to_bytes();
            self.judge(status, body)
        };
        timeout(time, asking).await.unwrap_or_else(|elapsed| Err(self.broken(&elapsed)))
    }

    async fn respond(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.unreachable(&error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(&error))?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "screener")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| self.broken(&error))?;
        sender.send_request(request).await.map_err(|error| self.broken(&error))
    }

    fn judge(&self, status: StatusCode, body: Bytes) -> Result<Bytes, ClientError> {
        if status.is_success() {
            return Ok(body);
        }
        if status == StatusCode::PAYLOAD_TOO_LARGE {
            let most = api::ImportRequest::MOST_BYTES >> 20;
            return Err(ClientError::Refused(format!("the daemon takes at most {most} MiB at once: split the list")));
        }
        let told: Result<api::Error, _> = serde_json::from_slice(&body);
        match (status, told) {
            (StatusCode::NOT_FOUND, Ok(told)) => Err(ClientError::NotFound(told.error)),
            (_, Ok(told)) => Err(ClientError::Refused(told.error)),
            (_, Err(_)) => Err(self.broken(&format!("{status}: {}", String::from_utf8_lossy(&body)))),
        }
    }

    fn unreachable(&self, error: &io::Error) -> ClientError {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NotRunning(self.socket.clone()),
            io::ErrorKind::PermissionDenied => ClientError::NotAllowed(self.socket.clone()),
            _ => self.broken(error),
        }
    }

    fn broken(&self, reason: &impl ToString) -> ClientError {
        ClientError::Broken { socket: self.socket.clone(), reason: reason.to_string() }
    }
}

/// The lines of an answer as they come, from [`Client::lines`].
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    client: Client,
    read: BytesMut,
}

impl Lines {
    /// No line of ours is longer.
    const LONGEST: usize = 1 << 20;

    /// The next line, without its end; waits for it. `None`: the answer has ended.
    ///
    /// # Errors
    /// When the daemon goes away in the middle of it.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            if let Some(end) = self.read.iter().position(|&byte| byte == b'\n') {
                let line = self.read.split_to(end + 1).freeze();
                return Ok(Some(line.slice(..end)));
            }
            if self.read.len() > Self::LONGEST {
                return Err(self.client.broken(&"a line without an end"));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.read.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(self.client.broken(&error)),
            }
        }
    }
}

/// A request as the query of a path.
///
/// # Errors
/// When it holds what a query cannot say; none of ours does.
pub fn query(request: &impl Serialize) -> Result<String, serde_urlencoded::ser::Error> {
    serde_urlencoded::to_string(request)
}
