//! The routes of an engine for servers of Python: requests go in and messages of ASGI come out.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use flamant::serve;
use futures_core::Stream;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tower::ServiceExt as _;

use crate::engine::Engine;
use crate::errors;
use crate::notify::{Notifier, Waiter, Waking};
use crate::process::Owned;
use crate::settings;

/// Pieces of an answer that may wait for a slow client before the engine's events do.
const PIECES: usize = 16;

/// The routes of an engine.
#[pyclass(frozen, module = "flamant._flamant")]
pub struct App {
    routes: Owned<Routes>,
}

struct Routes {
    app: serve::App,
    notifier: Notifier,
    /// Handlers run here, whatever loop Python has.
    runtime: Option<Runtime>,
}

impl Drop for Routes {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What a handler says.
enum Said {
    Start(StatusCode, HeaderMap),
    Piece(Bytes),
    End,
}

#[pymethods]
impl App {
    #[new]
    fn new(engine: &Engine, settings: &Bound<'_, PyDict>) -> PyResult<App> {
        let app = serve::App::new(engine.engine()?, settings::server(settings)?);
        let app = app.map_err(|error| errors::setting(&error))?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("flamant-serve")
            .worker_threads(2)
            .max_blocking_threads(cores + 4)
            .enable_time()
            .build()?;
        Ok(App { routes: Owned::new(Routes { app, notifier: engine.notifier()?, runtime: Some(runtime) }) })
    }

    /// Begins to answer a request, whose body is asked for when it is wanted.
    fn call(&self, method: &str, target: &str, headers: Vec<(Vec<u8>, Vec<u8>)>) -> PyResult<Call> {
        let routes = self.routes.get()?;
        let (wants, wanted) = channel(1);
        let (feed, fed) = channel(1);
        let (say, said) = channel(PIECES);
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Body::from_stream(Fed { wants, fed, asked: false }));
        let request = request.map_err(|error| PyValueError::new_err(format!("a request that is none: {error}")))?;
        let runtime = routes.runtime.as_ref().expect("it is there until the routes are dropped");
        let task = runtime.spawn(answer(routes.app.router(), request, say)).abort_handle();
        Ok(Call { state: Owned::new(State { said, wanted, feed, notifier: routes.notifier.clone(), task }.into()) })
    }
}

async fn answer(router: axum::Router, request: Request<Body>, say: Sender<Said>) {
    let Ok(response) = router.oneshot(request).await;
    let (head, body) = response.into_parts();
    // Whoever does not listen any more has gone: what is left is dropped, and the engine's request with it.
    if say.send(Said::Start(head.status, head.headers)).await.is_err() {
        return;
    }
    let mut pieces = body.into_data_stream();
    loop {
        let said = match std::future::poll_fn(|context| Pin::new(&mut pieces).poll_next(context)).await {
            Some(Ok(piece)) => Said::Piece(piece),
            // A body that breaks off has no end.
            Some(Err(_)) => return,
            None => Said::End,
        };
        let ended = matches!(said, Said::End);
        if say.send(said).await.is_err() || ended {
            return;
        }
    }
}

/// A body that is asked for piece by piece.
struct Fed {
    wants: Sender<()>,
    fed: Receiver<(Bytes, bool)>,
    asked: bool,
}

impl Stream for Fed {
    type Item = Result<Bytes, std::io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !self.asked {
            // There is room for one, and no more than one is ever asked for.
            self.asked = self.wants.try_send(()).is_ok();
        }
        let piece = std::task::ready!(self.fed.poll_recv(context));
        self.asked = false;
        match piece {
            Some((piece, true)) => Poll::Ready(Some(Ok(piece))),
            Some((piece, false)) => {
                self.fed.close();
                // Nothing more is asked for.
                self.asked = true;
                Poll::Ready((!piece.is_empty()).then_some(Ok(piece)))
            }
            None => Poll::Ready(None),
        }
    }
}

/// A request that is being answered. Dropped, it is answered no more.
#[pyclass(frozen, module = "flamant._flamant")]
pub struct Call {
    state: Owned<std::sync::Mutex<State>>,
}

struct State {
    said: Receiver<Said>,
    wanted: Receiver<()>,
    feed: Sender<(Bytes, bool)>,
    notifier: Notifier,
    task: tokio::task::AbortHandle,
}

impl Drop for State {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[pymethods]
impl Call {
    /// The next message to send; true where a piece of the body is wanted first; none if there is nothing yet, and then
    /// the future's result is set when there is.
    fn poll<'py>(
        &self,
        py: Python<'py>,
        event_loop: Py<PyAny>,
        future: Py<PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let mut state = self.state.get()?.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let waker = Waker::from(Arc::new(Waking::new(Waiter::new(event_loop, future), state.notifier.clone())));
        let context = &mut Context::from_waker(&waker);
        if let Poll::Ready(Some(())) = state.wanted.poll_recv(context) {
            return Ok(Some(true.into_pyobject(py)?.to_owned().into_any()));
        }
        match state.said.poll_recv(context) {
            Poll::Pending => Ok(None),
            Poll::Ready(Some(said)) => message(py, &said).map(|message| Some(message.into_any())),
            Poll::Ready(None) => Err(PyRuntimeError::new_err("the answer has broken off")),
        }
    }

    /// Gives a piece of the body, and says whether more will come; told back.
    fn feed(&self, piece: &[u8], more: bool) -> PyResult<bool> {
        let state = self.state.get()?.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // A handler that has seen enough has no use for it.
        let _ = state.feed.try_send((Bytes::copy_from_slice(piece), more));
        Ok(more)
    }

    /// Answers it no more, whoever still refers to it.
    fn close(&self) -> PyResult<()> {
        self.state.get()?.lock().unwrap_or_else(std::sync::PoisonError::into_inner).task.abort();
        Ok(())
    }
}

/// As ASGI has it.
fn message<'py>(py: Python<'py>, said: &Said) -> PyResult<Bound<'py, PyDict>> {
    let message = PyDict::new(py);
    match said {
        Said::Start(status, headers) => {
            let bytes = |bytes: &[u8]| PyBytes::new(py, bytes);
            let headers = headers.iter().map(|(name, value)| (bytes(name.as_ref()), bytes(value.as_ref())));
            message.set_item("type", "http.response.start")?;
            message.set_item("status", status.as_u16())?;
            message.set_item("headers", PyList::new(py, headers.collect::<Vec<_>>())?)?;
        }
        Said::Piece(piece) => {
            message.set_item("type", "http.response.body")?;
            message.set_item("body", PyBytes::new(py, piece))?;
            message.set_item("more_body", true)?;
        }
        Said::End => {
            message.set_item("type", "http.response.body")?;
            message.set_item("body", PyBytes::new(py, &[]))?;
            message.set_item("more_body", false)?;
        }
    }
    Ok(message)
}
