//! `POST /v1/chat/completions` and `POST /v1/completions`: answers that are written, whole or as they come.

use axum::response::Response;

use super::running::respond;
use super::sampling::Kind;
use super::sse::Sse;
use super::writing::Writing;
use crate::serve::call::Call;
use crate::serve::problem::Problem;

/// `POST /v1/chat/completions`
pub async fn chat(call: Call) -> Result<Response, Problem> {
    answer(call, Kind::Chat).await
}

/// `POST /v1/completions`
pub async fn completions(call: Call) -> Result<Response, Problem> {
    answer(call, Kind::Text).await
}

async fn answer(mut call: Call, kind: Kind) -> Result<Response, Problem> {
    let (writing, running) = call.prepare(move |given| Writing::prepare(given, kind)).await?;
    call.within(writing.wanted.timeout)?;
    if let Some(stream) = writing.wanted.stream {
        return Ok(Sse::new(writing, stream, running, call).respond());
    }
    Ok(respond(&writing.whole(running.ends(&mut call).await?)))
}
