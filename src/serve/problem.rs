//! Errors as OpenAI's clients expect them.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde_json::{Value, json};

use crate::error::{Error, ErrorKind};

/// Why a request is not answered.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
    /// The field at fault.
    pub param: Option<String>,
    /// Seconds after which it may be tried again.
    pub retry_after: Option<u64>,
    /// What only the log is told.
    pub detail: Option<String>,
}

/// What the log is told of a problem, beside a response.
#[derive(Debug, Clone)]
pub(super) struct Cause {
    pub code: &'static str,
    pub detail: Option<String>,
}

/// Seconds after which a server that loads, or another in its place, is asked again.
const RETRY_LOADING: u64 = 5;
/// By then it has ended, and may have been started anew.
const RETRY_FAILED: u64 = 15;

impl Problem {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Problem {
        Problem { status, code, message: message.into(), param: None, retry_after: None, detail: None }
    }

    /// A field has a value that it cannot have.
    pub fn invalid(param: &str, message: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "invalid_value", message).param(param)
    }

    /// Something is done already, or wanted too late.
    pub fn deadline() -> Problem {
        Problem::new(StatusCode::GATEWAY_TIMEOUT, "deadline", "the answer was not there in time, and is cancelled")
    }

    /// The client has gone. Nobody reads this; the status, which HTTP does not have, is for the log.
    pub fn gone() -> Problem {
        let status = StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST);
        Problem::new(status, "client_closed", "the client has gone")
    }

    pub fn loading() -> Problem {
        Problem::unavailable("loading", "the model is loading", RETRY_LOADING)
    }

    pub fn draining() -> Problem {
        Problem::unavailable("draining", "the server is about to end", RETRY_LOADING)
    }

    pub fn failed() -> Problem {
        Problem::unavailable("failed", "the engine has failed, and the server is about to end", RETRY_FAILED)
    }

    fn unavailable(code: &'static str, message: &str, seconds: u64) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, message).retry_after(seconds)
    }

    pub fn param(mut self, param: &str) -> Problem {
        self.param = Some(param.to_owned());
        self
    }

    pub fn retry_after(mut self, seconds: u64) -> Problem {
        self.retry_after = Some(seconds);
        self
    }

    pub fn detail(mut self, detail: impl Into<String>) -> Problem {
        self.detail = Some(detail.into());
        self
    }

    fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// As clients read it.
    pub fn json(&self) -> Value {
        json!({"error": {"message": self.message, "type": self.kind(), "param": self.param, "code": self.code}})
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        let message = error.to_string();
        let fault = |code, text: &str| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, code, text);
        match error.kind() {
            ErrorKind::QueueFull => Problem::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", message),
            ErrorKind::Limit => Problem::new(StatusCode::BAD_REQUEST, "limit", message),
            ErrorKind::NotFinite => fault("device", &message),
            // These may name files and addresses of this machine.
            ErrorKind::Device => fault("device", "the device has failed; the server's log says how").detail(message),
            ErrorKind::Internal => {
                fault("internal", "a fault of the server; its log says what happened").detail(message)
            }
            _ => Problem::new(StatusCode::BAD_REQUEST, "invalid_value", message),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.json().to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // OpenAI's clients obey it: what has failed for good is not asked twice more.
        if self.code == "failed" {
            headers.insert(HeaderName::from_static("x-should-retry"), HeaderValue::from_static("false"));
        }
        response.extensions_mut().insert(Cause { code: self.code, detail: self.detail });
        response
    }
}
