//! `GET /`: the page for browsers, one file that loads nothing.

use axum::http::{HeaderName, header};
use axum::response::IntoResponse;

const PAGE: &str = include_str!("page.html");

/// Runs the page's own script and no other, and speaks to this server alone. The hash is that of the text between
/// `<script>` and `</script>`.
const POLICY: &str = "default-src 'none'; script-src 'sha256-aUbont48UDs8CT8unmhMtxk00zqMrqbGIDyxRM6svno='; \
    style-src 'unsafe-inline'; img-src data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// `GET /`.
pub(super) async fn page() -> impl IntoResponse {
    let headers: [(HeaderName, &str); 5] = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // Another version of the program has another page.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, PAGE)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use sha2::Digest as _;

    use super::{PAGE, POLICY};

    #[test]
    fn the_policy_allows_the_script_of_the_page_alone() {
        let scripts: Vec<&str> = PAGE.split("<script").skip(1).collect();
        assert_eq!(scripts.len(), 1, "the page has one script");
        let (script, _) = scripts[0].strip_prefix('>').unwrap().split_once("</script>").unwrap();
        let expected = format!("script-src 'sha256-{}';", STANDARD.encode(sha2::Sha256::digest(script)));
        assert!(POLICY.contains(&expected), "src/serve/page.rs: POLICY: expected {expected} there");
    }

    #[test]
    fn the_page_is_small_and_loads_nothing() {
        assert!(PAGE.len() < 60_000, "{} bytes", PAGE.len());
        let markup = PAGE.split_once("<script>").unwrap().0.replace("http://www.w3.org/2000/svg", "");
        for word in [" src=", " onclick=", "@import", "url(", "http:", "https:", "rel=\"stylesheet\""] {
            assert!(!markup.contains(word), "{word:?}");
        }
    }
}
