//! From a request to an answer.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use tokio::sync::Semaphore;

use super::accept::Progress;
use super::access::{self, Peer, Refusal, RefusalLog};
use super::metrics;
use super::order::{Order, OrderError, Verb};
use super::{DataSet, MAX_BODY, Section};
use crate::health::Reason;
use crate::node::{NodeError, NodeHandle};
use crate::service::ServiceName;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// JSON, an object a line.
const LINES: &str = "application/x-ndjson";
/// Longest time that a decision loop is given to hand out its record.
const RECORD_TIMEOUT: Duration = Duration::from_secs(3);
/// Most of a body that is read before the connection is closed on it, in bytes.
const MAX_DISCARDED: usize = 16 * MAX_BODY;
/// What is answered where nothing is served.
const PATHS: &str = "try GET /status, /metrics, /healthz or /services/NAME/record, or POST \
                     /services/NAME/drain, undrain or withdraw; data sets are under /sync";

/// What requests are answered from; shared by all connections.
pub(super) struct Sources {
    pub(super) node: NodeHandle,
    pub(super) sections: Vec<Section>,
    pub(super) data_sets: Vec<DataSet>,
    pub(super) token_file: Option<PathBuf>,
    pub(super) counts: Counts,
    pub(super) refusals: RefusalLog,
    /// One page is made at a time, in a thread of its own: whoever asks without end costs the
    /// node's decision loops nothing.
    pub(super) maker: Arc<Semaphore>,
}

/// What the endpoint counts of itself.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// By [`Verb::ALL`].
    pub(super) orders: [AtomicU64; Verb::ALL.len()],
    /// By [`Refusal::KINDS`].
    pub(super) refused: [AtomicU64; Refusal::KINDS.len()],
    /// Connections dropped to make place for another.
    pub(super) dropped: AtomicU64,
}

pub(super) type Answer = Response<Full<Bytes>>;

/// Answers one request.
pub(super) async fn answer(
    request: Request<Incoming>,
    peer: &Peer,
    sources: &Arc<Sources>,
    progress: &Progress,
) -> Answer {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let path = request.uri().path();
    let read = match path {
        "/status" => Some(Page::Status),
        "/metrics" => Some(Page::Metrics),
        "/healthz" => Some(Page::Health),
        _ => None,
    };
    if let Some(service) = record_of(path) {
        return if is_read {
            progress.answering();
            record(&request, &service, peer, sources).await
        } else {
            let _ = body(request.into_body()).await;
            progress.answering();
            not_served(Some("GET, HEAD"))
        };
    }
    if let Some(asked) = sync_of(path, sources) {
        return sync(request, asked, peer, sources, progress).await;
    }
    match (read, order_of(path)) {
        (Some(page), _) if is_read => {
            progress.answering();
            make(page, sources).await
        }
        (None, Some((service, verb))) if *request.method() == Method::POST => {
            take(request, service, verb, peer, sources, progress).await
        }
        (read, order) => {
            let allowed = match (read, order) {
                (Some(_), _) => Some("GET, HEAD"),
                (None, Some(_)) => Some("POST"),
                (None, None) => None,
            };
            // What the client still sends is read, or the answer would be lost in a reset.
            let _ = body(request.into_body()).await;
            progress.answering();
            not_served(allowed)
        }
    }
}

/// `/services/NAME/VERB`. Every byte that no name can have, such as `%`, is in no service.
fn order_of(path: &str) -> Option<(ServiceName, Verb)> {
    let (name, verb) = path.strip_prefix("/services/")?.split_once('/')?;
    Some((ServiceName::new(name).ok()?, Verb::named(verb)?))
}

/// `/services/NAME/record`.
fn record_of(path: &str) -> Option<ServiceName> {
    let name = path.strip_prefix("/services/")?.strip_suffix("/record")?;
    ServiceName::new(name).ok()
}

/// What is asked of data sets.
enum OfSync {
    All,
    One(usize),
    Diff(usize),
    Force(usize),
}

/// `/sync`, `/sync/NAME`, `/sync/NAME/diff` or `/sync/NAME/force`, of a data set that there is.
fn sync_of(path: &str, sources: &Sources) -> Option<OfSync> {
    let rest = path.strip_prefix("/sync")?;
    if rest.is_empty() {
        return Some(OfSync::All);
    }
    let rest = rest.strip_prefix('/')?;
    let (name, verb) = rest
        .split_once('/')
        .map_or((rest, None), |(name, verb)| (name, Some(verb)));
    let number = sources
        .data_sets
        .iter()
        .position(|one| one.name() == name)?;
    match verb {
        None => Some(OfSync::One(number)),
        Some("diff") => Some(OfSync::Diff(number)),
        Some("force") => Some(OfSync::Force(number)),
        Some(_) => None,
    }
}

/// Answers what is asked of data sets.
async fn sync(
    request: Request<Incoming>,
    asked: OfSync,
    peer: &Peer,
    sources: &Arc<Sources>,
    progress: &Progress,
) -> Answer {
    let is_order = matches!(asked, OfSync::Force(_));
    let is_right = if is_order {
        *request.method() == Method::POST
    } else {
        matches!(*request.method(), Method::GET | Method::HEAD)
    };
    let (head, incoming) = request.into_parts();
    // What the client still sends is read, or the answer would be lost in a reset.
    let _ = body(incoming).await;
    progress.answering();
    if !is_right {
        return not_served(Some(if is_order { "POST" } else { "GET, HEAD" }));
    }
    let unreadable =
        |why: serde_json::Error| error(StatusCode::INTERNAL_SERVER_ERROR, &why.to_string());
    match asked {
        OfSync::All => {
            let mut all = std::collections::BTreeMap::new();
            for data_set in &sources.data_sets {
                match data_set.answer().await {
                    Ok(answer) => all.entry(data_set.name()).or_insert(answer),
                    Err(why) => return unreadable(why),
                };
            }
            json(StatusCode::OK, &all)
        }
        OfSync::One(number) => match sources.data_sets[number].answer().await {
            Ok(answer) => json(StatusCode::OK, &answer),
            Err(why) => unreadable(why),
        },
        OfSync::Diff(number) => {
            let turn = Arc::clone(&sources.maker).acquire_owned().await.ok();
            let sources = Arc::clone(sources);
            let made = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                sources.data_sets[number].diff()
            });
            match made.await {
                Ok(Some(Ok(diff))) => json(StatusCode::OK, &diff),
                Ok(Some(Err(why))) => unreadable(why),
                Ok(None) => error(StatusCode::NOT_FOUND, "it does not say what differs"),
                Err(why) => error(StatusCode::INTERNAL_SERVER_ERROR, &why.to_string()),
            }
        }
        OfSync::Force(number) => {
            let token_file = sources.token_file.as_deref();
            let admitted = access::admit(peer, &head.uri, &head.headers, token_file).await;
            if let Err(refusal) = admitted {
                return refuse(&refusal, peer, head.uri.path(), sources);
            }
            let data_set = &sources.data_sets[number];
            let by = who(peer).await;
            tracing::info!(data_set = data_set.name(), by, "ordered to reconcile");
            json(StatusCode::OK, &data_set.force())
        }
    }
}

fn not_served(allowed: Option<&'static str>) -> Answer {
    let Some(allowed) = allowed else {
        return text(StatusCode::NOT_FOUND, &format!("{PATHS}\n"));
    };
    let mut answer = text(
        StatusCode::METHOD_NOT_ALLOWED,
        &format!("only {allowed} is served here\n"),
    );
    let allowed = HeaderValue::from_static(allowed);
    answer.headers_mut().insert(ALLOW, allowed);
    answer
}

#[derive(Debug, Clone, Copy)]
enum Page {
    Status,
    Metrics,
    Health,
}

async fn make(page: Page, sources: &Arc<Sources>) -> Answer {
    // It is never closed; if it were, the page would be made all the same.
    let turn = Arc::clone(&sources.maker).acquire_owned().await.ok();
    let sources = Arc::clone(sources);
    let made = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        match page {
            Page::Status => status(&sources),
            Page::Metrics => metrics_page(&sources),
            Page::Health => health(&sources),
        }
    });
    made.await.unwrap_or_else(|error| {
        let text_of = format!("the page could not be made: {error}\n");
        text(StatusCode::INTERNAL_SERVER_ERROR, &text_of)
    })
}

fn status(sources: &Sources) -> Answer {
    let page = || {
        let mut status = serde_json::to_value(sources.node.status())?;
        if let Some(status) = status.as_object_mut() {
            for section in &sources.sections {
                let told = (section.tell)()?;
                status.entry(section.name).or_insert(told);
            }
        }
        serde_json::to_vec_pretty(&status)
    };
    match page() {
        Ok(mut page) => {
            page.push(b'\n');
            response(StatusCode::OK, JSON, page)
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
    }
}

fn metrics_page(sources: &Sources) -> Answer {
    match metrics::page(sources) {
        Ok(page) => response(StatusCode::OK, metrics::CONTENT_TYPE, page.into_bytes()),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
    }
}

fn health(sources: &Sources) -> Answer {
    let status = sources.node.status();
    if status.is_working() {
        return text(StatusCode::OK, "ok\n");
    }
    let lines: String = status
        .services
        .iter()
        .filter_map(|s| s.trouble().map(|why| format!("{}: {why}\n", s.name)))
        .collect();
    text(StatusCode::SERVICE_UNAVAILABLE, &lines)
}

/// Gives a service's record to whom it may be given.
async fn record(
    request: &Request<Incoming>,
    service: &ServiceName,
    peer: &Peer,
    sources: &Arc<Sources>,
) -> Answer {
    let (uri, headers) = (request.uri(), request.headers());
    let admitted = access::has_rights(peer, uri, headers, sources.token_file.as_deref());
    if let Err(refusal) = admitted.await {
        return refuse(&refusal, peer, uri.path(), sources);
    }
    // One at a time: a full record is a few megabytes.
    let _turn = sources.maker.acquire().await.ok();
    let asked = tokio::time::timeout(RECORD_TIMEOUT, sources.node.record(service)).await;
    match asked {
        Ok(Ok(record)) => {
            let by = who(peer).await;
            tracing::info!(%service, by, bytes = record.len(), "record given");
            response(StatusCode::OK, LINES, record.into_bytes())
        }
        Ok(Err(why)) => {
            sources.refusals.write(peer, uri.path(), &why);
            error(status_of_node(&why), &why.to_string())
        }
        Err(_) => error(
            StatusCode::SERVICE_UNAVAILABLE,
            &format!("the decision loop of {service} gave no record within {RECORD_TIMEOUT:?}"),
        ),
    }
}

/// Takes an order: reads it, asks who gives it, carries it out.
async fn take(
    request: Request<Incoming>,
    service: ServiceName,
    verb: Verb,
    peer: &Peer,
    sources: &Arc<Sources>,
    progress: &Progress,
) -> Answer {
    let (head, incoming) = request.into_parts();
    let Some(body) = body(incoming).await else {
        progress.answering();
        let why = format!("the body is longer than {MAX_BODY} bytes, or was cut off");
        sources.refusals.write(peer, head.uri.path(), &why);
        return error(StatusCode::PAYLOAD_TOO_LARGE, &why);
    };
    progress.answering();
    let admitted = access::admit(
        peer,
        &head.uri,
        &head.headers,
        sources.token_file.as_deref(),
    );
    if let Err(refusal) = admitted.await {
        return refuse(&refusal, peer, head.uri.path(), sources);
    }
    let order = match Order::parse(service.clone(), verb, &body) {
        Ok(order) => order,
        Err(why) => {
            let by = who(peer).await;
            let why_given = "not known: the body cannot be used";
            return order_refused(&service, verb, &by, why_given, &why);
        }
    };
    let (sources, peer) = (Arc::clone(sources), peer.clone());
    // A task of its own: the client may go away.
    let done = tokio::spawn(async move { carry_out(order, peer, &sources).await });
    done.await.unwrap_or_else(|failure| {
        let why = format!("the order could not be carried out: {failure}");
        error(StatusCode::INTERNAL_SERVER_ERROR, &why)
    })
}

async fn carry_out(order: Order, peer: Peer, sources: &Sources) -> Answer {
    let by = who(&peer).await;
    let (service, verb, reason) = (order.service.clone(), order.verb, order.reason.clone());
    let counted = Verb::ALL.iter().position(|verb| *verb == order.verb);
    match order.carry_out(&sources.node, &by).await {
        Ok(answer) => {
            if let Some(count) = counted.and_then(|index| sources.counts.orders.get(index)) {
                count.fetch_add(1, Ordering::Relaxed);
            }
            json(StatusCode::OK, &answer)
        }
        Err(why) => order_refused(&service, verb, &by, reason.as_str(), &why),
    }
}

/// Who a peer is, in words. Looking that up may block.
async fn who(peer: &Peer) -> String {
    let from = peer.clone();
    let by = tokio::task::spawn_blocking(move || from.by()).await;
    by.unwrap_or_else(|_| peer.to_string())
}

/// Of one who has the right to give orders; each is logged, as those are that are carried out.
fn order_refused(
    service: &ServiceName,
    verb: Verb,
    by: &str,
    reason: &str,
    why: &OrderError,
) -> Answer {
    // Parts of it come from the body.
    let refused = Reason::from(why.to_string());
    tracing::warn!(%service, order = verb.name(), by, reason, %refused, "operator's order refused");
    error(status_of(why), &why.to_string())
}

fn refuse(refusal: &Refusal, peer: &Peer, path: &str, sources: &Sources) -> Answer {
    let counted = Refusal::KINDS
        .iter()
        .position(|kind| *kind == refusal.kind());
    if let Some(count) = counted.and_then(|index| sources.counts.refused.get(index)) {
        count.fetch_add(1, Ordering::Relaxed);
    }
    sources.refusals.write(peer, path, refusal);
    let mut answer = error(refusal.status(), &refusal.to_string());
    if refusal.status() == StatusCode::UNAUTHORIZED {
        let bearer = HeaderValue::from_static("Bearer realm=\"anycast\"");
        answer.headers_mut().insert(WWW_AUTHENTICATE, bearer);
    }
    answer
}

const fn status_of(error: &OrderError) -> StatusCode {
    match error {
        OrderError::Body(_) | OrderError::For { .. } | OrderError::NoEffect { .. } => {
            StatusCode::BAD_REQUEST
        }
        OrderError::LastPreferred { .. } => StatusCode::CONFLICT,
        OrderError::Node(why) => status_of_node(why),
    }
}

const fn status_of_node(error: &NodeError) -> StatusCode {
    if matches!(error, NodeError::UnknownService { .. }) {
        StatusCode::NOT_FOUND
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

/// The whole body, or `None` when it is too long or cut off. What is too long, but not
/// absurdly so, is read to its end all the same: closed upon while it sends, a client would
/// lose the answer.
async fn body(mut incoming: Incoming) -> Option<Bytes> {
    let mut body = Vec::new();
    let mut length = 0_usize;
    if incoming.size_hint().lower() > MAX_DISCARDED as u64 {
        return None;
    }
    while let Some(frame) = incoming.frame().await {
        let Ok(data) = frame.ok()?.into_data() else {
            continue; // trailers
        };
        length = length.saturating_add(data.len());
        if length > MAX_DISCARDED {
            return None;
        }
        if length <= MAX_BODY {
            body.extend_from_slice(&data);
        }
    }
    (length <= MAX_BODY).then(|| body.into())
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
}

fn error(status: StatusCode, why: &str) -> Answer {
    json(status, &ErrorBody { error: why })
}

fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    match serde_json::to_vec_pretty(body) {
        Ok(mut body) => {
            body.push(b'\n');
            response(status, JSON, body)
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
    }
}

fn text(status: StatusCode, text: &str) -> Answer {
    response(status, TEXT, text.as_bytes().to_vec())
}

fn response(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
