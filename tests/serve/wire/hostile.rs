//! JSON that is none, or means no request: one short line, whatever it is.

use serde_json::{Value, json};

use super::super::client::{post_to, refused, shared};

const PATHS: [&str; 8] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/decisions",
    "/v1/classify",
    "/v1/loglikelihood",
    "/v1/render",
    "/v1/tokenize",
    "/v1/detokenize",
];

#[test]
fn what_is_no_json_is_told_by_its_place() {
    let deep = "[".repeat(100_000);
    let deep_field = format!(r#"{{"prompt": {}1{}}}"#, "[".repeat(3000), "]".repeat(3000));
    let wide = format!("{{{}}}", (0..1000).map(|n| format!("\"k{n}\": 1")).collect::<Vec<_>>().join(","));
    let bodies: [&[u8]; 16] = [
        b"",
        b" ",
        b"{",
        b"{\"prompt\": \"kep",
        b"{\"prompt\": 1e400}",
        b"{\"prompt\": 01}",
        b"{\"prompt\": nan}",
        b"{\"prompt\": \"a\", \"prompt\": \"b\"}",
        b"{\"a\": {\"b\": 1, \"b\": 2}}",
        b"{\"prompt\": \"\\ud800\"}",
        b"{\"prompt\": \"\xff\"}",
        b"{\"prompt\": \"a\"} x",
        b"[]",
        deep.as_bytes(),
        deep_field.as_bytes(),
        wide.as_bytes(),
    ];
    for body in bodies {
        for path in PATHS {
            let (status, code, error) = refused(path, body);
            let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
            assert_eq!((status, code.as_str()), (400, "invalid_json"), "{path} {shown}: {error}");
        }
    }
    let (_, _, error) = refused("/v1/completions", b"{\"prompt\":\n \"a\" \"b\"}");
    assert!(error["message"].as_str().unwrap().contains("line 2 column 6"), "{error}");
}

/// A request of each kind that is right.
fn right() -> Vec<(&'static str, Value)> {
    let user = json!([{"role": "user", "content": [{"type": "text", "text": "kep."}]}]);
    let questions = json!([
        {"type": "choice", "name": "a", "instructions": "a", "choices": [{"value": "a", "description": "b"}, {"value": true}]},
        {"type": "score", "instructions": "a", "levels": [{"label": "a"}, {"label": "b"}]}]);
    vec![
        (
            "/v1/chat/completions",
            json!({"model": "demo", "messages": user, "max_completion_tokens": 1, "temperature": 1, "top_p": 0.9, "top_k": 5, "min_p": 0.1,
            "repetition_penalty": 1.1, "seed": 1, "stop": ["a"], "n": 2, "logprobs": true, "top_logprobs": 2, "num_beams": 1,
            "length_penalty": 1, "ignore_eos": true, "stream": true, "stream_options": {"include_usage": true}, "timeout": 60,
            "chat_template": {"user_before": "a", "stop": ["b"]}}),
        ),
        (
            "/v1/completions",
            json!({"prompt": [{"type": "text", "text": "kep."}], "max_tokens": 1, "echo": true, "logprobs": 2, "no_repeat_ngram_size": 2}),
        ),
        (
            "/v1/completions",
            json!({"prompt": ["kep.", [{"type": "text", "text": "a"}]], "max_tokens": 1, "structured_outputs": {"choice": ["a"]}}),
        ),
        ("/v1/decisions", json!({"input": user, "questions": questions, "rank": "mean"})),
        ("/v1/classify", json!({"prompt": "kep.", "choices": ["a", "b"], "mean": true})),
        ("/v1/loglikelihood", json!({"prompt": "kep.", "continuations": ["a"]})),
        ("/v1/render", json!({"messages": user, "chat_template": "raw"})),
        ("/v1/tokenize", json!({"text": "kep.", "add_special_tokens": false})),
        ("/v1/detokenize", json!({"tokens": [1, 2]})),
    ]
}

/// Every value within a value, by its path.
fn places(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let path = format!("{path}/{key}");
                found.push(path.clone());
                places(value, &path, found);
            }
        }
        Value::Array(list) => {
            for (number, value) in list.iter().enumerate() {
                let path = format!("{path}/{number}");
                found.push(path.clone());
                places(value, &path, found);
            }
        }
        _ => {}
    }
}

/// In the place of every value, one of each kind: it is taken or refused in one line, by status 400 or 404.
#[test]
fn every_value_may_be_anything_and_harms_nobody() {
    let values = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(1.5),
        json!(1e300),
        json!(u64::MAX),
        json!("1"),
        json!(""),
        json!([]),
        json!({}),
        json!([[]]),
        json!([null]),
        json!({"a": null}),
        json!("x".repeat(300)),
    ];
    let mut refusals = 0;
    for (path, body) in right() {
        assert_eq!(post_to(shared(), path, body.to_string().as_bytes()).status, 200, "{path} {body}");
        let mut found = Vec::new();
        places(&body, "", &mut found);
        assert!(found.len() > 1);
        for place in found {
            for value in &values {
                let mut changed = body.clone();
                *changed.pointer_mut(&place).unwrap() = value.clone();
                let answer = post_to(shared(), path, changed.to_string().as_bytes());
                assert!([200, 400, 404].contains(&answer.status), "{path} {changed}: {}", answer.body);
                if answer.status == 200 {
                    continue;
                }
                refusals += 1;
                let error = &answer.json()["error"];
                let message = error["message"].as_str().unwrap();
                assert!(message.len() < 1200 && !message.contains('\n'), "{message}");
                // Whatever is wrong, it is said of which field.
                let key = place.split('/').nth(1).unwrap();
                let param = error["param"].as_str().unwrap_or_default();
                let related = [
                    "stream",
                    "stream_options",
                    "logprobs",
                    "top_logprobs",
                    "chat_template",
                    "input",
                    "questions",
                    "stop",
                    "num_beams",
                    "messages",
                    "prompt",
                ];
                assert!(
                    param == key || related.contains(&param) && related.contains(&key) || key == "n" || param == "n",
                    "{place} {value}: {error}"
                );
            }
        }
    }
    assert!(refusals > 300, "{refusals}");
    for (path, body) in right() {
        assert_eq!(post_to(shared(), path, body.to_string().as_bytes()).status, 200);
    }
}
