//! Texts that spell markers, and sources that are no data: refused in every field that takes a text or an image.

use serde_json::{Value, json};

use super::super::client::refused;

const MARKERS: [&str; 2] = ["<image>", "<fake_token_around_image>"];

/// Every field that takes text.
fn fields(text: &str) -> Vec<(&'static str, Value)> {
    let user = |content: Value| json!([{"role": "user", "content": content}]);
    let text_part = json!({"type": "text", "text": text});
    let half = text.len() / 2;
    let halves = json!([{"type": "text", "text": text[..half]}, {"type": "text", "text": text[half..]}]);
    let question = |instructions: &str, value: &str, description: &str| {
        let choices = json!([{"value": value, "description": description}, {"value": "b"}]);
        json!({"input": "a", "questions": [{"type": "choice", "instructions": instructions, "choices": choices}]})
    };
    vec![
        ("/v1/completions", json!({"prompt": text})),
        ("/v1/completions", json!({"prompt": [text]})),
        ("/v1/completions", json!({"prompt": [text_part]})),
        ("/v1/completions", json!({"prompt": [[text_part]]})),
        ("/v1/completions", json!({"prompt": halves})),
        ("/v1/completions", json!({"prompt": "a", "guided_choice": [text, "b"]})),
        ("/v1/completions", json!({"prompt": "a", "structured_outputs": {"choice": [text]}})),
        ("/v1/chat/completions", json!({"messages": user(text.into())})),
        ("/v1/chat/completions", json!({"messages": user(json!([text_part]))})),
        ("/v1/chat/completions", json!({"messages": user(halves.clone())})),
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "system", "content": text}, {"role": "user", "content": "a"}]}),
        ),
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": text}, {"role": "user", "content": "a"}]}),
        ),
        ("/v1/chat/completions", json!({"messages": user("a".into()), "chat_template": {"user_before": text}})),
        ("/v1/decisions", json!({"input": text, "questions": [{"type": "predicate", "instructions": "a"}]})),
        (
            "/v1/decisions",
            json!({"input": user(json!([{"type": "input_text", "text": text}])), "questions": [{"type": "predicate", "instructions": "a"}]}),
        ),
        (
            "/v1/decisions",
            json!({"input": user(json!([{"type": "input_json", "data": {"a": text}}])), "questions": [{"type": "predicate", "instructions": "a"}]}),
        ),
        ("/v1/decisions", question(text, "a", "c")),
        ("/v1/decisions", question("a", text, "c")),
        ("/v1/decisions", question("a", "c", text)),
        (
            "/v1/decisions",
            json!({"input": "a", "questions": [{"type": "score", "instructions": "a", "levels": [{"label": text}, {"label": "b"}]}]}),
        ),
        ("/v1/classify", json!({"prompt": text, "choices": ["a"]})),
        ("/v1/classify", json!({"prompt": "a", "choices": [text]})),
        ("/v1/classify", json!({"messages": user(text.into()), "choices": ["a"]})),
        ("/v1/loglikelihood", json!({"prompt": text})),
        ("/v1/loglikelihood", json!({"prompt": "a", "continuations": [text]})),
        ("/v1/render", json!({"prompt": text})),
        ("/v1/render", json!({"messages": user(text.into())})),
    ]
}

#[test]
fn forged_markers_are_refused_in_every_field() {
    for marker in MARKERS {
        for (path, body) in fields(marker) {
            let (status, _, error) = refused(path, body.to_string().as_bytes());
            assert_eq!(status, 400, "{path} {body}");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains("image markers"), "{path} {body}: {message}");
        }
    }
}

/// A file that is there and is an image: nobody may have it read.
#[test]
fn no_path_is_read_and_nothing_is_fetched() {
    let file = format!("{}/models/demo/symbols/nko.png", env!("CARGO_MANIFEST_DIR"));
    assert!(std::path::Path::new(&file).is_file());
    let sources = [
        file.clone(),
        format!("file://{file}"),
        "nko.png".to_owned(),
        "http://127.0.0.1:1/a.png".to_owned(),
        "https://example.com/a.png".to_owned(),
        "ftp://a/b".to_owned(),
        String::new(),
        "/proc/self/environ".to_owned(),
    ];
    for source in sources {
        let uri = json!({"url": source});
        let parts = [
            json!({"type": "image_url", "image_url": uri}),
            json!({"type": "image_url", "image_url": source}),
            json!({"type": "input_image", "image_url": source}),
            json!({"type": "image", "image": source}),
            json!({"image": source}),
            json!({"type": "video", "frames": [source]}),
            json!({"type": "video", "video": source}),
            json!({"video": source}),
            json!({"video": [source]}),
            json!({"type": "video_url", "video_url": uri}),
        ];
        for part in parts {
            let messages = json!([{"role": "user", "content": [part]}]);
            let question = json!({"type": "predicate", "instructions": [part]});
            for (path, body) in [
                ("/v1/completions", json!({"prompt": [part]})),
                ("/v1/chat/completions", json!({"messages": messages})),
                ("/v1/classify", json!({"prompt": [part], "choices": ["a"]})),
                ("/v1/loglikelihood", json!({"messages": messages})),
                ("/v1/render", json!({"prompt": [part]})),
                (
                    "/v1/decisions",
                    json!({"input": messages, "questions": [{"type": "predicate", "instructions": "a"}]}),
                ),
                ("/v1/decisions", json!({"input": "a", "questions": [question]})),
            ] {
                let (status, _, error) = refused(path, body.to_string().as_bytes());
                let message = error["message"].as_str().unwrap();
                assert!(status == 400 && message.contains("expected a data URI"), "{path} {body}: {message}");
                assert!(!message.contains("/proc") && !message.contains("models/demo"), "{message}");
            }
        }
    }
}
