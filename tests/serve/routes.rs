//! Routes that compute nothing, and what every response has.

use std::time::Duration;

use serde_json::json;

use super::served::{Server, error, post, program};

#[test]
fn the_server_says_what_it_is() {
    let server = Server::start(&["--name", "me", "--queue", "7", "--max-body", "1MiB", "--max-sequences", "3"]);
    for path in ["/health", "/ready", "/v2/health/live", "/v2/health/ready"] {
        assert_eq!(server.get(path).json(), json!({"status": "ok"}));
    }
    let models = server.get("/v1/models").json();
    let model = &models["data"][0];
    assert_eq!(
        (&models["object"], &model["id"], &model["owned_by"]),
        (&json!("list"), &json!("me"), &json!("flamant"))
    );
    assert_eq!(server.get("/v1/models/me").json(), *model);
    assert_eq!(server.get("/v1/models/other").error(), error(404, "invalid_request_error", "model_not_found"));
    assert_eq!(server.get("/v1/models/other").message(), "model: expected \"me\", found \"other\"");
    let info = server.get("/info").json();
    let limits = &info["limits"];
    assert_eq!((&info["model"], &info["device"], &info["dtype"]), (&json!("me"), &json!("cpu"), &json!("f32")));
    assert_eq!(info["kv_dtype"], "auto");
    assert_eq!(
        [&limits["queue"], &limits["sequences"], &limits["body_bytes"]],
        [&json!(7), &json!(3), &json!(1 << 20)]
    );
    assert_eq!(limits["context"], model["max_model_len"]);
    assert_eq!(server.get("/version").json()["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn what_is_not_there_is_said_in_the_form_of_errors() {
    let server = Server::start(&[]);
    for path in
        ["/nope", "/v1", "/v1/models/", "/health/", "/HEALTH", "/v1/chat/completions/x", "/../etc/passwd", "/%00"]
    {
        assert_eq!(server.get(path).error(), error(404, "invalid_request_error", "not_found"), "{path}");
    }
    let send = |method: &str, path: &str| {
        server.send(format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n"))
    };
    for (method, path, allowed) in [
        ("POST", "/health", "GET,HEAD"),
        ("DELETE", "/v1/models", "GET,HEAD"),
        ("OPTIONS", "/info", "GET,HEAD"),
        ("GET", "/v1/chat/completions", "POST"),
        ("PUT", "/v1/chat/completions", "POST"),
        ("TRACE", "/v1/chat/completions", "POST"),
        ("BREW", "/health", "GET,HEAD"),
    ] {
        let response = send(method, path);
        assert_eq!(response.error(), error(405, "invalid_request_error", "method_not_allowed"), "{method} {path}");
        assert_eq!(response.header("allow"), Some(allowed), "{method} {path}");
    }
    let mut connection = server.connect();
    for (path, status) in [("/health", 200), ("/nope", 404), ("/v1/chat/completions", 405)] {
        connection.write(format!("HEAD {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"));
        let response = connection.response_to("HEAD");
        assert_eq!(response.status, status, "{path}");
    }
    assert_eq!(server.metric("flamant_requests_total{endpoint=\"other\",status=\"404\"}"), 9.0);
    assert_eq!(server.metric("flamant_requests_cancelled_total"), 0.0);
}

#[test]
fn every_response_has_the_id_of_its_request() {
    let server = Server::start(&["--log", "json"]);
    let id = |path: &str, given: &str| {
        let response = server.send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nx-request-id: {given}\r\n\r\n"));
        response.header("x-request-id").unwrap().to_owned()
    };
    for path in ["/health", "/nope", "/v1/models"] {
        assert_eq!(id(path, "mine-1"), "mine-1", "{path}");
    }
    let long = "a".repeat(129);
    for given in ["", "a b", "a\u{e9}", &long] {
        let made = id("/health", given);
        assert!(made.starts_with("req-") && made != id("/health", given), "{given:?}: {made}");
    }
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    server.send(format!(
        "GET /v1/models?secret=1 HTTP/1.1\r\nhost: localhost\r\nx-request-id: traced\r\n\
         traceparent: 00-{trace}-00f067aa0ba902b7-01\r\n\r\n"
    ));
    let log = server.end();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let line = lines.iter().find(|line| line["id"] == "traced").unwrap();
    assert_eq!((&line["trace"], &line["path"], &line["status"]), (&json!(trace), &json!("/v1/models"), &json!(200)));
    assert_eq!(lines.iter().filter(|line| line["path"] == "/health").count(), 0, "probes that are well: {log}");
    assert_eq!(lines.iter().filter(|line| line["code"] == "not_found").count(), 1, "{log}");
}

#[test]
fn the_log_can_be_off() {
    let server = Server::start(&["--log", "off"]);
    server.get("/nope");
    server.post("/v1/chat/completions", "{");
    assert_eq!(server.end(), "");
}

#[test]
fn metrics_are_prometheus_text() {
    let server = Server::start(&[]);
    server.get("/nope");
    let response = server.get("/metrics");
    assert_eq!(response.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = response.text();
    let mut kinds = std::collections::BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(kinds.insert(name, kind).is_none(), "{name} twice");
        } else if !line.starts_with("# HELP ") {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            value.parse::<f64>().unwrap();
            let name = sample.split('{').next().unwrap();
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let known = kinds.contains_key(name) || base.is_some_and(|base| kinds.get(base) == Some(&"histogram"));
            assert!(known, "{line}");
        }
    }
    for name in [
        "requests_running",
        "requests_waiting",
        "requests_total",
        "requests_rejected_total",
        "requests_cancelled_total",
        "prompt_tokens_total",
        "cached_tokens_total",
        "generation_tokens_total",
        "images_total",
        "images_encoded_total",
        "preemptions_total",
        "steps_total",
        "text_pages",
        "media_pages",
        "kv_cache_usage_ratio",
        "time_to_first_token_seconds",
        "inter_token_seconds",
        "queue_seconds",
        "request_seconds",
        "connections",
        "body_bytes_in_flight",
        "build_info",
    ] {
        assert!(kinds.contains_key(format!("flamant_{name}").as_str()), "{name}");
    }
    let build = format!(
        "flamant_build_info{{version=\"{}\",device=\"cpu\",dtype=\"f32\",model=\"demo\"}} 1",
        env!("CARGO_PKG_VERSION")
    );
    assert!(text.contains(&build), "{text}");
}

#[test]
fn flags_have_variables_of_the_environment() {
    let mut command = program();
    command.args(["serve", "--demo"]);
    for (name, value) in [
        ("LISTEN", "127.0.0.1:0"),
        ("NAME", "named"),
        ("QUEUE", "5"),
        ("MAX_BODY", "2KiB"),
        ("MAX_IMAGES", "4"),
        ("CORS_ORIGIN", "https://a.example,https://b.example"),
        ("REQUEST_TIMEOUT", "1.5"),
        ("LOG", "off"),
    ] {
        command.env(format!("FLAMANT_SERVE_{name}"), value);
    }
    let server = Server::run(&mut command);
    let info = server.get("/info").json();
    assert_eq!((&info["model"], &info["limits"]["queue"]), (&json!("named"), &json!(5)));
    assert_eq!([&info["limits"]["body_bytes"], &info["limits"]["images"]], [&json!(2048), &json!(4)]);
    assert_eq!(info["limits"]["request_seconds"], json!(1.5));
    let cors = server.send("GET /info HTTP/1.1\r\nhost: localhost\r\norigin: https://b.example\r\n\r\n");
    assert_eq!(cors.header("access-control-allow-origin"), Some("https://b.example"));
}

#[test]
fn settings_that_cannot_be_are_a_matter_of_usage() {
    for (arguments, expected) in [
        (&["--queue", "x"][..], "invalid value 'x' for '--queue <N>'"),
        (&["--max-body", "1GB"], "expected bytes, such as 1000, 64MiB or 1GiB"),
        (&["--max-body", "0"], "max-body: expected 1 to"),
        (&["--header-timeout=-1"], "expected seconds, such as 30 or 0.5"),
        (&["--header-timeout", "0"], "header-timeout: expected 0.001 to 86400 seconds, found 0"),
        (&["--cors-origin", "*"], "cors-origin: expected http(s)://host[:port], found \"*\""),
        (&["--max-sequences", "0"], "max-sequences: expected 1 to 1024, found 0"),
        (&["--log", "xml"], "expected text, json or off, found \"xml\""),
        (&["--socket-mode", "999"], "expected 0 to 777 in octal"),
        (&["--name", ""], "name: expected 1 to 256 bytes"),
    ] {
        let output = program().args(["serve", "--demo"]).args(arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
    let taken = Server::start(&[]);
    let output = program().args(["serve", "--demo", "--listen", taken.address()]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("Address already in use"), "{said}");
}

#[test]
fn a_model_that_cannot_be_opened_ends_the_server() {
    let mut command = program();
    let output = command.args(["serve", "no/such/model", "--listen", "127.0.0.1:0"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("flamant: no/such/model"), "{said}");
}

#[test]
fn health_asks_a_server() {
    let server = Server::start(&[]);
    let health = |address: &str| {
        program().args(["health", "--ready", "--timeout", "2", "--listen", address]).output().unwrap().status.code()
    };
    assert_eq!(health(server.address()), Some(0));
    let address = server.address().to_owned();
    server.end();
    assert_eq!(health(&address), Some(1));
}

#[test]
fn requests_may_follow_each_other_and_overtake_nobody() {
    let server = Server::start(&[]);
    let mut connection = server.connect();
    let begun = std::time::Instant::now();
    for _ in 0..50 {
        connection.write("GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n");
        assert_eq!(connection.response().status, 200);
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "a delay of the network for each");
    // All at once, one after the other.
    let paths = ["/health", "/nope", "/version", "/v1/models", "/info"];
    let all: String = paths.iter().map(|path| format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")).collect();
    connection.write(all + &post("/v1/chat/completions", "{") + "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let statuses: Vec<u16> = paths.iter().map(|_| connection.response().status).collect();
    assert_eq!(statuses, [200, 404, 200, 200, 200]);
    assert_ne!(connection.response().status, 200);
    assert_eq!(connection.response().status, 200);
}
