//! A client of the plainest kind: a socket, one request on it, all of the answer.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::LazyLock;
use std::time::Duration;

use flamant::serve::{App, Listener, Settings, listen};
use flamant::{AsyncEngine, Engine, Options};
use serde_json::Value;

/// An answer.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// What each event of a stream says.
    pub fn events(&self) -> Vec<&str> {
        assert!(self.head.contains("content-type: text/event-stream"), "{}", self.head);
        let lines = self.body.split("\n\n").filter(|event| !event.is_empty() && !event.starts_with(':'));
        lines.map(|event| event.strip_prefix("data: ").unwrap_or_else(|| panic!("{event:?}"))).collect()
    }
}

/// A server on a thread of its own, until the process ends.
pub fn serve(settings: Settings) -> SocketAddr {
    let engine = AsyncEngine::new(Engine::demo(&Options::default()).unwrap()).unwrap();
    let app = App::new(engine, settings).unwrap();
    let listener = Listener::bind("127.0.0.1:0", 0o600).unwrap();
    let address = listener.url().unwrap().strip_prefix("http://").unwrap().parse().unwrap();
    std::thread::spawn(move || listen(listener, &app, || flamant::Result::Ok(())).unwrap());
    address
}

/// The server that tests share who change nothing of it.
pub fn shared() -> SocketAddr {
    static SHARED: LazyLock<SocketAddr> = LazyLock::new(|| serve(Settings::default()));
    *SHARED
}

/// Posts JSON, or what is to be taken for it.
pub fn post_to(address: SocketAddr, path: &str, body: &[u8]) -> Answer {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).unwrap();
    // A server that refuses a request need not read all of it.
    let _ = socket.write_all(body);
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).unwrap();
    let at = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or_else(|| panic!("no head: {bytes:?}"));
    let head = String::from_utf8(bytes[..at].to_vec()).unwrap().to_ascii_lowercase();
    let status = head[9..12].parse().unwrap();
    let mut body = bytes.split_off(at + 4);
    if head.contains("transfer-encoding: chunked") {
        body = unchunked(&body);
    }
    Answer { status, head, body: String::from_utf8(body).unwrap() }
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let at = bytes.windows(2).position(|two| two == b"\r\n").expect("a chunk has a length");
        let length = usize::from_str_radix(std::str::from_utf8(&bytes[..at]).unwrap(), 16).unwrap();
        if length == 0 {
            return whole;
        }
        whole.extend_from_slice(&bytes[at + 2..][..length]);
        bytes = &bytes[at + 2 + length + 2..];
    }
}

pub fn post(path: &str, body: &Value) -> Answer {
    post_to(shared(), path, body.to_string().as_bytes())
}

/// The answer to a request that is right.
pub fn asked(path: &str, body: &Value) -> Value {
    let answer = post(path, body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

/// The chunks of a stream, which has come to its end.
pub fn streamed(path: &str, body: &Value) -> Vec<Value> {
    let answer = post(path, body);
    let mut events = answer.events();
    assert_eq!(events.pop(), Some("[DONE]"));
    events.into_iter().map(|event| serde_json::from_str(event).unwrap()).collect()
}

/// What is said of a request that is refused: status, code and message.
pub fn refused(path: &str, body: &[u8]) -> (u16, String, Value) {
    let answer = post_to(shared(), path, body);
    let error = answer.json()["error"].take();
    assert!(error["message"].is_string() && answer.body.len() < 2000, "{}", answer.body);
    assert_eq!(error["type"], "invalid_request_error", "{error}");
    (answer.status, error["code"].as_str().unwrap().to_owned(), error)
}
