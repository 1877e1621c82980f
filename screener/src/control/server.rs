//! The daemon's end of the control socket.

use std::io;
use std::net::{self, IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{self, DefaultBodyLimit, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{delete, get, post, put};
use bytes::Bytes;
use ipnet::IpNet;
use serde::Serialize;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::api::{self, DenyRequest, ExportRequest, ImportRequest, PermitRequest};
use super::api_dnsbl;
use super::api_explain::{Explanation, ForgetRequest, Forgotten};
use super::api_feed;
use super::api_offender::{self, ForgiveRequest};
use super::api_pass::{self, DeleteRequest, ListRequest, PassRequest, RestoreRequest, WatchRequest};
use super::api_pool::{self, RefreshRequest};
use super::feeds;
use super::lock::Lock;
use super::passes::{self, Lines};
use crate::config::Control;
use crate::pool::RefreshError;

/// Who may use the socket: its owner and its group.
const SOCKET_MODE: u32 = 0o660;
/// The content type of the metrics' text form.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the daemon can be asked. What reads is short and does not wait for anything; what changes permits and denies may wait
/// for a list that is coming in, and is called where waiting is allowed.
pub trait Answers: Send + Sync + 'static {
    /// How it stands.
    fn status(&self) -> api::Status;
    /// How the DNS lists stand.
    fn dnsbl(&self) -> api_dnsbl::Dnsbl;
    /// What happened to a client, and what would happen now.
    fn explain(&self, address: IpAddr) -> Explanation;
    /// Erases what is known of a client. Waits for the disk.
    fn forget(self: Arc<Self>, request: &ForgetRequest) -> Result<Forgotten, Refusal>;
    /// A page of passes, in the order of their addresses. Called where waiting is allowed.
    fn passes(&self, request: &ListRequest) -> Result<api_pass::Page, Refusal>;
    /// Gives a pass.
    fn pass_add(&self, address: IpAddr, request: &PassRequest) -> Result<api_pass::Added, Refusal>;
    /// Takes a pass away.
    fn pass_del(self: Arc<Self>, address: IpAddr) -> Result<api_pass::Deleted, Refusal>;
    /// Takes the passes in a prefix away, a part of them. Called where waiting is allowed.
    fn passes_del(&self, request: &DeleteRequest) -> Result<api_pass::DeletedPage, Refusal>;
    /// Puts passes back. Called where waiting is allowed.
    fn passes_restore(&self, request: &RestoreRequest) -> Result<api_pass::RestoreReport, Refusal>;
    /// What happens to passes from now on: [`api_pass::News`], a line each.
    fn pass_watch(self: Arc<Self>, request: &WatchRequest) -> Result<mpsc::Receiver<Bytes>, Refusal>;
    /// The pools of senders.
    fn pools(&self) -> Vec<api_pool::Pool>;
    /// Looks a pool's members up, for which it waits.
    fn pool_refresh(
        self: Arc<Self>,
        domain: String,
        request: RefreshRequest,
    ) -> impl Future<Output = Result<api_pool::Refreshed, Refusal>> + Send;
    /// Takes a pool's pass away.
    fn pool_forget(self: Arc<Self>, domain: String) -> impl Future<Output = Result<(), Refusal>> + Send;
    /// How the feeds stand.
    fn feeds(&self) -> Vec<api_feed::Feed>;
    /// How one of them stands.
    fn feed(&self, name: &str) -> Result<api_feed::Feed, Refusal>;
    /// Asks a feed's source, for which it waits; or takes in what was refused.
    fn feed_refresh(
        self: Arc<Self>,
        name: String,
        request: api_feed::RefreshRequest,
    ) -> impl Future<Output = Result<api_feed::Refreshed, Refusal>> + Send;
    /// What a feed's refused list would change. Called where waiting is allowed.
    fn feed_diff(&self, name: &str) -> Result<api_feed::Diff, Refusal>;
    /// The permit entries, of feeds too. Called where waiting is allowed.
    fn permits(&self) -> Vec<api::Static>;
    /// Adds a permit made by command, or changes its comment.
    fn permit_add(&self, prefix: IpNet, request: &PermitRequest) -> Result<api::Static, Refusal>;
    /// Removes a permit made by command. False: there was none.
    fn permit_del(&self, prefix: IpNet) -> Result<bool, Refusal>;
    /// The deny entries, of feeds too: they may be a million. Called where waiting is allowed.
    fn denies(&self) -> Vec<api::Static>;
    /// Adds or changes a deny entry made by command.
    fn deny_add(&self, prefix: IpNet, request: &DenyRequest) -> Result<api::Static, Refusal>;
    /// Removes a deny entry made by command. False: there was none.
    fn deny_del(&self, prefix: IpNet) -> Result<bool, Refusal>;
    /// Adds a list of deny entries, all or none.
    fn deny_import(&self, request: &ImportRequest) -> Result<api::ImportReport, Refusal>;
    /// Deny entries, a line each, as `deny_import`'s clients read them.
    fn deny_export(&self, request: &ExportRequest) -> String;
    /// Everybody on the offence ladder.
    fn offenders(&self) -> Vec<api_offender::Offender>;
    /// Takes off the offence ladder.
    fn offender_forgive(&self, request: &ForgiveRequest) -> api_offender::Forgiven;
    /// The whole ledger as lines (`ledger::write_copy`), as fast as they are read.
    fn ledger_copy(self: Arc<Self>) -> mpsc::Receiver<Bytes>;
    /// Prometheus text.
    fn metrics(&self) -> String;
    /// Reads the configuration again and takes it in, as a whole or not at all. Waits for what that takes.
    fn reload(self: Arc<Self>) -> Result<api::ReloadReport, Refusal>;
    /// Goes to meet a daemon that wants to take over.
    fn takeover(self: Arc<Self>) -> Result<api::Coming, Refusal>;
    /// Starts the executable that lies in the place of its own now, and leaves its place to it. Waits for that.
    fn upgrade(self: Arc<Self>) -> Result<api::Upgraded, Refusal>;
}

/// The daemon will not do that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request is at fault; what is wrong with it.
    Wrong(String),
    /// The daemon could not; why.
    Failed(String),
    /// There is no such thing; what to ask for instead.
    Missing(String),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, error) = match self {
            Self::Wrong(error) => (StatusCode::UNPROCESSABLE_ENTITY, error),
            Self::Failed(error) => (StatusCode::INTERNAL_SERVER_ERROR, error),
            Self::Missing(error) => (StatusCode::NOT_FOUND, error),
        };
        (status, Json(api::Error { error })).into_response()
    }
}

/// The control socket cannot be had.
#[derive(Debug, Error)]
pub enum BindError {
    /// Another daemon has it.
    #[error("another screener is running: it holds {}; stop it, or take over from it with --take-over, or give this one a control.socket of its own", .0.display())]
    InUse(PathBuf),
    /// The system does not allow it.
    #[error("the control socket {} cannot be made: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The socket, bound and not served yet.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    note: Option<String>,
    lock: Lock,
}

impl Server {
    /// Takes the lock and binds. A socket that a dead daemon left behind is replaced.
    ///
    /// # Errors
    /// When another daemon holds the socket, or the system refuses it.
    pub fn bind(config: &Control) -> Result<Self, BindError> {
        let path = &config.socket;
        let io = |source| BindError::Io { path: path.clone(), source };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(io)?;
        }
        let lock = Lock::take(path).map_err(io)?.ok_or_else(|| BindError::InUse(path.clone()))?;
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(io)?;
        std::fs::set_permissions(path, PermissionsExt::from_mode(SOCKET_MODE)).map_err(io)?;
        let note = give(config).err();
        Ok(Self { listener, note, lock })
    }

    /// The socket of a daemon that leaves its place, with its lock.
    ///
    /// # Errors
    /// When it does not listen.
    pub fn inherited(config: &Control, listener: OwnedFd, lock: OwnedFd) -> io::Result<Self> {
        let listener = UnixListener::from(listener);
        listener.local_addr()?;
        Ok(Self { listener, note: give(config).err(), lock: lock.into() })
    }

    /// Copies of the socket and of its lock, for a daemon that takes over.
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub fn descriptors(&self) -> io::Result<[OwnedFd; 2]> {
        Ok([self.listener.try_clone()?.into(), self.lock.copy()?])
    }

    /// What could not be done as configured.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Answers until `end`. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the socket cannot be waited on.
    pub fn serve<A: Answers>(&self, daemon: Arc<A>, end: CancellationToken) -> io::Result<JoinHandle<()>> {
        let listener = self.listener.try_clone()?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let app = Router::new()
            .route("/v1/status", get(status::<A>))
            .route("/v1/dnsbl", get(dnsbl::<A>))
            .route("/v1/explain/{address}", get(explain::<A>))
            .route("/v1/forget", post(forget::<A>))
            .merge(passes::routes::<A>())
            .merge(feeds::routes::<A>())
            .route("/v1/pools", get(pools::<A>))
            .route("/v1/pools/{domain}", get(pool::<A>))
            .route("/v1/pools/{domain}/refresh", post(pool_refresh::<A>))
            .route("/v1/pools/{domain}/pass", delete(pool_forget::<A>))
            .route("/v1/permits", get(permits::<A>))
            .route("/v1/permits/{*prefix}", put(permit_add::<A>).delete(permit_del::<A>))
            .route("/v1/denies", get(denies::<A>))
            .route("/v1/denies", post(deny_import::<A>).layer(DefaultBodyLimit::max(ImportRequest::MOST_BYTES)))
            .route("/v1/export/denies", get(deny_export::<A>))
            .route("/v1/denies/{*prefix}", put(deny_add::<A>).delete(deny_del::<A>))
            .route("/v1/offenders", get(offenders::<A>))
            .route("/v1/offenders/forgive", post(offender_forgive::<A>))
            .route("/v1/ledger/copy", get(ledger_copy::<A>))
            .route("/v1/reload", post(reload::<A>))
            .route("/v1/takeover", post(takeover::<A>))
            .route("/v1/upgrade", post(upgrade::<A>))
            .route("/metrics", get(metrics::<A>))
            .with_state(daemon);
        Ok(tokio::spawn(async move {
            let served = axum::serve(listener, app).with_graceful_shutdown(end.cancelled_owned()).await;
            if let Err(error) = served {
                tracing::warn!("the control socket is no longer served: {error}");
            }
        }))
    }
}

/// A socket for [`serve_metrics`].
///
/// # Errors
/// When the address cannot be listened on.
pub fn bind_metrics(address: SocketAddr) -> io::Result<net::TcpListener> {
    let listener = net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves the metrics, and nothing else, over TCP until `end`. Must be called within a tokio runtime.
///
/// # Errors
/// When the socket cannot be copied or waited on.
pub fn serve_metrics<A: Answers>(
    listener: &net::TcpListener,
    daemon: Arc<A>,
    end: CancellationToken,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener.try_clone()?)?;
    let app = Router::new().route("/metrics", get(metrics::<A>)).with_state(daemon);
    tokio::spawn(axum::serve(listener, app).with_graceful_shutdown(end.cancelled_owned()).into_future());
    Ok(())
}

/// Gives the socket to the group that is to use it besides root.
///
/// # Errors
/// With what that means and what to do, when there is no such group.
pub fn give(config: &Control) -> Result<(), String> {
    let Some(group) = &config.group else {
        let own = nix::unistd::getegid().as_raw();
        return chown(&config.socket, None, Some(own))
            .map_err(|error| format!("the control socket stays with the group that has it: {error}"));
    };
    give_to(&config.socket, group)
}

fn give_to(path: &Path, group: &str) -> Result<(), String> {
    let only = "only root can use the control socket";
    let found = nix::unistd::Group::from_name(group).map_err(|error| format!("{only}: group {group}: {error}"))?;
    let Some(found) = found else {
        return Err(format!(
            "{only}: there is no group {group}; make it (groupadd --system {group}) or change control.group"
        ));
    };
    chown(path, None, Some(found.gid.as_raw()))
        .map_err(|error| format!("{only}: it cannot be given to {group}: {error}"))
}

async fn status<A: Answers>(State(daemon): State<Arc<A>>) -> Response {
    // The kernel is asked what is attached, and to list its locks: it lets whoever asks that wait for all processors.
    changed(move || Ok(daemon.status())).await
}

async fn dnsbl<A: Answers>(State(daemon): State<Arc<A>>) -> Response {
    Json(daemon.dnsbl()).into_response()
}

async fn explain<A: Answers>(State(daemon): State<Arc<A>>, extract::Path(address): extract::Path<String>) -> Response {
    match parse_address(&address) {
        Ok(address) => Json(daemon.explain(address)).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn forget<A: Answers>(State(daemon): State<Arc<A>>, Json(request): Json<ForgetRequest>) -> Response {
    changed(move || daemon.forget(&request)).await
}

async fn pools<A: Answers>(State(daemon): State<Arc<A>>) -> Response {
    Json(daemon.pools()).into_response()
}

async fn pool<A: Answers>(State(daemon): State<Arc<A>>, extract::Path(domain): extract::Path<String>) -> Response {
    let found = daemon.pools().into_iter().find(|pool| pool.domain == domain);
    let missing = || Refusal::Missing(RefreshError::Unknown(domain.clone()).to_string()).into_response();
    found.map_or_else(missing, |pool| Json(pool).into_response())
}

async fn pool_refresh<A: Answers>(
    State(daemon): State<Arc<A>>,
    extract::Path(domain): extract::Path<String>,
    Json(request): Json<RefreshRequest>,
) -> Response {
    match daemon.pool_refresh(domain, request).await {
        Ok(refreshed) => Json(refreshed).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn pool_forget<A: Answers>(
    State(daemon): State<Arc<A>>,
    extract::Path(domain): extract::Path<String>,
) -> Response {
    match daemon.pool_forget(domain).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn permits<A: Answers>(State(daemon): State<Arc<A>>) -> Response {
    changed(move || Ok(daemon.permits())).await
}

async fn permit_add<A: Answers>(
    State(daemon): State<Arc<A>>,
    extract::Path(prefix): extract::Path<String>,
    Json(request): Json<PermitRequest>,
) -> Response {
    changed(move || parse_prefix(&prefix).and_then(|prefix| daemon.permit_add(prefix, &request))).await
}

async fn permit_del<A: Answers>(
    State(daemon): State<Arc<A>>,
    extract::Path(prefix): extract::Path<String>,
) -> Response {
    removed("permit", prefix, move |prefix| daemon.permit_del(prefix)).await
}

async fn denies<A: Answers>(State(daemon): State<Arc<A>>) -> Response {
    changed(move || Ok(daemon.denies())).await
}

async fn deny_add<A: Answers>(
    State(daemon): State<Arc<A>>,
    extract::Path(prefix): extract::Path<String>,
    Json(request): Json<DenyRequest>,
) -> Response {
    changed(move || parse_prefix(&prefix).and_then(|prefix| daemon.deny_add(prefix, &request))).await
}

async fn deny_del<A: Answers>(State(daemon): State<Arc<A>>, extract::Path(prefix): extract::Path<String>) -> Response {
    removed("deny", prefix, move |prefix| daemon.deny_del(prefix)).await
}

async fn deny_import<A: Answers>(State(daemon): State<Arc<A>>, Json(request): Json<ImportRequest>) -> Response {
    changed(move || daemon.deny_import(&request)).await
}

async fn deny_export<A: Answers>(State(daemon): State<Arc<A>>, Query(request): Query<ExportRequest>) -> Response {
    let text = spawn_blocking(move || daemon.deny_export(&request)).await;
    text.map_or_else(|error| broken(&error), IntoResponse::into_response)
}

async fn offenders<A: Answers>(State(daemon): State<Arc<A>>) -> Response {
    let offenders = spawn_blocking(move || daemon.offenders()).await;
    offenders.map_or_else(|error| broken(&error), |offenders| Json(offenders).into_response())
}

async fn offender_forgive<A: Answers>(State(daemon): State<Arc<A>>, Json(request): Json<ForgiveRequest>) -> Response {
    changed(move || Ok(daemon.offender_forgive(&request))).await
}

async fn ledger_copy<A: Answers>(State(daemon): State<Arc<A>>) -> Response {
    Body::new(Lines(daemon.ledger_copy())).into_response()
}

async fn takeover<A: Answers>(State(daemon): State<Arc<A>>) -> Response {
    changed(move || daemon.takeover()).await
}

async fn upgrade<A: Answers>(State(daemon): State<Arc<A>>) -> Response {
    changed(move || daemon.upgrade()).await
}

async fn reload<A: Answers>(State(daemon): State<Arc<A>>) -> Response {
    changed(move || daemon.reload()).await
}

/// Carries out a change, or makes an answer that may be long, where that may wait.
pub(super) async fn changed<T: Serialize>(change: impl FnOnce() -> Result<T, Refusal> + Send + 'static) -> Response {
    let answer = || change().map_or_else(IntoResponse::into_response, |answer| Json(answer).into_response());
    spawn_blocking(answer).await.unwrap_or_else(|error| broken(&error))
}

/// The same for a removal.
async fn removed(
    what: &str,
    prefix: String,
    remove: impl FnOnce(IpNet) -> Result<bool, Refusal> + Send + 'static,
) -> Response {
    let net = match parse_prefix(&prefix) {
        Ok(net) => net,
        Err(refusal) => return refusal.into_response(),
    };
    match spawn_blocking(move || remove(net)).await {
        Ok(Ok(there)) => gone(there, || format!("no {what} entry for {prefix} was made by command")),
        Ok(Err(refusal)) => refusal.into_response(),
        Err(error) => broken(&error),
    }
}

fn broken(error: &JoinError) -> Response {
    Refusal::Failed(format!("the daemon broke off: {error}")).into_response()
}

async fn metrics<A: Answers>(State(daemon): State<Arc<A>>) -> Response {
    // As the status, which is in them.
    let text = spawn_blocking(move || daemon.metrics()).await;
    text.map_or_else(|error| broken(&error), |text| ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response())
}

fn gone(there: bool, why_not: impl FnOnce() -> String) -> Response {
    if there {
        StatusCode::NO_CONTENT.into_response()
    } else {
        (StatusCode::NOT_FOUND, Json(api::Error { error: why_not() })).into_response()
    }
}

pub(super) fn parse_address(text: &str) -> Result<IpAddr, Refusal> {
    text.parse().map_err(|_| Refusal::Wrong(format!("'{text}' is no IP address")))
}

fn parse_prefix(text: &str) -> Result<IpNet, Refusal> {
    text.parse().map_err(|_| Refusal::Wrong(format!("'{text}' is no prefix: write 192.0.2.0/24 or 2001:db8::/32")))
}
