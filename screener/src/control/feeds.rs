//! The daemon's end of the control socket, as far as it is about feeds.
//!
//! Holds the routes and their handlers. Decides nothing.

use std::sync::Arc;

use axum::Router;
use axum::extract::{self, State};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};

use super::api_feed::RefreshRequest;
use super::server::{Answers, changed};

pub(super) fn routes<A: Answers>() -> Router<Arc<A>> {
    Router::new()
        .route("/v1/feeds", get(all::<A>))
        .route("/v1/feeds/{name}", get(one::<A>))
        .route("/v1/feeds/{name}/refresh", post(refresh::<A>))
        .route("/v1/feeds/{name}/diff", get(diff::<A>))
}

async fn all<A: Answers>(State(daemon): State<Arc<A>>) -> Response {
    Json(daemon.feeds()).into_response()
}

async fn one<A: Answers>(State(daemon): State<Arc<A>>, extract::Path(name): extract::Path<String>) -> Response {
    match daemon.feed(&name) {
        Ok(feed) => Json(feed).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn refresh<A: Answers>(
    State(daemon): State<Arc<A>>,
    extract::Path(name): extract::Path<String>,
    Json(request): Json<RefreshRequest>,
) -> Response {
    match daemon.feed_refresh(name, request).await {
        Ok(refreshed) => Json(refreshed).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn diff<A: Answers>(State(daemon): State<Arc<A>>, extract::Path(name): extract::Path<String>) -> Response {
    changed(move || daemon.feed_diff(&name)).await
}
