//! A list over HTTP and HTTPS.
//!
//! Holds the question, the way along redirects, and the bounds of an answer in size; its time is bounded by whoever asks. Uses
//! hyper's own client, and rustls with the system's certificates, read anew each time: a question comes once in hours. Shows
//! no query of an address: it may be a key.

use std::error::Error;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body as _, Incoming};
use hyper::{Request, Response, StatusCode, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::ring;
use tokio::task::spawn_blocking;
use url::Url;

use super::{FetchError, Got, MOST_BYTES, Validators, text, too_long};

/// How long the addresses of a server, those of a family together, may take to accept.
const CONNECT: Duration = Duration::from_secs(20);
/// So many redirects are followed.
const REDIRECTS: usize = 5;

type HttpClient = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// Asks for a list. `known`: what a server may answer with "not modified" to. Takes as long as the server takes: bound it.
///
/// # Errors
/// When there is no list.
pub async fn get(from: &Url, known: &Validators) -> Result<Got, FetchError> {
    let client = spawn_blocking(client).await.map_err(|error| FetchError::Away(error.to_string()))?;
    let client = client.map_err(|error| {
        FetchError::Away(format!("the system's certificates cannot be read ({error}): install ca-certificates"))
    })?;
    let mut url = from.clone();
    for _ in 0..=REDIRECTS {
        let response = ask(&client, &url, known).await?;
        let status = response.status();
        match status {
            StatusCode::OK => return list(response).await,
            StatusCode::NOT_MODIFIED if *known != Validators::default() => return Ok(Got::Same),
            StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT => url = next(&url, &response)?,
            _ => return Err(FetchError::Answered(format!("{} answers {status}", shown(&url)))),
        }
    }
    Err(FetchError::Answered(format!("{} leads on and on: more than {REDIRECTS} redirects", shown(from))))
}

/// Reads the system's certificates, as each question over https does. Blocks.
///
/// # Errors
/// When there is none.
pub fn certificates() -> io::Result<()> {
    client().map(drop)
}

/// A client for one question, with its redirects. Blocks: it reads the system's certificates.
fn client() -> io::Result<HttpClient> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT));
    let builder = HttpsConnectorBuilder::new().with_provider_and_native_roots(ring::default_provider())?;
    let connector = builder.https_or_http().enable_http1().wrap_connector(tcp);
    Ok(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector))
}

async fn ask(client: &HttpClient, url: &Url, known: &Validators) -> Result<Response<Incoming>, FetchError> {
    let agent = concat!("screener/", env!("CARGO_PKG_VERSION"));
    let mut request = Request::get(url.as_str()).header(header::USER_AGENT, agent).header(header::ACCEPT, "*/*");
    if let Some(etag) = &known.etag {
        request = request.header(header::IF_NONE_MATCH, etag);
    }
    if let Some(at) = &known.last_modified {
        request = request.header(header::IF_MODIFIED_SINCE, at);
    }
    let wrong = |error: hyper::http::Error| FetchError::Answered(format!("{} cannot be asked: {error}", shown(url)));
    let request = request.body(Empty::new()).map_err(wrong)?;
    client.request(request).await.map_err(|error| {
        let connected = !error.is_connect();
        let what = format!("{} does not answer: {}", shown(url), innermost(&error));
        if connected { FetchError::Answered(what) } else { FetchError::Away(what) }
    })
}

/// Where a redirect leads.
fn next(url: &Url, response: &Response<Incoming>) -> Result<Url, FetchError> {
    let wrong = |what: &str| FetchError::Answered(format!("{} redirects {what}", shown(url)));
    let place = response.headers().get(header::LOCATION).and_then(|place| place.to_str().ok());
    let next = place.and_then(|place| url.join(place).ok()).ok_or_else(|| wrong("to nowhere"))?;
    match (url.scheme(), next.scheme()) {
        ("https", "https") | ("http", "http" | "https") => Ok(next),
        ("https", "http") => Err(wrong("from https to http, which anybody between could answer")),
        (_, other) => Err(wrong(&format!("to {other}:, which is no way to a list"))),
    }
}

async fn list(response: Response<Incoming>) -> Result<Got, FetchError> {
    let wrong = |what: String| FetchError::Answered(what);
    let (head, mut body) = response.into_parts();
    if let Some(coding) = head.headers.get(header::CONTENT_ENCODING).filter(|coding| *coding != "identity") {
        return Err(wrong(format!("it is encoded ({}), though nobody asked for that", coding.to_str().unwrap_or("?"))));
    }
    if body.size_hint().lower() > MOST_BYTES {
        return Err(wrong(too_long()));
    }
    let has_an_end = body.size_hint().exact().is_some() || head.headers.contains_key(header::TRANSFER_ENCODING);
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| wrong(format!("it broke off after {} bytes: {}", bytes.len(), innermost(&error))))?;
        if let Ok(data) = frame.into_data() {
            if (bytes.len() + data.len()) as u64 > MOST_BYTES {
                return Err(wrong(too_long()));
            }
            bytes.extend_from_slice(&data);
        }
    }
    // Then the end of the connection is the end of the list, also where it was cut off.
    if !has_an_end && bytes.last().is_some_and(|&last| last != b'\n') {
        return Err(wrong(
            "it ends within a line, and the server does not say how long it is: it may be cut off".to_owned(),
        ));
    }
    let value = |name| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let validators = Validators { etag: value(header::ETAG), last_modified: value(header::LAST_MODIFIED) };
    Ok(Got::List(text(bytes), validators))
}

/// An address without what may be a key.
fn shown(url: &Url) -> String {
    url[..url::Position::AfterPath].to_owned()
}

/// The cause behind all causes, which is the one that says something.
fn innermost(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
