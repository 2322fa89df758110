//! What is refused before it is read: bodies by kind, size, number and time.

use std::time::{Duration, Instant};

use super::served::{Connection, Server, error, post, until};

const CHAT: &str = "/v1/chat/completions";

fn head(headers: &str) -> String {
    format!("POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{headers}\r\n")
}

/// A request that holds its place: of a body of so many bytes, the first comes.
fn half_sent(server: &Server, length: usize) -> Connection {
    let mut connection = server.connect();
    connection.write(head(&format!("content-length: {length}\r\n")) + "{");
    connection
}

#[test]
fn only_json_is_read() {
    let server = Server::start(&[]);
    let with = |headers: &str| {
        server.send(format!("POST {CHAT} HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: 2\r\n\r\n{{}}"))
    };
    let refused = error(415, "invalid_request_error", "unsupported_media_type");
    for headers in [
        "",
        "content-type: text/plain\r\n",
        "content-type: application/x-www-form-urlencoded\r\n",
        "content-type: application/jsonp\r\n",
        "content-type: text/plain; application/json\r\n",
        "content-type: \u{e9}\r\n",
        "content-type: application/json\r\ncontent-encoding: gzip\r\n",
        "content-type: application/json\r\ntransfer-encoding: gzip, chunked\r\n",
    ] {
        assert_eq!(with(headers).error(), refused, "{headers}");
    }
    assert_eq!(
        with("content-type: text/plain\r\n").message(),
        "content-type: expected application/json, found \"text/plain\""
    );
    // What was not read would stand where the next request begins.
    assert_eq!(with("content-type: text/plain\r\n").header("connection"), Some("close"));
    for headers in [
        "content-type: application/json\r\n",
        "content-type: Application/JSON; charset=utf-8\r\n",
        "content-type: application/json\r\ncontent-encoding: identity\r\n",
    ] {
        assert_ne!(with(headers).status, 415, "{headers}");
    }
}

#[test]
fn a_body_is_not_larger_than_it_may_be() {
    let server = Server::start(&["--max-body", "1000"]);
    let refused = error(413, "invalid_request_error", "body_too_large");
    // Said beforehand, nothing of it is read.
    for length in ["1001", "99999999", "18446744073709551000"] {
        let begun = Instant::now();
        assert_eq!(server.send(head(&format!("content-length: {length}\r\n"))).error(), refused, "{length}");
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
    assert_eq!(
        server.send(head("content-length: 1001\r\n")).message(),
        "body: expected at most 1000 bytes, found 1001"
    );
    // Sent nevertheless, the answer still arrives.
    let mut connection = server.connect();
    connection.write(head("content-length: 4000000\r\n"));
    let _ = std::io::Write::write_all(connection.stream.get_mut(), &vec![b'x'; 4_000_000]);
    assert_eq!(connection.response().error(), refused);
    // Not said beforehand, as much is read as may be.
    let chunk = |length: usize| format!("{length:x}\r\n{}\r\n", "x".repeat(length));
    let chunked = |chunks: &str| server.send(head("transfer-encoding: chunked\r\n") + chunks);
    assert_eq!(chunked(&(chunk(600) + &chunk(401))).error(), refused);
    assert_eq!(chunked(&chunk(1).repeat(1001)).error(), refused);
    assert_ne!(chunked(&(chunk(1000) + "0\r\n\r\n")).status, 413);
    assert_ne!(server.post(CHAT, &format!("\"{}\"", "x".repeat(998))).status, 413);
    assert_eq!(server.metric("flamant_body_bytes_in_flight"), 0.0);
}

#[test]
fn a_place_is_taken_before_the_body_is_read() {
    let server = Server::start(&["--queue", "1", "--max-sequences", "1"]);
    let held = [half_sent(&server, 100), half_sent(&server, 100)];
    until("both have places", || server.metric("flamant_body_bytes_in_flight") == 200.0);
    let response = server.send(head("content-length: 50000000\r\n"));
    assert_eq!(response.error(), error(429, "rate_limit_error", "queue_full"));
    let seconds: u64 = response.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds));
    assert_eq!(server.metric("flamant_requests_rejected_total{reason=\"queue_full\"}"), 1.0);
    // Routes that compute nothing are not in line.
    assert_eq!(server.get("/ready").status, 200);
    drop(held);
    until("places are back", || server.post(CHAT, "{").status != 429);
    until("nobody is inside", || server.metric("flamant_body_bytes_in_flight") == 0.0);
    assert!(server.metric("flamant_requests_cancelled_total") >= 2.0);
}

#[test]
fn bytes_of_all_bodies_are_bounded() {
    let server = Server::start(&["--max-body", "1MiB", "--max-inflight-bytes", "1MiB"]);
    let first = half_sent(&server, 600_000);
    until("its bytes are counted", || server.metric("flamant_body_bytes_in_flight") == 600_000.0);
    let full = error(429, "rate_limit_error", "bytes_full");
    let response = server.send(head("content-length: 500000\r\n"));
    assert_eq!(response.error(), full);
    assert!(response.header("retry-after").is_some());
    let chunk = format!("7a120\r\n{}\r\n", "x".repeat(500_000));
    assert_eq!(server.send(head("transfer-encoding: chunked\r\n") + &chunk).error(), full);
    assert_ne!(server.send(head("content-length: 9\r\n") + "{\"a\": 1}}").status, 429);
    drop(first);
    until("bytes are back", || server.metric("flamant_body_bytes_in_flight") == 0.0);
    assert_ne!(server.post(CHAT, &" ".repeat(500_000)).status, 429);
}

#[test]
fn a_body_comes_in_time() {
    let server = Server::start(&["--body-timeout", "0.5"]);
    let late = error(408, "invalid_request_error", "body_timeout");
    let mut half = half_sent(&server, 100);
    assert_eq!(half.response().error(), late);
    half.closed();
    // A little now and then does not help.
    let mut slow = half_sent(&server, 100);
    slow.stream.get_mut().set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let begun = Instant::now();
    while slow.stream.get_ref().peek(&mut [0]).is_err() {
        let _ = std::io::Write::write_all(slow.stream.get_mut(), b" ");
        std::thread::sleep(Duration::from_millis(50));
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
    slow.stream.get_mut().set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(slow.response().error(), late);
    assert_eq!(server.metric("flamant_requests_rejected_total{reason=\"timeout\"}"), 2.0);
    assert_eq!(server.metric("flamant_body_bytes_in_flight"), 0.0);
}

#[test]
fn a_client_may_ask_before_it_sends() {
    let server = Server::start(&["--max-body", "1000"]);
    let mut connection = server.connect();
    connection.write(head("expect: 100-continue\r\ncontent-length: 1\r\n"));
    assert_eq!(connection.response().status, 100);
    connection.write("{");
    assert_ne!(connection.response().status, 100);
    // What would be refused is not asked for.
    let refused = server.send(head("expect: 100-continue\r\ncontent-length: 5000\r\n"));
    assert_eq!(refused.status, 413);
}

/// The checks have an order; the first that fails answers.
#[test]
fn checks_have_an_order() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    std::fs::write(&file, "k").unwrap();
    let arguments =
        ["--api-key-file", file.to_str().unwrap(), "--max-body", "1000", "--queue", "0", "--max-sequences", "1"];
    let server = Server::start(&arguments);
    let of = |host: &str, key: &str, kind: &str, length: u64| {
        let key = format!("authorization: Bearer {key}\r\n");
        let rest = format!("content-type: {kind}\r\ncontent-length: {length}\r\n\r\n");
        server.send(format!("POST {CHAT} HTTP/1.1\r\nhost: {host}\r\n{key}{rest}")).error().2
    };
    let mut held = server.connect();
    held.write(head("authorization: Bearer k\r\ncontent-length: 100\r\n"));
    let metrics = "GET /metrics HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer k\r\n\r\n";
    until("the only place is taken", || server.send(metrics).text().contains("\nflamant_body_bytes_in_flight 100\n"));
    assert_eq!(of("localhost", "k", "application/json", 10), "queue_full");
    assert_eq!(of("evil", "x", "text/plain", 5000), "host_not_allowed");
    assert_eq!(of("localhost", "x", "text/plain", 5000), "invalid_api_key");
    assert_eq!(of("localhost", "k", "text/plain", 5000), "unsupported_media_type");
    assert_eq!(of("localhost", "k", "application/json", 5000), "body_too_large");
}

#[test]
fn one_byte_at_a_time_is_a_request_too() {
    let server = Server::start(&[]);
    let mut connection = server.connect();
    for byte in post(CHAT, "{\"a\": 1}").bytes() {
        connection.write([byte]);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(connection.response().header("content-type"), Some("application/json"));
}
