//! `flamant serve`: an OpenAI-compatible server.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::input::{DeviceArguments, LimitArguments, ModelOrDemo};
use super::{Outcome, Run, output};
use crate::error::Error;
use crate::files;
use crate::serve::{App, Keys, Listener, Log, Settings, listen};
use crate::{AsyncEngine, ChatTemplate};

/// Serve a model over HTTP, to clients of OpenAI's and one's browser
#[derive(Args)]
#[command(
    next_help_heading = "Server",
    after_help = "\
Every flag of Server, Access and Bounds has a variable, FLAMANT_SERVE_ and its name: FLAMANT_SERVE_LISTEN.

Examples:
  flamant serve --demo
  flamant serve idefics-9b-instruct --device cuda
  flamant serve idefics-9b-instruct --listen 0.0.0.0:8080 --api-key-file keys.txt
  flamant serve idefics-9b-instruct --listen unix:/run/flamant.sock --socket-mode 660"
)]
pub struct Serve {
    #[command(flatten)]
    model: ModelOrDemo,
    /// What requests call the model; the name of its folder, if not given
    #[arg(long, value_name = "NAME", env = "FLAMANT_SERVE_NAME")]
    name: Option<String>,
    /// How turns are written, in place of the family's way: a template's name (idefics, idefics-instruct, openflamingo,
    /// mllama, otter, flamingo-mini, demo, raw), or a JSON file of its texts
    #[arg(long, value_name = "FILE|NAME", env = "FLAMANT_SERVE_CHAT_TEMPLATE")]
    chat_template: Option<String>,
    #[command(flatten)]
    door: DoorArguments,
    #[command(flatten)]
    bounds: BoundArguments,
    /// Read video files with the program ffmpeg (FLAMANT_FFMPEG names it); animated GIF and WebP need none
    #[arg(long, env = "FLAMANT_SERVE_ALLOW_FFMPEG")]
    allow_ffmpeg: bool,
    /// Let prompts share what was computed with those of the same key alone
    #[arg(long, env = "FLAMANT_SERVE_SALT_BY_KEY")]
    salt_by_key: bool,
    /// Pass over fields of requests that are not known, instead of refusing them
    #[arg(long, env = "FLAMANT_SERVE_LENIENT")]
    lenient: bool,
    /// No page for browsers at /
    #[arg(long, env = "FLAMANT_SERVE_NO_PAGE")]
    no_page: bool,
    /// A line for each request on standard error: text, json or off
    #[arg(long, value_name = "FORM", default_value = "text", env = "FLAMANT_SERVE_LOG", value_parser = |text: &str| text.parse::<Log>())]
    log: Log,
    #[command(flatten)]
    device: DeviceArguments,
    #[command(flatten)]
    limits: LimitArguments,
}

/// Who may come in, and where.
#[derive(Args)]
struct DoorArguments {
    /// Where to listen: HOST:PORT (port 0 is any that is free), or unix:PATH
    #[arg(help_heading = "Access", long, default_value = "127.0.0.1:8080", env = "FLAMANT_SERVE_LISTEN")]
    listen: String,
    /// Who may connect to unix:PATH, in octal
    #[arg(help_heading = "Access", long, value_name = "MODE", default_value = "600", env = "FLAMANT_SERVE_SOCKET_MODE", value_parser = mode)]
    socket_mode: u32,
    /// Keys that let requests in, one a line; those in FLAMANT_API_KEY do, too
    #[arg(help_heading = "Access", long, value_name = "FILE", env = "FLAMANT_SERVE_API_KEY_FILE")]
    api_key_file: Option<PathBuf>,
    /// Listen without a key where other machines reach it
    #[arg(help_heading = "Access", long, env = "FLAMANT_SERVE_NO_KEY")]
    no_key: bool,
    /// What requests may call this server besides localhost, without port; on a loopback address, and where it is
    /// given, other names are refused; repeat, or separate by commas
    #[arg(help_heading = "Access", long, value_name = "HOST", value_delimiter = ',', env = "FLAMANT_SERVE_ALLOW_HOST")]
    allow_host: Vec<String>,
    /// Pages of this origin may send requests from browsers; repeat, or separate by commas
    #[arg(
        help_heading = "Access",
        long,
        value_name = "ORIGIN",
        value_delimiter = ',',
        env = "FLAMANT_SERVE_CORS_ORIGIN"
    )]
    cors_origin: Vec<String>,
}

fn mode(text: &str) -> Result<u32, String> {
    let found = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    found.ok_or_else(|| "expected 0 to 777 in octal".to_owned())
}

/// What bounds requests.
#[derive(Args)]
struct BoundArguments {
    /// Requests that wait, beside those that run; more are answered by 429
    #[arg(help_heading = "Bounds", long, value_name = "N", default_value_t = Settings::default().queue, env = "FLAMANT_SERVE_QUEUE")]
    queue: usize,
    /// Bytes of a request
    #[arg(help_heading = "Bounds", long, value_name = "SIZE", default_value = "64MiB", env = "FLAMANT_SERVE_MAX_BODY", value_parser = bytes)]
    max_body: u64,
    /// Bytes of all requests that are being read
    #[arg(help_heading = "Bounds", long, value_name = "SIZE", default_value = "1GiB", env = "FLAMANT_SERVE_MAX_INFLIGHT_BYTES", value_parser = bytes)]
    max_inflight_bytes: u64,
    /// Connections at a time
    #[arg(help_heading = "Bounds", long, value_name = "N", default_value_t = Settings::default().connections_max, env = "FLAMANT_SERVE_MAX_CONNECTIONS")]
    max_connections: usize,
    /// Images of a request, frames of videos included
    #[arg(help_heading = "Bounds", long, value_name = "N", default_value_t = Settings::default().images_max, env = "FLAMANT_SERVE_MAX_IMAGES")]
    max_images: usize,
    /// Pixels of an image; four times as many of all images of a request
    #[arg(help_heading = "Bounds", long, value_name = "N", default_value_t = Settings::default().pixels_max, env = "FLAMANT_SERVE_MAX_PIXELS")]
    max_pixels: u64,
    /// For the head of a request to come, or the next one on a connection
    #[arg(help_heading = "Bounds", long, value_name = "SECONDS", default_value = "75", env = "FLAMANT_SERVE_HEADER_TIMEOUT", value_parser = seconds)]
    header_timeout: Duration,
    /// For the body of a request to come
    #[arg(help_heading = "Bounds", long, value_name = "SECONDS", default_value = "30", env = "FLAMANT_SERVE_BODY_TIMEOUT", value_parser = seconds)]
    body_timeout: Duration,
    /// For a client to take something of its answer
    #[arg(help_heading = "Bounds", long, value_name = "SECONDS", default_value = "30", env = "FLAMANT_SERVE_WRITE_TIMEOUT", value_parser = seconds)]
    write_timeout: Duration,
    /// For an answer, unless a request wants it earlier
    #[arg(help_heading = "Bounds", long, value_name = "SECONDS", default_value = "600", env = "FLAMANT_SERVE_REQUEST_TIMEOUT", value_parser = seconds)]
    request_timeout: Duration,
    /// After SIGTERM, still take connections for so long
    #[arg(help_heading = "Bounds", long, value_name = "SECONDS", default_value = "0", env = "FLAMANT_SERVE_DRAIN_DELAY", value_parser = seconds)]
    drain_delay: Duration,
    /// Then, for requests to be answered
    #[arg(help_heading = "Bounds", long, value_name = "SECONDS", default_value = "30", env = "FLAMANT_SERVE_DRAIN_TIMEOUT", value_parser = seconds)]
    drain_timeout: Duration,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let found = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    found.ok_or_else(|| "expected seconds, such as 30 or 0.5".to_owned())
}

/// A number of bytes, perhaps with a unit.
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|sign: char| !sign.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "" | "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    let found = unit.and_then(|unit: u64| digits.parse::<u64>().ok()?.checked_mul(unit));
    found.ok_or_else(|| "expected bytes, such as 1000, 64MiB or 1GiB".to_owned())
}

/// Bytes of a file of keys.
const KEY_FILE_MAX: u64 = 1 << 20;
/// Requests of the engine for each that is inside: several prompts, answers or questions are one each.
const QUEUE_FACTOR: usize = 8;

impl Serve {
    fn settings(&self) -> Result<Settings, Error> {
        let (door, bounds) = (&self.door, &self.bounds);
        Ok(Settings::default()
            .name(self.name.clone())
            .chat_template(self.chat_template.as_deref().map(ChatTemplate::open).transpose()?)
            .api_keys(door.keys()?)
            .cors_origins(door.cors_origin.clone())
            .queue(bounds.queue)
            .body_max(bounds.max_body)
            .inflight_bytes_max(bounds.max_inflight_bytes.max(bounds.max_body))
            .images_max(bounds.max_images)
            .pixels_max(bounds.max_pixels)
            .connections_max(bounds.max_connections)
            .header_timeout(bounds.header_timeout)
            .body_timeout(bounds.body_timeout)
            .write_timeout(bounds.write_timeout)
            .request_timeout(bounds.request_timeout)
            .drain_delay(bounds.drain_delay)
            .drain_timeout(bounds.drain_timeout)
            .allow_ffmpeg(self.allow_ffmpeg)
            .salt_by_key(self.salt_by_key)
            .lenient(self.lenient)
            .page(!self.no_page)
            .log(self.log))
    }
}

impl DoorArguments {
    /// Keys of the file, and of the environment.
    fn keys(&self) -> Result<Keys, Error> {
        const NAME: &str = "FLAMANT_API_KEY";
        let mut keys = Keys::default();
        if let Some(file) = &self.api_key_file {
            let bytes = files::read_input(file, KEY_FILE_MAX)?;
            let text = String::from_utf8(bytes)
                .map_err(|error| Error::malformed(file, "keys", "UTF-8", error.utf8_error()))?;
            keys = keys.and(Keys::from_lines(&file.to_string_lossy(), &text)?);
        }
        match std::env::var(NAME) {
            Ok(text) if !text.is_empty() => Ok(keys.and(Keys::from_lines(NAME, &text)?)),
            _ => Ok(keys),
        }
    }

    /// What requests may call it. Only pages in browsers of this machine are kept out by that, so where other machines
    /// come it is asked only if names were given.
    fn hosts(&self, listener: &Listener) -> Option<Vec<String>> {
        let wanted = listener.is_loopback() || !self.allow_host.is_empty();
        let loopback = Settings::LOOPBACK_HOSTS.into_iter().map(str::to_owned);
        wanted.then(|| loopback.chain(self.allow_host.iter().cloned()).collect())
    }
}

impl Run for Serve {
    fn check(&self) -> Result<(), Error> {
        self.device.check(self.limits.limits())?;
        self.settings()?.check()
    }

    fn run(self) -> Outcome {
        let settings = self.settings()?;
        let listener = Listener::bind(&self.door.listen, self.door.socket_mode)?;
        if !listener.is_local() && settings.api_keys.is_empty() && !self.door.no_key {
            return Err(Error::argument(format!(
                "listen: other machines reach {}: expected --api-key-file, FLAMANT_API_KEY or --no-key, found none",
                self.door.listen
            ))
            .into());
        }
        let hosts = self.door.hosts(&listener);
        let app = App::loading(settings.hosts(hosts))?;
        let url = listener.url()?;
        let opening = app.clone();
        // What it can be asked while the model is read: how it is.
        std::thread::spawn(move || match self.open() {
            Ok(engine) => opening.open(engine),
            Err(error) => opening.fail(error),
        });
        listen(listener, &app, || {
            let mut out = output()?;
            writeln!(out, "listening on {url}")?;
            Ok(out.flush()?)
        })
    }
}

impl Serve {
    fn open(&self) -> Result<AsyncEngine, Error> {
        let inside = self.bounds.queue.saturating_add(self.limits.limits().max_sequences);
        let engine = self.device.engine(&self.limits, |options| {
            let limits = options.limits.clone();
            let queue = limits.queue.max(inside.saturating_mul(QUEUE_FACTOR));
            self.model.engine_with(&options.clone().limits(limits.queue(queue)))
        })?;
        AsyncEngine::new(engine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(
            ["7", "7B", "2KiB", "64MiB", "1GiB"].map(|text| bytes(text).unwrap()),
            [7, 7, 2048, 64 << 20, 1 << 30]
        );
        for text in ["", "MiB", "1.5GiB", "1 GiB", "1GB", "99999999999GiB", "-1"] {
            assert_eq!(bytes(text).unwrap_err(), "expected bytes, such as 1000, 64MiB or 1GiB", "{text}");
        }
        assert_eq!(seconds("0.5").unwrap(), Duration::from_millis(500));
        assert!(["", "-1", "nan", "1e300", "1s"].iter().all(|text| seconds(text).is_err()));
        assert_eq!(mode("660"), Ok(0o660));
        assert!(["8", "1777", ""].iter().all(|text| mode(text).is_err()));
    }
}
