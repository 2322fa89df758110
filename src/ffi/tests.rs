//! The header and this module say the same, structs grow as promised, and nothing but a status leaves an entry.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fmt::Write as _;
use std::mem::offset_of;
use std::process::Command;
use std::ptr;
use std::sync::mpsc::channel;

use super::layout::*;
use super::*;
use crate::engine::{Engine, Event, EventKind, Options, panicking};
use crate::prompt::Prompt;

/// A type as C spells it.
trait Spelled {
    fn spelled() -> String;
}

macro_rules! spelled {
    ($($ours:ty: $theirs:literal),+ $(,)?) => {
        $(impl Spelled for $ours {
            fn spelled() -> String {
                $theirs.to_owned()
            }
        })+
    };
}

spelled! {
    u32: "uint32_t", i32: "int32_t", u64: "uint64_t", usize: "size_t", f32: "float", f64: "double", c_char: "char",
    c_void: "void", Status: "flamant_status", Handle: "flamant_engine *", Text: "flamant_text", Part: "flamant_part",
    EngineOptions: "flamant_engine_options", RequestOptions: "flamant_request", ChoiceView: "flamant_choice",
    EventView: "flamant_event", StatsView: "flamant_stats", Option<Callback>: "flamant_callback",
    Option<LogCallback>: "flamant_log_callback",
}

impl<T: Spelled> Spelled for *const T {
    fn spelled() -> String {
        match T::spelled() {
            pointer if pointer.ends_with('*') => format!("{pointer} const *"),
            value => format!("const {value} *"),
        }
    }
}

impl<T: Spelled> Spelled for *mut T {
    fn spelled() -> String {
        format!("{} *", T::spelled())
    }
}

macro_rules! spelled_functions {
    ($($($argument:ident)*;)+) => {
        $(impl<$($argument: Spelled,)* R: Spelled> Spelled for extern "C" fn($($argument),*) -> R {
            fn spelled() -> String {
                let arguments: Vec<String> = vec![$($argument::spelled()),*];
                let arguments = if arguments.is_empty() { "void".to_owned() } else { arguments.join(", ") };
                format!("{} (*)({arguments})", R::spelled())
            }
        })+
    };
}

spelled_functions! {
    ;
    A;
    A B;
    A B C;
}

/// What C must agree to: an expression, and its value or its type.
#[derive(Default)]
struct Claims(String);

impl Claims {
    fn value(&mut self, expression: &str, value: i128) {
        writeln!(self.0, "_Static_assert({expression} == {value}, \"{expression} is not {value}\");").unwrap();
    }

    fn is_spelled<T: Spelled>(&mut self, expression: &str, _: fn() -> T) {
        let name = T::spelled();
        let test = format!("_Generic({expression}, {name}: 1, default: 0)");
        writeln!(self.0, "_Static_assert({test}, \"{expression} is no {name}\");").unwrap();
    }
}

/// Where a field stands, how large it is, and of what type.
macro_rules! structs {
    ($claims:ident: $($ours:ident $theirs:ident { $($field:ident)+ })+) => {
        $(
            $claims.value(concat!("sizeof(", stringify!($theirs), ")"), size_of::<$ours>() as i128);
            let zero: $ours = bytemuck::Zeroable::zeroed();
            assert_eq!(0 $(+ size_of_val(&zero.$field))+, size_of::<$ours>(), "padding or a field that is not named");
            $(
                let field = concat!("((", stringify!($theirs), " *)0)->", stringify!($field));
                let offset = concat!("offsetof(", stringify!($theirs), ", ", stringify!($field), ")");
                $claims.value(offset, offset_of!($ours, $field) as i128);
                $claims.is_spelled(field, || {
                    let value: $ours = bytemuck::Zeroable::zeroed();
                    value.$field
                });
            )+
        )+
    };
}

macro_rules! functions {
    ($claims:ident: $($name:ident($($argument:ty),*) -> $result:ty;)+) => {
        $(
            $claims.is_spelled(concat!("&", stringify!($name)), || {
                let function: extern "C" fn($($argument),*) -> $result = $name;
                function
            });
        )+
    };
}

fn claims() -> String {
    let mut claims = Claims::default();
    structs! { claims:
        Text flamant_text { data length }
        Part flamant_part { kind width height unused data length stride }
        EngineOptions flamant_engine_options {
            struct_size model device dtype kv_dtype threads context_max max_sequences max_batched_tokens
            max_batched_images text_pages media_pages queue queue_bytes prefix_caching load
        }
        RequestOptions flamant_request {
            struct_size parts part_count task logits max_new_tokens num_beams length_penalty
            temperature top_k top_p min_p
            repetition_penalty ignore_eos seed stop stop_count choices choice_count max_pixels no_repeat_ngram_size
        }
        ChoiceView flamant_choice { text ids token_count sum mean }
        EventView flamant_event {
            struct_size request kind is_last text token finish logprob position logits logit_count ids logprobs
            token_count choices choice_count failure unused prompt_tokens cached_tokens completion_tokens images
            images_encoded queue_seconds media_seconds prompt_seconds decode_seconds features
            feature_count feature_width
        }
        StatsView flamant_stats {
            struct_size requests_running requests_waiting requests_finished requests_cancelled requests_failed steps
            tokens_computed tokens_cached tokens_written images_encoded images_cached preemptions
            text_pages_total text_pages_held text_pages_cached media_pages_total media_pages_held media_pages_cached
            schedule_seconds media_seconds text_seconds commit_seconds bytes_fetched images_held images_kept
        }
    }
    functions! { claims:
        flamant_abi_version() -> u32;
        flamant_version() -> *const c_char;
        flamant_build_info_json() -> *const c_char;
        flamant_status_name(i32) -> *const c_char;
        flamant_last_error() -> *const c_char;
        flamant_devices_json(*mut *const c_char) -> Status;
        flamant_set_log(u32, Option<LogCallback>, *mut c_void) -> Status;
        flamant_engine_options_init(*mut EngineOptions, usize) -> Status;
        flamant_request_init(*mut RequestOptions, usize) -> Status;
        flamant_engine_open(*const EngineOptions, *mut Handle) -> Status;
        flamant_engine_free(Handle) -> Status;
        flamant_engine_info_json(Handle, *mut *const c_char) -> Status;
        flamant_engine_submit(Handle, *const RequestOptions, *mut u64) -> Status;
        flamant_engine_cancel(Handle, u64) -> Status;
        flamant_engine_step(Handle, *mut usize) -> Status;
        flamant_engine_wait(Handle, u32, u32) -> Status;
        flamant_engine_next_event(Handle, *mut *const EventView) -> Status;
        flamant_event_release(*const EventView) -> Status;
        flamant_engine_run(Handle, Option<Callback>, *mut c_void) -> Status;
        flamant_engine_stats(Handle, *mut StatsView, usize) -> Status;
    }
    claims.is_spelled("(flamant_request_id)0", || 0u64);
    claims.constants();
    claims.0
}

impl Claims {
    fn constants(&mut self) {
        for (status, name) in Status::NAMES {
            self.value(name.to_str().unwrap(), status as i128);
        }
        for (name, value) in [
            ("FLAMANT_ABI_VERSION", ABI_VERSION),
            ("FLAMANT_PART_TEXT", PART_TEXT),
            ("FLAMANT_PART_IMAGE", PART_IMAGE),
            ("FLAMANT_PART_PIXELS", PART_PIXELS),
            ("FLAMANT_PART_VIDEO", PART_VIDEO),
            ("FLAMANT_GENERATE", GENERATE),
            ("FLAMANT_CLASSIFY", CLASSIFY),
            ("FLAMANT_SCORE", SCORE),
            ("FLAMANT_FEATURES", FEATURES),
            ("FLAMANT_LOAD_MAP", LOAD_MAP),
            ("FLAMANT_LOAD_READ", LOAD_READ),
            ("FLAMANT_LOG_OFF", LOG_OFF),
            ("FLAMANT_LOG_ERROR", LOG_ERROR),
            ("FLAMANT_LOG_WARN", LOG_WARN),
            ("FLAMANT_LOG_INFO", LOG_INFO),
            ("FLAMANT_LOG_DEBUG", LOG_DEBUG),
            ("FLAMANT_EVENT_TOKEN", EVENT_TOKEN),
            ("FLAMANT_EVENT_LOGITS", EVENT_LOGITS),
            ("FLAMANT_EVENT_WRITTEN", EVENT_WRITTEN),
            ("FLAMANT_EVENT_CLASSIFIED", EVENT_CLASSIFIED),
            ("FLAMANT_EVENT_SCORED", EVENT_SCORED),
            ("FLAMANT_EVENT_CANCELLED", EVENT_CANCELLED),
            ("FLAMANT_EVENT_FAILED", EVENT_FAILED),
            ("FLAMANT_EVENT_FEATURES", EVENT_FEATURES),
            ("FLAMANT_WAIT_WORK", WAIT_WORK),
            ("FLAMANT_WAIT_EVENT", WAIT_EVENT),
            ("FLAMANT_FOREVER", FOREVER),
            ("FLAMANT_FINISH_STOP", FINISH_STOP),
            ("FLAMANT_FINISH_LENGTH", FINISH_LENGTH),
        ] {
            self.value(name, value.into());
        }
    }
}

/// What a C compiler says to the claims; empty: it agrees.
fn compiler_says(claims: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("claims.c");
    std::fs::write(&source, format!("#include <flamant.h>\n{claims}")).unwrap();
    let include = concat!("-I", env!("CARGO_MANIFEST_DIR"), "/include");
    let flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only", include];
    let output = Command::new("cc").args(flags).arg(source).output().expect("a C compiler named cc is there");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn the_header_says_what_stands_here() {
    let claims = claims();
    assert_eq!(compiler_says(&claims), "");
    // Every name of the header is spoken of.
    let header = include_str!("../../include/flamant.h");
    let words = header.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names = words.filter(|word| word.to_ascii_lowercase().starts_with("flamant_") && !word.ends_with('_'));
    for name in
        names.filter(|name| !["FLAMANT_H", "flamant_engine", "flamant_callback", "flamant_log_callback"].contains(name))
    {
        assert!(claims.contains(name), "{name} is held to nothing");
    }
    // A compiler that would not look is found out.
    for (right, wrong) in [("size_t: 1", "int: 1"), ("FLAMANT_BUSY == 13", "FLAMANT_BUSY == 14")] {
        assert!(claims.contains(right));
        assert!(compiler_says(&claims.replacen(right, wrong, 1)).contains("static assertion failed"), "{wrong}");
    }
}

fn last_error() -> String {
    // SAFETY: the text stays until the next call on this thread, and is copied before.
    unsafe { CStr::from_ptr(flamant_last_error()) }.to_str().unwrap().to_owned()
}

/// A request of a program that was compiled with a later header.
#[repr(C)]
struct Later {
    known: RequestOptions,
    later: [u64; 2],
}

#[test]
fn a_later_program_is_served_unless_it_uses_what_is_not_here() {
    let mut request = Later { known: ask::default_request(), later: [7; 2] };
    assert_eq!(flamant_request_init((&raw mut request).cast(), size_of::<Later>()), Status::Ok);
    assert_eq!((request.later, request.known.struct_size), ([0; 2], size_of::<Later>()));
    let read = |request: &Later| memory::read(ptr::from_ref(request).cast(), ask::default_request());
    assert_eq!(read(&request).unwrap().max_new_tokens, 64);
    request.later[1] = 1 << 40;
    let refused = read(&request).err().unwrap().to_string();
    assert!(refused.starts_with("flamant_request: expected nothing but zeros after the "), "{refused}");
}

#[test]
fn an_earlier_program_is_served_with_defaults() {
    let mut request = ask::default_request();
    request.max_new_tokens = 7;
    request.seed = 5;
    request.struct_size = offset_of!(RequestOptions, seed);
    let read = memory::read(&request, ask::default_request()).unwrap();
    assert_eq!((read.max_new_tokens, read.seed), (7, 0));
    // What it does not know is not written to.
    assert_eq!(flamant_request_init(&mut request, offset_of!(RequestOptions, seed)), Status::Ok);
    assert_eq!((request.max_new_tokens, request.seed), (64, 5));
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let mut request = ask::default_request();
    for size in [0, 4, size_of::<RequestOptions>() + 1, 1 << 20, usize::MAX] {
        assert_eq!(flamant_request_init(&mut request, size), Status::InvalidArgument, "{size}");
        assert!(last_error().ends_with(&format!("found {size}")), "{}", last_error());
        request.struct_size = size;
        assert!(memory::read(&request, ask::default_request()).is_err(), "{size}");
    }
}

#[test]
fn a_panic_becomes_a_status() {
    assert_eq!(answer(|| panic!("one\ntwo {}", 3)), Status::Internal);
    assert_eq!(last_error(), "a fault of the library: one\\ntwo 3");
    assert_eq!(answer(|| std::panic::panic_any(4)), Status::Internal);
    assert_eq!(answer(|| Ok(Status::Ok)), Status::Ok);
    assert_eq!(last_error(), "");
}

/// The model in the program, whose steps do some work first.
fn open_with(work: impl FnMut() + Send + 'static) -> Handle {
    let mut engine = Engine::demo(&Options::default()).unwrap();
    engine.before_run(Box::new(work));
    registry::add(engine)
}

/// Submits a text to write after.
fn submit(engine: Handle, max_new_tokens: usize) -> (Status, u64) {
    let text = "kep.";
    let (data, length) = (text.as_ptr().cast(), text.len());
    let part = Part { kind: PART_TEXT, data, length, ..bytemuck::Zeroable::zeroed() };
    let asked = RequestOptions { parts: &part, part_count: 1, max_new_tokens, ignore_eos: 1, ..ask::default_request() };
    let mut id = 0;
    (flamant_engine_submit(engine, &asked, &mut id), id)
}

fn stats(engine: Handle) -> (Status, StatsView) {
    let mut stats = bytemuck::Zeroable::zeroed();
    (flamant_engine_stats(engine, &mut stats, size_of::<StatsView>()), stats)
}

fn next_event<'a>(engine: Handle) -> (Status, Option<&'a EventView>) {
    let mut event = ptr::null();
    let status = flamant_engine_next_event(engine, &mut event);
    // SAFETY: null, or an event that stays until it is released, which the tests do last.
    (status, unsafe { event.as_ref() })
}

#[test]
fn an_engine_that_had_a_fault_can_only_be_freed() {
    let engine = open_with(|| panic!("in the middle of a step"));
    assert_eq!(submit(engine, 2).0, Status::Ok);
    assert_eq!(flamant_engine_step(engine, ptr::null_mut()), Status::Internal);
    assert_eq!(last_error(), "a fault of the library: in the middle of a step");
    let after = [
        flamant_engine_step(engine, ptr::null_mut()),
        flamant_engine_wait(engine, WAIT_WORK, FOREVER),
        flamant_engine_wait(engine, WAIT_EVENT, FOREVER),
        next_event(engine).0,
        submit(engine, 2).0,
        stats(engine).0,
        flamant_engine_cancel(engine, 1),
    ];
    assert_eq!(after, [Status::Internal; 7]);
    assert!(last_error().contains("can only be freed"), "{}", last_error());
    assert_eq!(flamant_engine_free(engine), Status::Ok);
    assert_eq!(flamant_engine_free(engine), Status::InvalidHandle);
}

/// A step ends only when it is told to, after all these calls have returned; then the one that does it finds that the
/// engine was freed.
#[test]
fn nobody_waits_for_a_step() {
    let ((begins, begun), (go, told)) = (channel(), channel::<()>());
    let engine = open_with(move || {
        begins.send(()).unwrap();
        told.recv().unwrap();
    });
    // A handle is made to look like an address, which is not sent to other threads.
    let number = engine.number();
    let step = || flamant_engine_step(Handle::new(number), ptr::null_mut());
    let wait_for_event = || flamant_engine_wait(Handle::new(number), WAIT_EVENT, FOREVER);
    assert_eq!(flamant_engine_wait(engine, WAIT_WORK, 0), Status::Timeout);
    let (status, first) = submit(engine, 3);
    assert_eq!((status, flamant_engine_wait(engine, WAIT_WORK, FOREVER)), (Status::Ok, Status::Ok));
    std::thread::scope(|scope| {
        let stepping = scope.spawn(step);
        begun.recv().unwrap();
        assert_eq!(step(), Status::Busy);
        assert_eq!(submit(engine, 3).0, Status::Ok);
        let (_, counts) = stats(engine);
        assert_eq!((counts.requests_running, counts.requests_waiting, counts.steps), (1, 1, 0));
        assert_eq!(
            (next_event(engine).0, flamant_engine_wait(engine, WAIT_EVENT, 1)),
            (Status::NoEvent, Status::Timeout)
        );
        let waiting = scope.spawn(wait_for_event);
        go.send(()).unwrap();
        assert_eq!((stepping.join().unwrap(), waiting.join().unwrap()), (Status::Ok, Status::Ok));
    });
    let (status, event) = next_event(engine);
    assert_eq!(status, Status::Ok);
    let event = event.unwrap();
    assert_eq!((event.request, event.kind), (first, EVENT_TOKEN));
    let seen = (event.token, event.logprob.to_bits());

    // Freed in the middle of the next step, the event lives on.
    std::thread::scope(|scope| {
        let stepping = scope.spawn(step);
        begun.recv().unwrap();
        assert_eq!(flamant_engine_cancel(engine, first), Status::Ok);
        let waiting = scope.spawn(wait_for_event);
        assert_eq!(flamant_engine_free(engine), Status::Ok);
        assert_eq!((waiting.join().unwrap(), submit(engine, 3).0), (Status::InvalidHandle, Status::InvalidHandle));
        go.send(()).unwrap();
        assert_eq!(stepping.join().unwrap(), Status::InvalidHandle);
    });
    // The engine is gone, and with it who would say that a step begins.
    assert!(begun.recv().is_err());
    assert_eq!((event.token, event.logprob.to_bits()), seen);
    assert_eq!(flamant_event_release(event), Status::Ok);
    assert_eq!(flamant_event_release(ptr::null()), Status::Ok);
}

#[test]
fn a_panic_while_preparing_leaves_the_engine_whole() {
    let mut engine = Handle::new(0);
    assert_eq!(flamant_engine_open(ptr::null(), &mut engine), Status::Ok);
    assert_eq!(panicking(|| submit(engine, 2)), (Status::Internal, 0));
    assert!(
        last_error().starts_with("a fault of the library while preparing a request: on purpose ("),
        "{}",
        last_error()
    );
    let (status, id) = submit(engine, 2);
    assert!(status == Status::Ok && id != 0);
    assert_eq!(flamant_engine_step(engine, ptr::null_mut()), Status::Ok);
    assert_eq!(flamant_engine_free(engine), Status::Ok);
}

#[test]
fn a_request_that_is_not_finite_has_a_status_of_its_own() {
    let error = Error::NotFinite { request: 7, token: 3 };
    let event = Event { id: 7.into(), kind: EventKind::Failed(error.clone()) };
    let shown = show::Shown::new(show::Told::of(event).unwrap());
    let view = shown.view();
    assert_eq!((view.request, view.kind, view.is_last), (7, EVENT_FAILED, 1));
    assert_eq!((view.failure, view.text.length), (Status::NotFinite as i32, error.to_string().len()));
}

fn prompt_of(asked: &RequestOptions) -> Result<Prompt, Error> {
    Ok(match ask::request(asked)? {
        ask::Asked::Request(request) => request.prompt,
        ask::Asked::Features(prompt) => prompt,
    })
}

#[test]
fn rows_that_stand_apart_are_the_same_image() {
    let (width, height, stride) = (5u32, 3u32, 20usize);
    let packed: Vec<u8> = (0..width as u8 * height as u8 * 3).collect();
    let mut apart = vec![255; stride * 2 + 15];
    for (row, line) in packed.chunks(15).enumerate() {
        apart[row * stride..row * stride + 15].copy_from_slice(line);
    }
    let images = [(&packed, 0), (&packed, 15), (&apart, stride)].map(|(bytes, stride)| {
        let (data, length) = (bytes.as_ptr().cast(), bytes.len());
        let part = Part { kind: PART_PIXELS, width, height, unused: 0, data, length, stride };
        let asked = RequestOptions { parts: &part, part_count: 1, ..ask::default_request() };
        prompt_of(&asked).unwrap().media().next().unwrap()[0].clone()
    });
    assert_eq!(images[0].pixels(), packed);
    assert!(images.iter().all(|image| *image == images[0]));
}

#[test]
fn a_video_is_an_array_of_its_frames() {
    let pixels: Vec<u8> = (0..12).collect();
    let file = include_bytes!("../../tests/data/images/sources/rgb.bmp");
    let part = |kind, data: *const c_void, length| Part { kind, data, length, ..bytemuck::Zeroable::zeroed() };
    let frames = [
        Part { width: 2, height: 2, ..part(PART_PIXELS, pixels.as_ptr().cast(), pixels.len()) },
        part(PART_IMAGE, file.as_ptr().cast(), file.len()),
    ];
    let read = |frames: &[Part]| {
        let video = part(PART_VIDEO, frames.as_ptr().cast(), frames.len());
        let asked = RequestOptions { parts: &video, part_count: 1, ..ask::default_request() };
        let media = |prompt: Prompt| prompt.media().map(<[_]>::to_vec).collect::<Vec<_>>();
        prompt_of(&asked).map(media).map_err(|error| error.to_string())
    };
    let [video] = read(&frames).unwrap().try_into().unwrap();
    assert_eq!((video.len(), video[0].pixels(), video[1].width()), (2, &pixels[..], 31));
    let refused = |frames: &[Part], because: &str| assert_eq!(read(frames).unwrap_err(), because);
    refused(&[], "part 0: video: expected at least one frame, found none");
    refused(&[frames[0]; 129], "number of frames of part 0: 129 is over the limit of 128");
    let kinds = "part 0: frame 1: kind: expected FLAMANT_PART_IMAGE or FLAMANT_PART_PIXELS, found";
    for kind in [PART_TEXT, PART_VIDEO] {
        refused(&[frames[0], part(kind, ptr::null(), 0)], &format!("{kinds} {kind}"));
    }
    refused(&[Part { stride: 3, ..frames[1] }], "part 0: frame 0: stride: expected 0, found 3");
}
