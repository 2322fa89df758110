//! Who may come in: keys, hosts, pages of other origins.

use super::served::{Server, error, program};

#[test]
fn a_key_is_asked_for_everywhere_but_at_routes_that_say_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    std::fs::write(&file, "first-key\n\n second-key\n").unwrap();
    let server = Server::start(&["--api-key-file", file.to_str().unwrap()]);
    let get =
        |path: &str, headers: &str| server.send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n"));
    for path in ["/health", "/ready", "/v2/health/live", "/v2/health/ready"] {
        assert_eq!(get(path, "").status, 200, "{path}");
    }
    let refused = error(401, "authentication_error", "invalid_api_key");
    let all = [
        "/metrics",
        "/version",
        "/info",
        "/openapi.json",
        "/v1/models",
        "/v1/models/demo",
        "/nope",
        "/health/",
        "/%68ealth",
        "//health",
        "/v2/health/live/x",
        "/invocations",
    ];
    for path in all {
        let response = get(path, "");
        assert_eq!(response.error(), refused, "{path}");
        assert_eq!(response.header("www-authenticate"), Some("Bearer"));
    }
    let wrong = [
        "authorization: Bearer wrong-key\r\n",
        "authorization: Bearer\r\n",
        "authorization: Bearer first-key, second-key\r\n",
        "authorization: Basic first-key\r\n",
        "authorization: first-key\r\n",
        "x-api-key: first-key\r\n",
        "authorization: Bearer first-ke\r\n",
        "authorization: Bearer first-key\u{e9}\r\n",
        "authorization: Bearer \r\n",
    ];
    for headers in wrong {
        assert_eq!(get("/v1/models", headers).error(), refused, "{headers}");
    }
    for key in ["first-key", "second-key"] {
        assert_eq!(get("/v1/models", &format!("authorization: Bearer {key}\r\n")).status, 200, "{key}");
    }
    // Before anything else is looked at.
    let post =
        server.send("POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 999999999999\r\n\r\n");
    assert_eq!(post.error(), refused);
    let metrics = get("/metrics", "authorization: bearer first-key\r\n").text();
    let count = all.len() + wrong.len() + 1;
    assert!(metrics.contains(&format!("flamant_requests_rejected_total{{reason=\"auth\"}} {count}\n")), "{metrics}");
    let log = server.end();
    let name = &blake3::hash(b"second-key").to_hex()[..4];
    assert!(log.contains(&format!(" key={name}")) && !log.contains("second-key"), "{log}");
}

#[test]
fn keys_come_from_the_environment_too() {
    let mut command = program();
    let server =
        Server::run(command.args(["serve", "--demo", "--listen", "127.0.0.1:0"]).env("FLAMANT_API_KEY", "a\nb"));
    let of = |key: &str| {
        server.send(format!("GET /info HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n\r\n")).status
    };
    assert_eq!(["a", "b", "ab", "c"].map(of), [200, 200, 401, 401]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "c\n").unwrap();
    let mut command = program();
    command.args(["serve", "--demo", "--listen", "127.0.0.1:0", "--api-key-file"]).arg(file.path());
    let both = Server::run(command.env("FLAMANT_API_KEY", "a"));
    let of = |key: &str| {
        both.send(format!("GET /info HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n\r\n")).status
    };
    assert_eq!(["a", "b", "c"].map(of), [200, 401, 200]);
}

#[test]
fn other_machines_are_let_in_with_a_key_or_when_one_says_so() {
    let refused = |arguments: &[&str]| {
        let output = program().args(["serve", "--demo"]).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = refused(&["--listen", "0.0.0.0:0"]);
    let expected = "flamant: listen: other machines reach 0.0.0.0:0: expected --api-key-file, FLAMANT_API_KEY or --no-key, \
                    found none\n";
    assert_eq!((code, said.as_str()), (Some(1), expected));
    let server = Server::run(program().args(["serve", "--demo", "--listen", "0.0.0.0:0", "--no-key"]));
    // No name of it is known.
    assert_eq!(server.send("GET /info HTTP/1.1\r\nhost: example.org\r\n\r\n").status, 200);
    let (code, said) = refused(&["--listen", "127.0.0.1:0", "--api-key-file", "no/such/file"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("no/such/file: No such file"), "{said}");
}

#[test]
fn a_loopback_address_answers_to_its_own_names() {
    let server = Server::start(&["--allow-host", "example.org,[fe80::1]"]);
    let host = |host: &str| server.send(format!("GET /version HTTP/1.1\r\nhost: {host}\r\n\r\n"));
    for name in ["localhost", "LocalHost:8080", "127.0.0.1:1", "[::1]", "[::1]:9", "example.org:80", "[fe80::1]:80"] {
        assert_eq!(host(name).status, 200, "{name}");
    }
    let refused = error(403, "permission_error", "host_not_allowed");
    for name in ["evil.example", "localhost.evil.example", "localhost:80:80", "127.0.0.1.nip.io", "", "@localhost"] {
        assert_eq!(host(name).error(), refused, "{name}");
    }
    assert_eq!(
        host("evil.example").message(),
        "host: expected localhost, 127.0.0.1, [::1], example.org, [fe80::1] \
                                                (--allow-host), found \"evil.example\""
    );
    let sent = |text: &str| server.send(text).status;
    assert_eq!(sent("GET /version HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n\r\n"), 403);
    // The whole target of a proxy's request says it, too.
    assert_eq!(sent("GET http://evil.example/version HTTP/1.1\r\nhost: localhost\r\n\r\n"), 403);
    assert_eq!(sent("GET http://localhost/version HTTP/1.1\r\nhost: localhost\r\n\r\n"), 200);
    // Programs of old; no browser sends this.
    assert_eq!(sent("GET /version HTTP/1.0\r\n\r\n"), 200);
    assert_eq!(sent("GET /version HTTP/1.1\r\n\r\n"), 403);
    // A cluster's probes call it by an address.
    for probe in ["/health", "/ready", "/v2/health/live", "/v2/health/ready"] {
        assert_eq!(sent(&format!("GET {probe} HTTP/1.1\r\nhost: 10.1.2.3:8080\r\n\r\n")), 200, "{probe}");
    }
    assert_eq!(server.metric("flamant_requests_rejected_total{reason=\"host\"}"), 10.0);
}

#[test]
fn pages_of_other_origins_may_send_nothing_unless_they_are_named() {
    let preflight = |origin: &str, method: &str| {
        format!(
            "OPTIONS /v1/models HTTP/1.1\r\nhost: localhost\r\norigin: {origin}\r\n\
             access-control-request-method: {method}\r\naccess-control-request-headers: authorization\r\n\r\n"
        )
    };
    let get = |origin: &str| format!("GET /nope HTTP/1.1\r\nhost: localhost\r\norigin: {origin}\r\n\r\n");
    let silent = Server::start(&[]);
    let response = silent.send(preflight("https://a.example", "POST"));
    assert_eq!(response.status, 405);
    assert!(response.header("access-control-allow-origin").is_none() && response.header("vary").is_none());
    let server = Server::start(&["--cors-origin", "https://a.example", "--cors-origin", "http://b.example:3000"]);
    for origin in ["https://a.example", "http://b.example:3000"] {
        let response = server.send(preflight(origin, "POST"));
        assert_eq!((response.status, response.header("access-control-allow-origin")), (204, Some(origin)));
        assert_eq!(response.header("access-control-allow-methods"), Some("GET, POST"));
        let allowed = response.header("access-control-allow-headers");
        assert_eq!(allowed, Some("authorization, content-type, x-request-id"));
        assert!(response.header("access-control-allow-credentials").is_none());
        // Errors are for pages to read, too.
        let response = server.send(get(origin));
        assert_eq!((response.status, response.header("access-control-allow-origin")), (404, Some(origin)));
        assert!(response.header("access-control-expose-headers").unwrap().contains("x-request-id"));
        assert_eq!(response.header("vary"), Some("origin"));
    }
    for origin in ["http://a.example", "https://a.example.evil", "null", "https://A.example"] {
        let response = server.send(preflight(origin, "POST"));
        assert_eq!((response.status, response.header("access-control-allow-origin")), (405, None), "{origin}");
        assert_eq!(server.send(get(origin)).header("access-control-allow-origin"), None, "{origin}");
    }
}
