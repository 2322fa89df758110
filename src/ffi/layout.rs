//! The structs and numbers of `include/flamant.h`, as C lays them out. `tests.rs` holds both to be the same, and the
//! header says what each means.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

use bytemuck::Zeroable;

/// What came of a call.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Ok = 0,
    NoEvent = 1,
    Idle = 2,
    Stopped = 3,
    Timeout = 4,
    InvalidArgument = 10,
    InvalidHandle = 11,
    NotFound = 12,
    Busy = 13,
    Limit = 20,
    File = 21,
    InvalidFile = 22,
    Device = 23,
    QueueFull = 24,
    Internal = 30,
    NotFinite = 31,
}

impl Status {
    /// All of them with the names that C has for them.
    pub(super) const NAMES: [(Status, &'static CStr); 16] = [
        (Status::Ok, c"FLAMANT_OK"),
        (Status::NoEvent, c"FLAMANT_NO_EVENT"),
        (Status::Idle, c"FLAMANT_IDLE"),
        (Status::Stopped, c"FLAMANT_STOPPED"),
        (Status::Timeout, c"FLAMANT_TIMEOUT"),
        (Status::InvalidArgument, c"FLAMANT_INVALID_ARGUMENT"),
        (Status::InvalidHandle, c"FLAMANT_INVALID_HANDLE"),
        (Status::NotFound, c"FLAMANT_NOT_FOUND"),
        (Status::Busy, c"FLAMANT_BUSY"),
        (Status::Limit, c"FLAMANT_LIMIT"),
        (Status::File, c"FLAMANT_FILE"),
        (Status::InvalidFile, c"FLAMANT_INVALID_FILE"),
        (Status::Device, c"FLAMANT_DEVICE"),
        (Status::QueueFull, c"FLAMANT_QUEUE_FULL"),
        (Status::Internal, c"FLAMANT_INTERNAL"),
        (Status::NotFinite, c"FLAMANT_NOT_FINITE"),
    ];
}

pub(super) const ABI_VERSION: u32 = 1;

pub(super) const PART_TEXT: u32 = 1;
pub(super) const PART_IMAGE: u32 = 2;
pub(super) const PART_PIXELS: u32 = 3;
pub(super) const PART_VIDEO: u32 = 4;

pub(super) const GENERATE: u32 = 1;
pub(super) const CLASSIFY: u32 = 2;
pub(super) const SCORE: u32 = 3;
pub(super) const FEATURES: u32 = 4;

pub(super) const EVENT_TOKEN: u32 = 1;
pub(super) const EVENT_LOGITS: u32 = 2;
pub(super) const EVENT_WRITTEN: u32 = 3;
pub(super) const EVENT_CLASSIFIED: u32 = 4;
pub(super) const EVENT_SCORED: u32 = 5;
pub(super) const EVENT_CANCELLED: u32 = 6;
pub(super) const EVENT_FAILED: u32 = 7;
pub(super) const EVENT_FEATURES: u32 = 8;

pub(super) const LOAD_MAP: u32 = 0;
pub(super) const LOAD_READ: u32 = 1;

pub(super) const LOG_OFF: u32 = 0;
pub(super) const LOG_ERROR: u32 = 1;
pub(super) const LOG_WARN: u32 = 2;
pub(super) const LOG_INFO: u32 = 3;
pub(super) const LOG_DEBUG: u32 = 4;

pub(super) const WAIT_WORK: u32 = 1;
pub(super) const WAIT_EVENT: u32 = 2;
pub(super) const FOREVER: u32 = u32::MAX;

pub(super) const FINISH_STOP: u32 = 1;
pub(super) const FINISH_LENGTH: u32 = 2;

/// `flamant_text`
#[repr(C)]
#[derive(Clone, Copy, Zeroable)]
pub(super) struct Text {
    pub data: *const c_char,
    pub length: usize,
}

/// `flamant_part`
#[repr(C)]
#[derive(Clone, Copy, Zeroable)]
pub(super) struct Part {
    pub kind: u32,
    pub width: u32,
    pub height: u32,
    pub unused: u32,
    pub data: *const c_void,
    pub length: usize,
    pub stride: usize,
}

/// `flamant_engine_options`
#[repr(C)]
#[derive(Clone, Copy, Zeroable)]
pub(super) struct EngineOptions {
    pub struct_size: usize,
    pub model: *const c_char,
    pub device: *const c_char,
    pub dtype: *const c_char,
    pub kv_dtype: *const c_char,
    pub threads: usize,
    pub context_max: usize,
    pub max_sequences: usize,
    pub max_batched_tokens: usize,
    pub max_batched_images: usize,
    pub text_pages: usize,
    pub media_pages: usize,
    pub queue: usize,
    pub queue_bytes: u64,
    pub prefix_caching: u32,
    pub load: u32,
}

/// `flamant_request`
#[repr(C)]
#[derive(Clone, Copy, Zeroable)]
pub(super) struct RequestOptions {
    pub struct_size: usize,
    pub parts: *const Part,
    pub part_count: usize,
    pub task: u32,
    pub logits: u32,
    pub max_new_tokens: usize,
    pub num_beams: usize,
    pub length_penalty: f32,
    pub temperature: f32,
    pub top_k: usize,
    pub top_p: f32,
    pub min_p: f32,
    pub repetition_penalty: f32,
    pub ignore_eos: u32,
    pub seed: u64,
    pub stop: *const Text,
    pub stop_count: usize,
    pub choices: *const Text,
    pub choice_count: usize,
    pub max_pixels: u64,
    pub no_repeat_ngram_size: usize,
}

/// `flamant_choice`
#[repr(C)]
#[derive(Clone, Copy, Zeroable)]
pub(super) struct ChoiceView {
    pub text: Text,
    pub ids: *const u32,
    pub token_count: usize,
    pub sum: f64,
    pub mean: f64,
}

/// `flamant_event`
#[repr(C)]
#[derive(Clone, Copy, Zeroable)]
pub(super) struct EventView {
    pub struct_size: usize,
    pub request: u64,
    pub kind: u32,
    pub is_last: u32,
    pub text: Text,
    pub token: u32,
    pub finish: u32,
    pub logprob: f64,
    pub position: usize,
    pub logits: *const f32,
    pub logit_count: usize,
    pub ids: *const u32,
    pub logprobs: *const f64,
    pub token_count: usize,
    pub choices: *const ChoiceView,
    pub choice_count: usize,
    pub failure: i32,
    pub unused: u32,
    pub prompt_tokens: usize,
    pub cached_tokens: usize,
    pub completion_tokens: usize,
    pub images: usize,
    pub images_encoded: usize,
    pub queue_seconds: f64,
    pub media_seconds: f64,
    pub prompt_seconds: f64,
    pub decode_seconds: f64,
    pub features: *const f32,
    pub feature_count: usize,
    pub feature_width: usize,
}

/// `flamant_stats`
#[repr(C)]
#[derive(Clone, Copy, Zeroable)]
pub(super) struct StatsView {
    pub struct_size: usize,
    pub requests_running: u64,
    pub requests_waiting: u64,
    pub requests_finished: u64,
    pub requests_cancelled: u64,
    pub requests_failed: u64,
    pub steps: u64,
    pub tokens_computed: u64,
    pub tokens_cached: u64,
    pub tokens_written: u64,
    pub images_encoded: u64,
    pub images_cached: u64,
    pub preemptions: u64,
    pub text_pages_total: u64,
    pub text_pages_held: u64,
    pub text_pages_cached: u64,
    pub media_pages_total: u64,
    pub media_pages_held: u64,
    pub media_pages_cached: u64,
    pub schedule_seconds: f64,
    pub media_seconds: f64,
    pub text_seconds: f64,
    pub commit_seconds: f64,
    pub bytes_fetched: u64,
    pub images_held: u64,
    pub images_kept: u64,
}

/// `flamant_engine *`: a number, never an address.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct Handle(*mut c_void);

impl Handle {
    pub(super) fn new(number: usize) -> Handle {
        Handle(ptr::without_provenance_mut(number))
    }

    /// 0: null.
    pub(super) fn number(self) -> usize {
        self.0.addr()
    }
}

/// `flamant_log_callback`
pub(super) type LogCallback = extern "C" fn(u32, *const c_char, *mut c_void);

/// `flamant_callback`
pub(super) type Callback = extern "C" fn(*const EventView, *mut c_void) -> c_int;
