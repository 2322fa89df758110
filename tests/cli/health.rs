//! `flamant health`, against servers that answer well, badly, or not at all.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// Asks; the exit code, and what it said.
fn asked(address: &str, flags: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flamant"));
    let output = command.args(["health", "--listen", address]).args(flags).output().unwrap();
    assert!(output.stdout.is_empty());
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// A server of one connection: its address, and what it was asked.
fn server(answer: impl FnOnce(TcpStream) + Send + 'static) -> (String, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let asked = head(&mut stream);
        answer(stream);
        asked
    });
    (address, thread)
}

/// Reads the head of a request.
fn head(stream: &mut impl std::io::Read) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

#[test]
fn a_server_is_asked_once() {
    for (flags, path) in [(&[][..], "/health"), (&["--ready"][..], "/ready")] {
        let (address, server) = server(|mut stream| stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap());
        assert_eq!(asked(&address, flags), (Some(0), String::new()));
        assert!(server.join().unwrap().starts_with(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n")));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        head(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    });
    assert_eq!(asked(&format!("unix:{}", path.display()), &[]), (Some(0), String::new()));
    server.join().unwrap();
}

#[test]
fn what_is_not_well_is_told_in_one_line() {
    let refused = |answer: &'static [u8]| {
        let (address, _) = server(move |mut stream| {
            // What is not read is lost, as the client may have left.
            let _ = stream.write_all(answer);
        });
        let (code, told) = asked(&address, &[]);
        assert_eq!((code, told.lines().count()), (Some(1), 1), "{told}");
        assert!(told.len() < 2000);
        told.replace(&address, "HERE")
    };
    let expected = "flamant: HERE: answer to GET /health: expected status 200, found ";
    assert_eq!(refused(b"HTTP/1.1 503 Unavailable\r\n\r\n"), format!("{expected}\"HTTP/1.1 503 Unavailable\"\n"));
    assert_eq!(refused(b""), format!("{expected}\"\"\n"));
    assert!(refused(&[b'\x1b'; 100_000]).starts_with(expected));

    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (code, told) = asked(&nobody, &[]);
    assert_eq!((code, told.lines().count()), (Some(1), 1), "{told}");
    assert!(told.contains("refused"), "{told}");
    let (code, told) = asked("unix:/nowhere/socket", &[]);
    assert_eq!(code, Some(1));
    assert!(told.starts_with("flamant: unix:/nowhere/socket: "), "{told}");
}

/// Neither silence nor an answer that comes drop by drop takes longer than was allowed.
#[test]
fn an_answer_that_does_not_come_is_not_waited_for() {
    let silent = |mut stream: TcpStream| drop(stream.read(&mut [0]));
    let slow = |mut stream: TcpStream| {
        while stream.write_all(b"H").is_ok() {
            thread::sleep(Duration::from_millis(100));
        }
    };
    for (address, server) in [server(silent), server(slow)] {
        let begun = Instant::now();
        let (code, told) = asked(&address, &["--timeout", "1"]);
        assert_eq!(code, Some(1));
        assert!(told.contains("timed out"), "{told}");
        assert!(begun.elapsed() >= Duration::from_secs(1));
        server.join().unwrap();
    }
}
