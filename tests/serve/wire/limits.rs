//! Limits of each field, by name and number; and what a stream says of an error.

use flamant::serve::Settings;
use serde_json::{Value, json};

use super::super::client::{post, post_to, refused, serve};
use super::drawing;

fn limit(path: &str, body: &Value, code: &str, mention: &str) {
    let (status, found, error) = refused(path, body.to_string().as_bytes());
    let message = error["message"].as_str().unwrap();
    assert!(status == 400 && found == code && message.contains(mention), "{mention}: {error}");
}

#[test]
fn numbers_of_things_are_limited() {
    let completions = "/v1/completions";
    let many = |count: usize| vec!["a"; count];
    limit(
        completions,
        &json!({"prompt": "a", "n": 17}),
        "invalid_value",
        "n: expected a number from 1 to 16, found 17",
    );
    limit(completions, &json!({"prompt": "a", "stop": many(17)}), "limit", "stop: expected at most 16 texts, found 17");
    limit(completions, &json!({"prompt": "a", "logprobs": 21}), "invalid_value", "from 0 to 20");
    limit(completions, &json!({"prompt": many(65)}), "limit", "at most 64 prompts");
    limit(completions, &json!({"prompt": many(64), "n": 3}), "limit", "answers to all prompts");
    limit(completions, &json!({"prompt": "a", "guided_choice": many(256)}), "limit", "at most 255");
    let both = json!({"prompt": "a", "guided_choice": ["a"], "structured_outputs": {"choice": ["b"]}});
    limit(completions, &both, "invalid_value", "guided_choice: expected none beside structured_outputs");
    limit(completions, &json!({"prompt": "a".repeat(5000)}), "context_length_exceeded", "over the limit of 2048");
    limit(completions, &json!({"prompt": "a", "num_beams": 65}), "invalid_value", "num_beams: ");
    limit(
        completions,
        &json!({"prompt": "a", "n": 2, "num_beams": 2}),
        "unsupported_value",
        "n: expected 1 with num_beams",
    );
    limit(
        "/v1/chat/completions",
        &json!({"messages": [{"role": "user", "content": "a"}], "logprobs": true, "top_logprobs": 21}),
        "invalid_value",
        "from 0 to 20",
    );
    let question = json!({"type": "predicate", "instructions": "a"});
    limit("/v1/decisions", &json!({"input": "a", "questions": vec![question; 401]}), "limit", "at most 400 questions");
    let choices: Vec<Value> = (0..256).map(|n| json!({"value": n.to_string()})).collect();
    let question = json!({"type": "choice", "instructions": "a", "choices": choices});
    limit("/v1/decisions", &json!({"input": "a", "questions": [question]}), "invalid_value", "2 to 255");
    let twice = json!({"type": "choice", "instructions": "a", "choices": [{"value": true}, {"value": "yes"}]});
    limit("/v1/decisions", &json!({"input": "a", "questions": [twice]}), "invalid_value", "another text");
    limit("/v1/detokenize", &json!({"tokens": [1_000_000]}), "invalid_value", "tokens below");
    limit("/v1/classify", &json!({"prompt": "a"}), "invalid_value", "choices: expected at least one text");
    limit("/v1/chat/completions", &json!({"messages": []}), "invalid_value", "a turn of the user");
    let image = json!({"type": "image_url", "image_url": {"url": drawing(0).1}});
    limit(completions, &json!({"prompt": vec![image.clone(); 65]}), "limit", "images of a prompt");
    // All prompts of a request together.
    limit(
        completions,
        &json!({"prompt": [vec![image.clone(); 40], vec![image.clone(); 25]]}),
        "limit",
        "images of a prompt",
    );
    let broken = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}});
    limit(completions, &json!({"prompt": [broken]}), "invalid_image", "prompt[0]");
}

#[test]
fn a_late_stream_ends_with_an_error() {
    let server = serve(Settings::default());
    let body = json!({"prompt": "kep.", "max_tokens": 2000, "ignore_eos": true, "temperature": 1.0, "stream": true, "timeout": 0.05});
    let answer = post_to(server, "/v1/completions", body.to_string().as_bytes());
    let events = answer.events();
    let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert_eq!((answer.status, &last["error"]["code"]), (200, &json!("deadline")), "{last}");
    assert!(!events.contains(&"[DONE]"));
    let whole = json!({"prompt": "kep.", "max_tokens": 2000, "ignore_eos": true, "timeout": 0.05});
    let answer = post_to(server, "/v1/completions", whole.to_string().as_bytes());
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (504, &json!("deadline")));
}

#[test]
fn a_lenient_server_passes_over_what_it_does_not_know() {
    let server = serve(Settings::default().lenient(true).name(Some("mine".to_owned())));
    let body = json!({"model": "mine", "prompt": "kep.", "max_tokens": 1, "num_beam": 3});
    let answer = post_to(server, "/v1/completions", body.to_string().as_bytes());
    assert_eq!((answer.status, &answer.json()["model"]), (200, &json!("mine")));
}

#[test]
fn an_answer_that_is_late_is_none_however_fast_it_was_computed() {
    let question = json!({"type": "choice", "instructions": "", "choices": [{"value": "a"}, {"value": "b"}]});
    for (path, mut body) in [
        ("/v1/completions", json!({"prompt": "a", "max_tokens": 1})),
        ("/v1/completions", json!({"prompt": "a", "max_tokens": 1, "stream": true})),
        ("/v1/classify", json!({"prompt": "a", "choices": ["b", "c"]})),
        ("/v1/loglikelihood", json!({"prompt": "a"})),
        ("/v1/decisions", json!({"input": "a", "questions": [question]})),
    ] {
        body["timeout"] = json!(1e-9);
        let answer = post(path, &body);
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (504, &json!("deadline")), "{path}");
    }
}

#[test]
fn the_largest_image_may_come_four_times() {
    let (_, uri) = drawing(0);
    let limited = serve(Settings::default().pixels_max(32 * 32));
    let parts = |count: usize| json!({"prompt": vec![json!({"image": uri}); count]}).to_string();
    assert_eq!(post_to(limited, "/v1/render", parts(4).as_bytes()).status, 200);
    let answer = post_to(limited, "/v1/render", parts(5).as_bytes());
    assert!(
        answer.body.contains("pixels of all images of a prompt: 5120 is over the limit of 4096"),
        "{}",
        answer.body
    );
}
