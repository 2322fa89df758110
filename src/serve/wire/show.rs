//! `POST /v1/render`, `/v1/tokenize` and `/v1/detokenize`: prompts as the model reads them. Nothing is computed.

use axum::response::Response;
use serde_json::{Value, json};

use super::body::{Body, invalid, of_prompt, over};
use super::parts::{self, Either};
use super::running::respond;
use super::sampling::timeout;
use crate::image::Image;
use crate::kv::MediaSeen;
use crate::serve::call::{Call, Given};
use crate::serve::problem::Problem;

/// Bytes of a text that is made tokens of, and tokens that text is made of.
const TEXT_BYTES_MAX: usize = 1 << 20;
const TOKENS_MAX: usize = 1 << 18;

/// `POST /v1/render`
pub async fn render(mut call: Call) -> Result<Response, Problem> {
    call.prepare(rendered).await.map(|answer| respond(&answer))
}

pub fn rendered(given: &Given) -> Result<Value, Problem> {
    let mut body = Body::read(&given.body)?;
    body.model(given)?;
    // Of whoever asks for the same prompt to be answered.
    body.salt(given)?;
    timeout(&mut body)?;
    let (prompt, prefix_key, key) = match parts::either(body, given)? {
        Either::Prompt(prompt) => {
            let prefix_key = prompt.prefix_key();
            (prompt, prefix_key, "prompt")
        }
        Either::Chat(chat, template) => {
            let prefix_key = chat.prefix_key();
            (parts::asked(chat, &template, "messages")?.prompt, prefix_key, "messages")
        }
    };
    let preparer = given.engine.preparer();
    let tokenizer = preparer.tokenizer();
    let read = prompt.render(tokenizer).map_err(|error| of_prompt(key, error))?;
    let images = prompt.media().map(|frames| {
        let sides = frames.first().map_or((0, 0), |frame: &Image| (frame.width(), frame.height()));
        match frames.len() {
            1 => json!({"width": sides.0, "height": sides.1}),
            count => json!({"width": sides.0, "height": sides.1, "frames": count}),
        }
    });
    Ok(json!({
        "text": read.text,
        "token_ids": read.ids,
        "tokens": read.ids.iter().map(|&id| tokenizer.token(id)).collect::<Vec<_>>(),
        "sees": read.media.iter().take(read.ids.len()).map(seen).collect::<Vec<_>>(),
        "images": images.collect::<Vec<_>>(),
        "prefix_key": prefix_key,
        "max_model_len": preparer.context_max(),
        "model": given.server.id(),
    }))
}

/// The image that a token sees, or all of them where it sees a group.
fn seen(media: &MediaSeen) -> Value {
    match media.images {
        0 => Value::Null,
        1 => media.first.into(),
        count => (media.first..media.first + count).collect::<Vec<_>>().into(),
    }
}

/// `POST /v1/tokenize`
pub async fn tokenize(mut call: Call) -> Result<Response, Problem> {
    call.prepare(tokens).await.map(|answer| respond(&answer))
}

pub fn tokens(given: &Given) -> Result<Value, Problem> {
    let mut body = Body::read(&given.body)?;
    body.model(given)?;
    let text = body.text("text", TEXT_BYTES_MAX)?;
    let adds = body.take("add_special_tokens", "true or false")?.unwrap_or(true);
    body.end(given)?;
    let text = text.ok_or_else(|| invalid("text", "a string", "none"))?;
    let tokenizer = given.engine.preparer().tokenizer();
    let ids = if adds { tokenizer.encode(&text) } else { tokenizer.encode_continuation(&text) };
    let ids = ids.map_err(|error| of_prompt("text", error))?;
    let (count, most) = (ids.len(), given.engine.preparer().context_max());
    Ok(json!({"tokens": ids, "count": count, "max_model_len": most}))
}

/// `POST /v1/detokenize`
pub async fn detokenize(mut call: Call) -> Result<Response, Problem> {
    call.prepare(text).await.map(|answer| respond(&answer))
}

pub fn text(given: &Given) -> Result<Value, Problem> {
    let mut body = Body::read(&given.body)?;
    body.model(given)?;
    let ids = body.take::<Vec<u32>>("tokens", "an array of tokens, whole numbers")?;
    body.end(given)?;
    let ids = ids.ok_or_else(|| invalid("tokens", "an array of tokens", "none"))?;
    if ids.len() > TOKENS_MAX {
        return Err(over("tokens", "tokens", TOKENS_MAX, ids.len()));
    }
    let preparer = given.engine.preparer();
    let most = preparer.config().decoder.vocabulary;
    if let Some(id) = ids.iter().find(|id| **id as usize >= most) {
        return Err(invalid("tokens", &format!("tokens below {most}"), &id.to_string()));
    }
    Ok(json!({"text": preparer.tokenizer().decode(&ids)}))
}
