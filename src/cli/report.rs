//! Answers as JSON: what `--json` prints and what `flamant batch` writes.

use flamant::{Answer, Choice, Classification, Finish, Score, Timings, Tokenizer, Usage};
use serde_json::{Value, json};

/// What `flamant generate` says.
pub fn answer(answer: &Answer) -> Value {
    json!({
        "text": answer.text,
        "token_ids": answer.ids,
        "logprobs": answer.logprobs,
        "finish_reason": match answer.finish {
            Finish::Stop => "stop",
            Finish::Length => "length",
        },
        "usage": usage(&answer.usage),
        "timings": timings(&answer.timings),
    })
}

/// What `flamant classify` says.
pub fn classification(classification: &Classification, mean: bool) -> Value {
    let ranked = ranked(&classification.choices, mean);
    let choices = ranked.iter().map(|(choice, share)| {
        json!({
            "choice": choice.text, "token_ids": choice.ids,
            "sum": choice.sum, "mean": choice.mean, "probability": share,
        })
    });
    json!({
        "choice": ranked[0].0.text,
        "choices": choices.collect::<Vec<_>>(),
        "usage": usage(&classification.usage),
        "timings": timings(&classification.timings),
    })
}

/// What `flamant score` says.
pub fn score(score: &Score, tokenizer: &Tokenizer) -> Value {
    json!({
        "token_ids": score.ids,
        "tokens": score.ids.iter().map(|&id| tokenizer.token(id)).collect::<Vec<_>>(),
        "logprobs": score.logprobs,
        "usage": usage(&score.usage),
        "timings": timings(&score.timings),
    })
}

/// Choices, the likeliest first, by the sum over an answer's tokens or by their mean; each with its share of the
/// likelihood of all.
pub fn ranked(choices: &[Choice], mean: bool) -> Vec<(&Choice, f64)> {
    let rank = |choice: &Choice| if mean { choice.mean } else { choice.sum };
    let mut order: Vec<&Choice> = choices.iter().collect();
    order.sort_by(|a, b| rank(b).total_cmp(&rank(a)));
    let best = rank(order[0]);
    let total: f64 = order.iter().map(|choice| (rank(choice) - best).exp()).sum();
    order.into_iter().map(|choice| (choice, (rank(choice) - best).exp() / total)).collect()
}

fn usage(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "completion_tokens": usage.completion_tokens,
        "images": usage.images,
        "images_encoded": usage.images_encoded,
    })
}

fn timings(timings: &Timings) -> Value {
    json!({
        "queue_seconds": timings.queue,
        "media_seconds": timings.media,
        "prompt_seconds": timings.prompt,
        "decode_seconds": timings.decode,
    })
}
