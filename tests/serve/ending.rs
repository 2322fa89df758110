//! How a server ends, and where it listens besides ports.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use super::served::{Connection, Server, error, program, until};

const CHAT: &str = "/v1/chat/completions";

/// A request of which all but the last byte was sent.
fn begun(server: &Server) -> Connection {
    let mut connection = server.connect();
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n");
    connection.write(head + "content-length: 2\r\n\r\n{");
    until("it is read", || server.metric("flamant_body_bytes_in_flight") == 2.0);
    connection
}

#[test]
fn a_signal_ends_a_server_that_does_nothing() {
    for signal in ["TERM", "INT"] {
        let server = Server::start(&[]);
        server.get("/health");
        let _idle = server.connect();
        server.signal(signal);
        let begun = Instant::now();
        let (code, said) = server.ended();
        assert_eq!(code, Some(0), "{said}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{signal}");
    }
}

#[test]
fn a_signal_is_heard_as_soon_as_the_address_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listen = format!("unix:{}", path.display());
    let server = Server::run(program().args(["serve", "--demo", "--listen", &listen]));
    server.signal("TERM");
    let (code, said) = server.ended();
    assert_eq!(code, Some(0), "{said}");
    assert!(!path.exists());
}

#[test]
fn what_has_begun_is_answered_and_nothing_more_is_taken() {
    let server = Server::start(&[]);
    let mut running = begun(&server);
    server.signal("TERM");
    until("connections are refused", || TcpStream::connect(server.address()).is_err());
    running.write("}");
    let response = running.response();
    assert_ne!(response.status, 503, "{response:?}");
    running.closed();
    let (code, said) = server.ended();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("POST {CHAT}")), "{said}");
}

#[test]
fn balancers_are_told_before_connections_are_refused() {
    let server = Server::start(&["--drain-delay", "2"]);
    let mut kept = server.connect();
    server.signal("TERM");
    until("it is not ready", || server.get("/ready").status == 503);
    let response = server.get("/ready");
    assert_eq!(response.error(), error(503, "server_error", "draining"));
    assert!(response.header("retry-after").is_some());
    assert_eq!(server.get("/health").status, 200);
    kept.write("POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}");
    assert_eq!(kept.response().error(), error(503, "server_error", "draining"));
    let (code, said) = server.ended();
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn nobody_is_waited_for_longer_than_one_is_told() {
    let server = Server::start(&["--drain-timeout", "0.5"]);
    let mut running = begun(&server);
    server.signal("TERM");
    let at = Instant::now();
    let (code, said) = server.ended();
    assert_eq!(code, Some(0), "{said}");
    assert!(at.elapsed() < Duration::from_secs(15), "{:?}", at.elapsed());
    assert_eq!(running.response().error(), error(503, "server_error", "draining"));
    running.closed();
}

#[test]
fn a_head_that_does_not_end_is_not_waited_for() {
    let server = Server::start(&["--drain-timeout", "600"]);
    let mut half = server.connect();
    half.write("GET /version HT");
    server.signal("TERM");
    let at = Instant::now();
    assert_eq!(server.ended().0, Some(0));
    assert!(at.elapsed() < Duration::from_secs(30), "{:?}", at.elapsed());
}

#[test]
fn a_second_signal_ends_at_once() {
    let server = Server::start(&["--drain-delay", "600", "--drain-timeout", "600"]);
    let _running = begun(&server);
    server.signal("TERM");
    until("it is not ready", || server.get("/ready").status == 503);
    server.signal("INT");
    let (code, said) = server.ended();
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_socket_of_the_file_system_is_a_place_to_listen() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flamant.sock");
    let place = format!("unix:{}", path.display());
    // What a server that was killed has left behind.
    drop(UnixListener::bind(&path).unwrap());
    let start = || Server::run(program().args(["serve", "--demo", "--listen", &place, "--socket-mode", "640"]));
    let server = start();
    assert_eq!(server.url, place);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    let ask = || {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: anything\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(ask().starts_with("HTTP/1.1 200 OK\r\n"));
    let status = program().args(["health", "--listen", &place]).status().unwrap();
    assert!(status.success());
    // Another one is not let in, and takes nothing away.
    let output = program().args(["serve", "--demo", "--listen", &place]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.contains("somebody listens there already")), (Some(1), true), "{said}");
    assert!(ask().starts_with("HTTP/1.1 200 OK\r\n"));
    server.end();
    assert!(!path.exists());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    // A file of something else stays.
    std::fs::write(&path, "precious").unwrap();
    let output = program().args(["serve", "--demo", "--listen", &place]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}
