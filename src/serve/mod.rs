//! An engine behind HTTP: OpenAI's routes for chats, completions and decisions, with interleaved images, and our own.
//!
//! [`App`] is the routes, for any server that takes an [`axum::Router`]; [`listen`] is ours, which bounds what a
//! connection may take before it is read. Nothing is ever fetched: images are data URIs.

mod call;
mod gate;
mod guard;
mod listen;
mod log;
mod metrics;
mod page;
mod patient;
mod problem;
mod settings;
mod status;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, get, post};
use tokio::sync::watch;

pub use listen::{Listener, listen};
pub use settings::{Keys, Log, Settings};
#[cfg(feature = "unstable-probe")]
#[doc(hidden)]
pub use wire::probe::WireProbe;

use crate::async_engine::AsyncEngine;
use crate::backend::Device;
use crate::error::{Error, Result};
use crate::hub;
use gate::Gate;
use metrics::Metrics;
use problem::Problem;

/// The routes of one engine; clones are the same.
#[derive(Clone)]
pub struct App {
    server: Arc<Server>,
}

/// What all routes share.
struct Server {
    settings: Settings,
    gate: Arc<Gate>,
    metrics: Metrics,
    opened: OnceLock<Opened>,
    /// Why there will be no engine.
    fault: OnceLock<Error>,
    phase: watch::Sender<State>,
    /// Whether nobody is waited for any more.
    cut: watch::Sender<bool>,
    /// Requests whose answers are not whole.
    answering: AtomicUsize,
}

/// What is served.
struct Opened {
    engine: AsyncEngine,
    /// What the model is called.
    id: String,
    /// Unix time of when it was opened.
    created: u64,
    /// Another one may have other answers.
    fingerprint: String,
}

/// How a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// There is no engine yet.
    Loading,
    /// It answers.
    Ready,
    /// It is about to end, and answers what it has.
    Draining,
    /// The engine has failed, and will not come back.
    Failed,
}

impl App {
    /// The routes of an engine.
    ///
    /// # Errors
    /// Settings that cannot be.
    pub fn new(engine: AsyncEngine, settings: Settings) -> Result<App> {
        let app = App::loading(settings)?;
        app.open(engine);
        Ok(app)
    }

    /// The routes of an engine that is yet to come: until [`App::open`] they say that it loads.
    ///
    /// # Errors
    /// Settings that cannot be.
    pub fn loading(settings: Settings) -> Result<App> {
        settings.check()?;
        let server = Server {
            gate: Gate::new(settings.queue, settings.inflight_bytes_max),
            metrics: Metrics::default(),
            opened: OnceLock::new(),
            fault: OnceLock::new(),
            phase: watch::Sender::new(State::Loading),
            cut: watch::Sender::new(false),
            answering: AtomicUsize::new(0),
            settings,
        };
        Ok(App { server: Arc::new(server) })
    }

    /// The engine has come. A second one is dropped.
    pub fn open(&self, engine: AsyncEngine) {
        let server = &self.server;
        let id = server.settings.name.clone().unwrap_or_else(|| {
            let folder = engine.folder().and_then(|folder| folder.canonicalize().ok());
            folder.as_deref().map_or("demo".to_owned(), hub::model_name)
        });
        let created = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let running = engine.limits().max_sequences;
        if server.opened.set(Opened { fingerprint: fingerprint(&engine), engine, id, created }).is_ok() {
            server.gate.widen(running);
            server.phase.send_if_modified(|state| {
                let loading = *state == State::Loading;
                *state = if loading { State::Ready } else { *state };
                loading
            });
        }
    }

    /// No engine will come, for this reason.
    pub fn fail(&self, reason: Error) {
        let _ = self.server.fault.set(reason);
        self.server.phase.send_replace(State::Failed);
    }

    /// Says not to be ready any more; [`listen`] ends once what it has is answered.
    pub fn drain(&self) {
        self.server.phase.send_if_modified(|state| {
            let is_up = matches!(state, State::Loading | State::Ready);
            *state = if is_up { State::Draining } else { *state };
            is_up
        });
    }

    /// All of them as a [`tower::Service`]. It must be called on a runtime of tokio with its timers.
    pub fn router(&self) -> Router {
        let server = &self.server;
        let routes = ROUTES.into_iter().filter(|(path, _)| *path != "/" || server.settings.page);
        self.guarded(routes.fold(Router::new(), |router, (path, methods)| router.route(path, methods())))
    }

    /// Routes behind all that stands before them.
    fn guarded(&self, routes: Router<Arc<Server>>) -> Router {
        let server = &self.server;
        routes
            .fallback(status::not_found)
            .method_not_allowed_fallback(status::wrong_method)
            .layer(from_fn_with_state(server.clone(), guard::guard))
            .layer(from_fn_with_state(server.clone(), log::watch))
            .with_state(server.clone())
    }
}

/// A path, and who answers there.
type Route = (&'static str, fn() -> MethodRouter<Arc<Server>>);

/// Every path, as metrics name them.
const ROUTES: [Route; 19] = [
    ("/", || get(page::page)),
    ("/health", || get(status::health)),
    ("/ready", || get(status::ready)),
    ("/v2/health/live", || get(status::health)),
    ("/v2/health/ready", || get(status::ready)),
    ("/metrics", || get(status::metrics)),
    ("/version", || get(status::version)),
    ("/info", || get(status::info)),
    ("/openapi.json", || get(status::openapi)),
    ("/v1/models", || get(status::models)),
    ("/v1/models/{id}", || get(status::model)),
    ("/v1/chat/completions", || post(call::route(wire::chat))),
    ("/v1/completions", || post(call::route(wire::completions))),
    ("/v1/decisions", || post(call::route(wire::decisions))),
    ("/v1/classify", || post(call::route(wire::classify))),
    ("/v1/loglikelihood", || post(call::route(wire::loglikelihood))),
    ("/v1/render", || post(call::route(wire::render))),
    ("/v1/tokenize", || post(call::route(wire::tokenize))),
    ("/v1/detokenize", || post(call::route(wire::detokenize))),
];

impl Server {
    fn state(&self) -> State {
        let dead = self.opened.get().is_some_and(|opened| opened.engine.stats().is_err());
        if dead { State::Failed } else { *self.phase.borrow() }
    }

    /// Ends when nobody is waited for any more.
    fn is_cut(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut cut = self.cut.subscribe();
        async move {
            if cut.wait_for(|cut| *cut).await.is_err() {
                std::future::pending().await
            }
        }
    }

    /// What is served, once it is there.
    fn opened(&self) -> std::result::Result<&Opened, Problem> {
        match self.opened.get() {
            Some(opened) => Ok(opened),
            None if self.state() == State::Failed => Err(Problem::failed()),
            None => Err(Problem::loading()),
        }
    }

    /// The engine, if it takes requests.
    fn engine(&self) -> std::result::Result<&AsyncEngine, Problem> {
        match self.state() {
            State::Ready => self.opened().map(|opened| &opened.engine),
            State::Loading => Err(Problem::loading()),
            State::Draining => Err(Problem::draining()),
            State::Failed => Err(Problem::failed()),
        }
    }

    /// What the model is called.
    fn id(&self) -> &str {
        self.opened.get().map_or("", |opened| &opened.id)
    }

    /// Changes when answers may.
    fn fingerprint(&self) -> &str {
        self.opened.get().map_or("", |opened| &opened.fingerprint)
    }

    /// Another model than the one that is here was asked for.
    fn no_model(&self, found: &str) -> Problem {
        let id = self.id();
        let found: String = found.chars().take(100).collect();
        let message = format!("model: expected {id:?}, found {found:?}");
        Problem::new(StatusCode::NOT_FOUND, "model_not_found", message).param("model")
    }
}

/// Of what decides answers, as far as it is known without reading all weights.
fn fingerprint(engine: &AsyncEngine) -> String {
    let checkpoint = engine.preparer().checkpoint();
    let mut names: Vec<&str> = checkpoint.names().collect();
    names.sort_unstable();
    let mut hasher = blake3::Hasher::new();
    let device = match engine.device() {
        Device::Cuda(_) => "cuda".to_owned(),
        other => other.to_string(),
    };
    let (version, dtype) = (env!("CARGO_PKG_VERSION"), engine.dtype());
    hasher.update(format!("{version} {device} {dtype:?} {};", engine.kv_dtype()).as_bytes());
    for name in names {
        let (dtype, shape) = (checkpoint.dtype(name), checkpoint.shape(name));
        hasher.update(format!("{name:?} {dtype:?} {shape:?};").as_bytes());
    }
    format!("fp_{}", &hasher.finalize().to_hex()[..10])
}

impl Opened {
    /// How the device stores numbers, where that is known.
    fn dtype(&self) -> &'static str {
        match (self.engine.device(), self.engine.dtype()) {
            (Device::Cpu, _) => "f32",
            (_, Some(crate::checkpoint::Dtype::Bf16)) => "bf16",
            (_, Some(crate::checkpoint::Dtype::F16)) => "f16",
            _ => "auto",
        }
    }
}
