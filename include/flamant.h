/*
 * Flamant: few-shot visual language models of the Flamingo family (OpenFlamingo, IDEFICS), from C.
 *
 *     flamant_engine *engine;
 *     flamant_engine_open(NULL, &engine);                         the model in the library; nothing to download
 *     flamant_request request;
 *     flamant_request_init(&request, sizeof request);
 *     request.parts = parts, request.part_count = 3;              text, images and videos, in order
 *     flamant_engine_submit(engine, &request, &id);               any number of them run together
 *     flamant_engine_run(engine, on_event, user);                 or: flamant_engine_step, flamant_engine_next_event,
 *                                                                 flamant_event_release
 *     flamant_engine_free(engine);
 *
 * Statuses. Every function that can go wrong returns a flamant_status: FLAMANT_OK, a small number that is no failure
 * (1 to 9), or a failure (10 and above), of which flamant_last_error() says more in one line. A function that fails
 * has changed nothing, and what it would have written is left as it was.
 *
 * Memory. What you pass in is read during the call and never kept. What you get out is given back by you: an engine by
 * flamant_engine_free, an event by flamant_event_release. Until then an event and all it points to stay as they are,
 * whatever any thread calls, also when its engine is freed. An event that a callback gets is its for that call.
 *
 * Threads. Different engines are independent. Of one engine:
 *
 *     call                                    from                        waits for
 *     flamant_engine_step, flamant_engine_run one thread at a time, any   the device; while one is at work, others
 *                                                                         are answered FLAMANT_BUSY
 *     flamant_engine_submit, _cancel, _stats, any thread, any number      nothing: never for a step
 *     _info_json, _next_event,
 *     flamant_event_release
 *     flamant_engine_wait                     any thread, any number      work or an event, at most the time given
 *     flamant_engine_free                     any thread, once            nothing: a step at work goes on to its end,
 *                                                                         and the call that does it frees the engine
 *
 * The callback of flamant_engine_run may call all of them; step and run are answered FLAMANT_BUSY there. When an
 * engine is freed, its requests end without events, calls that wait or step return FLAMANT_INVALID_HANDLE, and events
 * that were not taken are gone. A server is three kinds of threads: many that submit, one that steps, one that takes
 * events.
 *
 *     while (flamant_engine_wait(engine, FLAMANT_WAIT_WORK, FLAMANT_FOREVER) == FLAMANT_OK)         steps
 *         flamant_engine_step(engine, NULL);
 *     while (flamant_engine_wait(engine, FLAMANT_WAIT_EVENT, FLAMANT_FOREVER) == FLAMANT_OK)        takes events
 *         while (flamant_engine_next_event(engine, &event) == FLAMANT_OK)
 *             answer(event), flamant_event_release(event);
 *     flamant_engine_free(engine);                                                                  ends both
 *
 * Handles are numbers, not addresses: none is ever used twice, and each is looked up. A handle that is null, made up or
 * freed is answered by FLAMANT_INVALID_HANDLE, also if two threads free it at once. Other pointers must be null or
 * valid; null where it cannot be is answered by FLAMANT_INVALID_ARGUMENT.
 *
 * Sizes. Options begin with their size, as the caller was compiled; fields are only ever added at the end. Fields that
 * a shorter struct lacks have their defaults; a longer struct is read if all that this library does not know is zero.
 * So a program runs with every library that has the same FLAMANT_ABI_VERSION, older or newer. Machines have 64 bits.
 */
#ifndef FLAMANT_H
#define FLAMANT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What this header describes; flamant_abi_version() says what the library is. */
#define FLAMANT_ABI_VERSION 1

/* An open model with its queue of requests. A handle, never to be looked into. */
typedef struct flamant_engine flamant_engine;

/* A request: a number that no other request in the process has or will have. 0 is none. */
typedef uint64_t flamant_request_id;

/* What came of a call. */
typedef int32_t flamant_status;
enum {
    FLAMANT_OK = 0,

    FLAMANT_NO_EVENT = 1, /* flamant_engine_next_event: none is due; step first, or wait */
    FLAMANT_IDLE = 2,     /* flamant_engine_step: there was nothing to do */
    FLAMANT_STOPPED = 3,  /* flamant_engine_run: the callback wanted to stop */
    FLAMANT_TIMEOUT = 4,  /* flamant_engine_wait: the time is over */

    FLAMANT_INVALID_ARGUMENT = 10, /* null, a size, text that is not UTF-8, a prompt or a setting that is not usable */
    FLAMANT_INVALID_HANDLE = 11,   /* no engine, or no event: null, made up, or given back */
    FLAMANT_NOT_FOUND = 12,        /* no such request in this engine: made up, another engine's, over, or cancelled */
    FLAMANT_BUSY = 13,             /* flamant_engine_step and _run: another call steps this engine */

    FLAMANT_LIMIT = 20,        /* a limit would be passed */
    FLAMANT_FILE = 21,         /* a file could not be read */
    FLAMANT_INVALID_FILE = 22, /* a model file or an image holds something else than it must */
    FLAMANT_DEVICE = 23,       /* a device is not there, is full, or has failed */
    FLAMANT_QUEUE_FULL = 24,   /* a request that would be taken if others were over: step, and submit it again */

    FLAMANT_INTERNAL = 30,  /* a fault of the library; an engine it happened in answers nothing else and can be freed,
                               but in flamant_engine_submit: there the request is not taken, and the engine goes on */
    FLAMANT_NOT_FINITE = 31 /* of an event: what the model made of this request is not finite; others go on */
};

/* Bytes of UTF-8. Of a text that you pass in, no zero needs to follow, and data may be null if the length is 0. Of one
   that you get, a zero byte follows that is not counted. */
typedef struct flamant_text {
    const char *data;
    size_t length;
} flamant_text;

/* Kinds of parts. */
enum {
    FLAMANT_PART_TEXT = 1,    /* UTF-8; it may hold control tokens of the family, never a marker of an image */
    FLAMANT_PART_IMAGE = 2,   /* the bytes of a PNG, JPEG, WebP, GIF or BMP file */
    FLAMANT_PART_PIXELS = 3,  /* red, green, blue, one byte each; rows from the top */
    FLAMANT_PART_VIDEO = 4    /* an array of parts, its frames in the order of time: images or pixels, 1 to 128 */
};

/* One part of a prompt. This struct never grows. */
typedef struct flamant_part {
    uint32_t kind;    /* FLAMANT_PART_... */
    uint32_t width;   /* of pixels, else 0 */
    uint32_t height;  /* of pixels, else 0 */
    uint32_t unused;  /* 0 */
    const void *data; /* may be null if the length is 0; of a video: const flamant_part * */
    size_t length;    /* bytes of data; of pixels: at least up to the end of the last row; of a video: its frames */
    size_t stride;    /* of pixels: bytes from one row to the next, 0 for 3 * width; else 0 */
} flamant_part;

/* How an engine is opened. */
typedef struct flamant_engine_options {
    size_t struct_size;
    const char *model;        /* folder of a model, UTF-8, zero-terminated; null: the small one in the library */
    const char *device;       /* "cpu", "cuda", "cuda:N", "emulated" or "auto"; null: "cpu" */
    const char *dtype;        /* "f32" on cpu, or "bf16" for products; where kernels run "bf16" or "f16"; null: what suits the weights */
    const char *kv_dtype;     /* how keys and values are stored: "auto", as all numbers, or "int8"; null: "auto" */
    size_t threads;           /* workers on the processor; 0: one for each core */
    size_t context_max;       /* tokens of a sequence at most, prompt and answer; 0: what the model was made for */
    size_t max_sequences;     /* requests that run at a time at most; the others wait */
    size_t max_batched_tokens; /* tokens of one step at most; 0: by device, 2048 on cuda if they fit, 256 elsewhere */
    size_t max_batched_images; /* images encoded in one step at most; 0: by device, 32 on cuda if they fit, else 8 */
    size_t text_pages;        /* pages of 16 tokens; 0: what memory allows */
    size_t media_pages;       /* pages of 64 rows of an image; 0: what memory allows */
    size_t queue;             /* requests that wait, at most */
    uint64_t queue_bytes;     /* bytes of images and tokens of all requests that are not over, at most */
    uint32_t prefix_caching;  /* 1: beginnings of prompts and images seen before are found again; 0: not */
    uint32_t load;            /* FLAMANT_LOAD_... */
} flamant_engine_options;

/* How weights come to memory. Where one of their files is written to or cut while it is mapped and used, requests fail
   with FLAMANT_INVALID_FILE; to read behind the end of a file that was cut raises SIGBUS, which the library does not
   handle. */
enum {
    FLAMANT_LOAD_MAP = 0, /* files are mapped: a model opens at once; its files must stay as they are */
    FLAMANT_LOAD_READ = 1 /* files are read when the model is opened, and not needed afterwards */
};

/* Tasks. */
enum {
    FLAMANT_GENERATE = 1, /* write after the prompt */
    FLAMANT_CLASSIFY = 2, /* how likely each of the choices is after the prompt */
    FLAMANT_SCORE = 3,    /* how likely each token of the prompt is after those before it */
    FLAMANT_FEATURES = 4  /* what the vision tower compares images and videos by: all parts are such; it cannot be
                             cancelled */
};

/* What to do with a prompt. Settings of other tasks are not looked at. */
typedef struct flamant_request {
    size_t struct_size;
    const flamant_part *parts;
    size_t part_count;
    uint32_t task; /* FLAMANT_GENERATE, ... */

    /* FLAMANT_SCORE */
    uint32_t logits; /* 1: an event with all logits for each token; 0: not */

    /* FLAMANT_GENERATE */
    size_t max_new_tokens;    /* tokens to write at most */
    size_t num_beams;         /* beams of a beam search; 1: none */
    float length_penalty;     /* of a beam search: a log-probability is divided by the length to this power */
    float temperature;        /* 0: always the likeliest token */
    size_t top_k;             /* the k likeliest tokens; 0: all */
    float top_p;              /* the likeliest tokens that together reach this probability; 1: all */
    float min_p;              /* tokens at least this share as likely as the likeliest; 0: all */
    float repetition_penalty; /* divides the logits of tokens seen before; 1: off */
    uint32_t ignore_eos;      /* 1: go on past the family's stop tokens; 0: not */
    uint64_t seed;            /* of the random choice */
    const flamant_text *stop; /* texts that end the answer; they are not part of it */
    size_t stop_count;

    /* FLAMANT_CLASSIFY */
    const flamant_text *choices;
    size_t choice_count;

    /* Any task */
    uint64_t max_pixels; /* pixels that one image of the prompt may have; 0, or fewer than the usual 2^26: that many */

    /* FLAMANT_GENERATE */
    size_t no_repeat_ngram_size; /* no run of so many tokens occurs twice in prompt and answer; 0: off */
} flamant_request;

/* Kinds of events. A library may have more: pass over those you do not know. */
enum {
    FLAMANT_EVENT_TOKEN = 1,      /* token, logprob, and the text that it settled, maybe none; not of a beam search */
    FLAMANT_EVENT_LOGITS = 2,     /* position, logits, logit_count */
    FLAMANT_EVENT_WRITTEN = 3,    /* last: the whole text, finish, ids, logprobs, token_count */
    FLAMANT_EVENT_CLASSIFIED = 4, /* last: choices, choice_count, in the order given */
    FLAMANT_EVENT_SCORED = 5,     /* last: ids, logprobs (not a number where there is none: the first), token_count */
    FLAMANT_EVENT_CANCELLED = 6,  /* last */
    FLAMANT_EVENT_FAILED = 7,     /* last: failure, and the message as text */
    FLAMANT_EVENT_FEATURES = 8    /* last: features, feature_count, feature_width */
};

/* What flamant_engine_wait waits for. */
enum {
    FLAMANT_WAIT_WORK = 1, /* a step has something to do: a request was submitted, runs, or was cancelled */
    FLAMANT_WAIT_EVENT = 2 /* an event can be taken */
};

/* A time without end, in milliseconds. */
#define FLAMANT_FOREVER UINT32_MAX

/* Why an answer ended. */
enum {
    FLAMANT_FINISH_STOP = 1,  /* a stop token or a stop text */
    FLAMANT_FINISH_LENGTH = 2 /* max_new_tokens, or the end of the context */
};

/* One of the answers offered. This struct never grows. */
typedef struct flamant_choice {
    flamant_text text;
    const uint32_t *ids; /* its tokens */
    size_t token_count;
    double sum;  /* of their log-probabilities */
    double mean; /* of the same */
} flamant_choice;

/* Something that happened to a request. Fields that its kind does not name are zero. */
typedef struct flamant_event {
    size_t struct_size; /* as the library was compiled */
    flamant_request_id request;
    uint32_t kind;    /* FLAMANT_EVENT_... */
    uint32_t is_last; /* 1: the request is over, and its number is not known any more */
    flamant_text text;
    uint32_t token;
    uint32_t finish; /* FLAMANT_FINISH_... */
    double logprob;
    size_t position;
    const float *logits;
    size_t logit_count;
    const uint32_t *ids;
    const double *logprobs;
    size_t token_count; /* of ids and of logprobs */
    const flamant_choice *choices;
    size_t choice_count;
    flamant_status failure;
    uint32_t unused;

    /* Of WRITTEN, CLASSIFIED and SCORED */
    size_t prompt_tokens;
    size_t cached_tokens; /* tokens of the prompt that were found again */
    size_t completion_tokens;
    size_t images;
    size_t images_encoded; /* those that were not found again */
    double queue_seconds;
    double media_seconds;
    double prompt_seconds;
    double decode_seconds;

    const float *features; /* feature_count rows of feature_width numbers: a unit vector for each part, in order */
    size_t feature_count;
    size_t feature_width;
} flamant_event;

/* What an engine has done since it was opened, and how it stands. Pages that are cached are kept for later and can be
   taken. */
typedef struct flamant_stats {
    size_t struct_size;
    uint64_t requests_running;
    uint64_t requests_waiting;
    uint64_t requests_finished;
    uint64_t requests_cancelled;
    uint64_t requests_failed;
    uint64_t steps;
    uint64_t tokens_computed;
    uint64_t tokens_cached;
    uint64_t tokens_written;
    uint64_t images_encoded;
    uint64_t images_cached;
    uint64_t preemptions;
    uint64_t text_pages_total;
    uint64_t text_pages_held;
    uint64_t text_pages_cached;
    uint64_t media_pages_total;
    uint64_t media_pages_held;
    uint64_t media_pages_cached;
    double schedule_seconds;
    double media_seconds;
    double text_seconds;
    double commit_seconds;
    uint64_t bytes_fetched; /* of logits, and of what the device found in them */
    uint64_t images_held;   /* images whose media pages requests hold */
    uint64_t images_kept;   /* images whose media pages are kept for later */
} flamant_stats;

/* Gets an event, valid until it returns. Not 0: stop. It must return: no exception, no longjmp. */
typedef int (*flamant_callback)(const flamant_event *event, void *user);

/* Levels of what the library tells of itself, each with those before it. */
enum {
    FLAMANT_LOG_OFF = 0,
    FLAMANT_LOG_ERROR = 1, /* an engine has failed */
    FLAMANT_LOG_WARN = 2,  /* a request has failed, a device refused something */
    FLAMANT_LOG_INFO = 3,  /* a model was opened, a request is over */
    FLAMANT_LOG_DEBUG = 4  /* every step */
};

/* Gets a line of UTF-8, zero-terminated, valid until it returns. It is called on any thread, in the middle of other
   calls: it must return, and call nothing of this library. */
typedef void (*flamant_log_callback)(uint32_t level, const char *line, void *user);

/* ---- About the library. The texts are zero-terminated and stay. */

/* The library's FLAMANT_ABI_VERSION. */
uint32_t flamant_abi_version(void);

/* Its version, as "0.1.0". */
const char *flamant_version(void);

/* What it was built with: a JSON object with "version", "abi_version", "os", "architecture", "kernels" (what the
   kernels for GPUs have code for, empty without them) and "emulated" (whether there is that device). */
const char *flamant_build_info_json(void);

/* The name of a status, as "FLAMANT_BUSY"; "unknown status" for any other number. */
const char *flamant_status_name(flamant_status status);

/* What went wrong in the last call on this thread that returned a status: one line of UTF-8, empty if it did not fail.
   Valid until the next such call on this thread. */
const char *flamant_last_error(void);

/* ---- About this machine. */

/* Gives the devices there are as a JSON array; each has "device" (as in flamant_engine_options), "name", "memory_free",
   "usable" and "problem" (why not), among others. The text is valid until the next call on this thread of a function
   that gives one. */
flamant_status flamant_devices_json(const char **json);

/* Has what the library tells up to a level handed to a callback; null or FLAMANT_LOG_OFF: nothing, as at the start.
   Waits until no thread is in an earlier callback. FLAMANT_BUSY: called from a callback, or in a program in Rust that
   has a subscriber of its own. */
flamant_status flamant_set_log(uint32_t level, flamant_log_callback callback, void *user);

/* ---- Options. Fill a struct with defaults, and its struct_size with the size given: the struct's own. */

flamant_status flamant_engine_options_init(flamant_engine_options *options, size_t struct_size);
flamant_status flamant_request_init(flamant_request *request, size_t struct_size);

/* ---- Engines. */

/* Opens a model. Options may be null: all defaults, with the small model in the library. */
flamant_status flamant_engine_open(const flamant_engine_options *options, flamant_engine **engine);

/* Frees an engine with all its requests; their events do not come any more. If a call steps it, from another thread or
   around the callback that this is called from, that call frees it when its step is over, before it returns. Null is
   allowed and does nothing. */
flamant_status flamant_engine_free(flamant_engine *engine);

/* Gives what was opened as a JSON object: "family", "folder", "device", "dtype", "kv_dtype", "config" (layers, widths, heads,
   vocabulary, image size), "context_max", "limits" and what memory made of them, among others. The text is valid until
   the next call on this thread of a function that gives one. */
flamant_status flamant_engine_info_json(flamant_engine *engine, const char **json);

/* Queues a request, without waiting for a step. Whatever is wrong with it is said here; what the device or the model
   makes of it is said by its last event. FLAMANT_QUEUE_FULL: it would be taken if others were over. */
flamant_status flamant_engine_submit(flamant_engine *engine, const flamant_request *request, flamant_request_id *id);

/* Ends a request; from here on its number is not known. Its last event still comes: FLAMANT_EVENT_CANCELLED, or how it
   ended by itself if a step at work was faster. */
flamant_status flamant_engine_cancel(flamant_engine *engine, flamant_request_id id);

/* Does one step for all requests. Its events are added to those not yet taken; event_count, if not null, gets how many
   there are. FLAMANT_IDLE: there was nothing to do. */
flamant_status flamant_engine_step(flamant_engine *engine, size_t *event_count);

/* Waits until a step has something to do (FLAMANT_WAIT_WORK) or an event can be taken (FLAMANT_WAIT_EVENT), at most so
   many milliseconds; 0 only looks. It does no step itself: whoever waits for events needs another thread that steps.
   FLAMANT_TIMEOUT: there is nothing yet. FLAMANT_INVALID_HANDLE: the engine was freed meanwhile. */
flamant_status flamant_engine_wait(flamant_engine *engine, uint32_t what, uint32_t timeout_ms);

/* Takes the next event, the caller's until it gives it back. FLAMANT_NO_EVENT: all are taken, and event gets null. */
flamant_status flamant_engine_next_event(flamant_engine *engine, const flamant_event **event);

/* Gives an event back, on any thread. Null is allowed and does nothing. */
flamant_status flamant_event_release(const flamant_event *event);

/* Steps until all requests are over, and hands each event to the callback; those that another thread takes meanwhile
   are that thread's. FLAMANT_STOPPED: the callback wanted so; the requests stay, and so do the events after the one it
   got. */
flamant_status flamant_engine_run(flamant_engine *engine, flamant_callback callback, void *user);

/* Fills a struct of struct_size bytes with what the engine has done, and how it stood when its last step began or
   ended, without waiting for a step. */
flamant_status flamant_engine_stats(flamant_engine *engine, flamant_stats *stats, size_t struct_size);

#ifdef __cplusplus
}
#endif

#endif
