//! `flamant health`: asks a running server once, for supervisors of containers, which have no curl.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use clap::Args;

use super::{Outcome, Run};
use crate::error::Error;

/// Longest status line that is read.
const LINE_BYTES_MAX: usize = 1024;

/// Ask a running server whether it is alive; the exit code is 1 if it is not
#[derive(Args)]
#[command(
    next_help_heading = "Server",
    after_help = "\
Examples:
  flamant health
  flamant health --listen unix:/run/flamant.sock --ready --timeout 1"
)]
pub struct Health {
    /// Where it listens: HOST:PORT or unix:PATH
    #[arg(long, default_value = "127.0.0.1:8080", env = "FLAMANT_SERVE_LISTEN")]
    listen: String,
    /// Ask whether it takes requests, too: not while it is loading or ending
    #[arg(long)]
    ready: bool,
    /// Most seconds that an answer may take
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u32).range(1..=3600))]
    timeout: u32,
}

impl Run for Health {
    fn run(self) -> Outcome {
        let path = if self.ready { "/ready" } else { "/health" };
        let end = Instant::now() + Duration::from_secs(self.timeout.into());
        let line = ask(&self.listen, path, end).map_err(|error| Error::file(&self.listen, error))?;
        if line.split(' ').nth(1) == Some("200") {
            return Ok(());
        }
        Err(Error::invalid(&self.listen, format!("answer to GET {path}"), "status 200", format!("{line:?}")).into())
    }
}

/// The status line of an answer.
fn ask(address: &str, path: &str, end: Instant) -> io::Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    match address.strip_prefix("unix:") {
        #[cfg(unix)]
        Some(path) => {
            let mut stream = UnixStream::connect(path)?;
            stream.set_write_timeout(Some(left(end)?))?;
            stream.write_all(request.as_bytes())?;
            status_line(&mut stream, |stream| stream.set_read_timeout(Some(left(end)?)))
        }
        #[cfg(not(unix))]
        Some(_) => Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no Unix sockets")),
        None => {
            let mut refused = io::Error::new(io::ErrorKind::AddrNotAvailable, "a name without an address");
            for address in address.to_socket_addrs()? {
                let mut stream = match TcpStream::connect_timeout(&address, left(end)?) {
                    Ok(stream) => stream,
                    Err(error) => {
                        refused = error;
                        continue;
                    }
                };
                stream.set_write_timeout(Some(left(end)?))?;
                stream.write_all(request.as_bytes())?;
                return status_line(&mut stream, |stream| stream.set_read_timeout(Some(left(end)?)));
            }
            Err(refused)
        }
    }
}

/// Reads to the end of the first line; `before` is called before each read.
fn status_line<S: Read>(stream: &mut S, before: impl Fn(&S) -> io::Result<()>) -> io::Result<String> {
    let mut line = Vec::new();
    while line.len() < LINE_BYTES_MAX {
        before(stream)?;
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(0) => break,
            Ok(_) if byte == *b"\n" => break,
            Ok(_) => line.push(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // As systems call a read that took too long.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

/// The time that is left, which is never nothing.
fn left(end: Instant) -> io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}
