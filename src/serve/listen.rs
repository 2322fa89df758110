//! Takes connections, bounded in number, time and size, until it is told to end.
//!
//! It is hyper's own loop: `axum::serve` sets no timer, without which half a head, or an idle connection, stays for
//! ever.

use std::fs;
use std::io;
use std::net::{TcpListener, ToSocketAddrs as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::sleep;

use super::gate::SMALL_THREADS;
use super::patient::Patient;
use super::{App, Server, State};
use crate::error::{Error, Result};

/// Bytes of a request's head, and of what is read or written at a time.
const BUFFER_MAX: usize = 64 << 10;
/// Headers of a request.
const HEADERS_MAX: usize = 100;
/// Threads that read and write; what computes has threads of its own.
const THREADS: usize = 4;
/// Before a connection is taken again after the system could not give one.
const PAUSE: Duration = Duration::from_secs(1);
/// How often the engine is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// For balancers to see that the server has failed, before it ends.
const FAILED: Duration = Duration::from_secs(10);
/// For the last bytes to reach slow clients after all is answered.
const QUIET: Duration = Duration::from_secs(5);
/// For threads that are still at work when all is over.
const ENDING: Duration = Duration::from_secs(1);

/// Where a server listens.
pub struct Listener {
    kind: Kind,
}

enum Kind {
    Tcp(TcpListener),
    Unix(UnixListener, Socket),
}

impl Listener {
    /// Listens at `HOST:PORT`, where port 0 is any that is free, or at `unix:PATH`, for which `mode` says who may
    /// connect. A socket that a server left behind gives way; no other file does.
    ///
    /// # Errors
    /// An address that is none, or is taken.
    pub fn bind(address: &str, mode: u32) -> Result<Listener> {
        let failed = |error| Error::file(address, error);
        let kind = match address.strip_prefix("unix:") {
            Some(path) => {
                let (listener, socket) = Socket::bind(Path::new(path), mode).map_err(failed)?;
                Kind::Unix(listener, socket)
            }
            None => {
                if address.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
                    let expected = "expected HOST:PORT or unix:PATH, such as 127.0.0.1:8080";
                    return Err(Error::argument(format!("listen: {expected}, found {address:?}")));
                }
                let addresses: Vec<_> = address.to_socket_addrs().map_err(failed)?.collect();
                Kind::Tcp(TcpListener::bind(&addresses[..]).map_err(failed)?)
            }
        };
        Ok(Listener { kind })
    }

    /// Where clients find it.
    ///
    /// # Errors
    /// The system does not know.
    pub fn url(&self) -> Result<String> {
        match &self.kind {
            Kind::Tcp(listener) => {
                let address = listener.local_addr().map_err(|error| Error::file("listen", error))?;
                Ok(format!("http://{address}"))
            }
            Kind::Unix(_, socket) => Ok(format!("unix:{}", socket.path.display())),
        }
    }

    /// Whether only this machine reaches it: over its network, or by a file.
    pub fn is_local(&self) -> bool {
        match &self.kind {
            Kind::Tcp(listener) => listener.local_addr().is_ok_and(|address| address.ip().is_loopback()),
            Kind::Unix(..) => true,
        }
    }

    /// Whether any page in a browser on this machine reaches it.
    pub fn is_loopback(&self) -> bool {
        self.is_local() && matches!(self.kind, Kind::Tcp(_))
    }
}

/// The file of a socket, which goes with it.
struct Socket {
    path: PathBuf,
    /// Device and number of the file: another server may have taken the path.
    file: (u64, u64),
}

impl Socket {
    fn bind(path: &Path, mode: u32) -> io::Result<(UnixListener, Socket)> {
        if let Ok(found) = fs::symlink_metadata(path) {
            let taken = |message: &str| Err(io::Error::new(io::ErrorKind::AddrInUse, message));
            if !found.file_type().is_socket() {
                return taken("expected no file, or a socket that nobody listens at, found another file");
            }
            if UnixStream::connect(path).is_ok() {
                return taken("somebody listens there already");
            }
        }
        // Under another name until it has its permissions; then it takes the place of what a dead server left.
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}", std::process::id()));
        let aside = PathBuf::from(name);
        let listener = UnixListener::bind(&aside)?;
        let placed =
            fs::set_permissions(&aside, fs::Permissions::from_mode(mode)).and_then(|()| fs::rename(&aside, path));
        if let Err(error) = placed {
            let _ = fs::remove_file(&aside);
            return Err(error);
        }
        let found = fs::symlink_metadata(path)?;
        Ok((listener, Socket { path: path.to_owned(), file: (found.dev(), found.ino()) }))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Serves until the process is told to end, by [`App::drain`], SIGTERM or SIGINT, and what it has is answered, as far
/// as the settings give it time. A second signal ends it at once. `listening` is called once signals are heard.
///
/// # Errors
/// A system without threads or sockets; [`App::fail`], and an engine that has failed, a little later; what `listening`
/// returns.
pub fn listen<E: From<Error>>(
    listener: Listener,
    app: &App,
    listening: impl FnOnce() -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    serve_router(listener, app, &app.router(), listening)
}

pub(super) fn serve_router<E: From<Error>>(
    listener: Listener,
    app: &App,
    router: &Router,
    listening: impl FnOnce() -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let failed = |error: io::Error| Error::file("listen", error);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .max_blocking_threads(cores + SMALL_THREADS)
        .thread_name("flamant-http")
        .enable_all()
        .build()
        .map_err(failed)?;
    allow_files(app.server.settings.connections_max);
    let outcome = runtime.block_on(serve(listener, app, router, listening));
    runtime.shutdown_timeout(ENDING);
    outcome
}

/// Has the system let the process have as many files as there may be connections, and some more, as far as it does:
/// what it lets a process have at first is often 1024.
fn allow_files(connections: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    const OTHERS: u64 = 256;
    let limits = getrlimit(Resource::Nofile);
    let most = limits.maximum.unwrap_or(u64::MAX);
    let wanted = (connections as u64 + OTHERS).min(most);
    if limits.current.is_some_and(|current| current < wanted) {
        // Without it, connections wait for files instead.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limits.maximum });
    }
}

async fn serve<E: From<Error>>(
    listener: Listener,
    app: &App,
    router: &Router,
    listening: impl FnOnce() -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let failed = |error: io::Error| Error::file("listen", error);
    let server = app.server.clone();
    let (listener, _socket) = match listener.kind {
        Kind::Tcp(listener) => (Accepting::tcp(listener).map_err(failed)?, None),
        Kind::Unix(listener, socket) => (Accepting::unix(listener).map_err(failed)?, Some(socket)),
    };
    let mut now = signals(app).map_err(failed)?;
    listening()?;
    let permits = Arc::new(Semaphore::new(server.settings.connections_max));
    let graceful = GracefulShutdown::new();
    let mut ending = pin!(ending(&server, now.clone()));
    let outcome = loop {
        tokio::select! {
            biased;
            outcome = &mut ending => break outcome,
            (stream, permit) = listener.accept(&permits) => {
                let connection = Connection { server: server.clone(), _permit: permit };
                match stream {
                    Stream::Tcp(stream) => connection.spawn(stream, router.clone(), &graceful),
                    Stream::Unix(stream) => connection.spawn(stream, router.clone(), &graceful),
                }
            }
        }
    };
    // Whoever comes now is told by the system that nobody is here.
    drop(listener);
    outcome?;
    let mut shutdown = pin!(graceful.shutdown());
    tokio::select! {
        () = &mut shutdown => return Ok(()),
        () = sleep(server.settings.drain_timeout) => {}
        () = told(&mut now) => {}
        () = quiet(&server) => {}
    }
    // Whoever waits still is told, if that is fast.
    server.cut.send_replace(true);
    tokio::select! {
        () = shutdown => {}
        () = sleep(ENDING) => {}
    }
    Ok(())
}

/// Ends when no request was there for a while: connections may stay that never finish a head.
async fn quiet(server: &Server) {
    let mut since = Instant::now();
    while since.elapsed() < QUIET {
        sleep(QUIET / 20).await;
        if server.answering.load(Ordering::Relaxed) > 0 {
            since = Instant::now();
        }
    }
}

/// Hears of signals: the first drains, the second is for whoever waits for what this returns.
fn signals(app: &App) -> io::Result<watch::Receiver<bool>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (sender, receiver) = watch::channel(false);
    let app = app.clone();
    tokio::spawn(async move {
        for second in [false, true] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            app.drain();
            sender.send_replace(second);
        }
    });
    Ok(receiver)
}

/// Waits for the second signal.
async fn told(now: &mut watch::Receiver<bool>) {
    if now.wait_for(|now| *now).await.is_err() {
        std::future::pending().await
    }
}

/// Waits until no connection is to be taken any more; the fault, if it is one.
async fn ending(server: &Server, mut now: watch::Receiver<bool>) -> Result<()> {
    let mut phase = server.phase.subscribe();
    loop {
        let _ = tokio::time::timeout(LOOK, phase.changed()).await;
        match (server.state(), server.opened.get()) {
            (State::Failed, Some(opened)) => {
                let reason = opened.engine.stats().err();
                tokio::select! {
                    () = sleep(FAILED) => {}
                    () = told(&mut now) => {}
                }
                return Err(reason.unwrap_or_else(|| Error::device("the engine", "it has failed")));
            }
            (State::Failed, None) => {
                let reason = server.fault.get().cloned();
                return Err(reason.unwrap_or_else(|| Error::device("the engine", "it has failed")));
            }
            (State::Draining, opened) => {
                // Without an engine, nobody is waited for.
                let delay = if opened.is_some() { server.settings.drain_delay } else { Duration::ZERO };
                tokio::select! {
                    () = sleep(delay) => {}
                    () = told(&mut now) => {}
                }
                return Ok(());
            }
            _ => {}
        }
    }
}

enum Accepting {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

enum Stream {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

impl Accepting {
    fn tcp(listener: TcpListener) -> io::Result<Accepting> {
        listener.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(listener).map(Accepting::Tcp)
    }

    fn unix(listener: UnixListener) -> io::Result<Accepting> {
        listener.set_nonblocking(true)?;
        tokio::net::UnixListener::from_std(listener).map(Accepting::Unix)
    }

    /// The next connection, once there is room for it. What the system cannot give now, it may later.
    async fn accept(&self, permits: &Arc<Semaphore>) -> (Stream, OwnedSemaphorePermit) {
        let permit = permits.clone().acquire_owned().await.expect("nobody closes it");
        loop {
            let accepted = match self {
                Accepting::Tcp(listener) => listener.accept().await.map(|(stream, _)| Stream::Tcp(stream)),
                Accepting::Unix(listener) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
            };
            match accepted {
                Ok(stream) => {
                    if let Stream::Tcp(stream) = &stream {
                        prepare(stream);
                    }
                    return (stream, permit);
                }
                // It has gone before it was taken.
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    super::log::say(&format!("connections: {error}; trying again"));
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Tokens are sent as they come, and a client whose machine has gone is found out. What a system does not have is done
/// without.
fn prepare(stream: &tokio::net::TcpStream) {
    use rustix::net::sockopt;
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, Duration::from_secs(60));
    let _ = sockopt::set_tcp_keepintvl(stream, Duration::from_secs(10));
    let _ = sockopt::set_tcp_keepcnt(stream, 6);
}

/// A connection, counted while it is there.
struct Connection {
    server: Arc<Server>,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    fn spawn<S>(self, stream: S, router: Router, graceful: &GracefulShutdown)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.server.metrics.connections.fetch_add(1, Ordering::Relaxed);
        let settings = &self.server.settings;
        let stream = TokioIo::new(Patient::new(stream, settings.write_timeout));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(settings.header_timeout)
            .max_headers(HEADERS_MAX)
            .max_header_size(BUFFER_MAX)
            .max_buf_size(BUFFER_MAX)
            .serve_connection(stream, TowerToHyperService::new(router));
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // A client that has gone is no error of ours.
            let _ = connection.await;
            drop(self);
        });
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.server.metrics.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
