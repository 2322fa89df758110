//! Who may ask for what: hosts, origins of pages, keys. It stands before all routes.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::Server;
use super::log::Record;
use super::problem::Problem;

/// Routes that ask for no key: nothing in them is anybody's. All others do, those that do not exist included.
const OPEN: [&str; 5] = ["/", PROBES[0], PROBES[1], PROBES[2], PROBES[3]];

/// Routes that say how the server is to whoever asks, by whatever name: a cluster's probes call it by an address.
const PROBES: [&str; 4] = ["/health", "/ready", "/v2/health/live", "/v2/health/ready"];

/// Characters of a key's hash that name it.
const KEY_NAME: usize = 4;

/// The hash of the key that a request came with.
#[derive(Clone, Copy)]
pub(super) struct Key(pub blake3::Hash);

/// Lets a request pass, answers a browser that asks whether it may send one, or refuses.
pub(super) async fn guard(State(server): State<Arc<Server>>, mut request: Request, next: Next) -> Response {
    let origin = allowed_origin(&server, request.headers());
    let mut response = match check(&server, &request) {
        Err(problem) => problem.into_response(),
        Ok(()) if origin.is_some() && is_preflight(&request) => preflight(),
        Ok(()) => match authorize(&server, &mut request) {
            Err(problem) => problem.into_response(),
            Ok(()) => next.run(request).await,
        },
    };
    if !server.settings.cors_origins.is_empty() {
        let headers = response.headers_mut();
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers
                .insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("x-request-id, retry-after"));
        }
    }
    response
}

/// Whether the server goes by the name that it is called. A page whose own name was made to resolve to this machine
/// (DNS rebinding) would call it by that.
fn check(server: &Server, request: &Request) -> Result<(), Problem> {
    let Some(allowed) = server.settings.hosts.as_ref().filter(|_| !PROBES.contains(&request.uri().path())) else {
        return Ok(());
    };
    let named: Vec<&str> = request
        .headers()
        .get_all(header::HOST)
        .iter()
        .map(|host| host.to_str().unwrap_or("?"))
        .chain(request.uri().authority().map(|authority| authority.as_str()))
        .collect();
    // No browser is that old, and some probes are.
    if named.is_empty() && request.version() == Version::HTTP_10 {
        return Ok(());
    }
    let is_allowed = |host: &&str| allowed.iter().any(|name| name.eq_ignore_ascii_case(without_port(host)));
    match named.iter().find(|host| !is_allowed(host)) {
        None if !named.is_empty() => Ok(()),
        refused => {
            let found =
                refused.map_or("none".to_owned(), |host| format!("{:?}", host.chars().take(100).collect::<String>()));
            let message = format!("host: expected {} (--allow-host), found {found}", allowed.join(", "));
            Err(Problem::new(StatusCode::FORBIDDEN, "host_not_allowed", message))
        }
    }
}

/// A host as `Host` has it, without the port behind it.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// The origin of the page that sends a request, if pages there may.
fn allowed_origin(server: &Server, headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    server.settings.cors_origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()).then(|| origin.clone())
}

fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

fn preflight() -> Response {
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type, x-request-id"),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

fn authorize(server: &Server, request: &mut Request) -> Result<(), Problem> {
    let keys = &server.settings.api_keys;
    if keys.is_empty() {
        return Ok(());
    }
    let given = request.headers().get(header::AUTHORIZATION).and_then(bearer).and_then(|key| keys.find(key));
    if let Some(hash) = given {
        if let Some(record) = request.extensions().get::<Arc<Record>>() {
            record.key(&hash.to_hex()[..KEY_NAME]);
        }
        request.extensions_mut().insert(Key(hash));
        return Ok(());
    }
    match OPEN.contains(&request.uri().path()) {
        true => Ok(()),
        false => {
            let message = "authorization: expected \"Bearer\" and one of the server's keys";
            Err(Problem::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message))
        }
    }
}

/// The token of `Authorization: Bearer TOKEN`.
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_no_part_of_a_name() {
        let found = ["localhost:80", "[::1]:8080", "[::1]", "a", "a:", "a:b"].map(without_port);
        assert_eq!(found, ["localhost", "[::1]", "[::1]", "a", "a", "a:b"]);
    }

    #[test]
    fn a_token_follows_its_scheme() {
        let of = |text: &'static str| bearer(&HeaderValue::from_static(text)).map(<[u8]>::to_vec);
        assert_eq!(of("bearer  a "), Some(b"a".to_vec()));
        assert_eq!(of("BEARER a"), Some(b"a".to_vec()));
        assert_eq!([of("Basic abc"), of("Bearer"), of("")], [None, None, None]);
    }
}
