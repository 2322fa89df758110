//! A client of `flamant serve` that costs little: bodies are made before, answers are read line by line.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// The program, serving; it ends with this.
pub struct Server {
    child: Child,
    pub address: String,
    /// Held open, since the program writes to it.
    _out: BufReader<ChildStdout>,
}

impl Server {
    /// Starts it on a port of its own; the model in the program without a folder.
    pub fn start(folder: Option<&Path>, arguments: &[&str]) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flamant"));
        command.arg("serve");
        match folder {
            Some(folder) => command.arg(folder),
            None => command.arg("--demo"),
        };
        command.args(["--listen", "127.0.0.1:0", "--log", "off"]).args(arguments).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        out.read_line(&mut line).expect("the program says where it listens");
        let address = line.trim().strip_prefix("listening on http://").expect("it listens").to_owned();
        let server = Server { child, address, _out: out };
        while server.get("/ready").0 != 200 {
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// Status and body of a route.
    pub fn get(&self, path: &str) -> (u16, String) {
        let mut client = Client::connect(&self.address);
        let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address);
        client.stream.write_all(head.as_bytes()).expect("the server reads");
        let status = client.head().expect("the server answers").status;
        let mut body = String::new();
        client.reader.read_to_string(&mut body).expect("the answer is text");
        (status, body)
    }

    /// The sum of a metric over its labels.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").1;
        let of_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
        let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
        let values: Vec<f64> = text.lines().filter(of_it).filter_map(value).collect();
        assert!(!values.is_empty(), "no metric {name}");
        values.iter().sum()
    }

    /// Bytes of memory it holds now.
    pub fn memory(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the program runs");
        let line = text.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux says it");
        line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("a number") << 10
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection that is used again and again.
pub struct Client {
    pub stream: TcpStream,
    reader: BufReader<TcpStream>,
    address: String,
}

/// The beginning of an answer.
struct Head {
    status: u16,
    length: Option<usize>,
}

/// What came of a request.
pub struct Answer {
    pub status: u16,
    /// When the first text came, if one did.
    pub first: Option<Instant>,
}

impl Client {
    pub fn connect(address: &str) -> Client {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_nodelay(true).expect("it is TCP");
        let reader = BufReader::new(stream.try_clone().expect("descriptors are left"));
        Client { stream, reader, address: address.to_owned() }
    }

    /// Sends a body and reads the whole answer; an error where the connection was cut.
    pub fn post(&mut self, path: &str, body: &[u8]) -> std::io::Result<Answer> {
        self.send(path, body)?;
        self.answer()
    }

    /// Sends a request.
    pub fn send(&mut self, path: &str, body: &[u8]) -> std::io::Result<()> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        self.stream.write_all(head.as_bytes())?;
        self.stream.write_all(body)
    }

    /// Reads an answer: of so many bytes, or in chunks, of which each is one event of a stream.
    fn answer(&mut self) -> std::io::Result<Answer> {
        let head = self.head()?;
        if let Some(length) = head.length {
            std::io::copy(&mut (&mut self.reader).take(length as u64), &mut std::io::sink())?;
            return Ok(Answer { status: head.status, first: None });
        }
        let (mut first, mut line, mut chunk) = (None, String::new(), Vec::new());
        loop {
            line.clear();
            self.reader.read_line(&mut line)?;
            let length = usize::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
            chunk.resize(length + 2, 0);
            self.reader.read_exact(&mut chunk)?;
            if length == 0 {
                return Ok(Answer { status: head.status, first });
            }
            first = first.or_else(|| chunk.starts_with(b"data: {").then(Instant::now));
        }
    }

    fn head(&mut self) -> std::io::Result<Head> {
        let mut head = Head { status: 0, length: None };
        let mut line = String::new();
        loop {
            line.clear();
            if self.reader.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let text = line.trim_end().to_ascii_lowercase();
            if let Some(rest) = text.strip_prefix("http/1.1 ") {
                head.status = rest.split(' ').next().and_then(|status| status.parse().ok()).unwrap_or(0);
            } else if let Some(length) = text.strip_prefix("content-length: ") {
                head.length = length.parse().ok();
            } else if text.is_empty() {
                return Ok(head);
            }
        }
    }

    /// Goes away without a word.
    pub fn hang_up(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}
