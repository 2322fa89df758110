//! What a server is told, and what bounds it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::family::ChatTemplate;
use crate::setters::setters;

/// What a server is told, and what bounds it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settings {
    /// What the model is called; none: the name of its folder.
    pub name: Option<String>,
    /// How turns become prompts; none: as the model's family has it.
    pub chat_template: Option<ChatTemplate>,
    /// Whoever has one of them may use all routes; without any, everybody may.
    pub api_keys: Keys,
    /// What requests may call this server in `Host`, without ports; none: anything. It keeps pages of other sites from
    /// a server on this machine, whatever their names resolve to.
    pub hosts: Option<Vec<String>>,
    /// Pages of these origins may send requests, from browsers.
    pub cors_origins: Vec<String>,
    /// Requests that wait, beside those that run; more are refused before they are read.
    pub queue: usize,
    /// Most bytes of a request's body.
    pub body_max: u64,
    /// Most bytes of all bodies that are read or waiting to be understood.
    pub inflight_bytes_max: u64,
    /// Most images of a request, those of videos counted one by one.
    pub images_max: usize,
    /// Most pixels of an image.
    pub pixels_max: u64,
    /// Connections at a time; others wait to be taken.
    pub connections_max: usize,
    /// For the head of a request to come, and for the next request on a connection.
    pub header_timeout: Duration,
    /// For a body to come.
    pub body_timeout: Duration,
    /// For a client to take something of an answer.
    pub write_timeout: Duration,
    /// For a request to be answered, from when it was read.
    pub request_timeout: Duration,
    /// Between saying not to be ready and taking no connection any more, when it ends.
    pub drain_delay: Duration,
    /// For requests to be answered, when it ends.
    pub drain_timeout: Duration,
    /// Whether video files may be read, by the program `ffmpeg`.
    pub allow_ffmpeg: bool,
    /// Whether prompts share what was computed with those of the same key alone.
    pub salt_by_key: bool,
    /// Whether fields that are not known are passed over.
    pub lenient: bool,
    /// Whether there is a page for browsers at `/`.
    pub page: bool,
    /// How requests are told of on standard error.
    pub log: Log,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            name: None,
            chat_template: None,
            api_keys: Keys::default(),
            hosts: None,
            cors_origins: Vec::new(),
            queue: 256,
            body_max: 64 << 20,
            inflight_bytes_max: 1 << 30,
            images_max: 64,
            pixels_max: 64 << 20,
            connections_max: 1024,
            header_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(600),
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(30),
            allow_ffmpeg: false,
            salt_by_key: false,
            lenient: false,
            page: true,
            log: Log::Off,
        }
    }
}

setters!(Settings {
    name: Option<String>,
    chat_template: Option<ChatTemplate>,
    api_keys: Keys,
    hosts: Option<Vec<String>>,
    cors_origins: Vec<String>,
    queue: usize,
    body_max: u64,
    inflight_bytes_max: u64,
    images_max: usize,
    pixels_max: u64,
    connections_max: usize,
    header_timeout: Duration,
    body_timeout: Duration,
    write_timeout: Duration,
    request_timeout: Duration,
    drain_delay: Duration,
    drain_timeout: Duration,
    allow_ffmpeg: bool,
    salt_by_key: bool,
    lenient: bool,
    page: bool,
    log: Log,
});

/// Longest name of a model, in bytes.
const NAME_MAX: usize = 256;
const QUEUE_MAX: usize = 1 << 20;
const BYTES_MAX: u64 = 1 << 40;
const SECONDS_MAX: u64 = 24 * 3600;

impl Settings {
    /// What a loopback address is called.
    pub const LOOPBACK_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

    /// Whether every setting is in its range.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) with the setting, what it may be and what it is.
    pub fn check(&self) -> Result<()> {
        let number = |name: &str, found: u64, least: u64, most: u64| match (least..=most).contains(&found) {
            true => Ok(()),
            false => Err(Error::argument(format!("{name}: expected {least} to {most}, found {found}"))),
        };
        number("queue", self.queue as u64, 0, QUEUE_MAX as u64)?;
        number("max-body", self.body_max, 1, BYTES_MAX)?;
        number("max-inflight-bytes", self.inflight_bytes_max, self.body_max, BYTES_MAX)?;
        number("max-images", self.images_max as u64, 0, 1 << 20)?;
        number("max-pixels", self.pixels_max, 1, 1 << 32)?;
        number("max-connections", self.connections_max as u64, 1, QUEUE_MAX as u64)?;
        let waits = [
            ("header-timeout", self.header_timeout, 1),
            ("body-timeout", self.body_timeout, 1),
            ("write-timeout", self.write_timeout, 1),
            ("request-timeout", self.request_timeout, 1),
            ("drain-delay", self.drain_delay, 0),
            ("drain-timeout", self.drain_timeout, 0),
        ];
        for (name, found, least) in waits {
            if !(Duration::from_millis(least)..=Duration::from_secs(SECONDS_MAX)).contains(&found) {
                let least = least as f64 / 1000.0;
                let found = found.as_secs_f64();
                let message = format!("{name}: expected {least} to {SECONDS_MAX} seconds, found {found}");
                return Err(Error::argument(message));
            }
        }
        if let Some(name) = &self.name {
            let usable = (1..=NAME_MAX).contains(&name.len()) && !name.contains(char::is_control);
            usable.then_some(()).ok_or_else(|| {
                Error::argument(format!(
                    "name: expected 1 to {NAME_MAX} bytes without control characters, found {name:?}"
                ))
            })?;
        }
        self.cors_origins.iter().try_for_each(|origin| check_origin(origin))
    }
}

/// As browsers write it: a scheme, a host, perhaps a port, and nothing behind.
fn check_origin(origin: &str) -> Result<()> {
    let rest = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    let host = rest.is_some_and(|host| {
        !host.is_empty() && host.chars().all(|sign| sign.is_ascii_alphanumeric() || "-._~:[]".contains(sign))
    });
    match host {
        true => Ok(()),
        false => Err(Error::argument(format!("cors-origin: expected http(s)://host[:port], found {origin:?}"))),
    }
}

/// Secrets that let requests in. They are kept as hashes, which are compared in constant time.
#[derive(Clone, Default)]
pub struct Keys {
    hashes: Vec<blake3::Hash>,
}

impl Keys {
    /// Longest key, in bytes.
    const KEY_MAX: usize = 4096;

    /// One key a line; empty lines do not count.
    ///
    /// # Errors
    /// No key at all; one that no request could send.
    pub fn from_lines(name: &str, text: &str) -> Result<Keys> {
        let mut hashes = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let key = line.trim();
            if key.is_empty() {
                continue;
            }
            if key.len() > Keys::KEY_MAX || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
                let expected = format!("a key of at most {} visible ASCII characters", Keys::KEY_MAX);
                // The line itself is a secret.
                return Err(Error::invalid(name, format!("line {}", number + 1), expected, "something else"));
            }
            hashes.push(blake3::hash(key.as_bytes()));
        }
        match hashes.is_empty() {
            false => Ok(Keys { hashes }),
            true => Err(Error::invalid(name, "keys", "one a line", "none")),
        }
    }

    /// These and others.
    pub fn and(mut self, others: Keys) -> Keys {
        self.hashes.extend(others.hashes);
        self
    }

    /// Whether nobody needs a key.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The hash of a key, if it is one of them.
    pub(super) fn find(&self, key: &[u8]) -> Option<blake3::Hash> {
        let hash = blake3::hash(key);
        // All are looked at: time tells nothing of which it was.
        let found = self.hashes.iter().fold(false, |found, known| found | (*known == hash));
        found.then_some(hash)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} keys", self.hashes.len())
    }
}

/// How requests are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Log {
    /// Not at all.
    #[default]
    Off,
    /// A line each, for people.
    Text,
    /// A line of JSON each.
    Json,
}

impl FromStr for Log {
    type Err = Error;

    fn from_str(text: &str) -> Result<Log> {
        match text {
            "off" => Ok(Log::Off),
            "text" => Ok(Log::Text),
            "json" => Ok(Log::Json),
            _ => Err(Error::argument(format!("expected text, json or off, found {text:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let said = |settings: Settings| settings.check().unwrap_err().to_string();
        Settings::default().check().unwrap();
        assert_eq!(said(Settings::default().body_max(0)), "max-body: expected 1 to 1099511627776, found 0");
        assert!(
            said(Settings::default().inflight_bytes_max(5)).starts_with("max-inflight-bytes: expected 67108864 to")
        );
        let found = said(Settings::default().body_timeout(Duration::ZERO));
        assert_eq!(found, "body-timeout: expected 0.001 to 86400 seconds, found 0");
        for origin in ["*", "null", "example.org", "http://", "https://a/", "http://a b"] {
            let found = said(Settings::default().cors_origins(vec![origin.to_owned()]));
            assert_eq!(found, format!("cors-origin: expected http(s)://host[:port], found {origin:?}"));
        }
        Settings::default()
            .cors_origins(vec!["https://example.org:8443".into(), "http://[::1]:3000".into()])
            .check()
            .unwrap();
        assert!(said(Settings::default().name(Some(String::new()))).starts_with("name: expected 1 to 256 bytes"));
    }

    #[test]
    fn keys_are_lines_and_never_shown() {
        let keys = Keys::from_lines("keys.txt", "one\n\n  two \r\n").unwrap();
        assert_eq!(keys.find(b"two"), Some(blake3::hash(b"two")));
        assert!(keys.find(b"one").is_some() && keys.find(b"three").is_none() && keys.find(b"").is_none());
        assert_eq!(format!("{keys:?}"), "2 keys");
        let error = Keys::from_lines("keys.txt", "one\nt\u{fc}r secret").unwrap_err().to_string();
        assert!(error.starts_with("keys.txt: line 2: expected a key of") && !error.contains("secret"), "{error}");
        assert_eq!(
            Keys::from_lines("keys.txt", " \n").unwrap_err().to_string(),
            "keys.txt: keys: expected one a line, found none"
        );
    }
}
