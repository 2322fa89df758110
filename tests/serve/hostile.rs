//! Clients that send half of something, too much, nothing, or something else than HTTP.

use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::served::{PATIENCE, Server, until};

const CHAT: &str = "/v1/chat/completions";

#[test]
fn half_a_head_and_an_idle_connection_are_cut() {
    let server = Server::start(&["--header-timeout", "0.5"]);
    let halves = ["", "G", "GET /health HTTP/1.1\r\n", "GET /health HTTP/1.1\r\nhost: localhost\r\nx: "];
    for half in halves {
        let mut connection = server.connect();
        connection.write(half);
        let took = connection.closed();
        assert!(took > Duration::from_millis(300) && took < Duration::from_secs(20), "{half:?}: {took:?}");
    }
    // So is one that has been of use.
    let mut connection = server.connect();
    connection.write("GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert_eq!(connection.response().status, 200);
    connection.closed();
    // A header more now and then does not help.
    let mut slow = server.connect();
    slow.write("GET /health HTTP/1.1\r\n");
    let begun = Instant::now();
    while slow.stream.get_mut().write_all(b"x: 1\r\n").is_ok() {
        std::thread::sleep(Duration::from_millis(50));
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
    until("all are gone", || server.metric("flamant_connections") == 1.0);
}

#[test]
fn heads_are_bounded() {
    let server = Server::start(&[]);
    let headers = |count: usize| {
        let headers: String = (0..count).map(|number| format!("x-{number}: 1\r\n")).collect();
        server.send(format!("GET /health HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n")).status
    };
    assert_eq!([headers(90), headers(200)], [200, 431]);
    let value = |length: usize| {
        let mut connection = server.connect();
        // It may be refused before all of it is sent.
        let long = "x".repeat(length);
        let _ = write!(connection.stream.get_mut(), "GET /health HTTP/1.1\r\nhost: localhost\r\nx: {long}\r\n\r\n");
        connection.response().status
    };
    assert_eq!([value(30_000), value(80_000)], [200, 431]);
    let mut connection = server.connect();
    let _ = write!(connection.stream.get_mut(), "GET /{} HTTP/1.1\r\n", "x".repeat(70_000));
    assert!([414, 431].contains(&connection.response().status));
    assert_eq!(server.get("/health").status, 200);
}

/// Two ways to read a length are how one request is hidden in another.
#[test]
fn bodies_of_two_lengths_are_refused() {
    let server = Server::start(&[]);
    let hidden = "GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for headers in [
        "content-length: 1\r\ncontent-length: 2\r\n",
        "content-length: 1, 2\r\n",
        "content-length: +1\r\n",
        "content-length: -1\r\n",
        "content-length: 0x1\r\n",
        "content-length: \r\n",
        "content-length: 1 1\r\n",
        "content-length: 99999999999999999999999999\r\n",
        "transfer-encoding: gzip\r\n",
        "transfer-encoding: chunked, gzip\r\n",
        "transfer-encoding: xchunked\r\n",
        "content-length : 1\r\n",
        " content-length: 1\r\n",
    ] {
        let mut connection = server.connect();
        let head =
            format!("POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{headers}\r\n");
        connection.write(head + "{" + hidden);
        assert_eq!(connection.response().status, 400, "{headers:?}");
        connection.closed();
    }
    let mut connection = server.connect();
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n");
    connection.write(head.clone() + "content-length: 18446744073709551615\r\n\r\n{");
    assert_eq!(connection.response().status, 431);
    // Of both, the chunks count, and nothing behind them is read, as RFC 9112 has it.
    let mut connection = server.connect();
    let both = "content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n\r\n";
    connection.write(head + both + hidden);
    assert_eq!(connection.response().header("connection"), Some("close"));
    let mut rest = Vec::new();
    connection.stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"");
}

#[test]
fn chunks_that_are_none_are_refused() {
    let server = Server::start(&["--body-timeout", "1"]);
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    for chunks in ["x\r\n", "-1\r\n", "1\r\n{}\r\n", "\r\n\r\n", "1ffffffffffffffff\r\n", "1\n{\n0\n\n", "1 1\r\n{\r\n"]
    {
        let response = server.send(head.clone() + chunks);
        assert!([400, 408].contains(&response.status), "{chunks:?}: {response:?}");
    }
    // Extensions and trailers are read over, as far as they are short.
    let long = format!("1;{}\r\n{{\r\n0\r\n\r\n", "x".repeat(100_000));
    let mut connection = server.connect();
    let _ = connection.stream.get_mut().write_all((head.clone() + &long).as_bytes());
    assert_eq!(connection.response().status, 400);
    let trailers = format!("1\r\n{{\r\n0\r\n{}\r\n", "x: 1\r\n".repeat(100_000));
    let mut connection = server.connect();
    let _ = connection.stream.get_mut().write_all((head + &trailers).as_bytes());
    assert!(connection.response().status >= 400);
    assert_eq!(server.metric("flamant_body_bytes_in_flight"), 0.0);
}

#[test]
fn what_is_no_http_is_no_harm() {
    let server = Server::start(&["--header-timeout", "1"]);
    let mut noise = 7u32;
    let mut byte = || {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (noise >> 24) as u8
    };
    let mut all: Vec<Vec<u8>> = vec![
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"GET /\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"\r\n".repeat(10_000),
        b"GET /\xff\xfe HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec(),
        b"GET /a b HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec(),
        b"GET / HTTP/1.1\r\nhost: localhost\r\nx: a\0b\r\n\r\n".to_vec(),
        b"GET / HTTP/1.1\r\nhost: localhost\r\nx\xff: a\r\n\r\n".to_vec(),
        b"CONNECT evil.example:443 HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec(),
        b"GET * HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec(),
        b"GET nope HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec(),
        b"GET /v1/models/%ff%fe HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec(),
    ];
    all.extend((0..100).map(|_| (0..1 + usize::from(byte())).map(|_| byte()).collect()));
    for sent in &all {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // Whatever it thinks of it, it does not hang.
        let _ = stream.write_all(sent);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let timed_out = read.is_err_and(|error| error.kind() != std::io::ErrorKind::ConnectionReset);
        assert!(!timed_out, "{sent:?}");
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{sent:?}");
        assert!(!answer.starts_with(b"HTTP/1.1 5") && !answer.starts_with(b"HTTP/1.1 2"), "{sent:?}");
    }
    assert_eq!(server.get("/health").status, 200);
    until("all are gone", || server.metric("flamant_connections") == 1.0);
}

#[test]
fn an_old_client_gets_its_answer_and_the_end() {
    let server = Server::start(&[]);
    let mut connection = server.connect();
    connection.write("GET /health HTTP/1.0\r\nhost: localhost\r\n\r\n");
    assert_eq!(connection.response().text(), "{\"status\":\"ok\"}");
    connection.closed();
    let mut connection = server.connect();
    connection.write("GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    assert_eq!(connection.response().status, 200);
    connection.closed();
}

/// Connections that do nothing keep others out only until they are cut.
#[test]
fn ten_thousand_idle_connections_do_not_keep_others_out() {
    const WANTED: usize = 10_000;
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let open =
        limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse().ok());
    let count = WANTED.min(open.unwrap_or(1024usize).saturating_sub(200));
    if count < WANTED {
        eprintln!("{count} connections instead of {WANTED}: the system lets a process have no more files (ulimit -n)");
    }
    let server = Server::start(&["--header-timeout", "5", "--max-connections", &count.to_string()]);
    let idle: Vec<TcpStream> = (0..count).map(|_| TcpStream::connect(server.address()).unwrap()).collect();
    let begun = Instant::now();
    // It waits for a place among them.
    assert_eq!(server.get("/health").status, 200);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(30), "{took:?}");
    until("the idle ones are cut", || server.metric("flamant_connections") == 1.0);
    drop(idle);
    assert_eq!(server.get("/ready").status, 200);
}

#[test]
fn no_more_connections_are_held_than_may_be() {
    let server = Server::start(&["--header-timeout", "1", "--max-connections", "3"]);
    let idle: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(server.address()).unwrap()).collect();
    for _ in 0..5 {
        assert!(server.metric("flamant_connections") <= 3.0);
    }
    drop(idle);
}

#[test]
fn a_system_that_has_no_files_left_is_waited_for() {
    let binary = env!("CARGO_BIN_EXE_flamant");
    let mut command = super::served::program();
    // The shell becomes the program, with as many files as it may have at most.
    let server =
        Server::run(wrapped(&mut command, &format!("ulimit -n 40; exec {binary} serve --demo --listen 127.0.0.1:0")));
    let idle: Vec<TcpStream> = (0..60).map(|_| TcpStream::connect(server.address()).unwrap()).collect();
    std::thread::sleep(Duration::from_millis(500));
    drop(idle);
    assert_eq!(server.get("/health").status, 200);
    let said = server.end();
    assert!(said.contains("connections: Too many open files") && said.contains("; trying again"), "{said}");
}

/// A line of a shell with the environment of a command.
fn wrapped<'a>(command: &'a mut std::process::Command, line: &str) -> &'a mut std::process::Command {
    let mut shell = std::process::Command::new("sh");
    shell.arg("-c").arg(line);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    *command = shell;
    command
}
