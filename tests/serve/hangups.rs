//! Clients that go away while they send, wait, or read: what they held is free again, and others are answered.

use super::served::{Connection, Server, post, until};

const WRITE: &str = "/v1/completions";

/// A request whose answer is as long as answers get.
fn long(stream: bool) -> String {
    post(WRITE, &format!(r#"{{"prompt": "kep.", "max_tokens": 2000, "ignore_eos": true, "stream": {stream}}}"#))
}

/// Whether nothing is held any more.
fn is_clean(server: &Server) -> bool {
    let names = [
        "flamant_requests_running",
        "flamant_requests_waiting",
        "flamant_body_bytes_in_flight",
        "flamant_text_pages{state=\"held\"}",
        "flamant_media_pages{state=\"held\"}",
    ];
    names.iter().all(|name| server.metric(name) == 0.0) && server.metric("flamant_connections") == 1.0
}

fn asked(server: &Server, request: &str) -> Connection {
    let mut connection = server.connect();
    connection.write(request);
    connection
}

#[test]
fn whoever_hangs_up_cancels() {
    let server = Server::start(&["--max-sequences", "2", "--queue", "100"]);
    let cancelled = || server.metric("flamant_requests_cancelled_total");
    for (round, stream) in [true, false, true].into_iter().enumerate() {
        // Two run, two wait.
        let clients: Vec<Connection> = (0..4).map(|_| asked(&server, &long(stream))).collect();
        until("two run", || server.metric("flamant_requests_running") == 2.0);
        until("two wait", || server.metric("flamant_requests_waiting") == 2.0);
        // One of them only says that it will send nothing more.
        clients[3].stream.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
        drop(clients);
        until("all is free", || is_clean(&server));
        assert_eq!(cancelled(), 4.0 * (round + 1) as f64);
    }
    // While it sends.
    let half = asked(&server, &long(true)[..150]);
    until("it is being read", || server.metric("flamant_body_bytes_in_flight") > 0.0);
    drop(half);
    until("all is free", || is_clean(&server));
    assert_eq!(cancelled(), 13.0);
    // In the middle of a stream, once something has come.
    let mut reading = asked(&server, &long(true));
    let mut line = String::new();
    while !line.starts_with("data: ") {
        line.clear();
        std::io::BufRead::read_line(&mut reading.stream, &mut line).unwrap();
    }
    drop(reading);
    until("all is free", || is_clean(&server));
    let answer = server.post(WRITE, r#"{"prompt": "kep.", "max_tokens": 3}"#);
    assert_eq!(answer.status, 200, "{answer:?}");
    let log = server.end();
    assert_eq!(log.matches("cancelled=true").count(), 14, "{log}");
}

#[test]
fn a_stream_that_the_end_of_a_drain_cuts_says_so() {
    let server = Server::start(&["--drain-timeout", "0"]);
    let mut reading = asked(&server, &long(true));
    until("it runs", || server.metric("flamant_requests_running") == 1.0);
    server.signal("TERM");
    let text = reading.response().text();
    let last = text.trim_end().rsplit("\n\n").next().unwrap();
    assert!(last.starts_with("data: {\"error\":") && last.contains("\"code\":\"draining\""), "{last}");
    assert_eq!(server.ended().0, Some(0));
}

#[test]
fn a_stream_goes_on_to_its_end_while_the_server_drains() {
    let server = Server::start(&[]);
    let mut reading = asked(&server, &long(true));
    until("it runs", || server.metric("flamant_requests_running") == 1.0);
    server.signal("TERM");
    until("connections are refused", || std::net::TcpStream::connect(server.address()).is_err());
    let response = reading.response();
    assert_eq!(response.status, 200);
    assert!(response.text().ends_with("data: [DONE]\n\n"), "{:?}", response.text());
    let (code, said) = server.ended();
    assert_eq!(code, Some(0), "{said}");
}
