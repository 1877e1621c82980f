//! The daemon's end of the control socket, as far as it is about passes.
//!
//! Holds the routes and their handlers. Decides nothing.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{self, DefaultBodyLimit, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, put};
use bytes::Bytes;
use hyper::body::Frame;
use tokio::sync::mpsc;

use super::api_pass::{DeleteRequest, ListRequest, PassRequest, RestoreRequest, WatchRequest};
use super::server::{Answers, changed, parse_address};

/// The content type of a stream of JSON objects, a line each.
const JSON_LINES: &str = "application/x-ndjson";

pub(super) fn routes<A: Answers>() -> Router<Arc<A>> {
    let some = get(list::<A>).delete(delete_some::<A>).post(restore::<A>);
    Router::new()
        .route("/v1/passes", some.layer(DefaultBodyLimit::max(RestoreRequest::MOST_BYTES)))
        .route("/v1/passes/{address}", put(add::<A>).delete(delete_one::<A>))
        .route("/v1/watch/passes", get(watch::<A>))
}

async fn list<A: Answers>(State(daemon): State<Arc<A>>, Query(request): Query<ListRequest>) -> Response {
    // A page may look at some ten thousand passes: not on a thread that serves sessions.
    changed(move || daemon.passes(&request)).await
}

async fn add<A: Answers>(
    State(daemon): State<Arc<A>>,
    extract::Path(address): extract::Path<String>,
    Json(request): Json<PassRequest>,
) -> Response {
    match parse_address(&address).and_then(|address| daemon.pass_add(address, &request)) {
        Ok(added) => Json(added).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn delete_one<A: Answers>(
    State(daemon): State<Arc<A>>,
    extract::Path(address): extract::Path<String>,
) -> Response {
    match parse_address(&address).and_then(|address| daemon.pass_del(address)) {
        Ok(deleted) => Json(deleted).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn delete_some<A: Answers>(State(daemon): State<Arc<A>>, Query(request): Query<DeleteRequest>) -> Response {
    changed(move || daemon.passes_del(&request)).await
}

async fn restore<A: Answers>(State(daemon): State<Arc<A>>, Json(request): Json<RestoreRequest>) -> Response {
    changed(move || daemon.passes_restore(&request)).await
}

async fn watch<A: Answers>(State(daemon): State<Arc<A>>, Query(request): Query<WatchRequest>) -> Response {
    match daemon.pass_watch(&request) {
        Ok(lines) => ([(header::CONTENT_TYPE, JSON_LINES)], Body::new(Lines(lines))).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

/// What comes over a channel, as a body: it is taken as fast as the reader reads.
pub(super) struct Lines(pub(super) mpsc::Receiver<Bytes>);

impl HttpBody for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}
