//! The forms of requests and answers: what the engine itself says, to the byte, in every form; and what is refused.

mod forged;
mod hostile;
mod limits;

use std::thread;

use base64::Engine as _;
use flamant::{Chat, Flamingo, Generation, Options, Prompt, Role, Sampling, image::Image};
use serde_json::{Value, json};

use super::client::{asked, post, post_to, refused, shared, streamed};

/// A drawing: a bar across a square, at one of four heights.
pub fn drawing(place: usize) -> (Image, String) {
    const SIDE: usize = 32;
    let mut rgb = vec![255; SIDE * SIDE * 3];
    rgb[(place * 8 + 2) * SIDE * 3..][..4 * SIDE * 3].fill(0);
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, SIDE as u32, SIDE as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&rgb).unwrap();
    let uri = format!("data:image/png;base64,{}", base64::engine::general_purpose::STANDARD.encode(png));
    (Image::from_rgb(SIDE as u32, SIDE as u32, rgb).unwrap(), uri)
}

/// Two support examples and a query, as a prompt and as parts of a request.
pub fn shots() -> (Prompt, Value) {
    let mut prompt = Prompt::new();
    let mut parts = Vec::new();
    for (place, name) in [(0, "kep."), (1, "mul."), (0, "")] {
        let (image, uri) = drawing(place);
        prompt.image(image).unwrap();
        parts.push(json!({"type": "image_url", "image_url": {"url": uri}}));
        if !name.is_empty() {
            prompt.text(name).unwrap();
            parts.push(json!({"type": "text", "text": name}));
        }
    }
    (prompt, parts.into())
}

/// The same as turns.
pub fn turns() -> (Chat, Value) {
    let mut chat = Chat::default();
    let mut messages = Vec::new();
    for (place, name) in [(0, "kep"), (1, "mul."), (0, "")] {
        let (image, uri) = drawing(place);
        let mut said = Prompt::new();
        said.image(image).unwrap();
        chat.turn(Role::User, said).unwrap();
        let part = json!({"type": "image_url", "image_url": {"url": uri, "detail": "low"}});
        messages.push(json!({"role": "user", "content": [part]}));
        if !name.is_empty() {
            let mut said = Prompt::new();
            said.text(name).unwrap();
            chat.turn(Role::Assistant, said).unwrap();
            messages.push(json!({"role": "assistant", "content": name}));
        }
    }
    (chat, messages.into())
}

pub fn flamingo() -> Flamingo {
    Flamingo::demo(&Options::default()).unwrap()
}

fn with(mut body: Value, more: Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// The text of each answer of a stream, put together.
fn texts(chunks: &[Value], answers: usize) -> Vec<String> {
    let mut texts = vec![String::new(); answers];
    for choice in chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap()) {
        let text = choice.get("text").unwrap_or(&choice["delta"]["content"]);
        texts[choice["index"].as_u64().unwrap() as usize] += text.as_str().unwrap_or_default();
    }
    texts
}

const LONG: [&str; 4] = ["max_tokens", "temperature", "seed", "ignore_eos"];

/// Settings of a request, and the same for the engine.
fn drawn(seed: u64) -> (Value, Generation) {
    let values = [json!(40), json!(1.5), json!(seed), json!(true)];
    let body = Value::Object(LONG.iter().map(|key| (*key).to_owned()).zip(values).collect());
    let sampling = Sampling::default().temperature(1.5).seed(seed);
    (body, Generation::default().max_new_tokens(40).sampling(sampling).ignore_eos(true))
}

#[test]
fn completions_are_the_engines_whole_and_streamed() {
    let (prompt, parts) = shots();
    let (body, generation) = drawn(7);
    let want = flamingo().generate(&prompt, &generation, &mut |_| {}).unwrap();
    assert!(want.text.len() > 20, "{:?}", want.text);
    let body = with(json!({"prompt": parts}), body);
    let whole = asked("/v1/completions", &body);
    assert_eq!(whole["choices"][0]["text"], want.text);
    assert_eq!(whole["choices"][0]["finish_reason"], "length");
    assert_eq!(whole["object"], "text_completion");
    assert_eq!(whole["model"], "demo");
    let usage = &whole["usage"];
    assert_eq!(usage["prompt_tokens"], want.usage.prompt_tokens);
    assert_eq!(usage["completion_tokens"], 40);
    assert_eq!(usage["total_tokens"], want.usage.prompt_tokens + 40);
    assert_eq!(whole["flamant"]["images"], 3);
    assert_eq!(whole["flamant"]["seed"], 7);
    let chunks = streamed("/v1/completions", &with(body.clone(), json!({"stream": true})));
    assert!(chunks.len() > 20);
    assert_eq!(texts(&chunks, 1)[0], want.text);
    assert!(chunks.iter().all(|chunk| chunk["id"] == chunks[0]["id"] && chunk.get("usage").is_none()));
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "length");
    // A search knows its text only at the end.
    let search = json!({"prompt": shots().1, "max_tokens": 5, "num_beams": 3, "length_penalty": 0.5});
    let generation = Generation::default().max_new_tokens(5).num_beams(3).length_penalty(0.5);
    let want = flamingo().generate(&prompt, &generation, &mut |_| {}).unwrap();
    assert_eq!(asked("/v1/completions", &search)["choices"][0]["text"], want.text);
    assert_eq!(texts(&streamed("/v1/completions", &with(search, json!({"stream": true}))), 1), [want.text]);
}

#[test]
fn chats_are_the_engines_whole_and_streamed() {
    let (chat, messages) = turns();
    let mut flamingo = flamingo();
    let prompt = chat.prompt(flamingo.tokenizer().chat()).unwrap();
    let (body, generation) = drawn(3);
    let generation = generation.stop(vec![".".to_owned()]);
    let want = flamingo.generate(&prompt, &generation, &mut |_| {}).unwrap();
    let body = with(json!({"messages": messages, "model": "demo"}), body);
    let whole = asked("/v1/chat/completions", &body);
    let message = json!({"role": "assistant", "content": want.text, "refusal": null});
    assert_eq!(whole["choices"][0]["message"], message);
    assert_eq!(whole["choices"][0]["finish_reason"], "stop");
    assert_eq!(whole["object"], "chat.completion");
    let options = json!({"stream": true, "stream_options": {"include_usage": true}});
    let chunks = streamed("/v1/chat/completions", &with(body, options));
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    assert_eq!(texts(&chunks, 1), [want.text]);
    let (last, before) = chunks.split_last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["completion_tokens"], want.usage.completion_tokens);
    assert_eq!(last["flamant"]["seed"], 3);
    assert!(before.iter().all(|chunk| chunk["usage"].is_null() && chunk["object"] == "chat.completion.chunk"));
    assert_eq!(before.last().unwrap()["choices"][0]["finish_reason"], "stop");
}

#[test]
fn several_answers_have_seeds_that_count_up() {
    let (prompt, parts) = shots();
    let (body, _) = drawn(11);
    let want: Vec<String> =
        (11..15).map(|seed| flamingo().generate(&prompt, &drawn(seed).1, &mut |_| {}).unwrap().text).collect();
    assert_ne!(want[0], want[1]);
    let body = with(with(json!({"prompt": parts}), body), json!({"n": 4}));
    let whole = asked("/v1/completions", &body);
    for (index, want) in want.iter().enumerate() {
        assert_eq!(whole["choices"][index]["text"], *want);
        assert_eq!(whole["choices"][index]["index"], index);
    }
    assert_eq!(whole["usage"]["completion_tokens"], 160);
    assert_eq!(whole["usage"]["prompt_tokens"], prompt.render(flamingo().tokenizer()).unwrap().ids.len());
    assert_eq!(texts(&streamed("/v1/completions", &with(body, json!({"stream": true}))), 4), want);
    // Without one, the answer tells which it was.
    let body = json!({"prompt": "kep.", "max_tokens": 30, "temperature": 2, "ignore_eos": true});
    let first = asked("/v1/completions", &body);
    let again = asked("/v1/completions", &with(body, json!({"seed": first["flamant"]["seed"]})));
    assert_eq!(first["choices"], again["choices"]);
}

#[test]
fn several_prompts_are_answered_in_their_order() {
    let (_, parts) = shots();
    let body = json!({"prompt": ["kep.", parts, "mul."], "max_tokens": 4, "n": 2});
    let all = asked("/v1/completions", &body);
    for (number, prompt) in [json!("kep."), parts_again(), json!("mul.")].into_iter().enumerate() {
        let alone = asked("/v1/completions", &json!({"prompt": prompt, "max_tokens": 4}));
        for answer in 0..2 {
            let choice = &all["choices"][number * 2 + answer];
            assert_eq!(choice["index"], number * 2 + answer);
            assert_eq!(choice["text"], alone["choices"][0]["text"]);
        }
    }
}

fn parts_again() -> Value {
    shots().1
}

#[test]
fn stop_texts_end_answers_wherever_tokens_end() {
    let (_, parts) = shots();
    let (body, _) = drawn(7);
    let body = with(json!({"prompt": parts}), body);
    let whole = asked("/v1/completions", &body)["choices"][0]["text"].as_str().unwrap().to_owned();
    for length in [1, 2, 5] {
        let stop = &whole[8..8 + length];
        let want = &whole[..whole.find(stop).unwrap()];
        let body = with(body.clone(), json!({"stop": [stop, "never such a text"]}));
        let answer = asked("/v1/completions", &body);
        assert_eq!(answer["choices"][0]["text"], want);
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
        let chunks = streamed("/v1/completions", &with(body, json!({"stream": true, "stop": stop})));
        assert_eq!(texts(&chunks, 1), [want]);
    }
}

#[test]
fn sixty_four_at_once_are_answered_as_one_alone() {
    let (_, parts) = shots();
    let body = |seed: u64| with(json!({"prompt": parts.clone(), "stream": seed.is_multiple_of(2)}), drawn(seed).0);
    let text = |seed: u64| match seed.is_multiple_of(2) {
        true => texts(&streamed("/v1/completions", &body(seed)), 1).remove(0),
        false => asked("/v1/completions", &body(seed))["choices"][0]["text"].as_str().unwrap().to_owned(),
    };
    let alone: Vec<String> = (0..64).map(text).collect();
    let together: Vec<String> = thread::scope(|scope| {
        let threads: Vec<_> = (0..64).map(|seed| scope.spawn(move || text(seed))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(together, alone);
}

#[test]
fn log_probabilities_are_those_of_the_score() {
    let (prompt, parts) = shots();
    let body = json!({"prompt": parts, "max_tokens": 6, "logprobs": 3, "ignore_eos": true});
    let answer = asked("/v1/completions", &body);
    let told = &answer["choices"][0]["logprobs"];
    let text = answer["choices"][0]["text"].as_str().unwrap();
    let tokens: Vec<&str> = told["tokens"].as_array().unwrap().iter().map(|token| token.as_str().unwrap()).collect();
    assert_eq!(tokens.concat(), text);
    let mut flamingo = flamingo();
    let mut longer = prompt.clone();
    longer.text(text).unwrap();
    let score = flamingo.score(&longer).unwrap();
    let first = score.ids.len() - tokens.len();
    for (place, token) in tokens.iter().enumerate() {
        let logprob = told["token_logprobs"][place].as_f64().unwrap();
        assert!((logprob - score.logprobs[first + place].unwrap()).abs() < 1e-9, "{place}");
        let top = told["top_logprobs"][place].as_object().unwrap();
        assert!(top.len() >= 3 && top[*token] == logprob);
        // Greedy: it is the likeliest.
        assert!(top.values().all(|other| other.as_f64().unwrap() <= logprob));
        assert_eq!(told["text_offset"][place], place, "of a text of single letters");
    }
    // The prompt told with its answer.
    let echo = json!({"prompt": [parts_again(), "kep.kep."], "max_tokens": 0, "logprobs": 2, "echo": true});
    let echo = asked("/v1/completions", &echo);
    for (choice, ids) in
        [(0, prompt), (1, text_prompt("kep.kep."))].map(|(at, prompt)| (at, flamingo.score(&prompt).unwrap()))
    {
        let choice = &echo["choices"][choice];
        let told: Vec<Option<f64>> =
            choice["logprobs"]["token_logprobs"].as_array().unwrap().iter().map(Value::as_f64).collect();
        assert_eq!(told, ids.logprobs);
        assert_eq!(choice["finish_reason"], "length");
    }
    assert_eq!(echo["choices"][1]["text"], "kep.kep.");
    assert_eq!(echo["choices"][1]["logprobs"]["text_offset"], json!([0, 0, 1, 2, 3, 4, 5, 6, 7]));
    let both = json!({"prompt": "kep.kep.", "max_tokens": 2, "logprobs": 1, "echo": true});
    let both = asked("/v1/completions", &both);
    assert_eq!(both["choices"][0]["logprobs"]["tokens"].as_array().unwrap().len(), 9 + 2);
    assert_eq!(both["choices"][0]["logprobs"]["text_offset"][10], 9);
    let chat = json!({"messages": turns().1, "logprobs": true, "top_logprobs": 2});
    let whole = asked("/v1/chat/completions", &chat)["choices"][0]["logprobs"].take();
    let chunks = streamed("/v1/chat/completions", &with(chat, json!({"stream": true})));
    let pieces: Vec<Value> = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array())
        .flatten()
        .cloned()
        .collect();
    assert_eq!(whole["content"], Value::Array(pieces));
    assert_eq!(whole["content"][0]["top_logprobs"].as_array().unwrap().len(), 2);
    assert_eq!(whole["content"][0]["bytes"], json!(whole["content"][0]["token"].as_str().unwrap().as_bytes()));
}

fn text_prompt(text: &str) -> Prompt {
    let mut prompt = Prompt::new();
    prompt.text(text).unwrap();
    prompt
}

#[test]
fn a_choice_is_the_likeliest_or_drawn() {
    let (prompt, parts) = shots();
    let found = flamingo().classify(&prompt, &["kep.".into(), "mul.".into(), "zzz.".into()]).unwrap();
    let best = found.choices.iter().max_by(|a, b| a.sum.total_cmp(&b.sum)).unwrap();
    for choice in [
        json!({"structured_outputs": {"choice": ["kep.", "mul.", "zzz."]}}),
        json!({"guided_choice": ["kep.", "mul.", "zzz."]}),
    ] {
        let body = with(json!({"prompt": parts}), choice);
        let answer = asked("/v1/completions", &body);
        assert_eq!(answer["choices"][0]["text"], best.text);
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
        assert_eq!(texts(&streamed("/v1/completions", &with(body, json!({"stream": true}))), 1)[0], best.text);
    }
    // At a high temperature all of them come.
    let body = json!({"prompt": parts_again(), "guided_choice": ["kep.", "mul.", "zzz."], "temperature": 50, "n": 16, "seed": 1});
    let answer = asked("/v1/completions", &body);
    let mut drawn: Vec<&str> =
        answer["choices"].as_array().unwrap().iter().map(|choice| choice["text"].as_str().unwrap()).collect();
    drawn.sort_unstable();
    drawn.dedup();
    assert_eq!(drawn, ["kep.", "mul.", "zzz."]);
    let chat = json!({"messages": turns().1, "guided_choice": ["kep", "mul"]});
    assert_eq!(
        asked("/v1/chat/completions", &chat)["choices"][0]["message"]["content"],
        best.text.trim_end_matches('.')
    );
}

#[test]
fn classify_and_loglikelihood_are_what_the_program_prints() {
    let (prompt, parts) = shots();
    let mut flamingo = flamingo();
    let texts = ["kep.".to_owned(), "mul.".to_owned()];
    let found = flamingo.classify(&prompt, &texts).unwrap();
    for mean in [false, true] {
        let answer = asked("/v1/classify", &json!({"prompt": parts, "choices": texts, "mean": mean}));
        let want = flamant::json::classification(&found, mean);
        assert_eq!(answer["choices"], want["choices"]);
        assert_eq!(answer["choice"], want["choice"]);
        assert!(answer["usage"]["prompt_tokens"] == want["usage"]["prompt_tokens"] && answer["id"].is_string());
    }
    let answer = asked("/v1/loglikelihood", &json!({"prompt": parts, "continuations": texts}));
    for (told, choice) in answer["continuations"].as_array().unwrap().iter().zip(&found.choices) {
        let want = json!({"text": choice.text, "logprob": choice.sum, "tokens": 4, "is_greedy": choice.greedy});
        assert_eq!(*told, want);
    }
    let score = flamant::json::score(&flamingo.score(&prompt).unwrap(), flamingo.tokenizer());
    let answer = asked("/v1/loglikelihood", &json!({"prompt": parts}));
    assert_eq!(answer["logprobs"], score["logprobs"]);
    assert_eq!(answer["tokens"], score["tokens"]);
}

#[test]
fn decisions_are_the_classification_of_their_answers() {
    let (chat, _) = turns();
    let mut flamingo = flamingo();
    let prompt = chat.prompt(flamingo.tokenizer().chat()).unwrap();
    let found = flamingo.classify(&prompt, &["kep.".into(), "mul.".into()]).unwrap();
    let image = |place: usize| json!({"type": "input_image", "image_url": drawing(place).1});
    let input = json!([
        {"role": "user", "content": [image(0)]}, {"role": "assistant", "content": [{"type": "output_text", "text": "kep."}]},
        {"role": "user", "content": [image(1)]}, {"role": "assistant", "content": "mul"},
        {"role": "user", "content": [image(0)]},
    ]);
    let choices = json!([{"value": "kep"}, {"value": "mul"}]);
    let questions = json!([
        {"type": "choice", "name": "sign", "instructions": "", "choices": choices},
        {"type": "predicate", "instructions": "kep"},
        {"type": "score", "instructions": "", "levels": [{"label": "mul"}, {"label": "kep"}, {"label": "z"}]},
        {"type": "choice", "instructions": "", "choices": [{"value": true}, {"value": false}, {"value": "true", "description": "a b"}]},
    ]);
    let answer = asked("/v1/decisions", &json!({"model": "demo", "input": input, "questions": questions}));
    let answers = answer["answers"].as_array().unwrap();
    let shares: Vec<f64> = {
        let weights: Vec<f64> = found.choices.iter().map(|choice| choice.sum.exp()).collect();
        weights.iter().map(|weight| weight / weights.iter().sum::<f64>()).collect()
    };
    assert_eq!(answers.len(), 4);
    assert_eq!(answers[0]["name"], "sign");
    let best = if shares[0] > shares[1] { "kep" } else { "mul" };
    assert_eq!(answers[0]["choice"], best);
    for (told, share) in answers[0]["probabilities"].as_array().unwrap().iter().zip(&shares) {
        assert!((told["probability"].as_f64().unwrap() - share).abs() < 1e-9);
    }
    assert_eq!((&answers[1]["type"], &answers[1]["name"]), (&json!("predicate"), &Value::Null));
    assert!((0.0..=1.0).contains(&answers[1]["probability"].as_f64().unwrap()));
    let levels = answers[2]["probabilities"].as_array().unwrap();
    let score: f64 =
        levels.iter().map(|level| level["value"].as_f64().unwrap() * level["probability"].as_f64().unwrap()).sum();
    assert!((answers[2]["score"].as_f64().unwrap() - score).abs() < 1e-9);
    assert_eq!(answers[3]["probabilities"][2]["value"], "true");
    let usage = &answer["usage"];
    assert!(usage["input_tokens"].as_u64().unwrap() > 4 * 14 && usage["output_tokens"] == 0);
    assert!(answer["flamant"]["images_encoded"].as_u64().unwrap() <= 2);
    // By means: another order is possible, the sum of shares is not.
    let body = json!({"input": "kep.", "rank": "mean", "questions": [
        {"type": "choice", "instructions": "mul.", "choices": [{"value": "a"}, {"value": "bcdefg"}]}]});
    let answer = asked("/v1/decisions", &body);
    let shares = answer["answers"][0]["probabilities"].as_array().unwrap();
    let sum: f64 = shares.iter().map(|told| told["probability"].as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-9);
}

#[test]
fn prompts_are_shown_as_the_model_reads_them() {
    let (prompt, parts) = shots();
    let flamingo = flamingo();
    let read = prompt.render(flamingo.tokenizer()).unwrap();
    let answer = asked("/v1/render", &json!({"prompt": parts}));
    assert_eq!(answer["text"], read.text);
    assert_eq!(answer["token_ids"], json!(read.ids));
    assert_eq!(answer["images"], json!(vec![json!({"width": 32, "height": 32}); 3]));
    let sees = answer["sees"].as_array().unwrap();
    assert_eq!(sees.len(), read.ids.len());
    assert!(sees.contains(&json!(2)) && sees[0].is_null());
    // Shots that are the same have the same key, whatever is asked behind them.
    let key = |parts: Value| asked("/v1/render", &json!({"prompt": parts}))["prefix_key"].as_str().unwrap().to_owned();
    let mut other = parts_again();
    other[4] = json!({"type": "image_url", "image_url": {"url": drawing(3).1}});
    assert_eq!(key(parts_again()), key(other.clone()));
    other[0] = other[4].clone();
    assert_ne!(key(parts_again()), key(other));
    assert!(key(json!("kep.")).starts_with("b3:") && key(json!("kep.")) != key(json!("mul.")));
    let messages = asked("/v1/render", &json!({"messages": turns().1}));
    assert_eq!(
        messages["token_ids"],
        json!(turns().0.prompt(flamingo.tokenizer().chat()).unwrap().render(flamingo.tokenizer()).unwrap().ids)
    );
    let raw = json!({"messages": [{"role": "user", "content": "kep"}], "chat_template": {"user_before": "a", "user_after": "b"}});
    assert!(asked("/v1/render", &raw)["text"].as_str().unwrap().ends_with("akepb"));
    let tokens = asked("/v1/tokenize", &json!({"text": "kep."}));
    assert_eq!(tokens["count"], tokens["tokens"].as_array().unwrap().len());
    let text = asked("/v1/detokenize", &json!({"tokens": tokens["tokens"]}));
    assert_eq!(text["text"], "kep.");
}

#[test]
fn what_openai_has_besides_is_ignored_where_it_may_be() {
    let body = json!({
        "model": "demo", "prompt": "kep.", "max_tokens": 2, "user": "a", "metadata": {"a": "b"}, "store": false,
        "service_tier": "auto", "frequency_penalty": 0.0, "presence_penalty": 0, "logit_bias": {}, "tools": [],
        "tool_choice": "auto", "response_format": {"type": "text"}, "stop": null, "seed": null, "n": 1, "timeout": 20.5,
    });
    assert_eq!(post("/v1/completions", &body).status, 200);
    for (key, value, code) in [
        ("frequency_penalty", json!(0.5), "unsupported_value"),
        ("logit_bias", json!({"1": 2}), "unsupported_value"),
        ("tools", json!([{"type": "function"}]), "unsupported_value"),
        ("response_format", json!({"type": "json_object"}), "unsupported_value"),
        ("best_of", json!(2), "unsupported_value"),
        ("suffix", json!("a"), "unsupported_value"),
        ("num_beam", json!(2), "unknown_parameter"),
        ("messages", json!([]), "unknown_parameter"),
    ] {
        let body = with(json!({"prompt": "kep."}), json!({key: value}));
        let (status, found, error) = refused("/v1/completions", body.to_string().as_bytes());
        assert_eq!((status, found.as_str(), error["param"].as_str()), (400, code, Some(key)), "{error}");
    }
    let (status, code, _) = refused("/v1/completions", br#"{"model": "gpt-6", "prompt": "kep."}"#);
    assert_eq!((status, code.as_str()), (404, "model_not_found"));
}

#[test]
fn pages_are_shared_by_the_same_salt_alone() {
    let prompt = "abcdefgh".repeat(8);
    let cached = |salt: Value| {
        let body = json!({"prompt": prompt, "max_tokens": 1, "cache_salt": salt});
        let answer = asked("/v1/completions", &body);
        (answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap(), answer["choices"].clone())
    };
    let (first, answer) = cached(Value::Null);
    assert_eq!(first, 0);
    assert!(cached(Value::Null).0 >= 48);
    for salt in ["one", "another", ""] {
        assert_eq!(cached(salt.into()), (0, answer.clone()), "{salt}");
        assert!(cached(salt.into()).0 >= 48, "{salt}");
    }
    let (status, code, _) =
        refused("/v1/completions", json!({"prompt": "a", "cache_salt": "x".repeat(1025)}).to_string().as_bytes());
    assert_eq!((status, code.as_str()), (400, "limit"));
}

/// Frames of a video in an animation and one by one are read alike.
#[test]
fn videos_are_frames_or_animations() {
    let mut bytes = Vec::new();
    let mut encoder = gif::Encoder::new(&mut bytes, 2, 2, &[0, 0, 0, 255, 255, 255]).unwrap();
    for level in [0, 1] {
        let frame =
            gif::Frame { width: 2, height: 2, delay: 100, buffer: vec![level; 4].into(), ..gif::Frame::default() };
        encoder.write_frame(&frame).unwrap();
    }
    drop(encoder);
    let animation = format!("data:image/gif;base64,{}", base64::engine::general_purpose::STANDARD.encode(&bytes));
    let frames = [drawing(0).1, drawing(1).1, drawing(2).1];
    for part in [
        json!({"type": "video_url", "video_url": {"url": animation}, "fps": 1, "frames": 2}),
        json!({"type": "video", "video": animation}),
        json!({"video": animation, "fps": 2}),
        json!({"type": "video", "frames": frames}),
    ] {
        let answer = asked("/v1/render", &json!({"prompt": [part, {"type": "text", "text": "kep."}]}));
        let images = answer["images"].as_array().unwrap();
        assert!(images.len() == 1 && images[0]["frames"].as_u64().unwrap() >= 2, "{answer}");
    }
    let film = format!("data:video/mp4;base64,{}", base64::engine::general_purpose::STANDARD.encode([0; 64]));
    let body = json!({"prompt": [{"type": "video_url", "video_url": {"url": film}}]});
    let (_, _, error) = refused("/v1/render", body.to_string().as_bytes());
    assert!(error["message"].as_str().unwrap().contains("--allow-ffmpeg"), "{error}");
}

#[test]
fn the_last_chunk_alone_says_what_it_took() {
    for (choice, usage) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut body = json!({"prompt": "kep", "n": 2, "stream": true, "stream_options": {"include_usage": usage}});
        if choice {
            body["guided_choice"] = json!(["kep", "mul"]);
        }
        let answer = post_to(shared(), "/v1/completions", body.to_string().as_bytes());
        let events = answer.events();
        let saying: Vec<usize> = (0..events.len()).filter(|&at| events[at].contains("\"flamant\":")).collect();
        assert_eq!(saying, [events.len() - 2], "{choice} {usage}: {events:?}");
    }
}
