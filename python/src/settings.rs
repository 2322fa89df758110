//! Settings of requests and engines, under the names of the program's flags.

use std::path::PathBuf;
use std::time::Duration;

use flamant::serve::{self, Keys, Log};
use flamant::{Device, Dtype, Generation, KvDtype, Limits, Load, Options, Sampling, Task};
use pyo3::conversion::FromPyObjectOwned;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors;

/// What a setting may be, in words.
trait Setting: for<'py> FromPyObjectOwned<'py> {
    const EXPECTED: &str;
}

macro_rules! expected {
    ($($type:ty: $expected:literal),* $(,)?) => { $(impl Setting for $type { const EXPECTED: &str = $expected; })* };
}

expected! {
    usize: "a whole number of 0 or more",
    u64: "a whole number from 0 to 2**64 - 1",
    f32: "a number",
    f64: "a number",
    bool: "True or False",
    String: "a str",
    Vec<String>: "a list of str",
    PathBuf: "a str or a path",
}

impl<T: Setting> Setting for Option<T> {
    const EXPECTED: &str = T::EXPECTED;
}

/// A setting; an error names it.
fn setting<T: Setting>(value: PyResult<Bound<'_, PyAny>>, name: &str) -> PyResult<T> {
    let value = value?;
    value.extract().map_err(|_| {
        let found = value.repr().map_or_else(|_| "something else".to_owned(), |found| found.to_string());
        let found: String = found.chars().take(80).collect();
        errors::raise("SettingError", &format!("{name}: expected {}, found {found}", T::EXPECTED), Some(name))
    })
}

/// An entry of a dict of settings.
fn entry<T: Setting>(settings: &Bound<'_, PyDict>, name: &str) -> PyResult<T> {
    setting(settings.as_any().get_item(name), name)
}

/// What to write, from a `flamant.Sampling`.
pub fn generation(settings: &Bound<'_, PyAny>) -> PyResult<Generation> {
    fn get<T: Setting>(settings: &Bound<'_, PyAny>, name: &str) -> PyResult<T> {
        setting(settings.getattr(name), name)
    }
    let sampling = Sampling::default()
        .temperature(get(settings, "temperature")?)
        .top_k(get(settings, "top_k")?)
        .top_p(get(settings, "top_p")?)
        .min_p(get(settings, "min_p")?)
        .repetition_penalty(get(settings, "repetition_penalty")?)
        .seed(get(settings, "seed")?);
    let generation = Generation::default()
        .max_new_tokens(get(settings, "max_new_tokens")?)
        .sampling(sampling)
        .num_beams(get(settings, "num_beams")?)
        .length_penalty(get(settings, "length_penalty")?)
        .no_repeat_ngram_size(get(settings, "no_repeat_ngram_size")?)
        .stop(get(settings, "stop")?)
        .ignore_eos(get(settings, "ignore_eos")?)
        .top_logprobs(get(settings, "top_logprobs")?);
    generation.check().map_err(|error| errors::setting(&error))?;
    Ok(generation)
}

/// The model to open, how, and the template of its conversations, from the keyword arguments of `flamant.Engine`.
pub struct EngineSettings {
    pub model: Option<PathBuf>,
    pub chat_template: Option<String>,
    pub options: Options,
}

/// What an engine is opened with.
pub fn engine(settings: &Bound<'_, PyDict>) -> PyResult<EngineSettings> {
    let limits = Limits::default()
        .max_sequences(entry(settings, "max_sequences")?)
        .max_batched_tokens(entry(settings, "max_batched_tokens")?)
        .max_batched_images(entry(settings, "max_batched_images")?)
        .text_pages(entry(settings, "text_pages")?)
        .media_pages(entry(settings, "media_pages")?)
        .queue(entry(settings, "queue")?)
        .prefix_caching(entry(settings, "prefix_caching")?);
    let parsed = |name: &str, error: flamant::Error| errors::raise("SettingError", &error.to_string(), Some(name));
    let device: String = entry(settings, "device")?;
    let device: Device = device.parse().map_err(|error| parsed("device", error))?;
    let dtype: Option<String> = entry(settings, "dtype")?;
    let dtype: Option<Dtype> = dtype.map(|dtype| dtype.parse()).transpose().map_err(|error| parsed("dtype", error))?;
    let kv_dtype: String = entry(settings, "kv_dtype")?;
    let kv_dtype: KvDtype = kv_dtype.parse().map_err(|error| parsed("kv_dtype", error))?;
    let load: String = entry(settings, "load")?;
    let load: Load = load.parse().map_err(|error| parsed("load", error))?;
    let options = Options::default()
        .device(device)
        .dtype(dtype)
        .kv_dtype(kv_dtype)
        .threads(entry(settings, "threads")?)
        .load(load)
        .context_max(entry(settings, "context_max")?)
        .limits(limits);
    options.check().map_err(|error| errors::setting(&error))?;
    Ok(EngineSettings { model: entry(settings, "model")?, chat_template: entry(settings, "chat_template")?, options })
}

/// What to do with a prompt: to write with `sampling`, else to weigh `choices`, else to score it.
pub fn task(
    sampling: Option<&Bound<'_, PyAny>>,
    choices: Option<Vec<String>>,
    logits: bool,
    top_logprobs: usize,
) -> PyResult<Task> {
    Ok(match (sampling, choices) {
        (Some(sampling), _) => Task::Generate(generation(sampling)?),
        (None, Some(choices)) => Task::classify(choices),
        (None, None) => {
            let mut task = Task::score_top(top_logprobs);
            if let Task::Score { logits: wanted, .. } = &mut task {
                *wanted = logits;
            }
            task
        }
    })
}

/// What a server's routes are told, from the keyword arguments of `flamant.asgi`.
pub fn server(settings: &Bound<'_, PyDict>) -> PyResult<serve::Settings> {
    let refused = |name: &str, error: flamant::Error| errors::raise("SettingError", &error.to_string(), Some(name));
    let keys: Vec<String> = entry(settings, "api_keys")?;
    let keys = match keys.is_empty() {
        true => Keys::default(),
        false => Keys::from_lines("api_keys", &keys.join("\n")).map_err(|error| refused("api_keys", error))?,
    };
    let log: String = entry(settings, "log")?;
    let log: Log = log.parse().map_err(|error| refused("log", error))?;
    let seconds = |name: &str| -> PyResult<Duration> {
        let found: f64 = entry(settings, name)?;
        let expected =
            || errors::raise("SettingError", &format!("{name}: expected seconds, found {found}"), Some(name));
        Duration::try_from_secs_f64(found).map_err(|_| expected())
    };
    let settings = serve::Settings::default()
        .name(entry(settings, "name")?)
        .api_keys(keys)
        .hosts(entry(settings, "hosts")?)
        .cors_origins(entry(settings, "cors_origins")?)
        .queue(entry(settings, "queue")?)
        .body_max(entry(settings, "max_body")?)
        .inflight_bytes_max(entry(settings, "max_inflight_bytes")?)
        .images_max(entry(settings, "max_images")?)
        .pixels_max(entry(settings, "max_pixels")?)
        .body_timeout(seconds("body_timeout")?)
        .request_timeout(seconds("request_timeout")?)
        .allow_ffmpeg(entry(settings, "allow_ffmpeg")?)
        .salt_by_key(entry(settings, "salt_by_key")?)
        .lenient(entry(settings, "lenient")?)
        .page(entry(settings, "page")?)
        .log(log);
    settings.check().map_err(|error| errors::setting(&error))?;
    Ok(settings)
}
