//! Routes that compute nothing: how the server is, what it is, what it has counted.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::problem::Problem;
use super::{Opened, Server, State as Phase, wire};

type Shared = State<Arc<Server>>;

fn answer(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

/// `GET /health`: whether the process is of use, or must be started anew. Waits for nothing.
pub(super) async fn health(State(server): Shared) -> Response {
    match server.state() {
        Phase::Failed => Problem::failed().into_response(),
        _ => answer(&json!({"status": "ok"})),
    }
}

/// `GET /ready`: whether to send requests here.
pub(super) async fn ready(State(server): Shared) -> Result<Response, Problem> {
    match server.state() {
        Phase::Ready => Ok(answer(&json!({"status": "ok"}))),
        Phase::Loading => Err(Problem::loading()),
        Phase::Draining => Err(Problem::draining()),
        Phase::Failed => Err(Problem::failed()),
    }
}

/// `GET /metrics`.
pub(super) async fn metrics(State(server): Shared) -> Response {
    let opened = server.opened.get();
    let stats = opened.and_then(|opened| opened.engine.stats().ok());
    let device = opened.map(|opened| opened.engine.device().to_string()).unwrap_or_default();
    let build = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("device", &device),
        ("dtype", opened.map_or("", |opened| opened.dtype())),
        ("model", opened.map_or("", |opened| &opened.id)),
    ];
    let text = server.metrics.text(stats.as_ref(), server.gate.bytes_held(), &build);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// `GET /version`.
pub(super) async fn version() -> Response {
    answer(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "os": std::env::consts::OS,
        "architecture": std::env::consts::ARCH,
    }))
}

/// `GET /info`: what runs here and what bounds it.
pub(super) async fn info(State(server): Shared) -> Result<Response, Problem> {
    let opened = server.opened()?;
    let (settings, limits) = (&server.settings, opened.engine.limits());
    let preparer = opened.engine.preparer();
    let template = settings.chat_template.as_ref().unwrap_or(preparer.tokenizer().chat());
    let mut info = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "model": opened.id,
        "family": preparer.tokenizer().family().name,
        "chat_template": template.name,
        "defaults": wire::default_settings(preparer.defaults()),
        "device": opened.engine.device().to_string(),
        "dtype": opened.dtype(),
        "kv_dtype": opened.engine.kv_dtype().to_string(),
        // Whether it is the model in the program, whose symbols the page shows.
        "demo": opened.engine.folder().is_none(),
        "limits": {
            "context": preparer.context_max(),
            "sequences": limits.max_sequences,
            "queue": settings.queue,
            "body_bytes": settings.body_max,
            "inflight_bytes": settings.inflight_bytes_max,
            "images": settings.images_max,
            "pixels": settings.pixels_max,
            "request_seconds": settings.request_timeout.as_secs_f64(),
        },
    });
    if let (Value::Object(all), Value::Object(more)) = (&mut info["limits"], wire::limits()) {
        all.extend(more);
    }
    Ok(answer(&info))
}

fn model_json(opened: &Opened) -> Value {
    json!({
        "id": opened.id,
        "object": "model",
        "created": opened.created,
        "owned_by": "flamant",
        "max_model_len": opened.engine.preparer().context_max(),
    })
}

/// `GET /v1/models`.
pub(super) async fn models(State(server): Shared) -> Result<Response, Problem> {
    Ok(answer(&json!({"object": "list", "data": [model_json(server.opened()?)]})))
}

/// `GET /v1/models/{id}`.
pub(super) async fn model(State(server): Shared, id: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    let opened = server.opened()?;
    // What is no text when its escapes are resolved is nobody's name.
    let id = id.map_or("?".to_owned(), |Path(id)| id);
    match id == opened.id {
        true => Ok(answer(&model_json(opened))),
        false => Err(server.no_model(&id)),
    }
}

/// `GET /openapi.json`.
pub(super) async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], include_str!("openapi.json")).into_response()
}

/// A path that is not one.
pub(super) async fn not_found(request: Request) -> Problem {
    let path: String = request.uri().path().chars().take(100).collect();
    Problem::new(
        StatusCode::NOT_FOUND,
        "not_found",
        format!("path: expected one of those in /openapi.json, found {path:?}"),
    )
}

/// A path that is not for this method; axum adds which it is for.
pub(super) async fn wrong_method(method: Method, request: Request) -> Problem {
    let path: String = request.uri().path().chars().take(100).collect();
    let method: String = method.as_str().chars().take(20).collect();
    let message = format!("method: expected one of those in \"allow\" for {path:?}, found {method}");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}
