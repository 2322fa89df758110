/* Whatever a caller does wrong is answered by the right status, and what it did right goes on. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "check.h"

static int callbacks;
static flamant_engine *running;

/* Calls back into the engine that is calling: all but stepping is served. */
static int reenter(const flamant_event *event, void *user)
{
    flamant_request_id id;
    flamant_stats stats;
    if (event->kind == FLAMANT_EVENT_CANCELLED)
        return 0;
    callbacks++;
    EXPECT(FLAMANT_BUSY, flamant_engine_step(running, NULL));
    EXPECT(FLAMANT_BUSY, flamant_engine_run(running, reenter, user));
    EXPECT(FLAMANT_OK, flamant_engine_submit(running, user, &id));
    EXPECT(FLAMANT_OK, flamant_engine_wait(running, FLAMANT_WAIT_WORK, FLAMANT_FOREVER));
    EXPECT(FLAMANT_OK, flamant_engine_stats(running, &stats, sizeof stats));
    CHECK(stats.requests_waiting == 1);
    EXPECT(FLAMANT_OK, flamant_engine_cancel(running, id));
    if (event->is_last)
        EXPECT(FLAMANT_NOT_FOUND, flamant_engine_cancel(running, event->request));
    return callbacks == 2;
}

/* Frees the engine that is calling. */
static int free_it(const flamant_event *event, void *user)
{
    flamant_engine *engine = user;
    callbacks++;
    EXPECT(FLAMANT_OK, flamant_engine_free(engine));
    EXPECT(FLAMANT_INVALID_HANDLE, flamant_engine_cancel(engine, event->request));
    CHECK(event->struct_size == sizeof *event);
    return 0;
}

static void engines(void)
{
    flamant_engine *engine = NULL, *other = NULL;
    flamant_engine_options options;

    EXPECT(FLAMANT_INVALID_ARGUMENT, flamant_engine_options_init(NULL, sizeof options));
    EXPECT(FLAMANT_INVALID_ARGUMENT, flamant_engine_options_init(&options, 0));
    EXPECT(FLAMANT_INVALID_ARGUMENT, flamant_engine_options_init(&options, SIZE_MAX));
    EXPECT(FLAMANT_OK, flamant_engine_options_init(&options, sizeof options));
    EXPECT(FLAMANT_INVALID_ARGUMENT, flamant_engine_open(&options, NULL));
    EXPECT(FLAMANT_INVALID_ARGUMENT, flamant_engine_open(NULL, NULL));

#define REFUSED(status, field, value)                                                                                  \
    do {                                                                                                               \
        flamant_engine_options wrong = options;                                                                        \
        wrong.field = value;                                                                                           \
        EXPECT(status, flamant_engine_open(&wrong, &engine));                                                          \
        CHECK(strlen(flamant_last_error()) > 10 && engine == NULL);                                                    \
    } while (0)
    REFUSED(FLAMANT_INVALID_ARGUMENT, struct_size, 0);
    REFUSED(FLAMANT_INVALID_ARGUMENT, struct_size, 3);
    REFUSED(FLAMANT_FILE, model, "/there/is/nothing/here");
    REFUSED(FLAMANT_INVALID_ARGUMENT, model, "\xff\xfe");
    REFUSED(FLAMANT_INVALID_ARGUMENT, device, "abacus");
    REFUSED(FLAMANT_DEVICE, device, "cuda:4711");
    REFUSED(FLAMANT_INVALID_ARGUMENT, dtype, "f16");
    REFUSED(FLAMANT_INVALID_ARGUMENT, context_max, SIZE_MAX);
    REFUSED(FLAMANT_INVALID_ARGUMENT, max_sequences, 0);
    REFUSED(FLAMANT_INVALID_ARGUMENT, text_pages, SIZE_MAX);
    REFUSED(FLAMANT_INVALID_ARGUMENT, prefix_caching, 2);
    REFUSED(FLAMANT_INVALID_ARGUMENT, load, 2);
#undef REFUSED

    /* Handles that are none. */
    flamant_request_id id = 0;
    flamant_stats stats;
    const flamant_event *event;
    const char *json = NULL;
    size_t count;
    flamant_request request;
    EXPECT(FLAMANT_OK, flamant_request_init(&request, sizeof request));
    EXPECT(FLAMANT_OK, flamant_engine_open(&options, &engine));
    EXPECT(FLAMANT_OK, flamant_engine_open(NULL, &other));
    EXPECT(FLAMANT_OK, flamant_engine_free(other));
    EXPECT(FLAMANT_OK, flamant_engine_free(NULL));
    flamant_engine *none[] = {NULL, other, (flamant_engine *)&id, (flamant_engine *)1, (flamant_engine *)UINTPTR_MAX,
                              (flamant_engine *)((uintptr_t)engine + 100)};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        if (none[i] != NULL)
            EXPECT(FLAMANT_INVALID_HANDLE, flamant_engine_free(none[i]));
        EXPECT(FLAMANT_INVALID_HANDLE, flamant_engine_submit(none[i], &request, &id));
        EXPECT(FLAMANT_INVALID_HANDLE, flamant_engine_cancel(none[i], 1));
        EXPECT(FLAMANT_INVALID_HANDLE, flamant_engine_step(none[i], &count));
        EXPECT(FLAMANT_INVALID_HANDLE, flamant_engine_wait(none[i], FLAMANT_WAIT_EVENT, FLAMANT_FOREVER));
        EXPECT(FLAMANT_INVALID_HANDLE, flamant_engine_next_event(none[i], &event));
        EXPECT(FLAMANT_INVALID_HANDLE, flamant_engine_run(none[i], reenter, NULL));
        EXPECT(FLAMANT_INVALID_HANDLE, flamant_engine_info_json(none[i], &json));
        EXPECT(FLAMANT_INVALID_HANDLE, flamant_engine_stats(none[i], &stats, sizeof stats));
        CHECK(json == NULL);
        CHECK(strstr(flamant_last_error(), "engine: ") == flamant_last_error());
    }
    /* An engine opened later never gets a handle that was freed. */
    flamant_engine *later;
    EXPECT(FLAMANT_OK, flamant_engine_open(NULL, &later));
    CHECK(later != other && later != engine);
    EXPECT(FLAMANT_INVALID_HANDLE, flamant_engine_step(other, NULL));
    EXPECT(FLAMANT_OK, flamant_engine_free(later));

    /* Nothing to write to. */
    EXPECT(FLAMANT_INVALID_ARGUMENT, flamant_engine_next_event(engine, NULL));
    EXPECT(FLAMANT_INVALID_ARGUMENT, flamant_engine_run(engine, NULL, NULL));
    EXPECT(FLAMANT_INVALID_ARGUMENT, flamant_engine_stats(engine, NULL, sizeof stats));
    EXPECT(FLAMANT_INVALID_ARGUMENT, flamant_engine_stats(engine, &stats, 7));
    EXPECT(FLAMANT_INVALID_ARGUMENT, flamant_engine_submit(engine, NULL, &id));
    EXPECT(FLAMANT_INVALID_ARGUMENT, flamant_engine_submit(engine, &request, NULL));
    EXPECT(FLAMANT_INVALID_ARGUMENT, flamant_engine_info_json(engine, NULL));
    EXPECT(FLAMANT_INVALID_ARGUMENT, flamant_devices_json(NULL));

    /* Events that are none. */
    EXPECT(FLAMANT_OK, flamant_event_release(NULL));
    EXPECT(FLAMANT_INVALID_HANDLE, flamant_event_release((const flamant_event *)&stats));
    EXPECT(FLAMANT_INVALID_HANDLE, flamant_event_release((const flamant_event *)UINTPTR_MAX));
    CHECK(strstr(flamant_last_error(), "event: ") == flamant_last_error());

    /* Nothing to do, and nothing to wait for. */
    EXPECT(FLAMANT_TIMEOUT, flamant_engine_wait(engine, FLAMANT_WAIT_WORK, 0));
    EXPECT(FLAMANT_TIMEOUT, flamant_engine_wait(engine, FLAMANT_WAIT_EVENT, 1));
    EXPECT(FLAMANT_INVALID_ARGUMENT, flamant_engine_wait(engine, 0, 0));
    EXPECT(FLAMANT_INVALID_ARGUMENT, flamant_engine_wait(engine, FLAMANT_WAIT_WORK | FLAMANT_WAIT_EVENT, 0));
    EXPECT(FLAMANT_NOT_FOUND, flamant_engine_cancel(engine, 0));
    EXPECT(FLAMANT_IDLE, flamant_engine_step(engine, &count));
    CHECK(count == 0);
    EXPECT(FLAMANT_NO_EVENT, flamant_engine_next_event(engine, &event));
    CHECK(event == NULL && strcmp(flamant_last_error(), "") == 0);
    EXPECT(FLAMANT_OK, flamant_engine_run(engine, reenter, NULL));
    CHECK(callbacks == 0);
    EXPECT(FLAMANT_OK, flamant_engine_free(engine));
    EXPECT(FLAMANT_INVALID_HANDLE, flamant_engine_free(engine));
}

static void prompts(void)
{
    flamant_engine *engine;
    flamant_request request;
    flamant_request_id id = 77;
    unsigned char pixels[12] = {0};
    EXPECT(FLAMANT_OK, flamant_engine_open(NULL, &engine));
    EXPECT(FLAMANT_OK, flamant_request_init(&request, sizeof request));
    const flamant_part good = text_part("kep.");
    flamant_part part = good;
    request.parts = &part;
    request.part_count = 1;

#define REFUSED(status, field, value)                                                                                  \
    do {                                                                                                               \
        flamant_part kept = part;                                                                                      \
        part.field = value;                                                                                            \
        EXPECT(status, flamant_engine_submit(engine, &request, &id));                                                  \
        CHECK(strlen(flamant_last_error()) > 10 && id == 77);                                                          \
        part = kept;                                                                                                   \
    } while (0)
    REFUSED(FLAMANT_INVALID_ARGUMENT, kind, 0);
    REFUSED(FLAMANT_INVALID_ARGUMENT, kind, 4711);
    REFUSED(FLAMANT_INVALID_ARGUMENT, width, 1);
    REFUSED(FLAMANT_INVALID_ARGUMENT, unused, 1);
    REFUSED(FLAMANT_INVALID_ARGUMENT, stride, 1);
    REFUSED(FLAMANT_INVALID_ARGUMENT, data, NULL);
    REFUSED(FLAMANT_LIMIT, length, SIZE_MAX);
    REFUSED(FLAMANT_LIMIT, length, (size_t)1 << 40);
    part = text_part("ke\xffp");
    REFUSED(FLAMANT_INVALID_ARGUMENT, unused, 0);
    part = text_part("a <image> of nothing");
    REFUSED(FLAMANT_INVALID_ARGUMENT, unused, 0);
    part = text_part("no image");
    part.kind = FLAMANT_PART_IMAGE;
    REFUSED(FLAMANT_INVALID_FILE, unused, 0);
    REFUSED(FLAMANT_INVALID_FILE, length, 0);
    REFUSED(FLAMANT_LIMIT, length, (size_t)1 << 40);
    part = pixels_part(pixels, 2, 2);
    CHECK(part.length == sizeof pixels);
    REFUSED(FLAMANT_INVALID_ARGUMENT, width, 0);
    REFUSED(FLAMANT_INVALID_ARGUMENT, height, 0);
    REFUSED(FLAMANT_INVALID_ARGUMENT, height, 3);
    REFUSED(FLAMANT_LIMIT, width, UINT32_MAX);
    REFUSED(FLAMANT_LIMIT, height, UINT32_MAX);
    REFUSED(FLAMANT_INVALID_ARGUMENT, length, 11);
    REFUSED(FLAMANT_INVALID_ARGUMENT, stride, 5);
    REFUSED(FLAMANT_INVALID_ARGUMENT, stride, 7);
    REFUSED(FLAMANT_INVALID_ARGUMENT, stride, SIZE_MAX);
    REFUSED(FLAMANT_INVALID_ARGUMENT, data, NULL);
    flamant_part frames[2] = {part, part};
    part = video_part(frames, 2);
    REFUSED(FLAMANT_INVALID_FILE, length, 0);
    REFUSED(FLAMANT_LIMIT, length, 129);
    REFUSED(FLAMANT_LIMIT, length, SIZE_MAX);
    REFUSED(FLAMANT_INVALID_ARGUMENT, data, NULL);
    REFUSED(FLAMANT_INVALID_ARGUMENT, data, (const char *)frames + 1);
    REFUSED(FLAMANT_INVALID_ARGUMENT, width, 2);
    frames[1] = part;
    REFUSED(FLAMANT_INVALID_ARGUMENT, unused, 0);
    frames[1] = text_part("kep.");
    REFUSED(FLAMANT_INVALID_ARGUMENT, unused, 0);
#undef REFUSED

    part = good;
    const flamant_text marker = {"<image>", 7}, empty = {NULL, 0}, missing = {NULL, 3}, name = {"kep.", 4};
#define REFUSED(status, field, value)                                                                                  \
    do {                                                                                                               \
        flamant_request kept = request;                                                                                \
        request.field = value;                                                                                         \
        EXPECT(status, flamant_engine_submit(engine, &request, &id));                                                  \
        CHECK(strlen(flamant_last_error()) > 10 && id == 77);                                                          \
        request = kept;                                                                                                \
    } while (0)
    REFUSED(FLAMANT_INVALID_ARGUMENT, struct_size, 0);
    REFUSED(FLAMANT_INVALID_ARGUMENT, parts, NULL);
    REFUSED(FLAMANT_INVALID_ARGUMENT, parts, (const flamant_part *)((const char *)&part + 1));
    REFUSED(FLAMANT_LIMIT, part_count, SIZE_MAX);
    REFUSED(FLAMANT_INVALID_ARGUMENT, task, 0);
    REFUSED(FLAMANT_INVALID_ARGUMENT, task, 5);
    REFUSED(FLAMANT_INVALID_ARGUMENT, task, FLAMANT_FEATURES);
    REFUSED(FLAMANT_INVALID_ARGUMENT, temperature, -1.0f);
    REFUSED(FLAMANT_INVALID_ARGUMENT, temperature, (float)NAN);
    REFUSED(FLAMANT_INVALID_ARGUMENT, top_p, 0.0f);
    REFUSED(FLAMANT_INVALID_ARGUMENT, min_p, 2.0f);
    REFUSED(FLAMANT_INVALID_ARGUMENT, repetition_penalty, 0.0f);
    REFUSED(FLAMANT_INVALID_ARGUMENT, num_beams, 0);
    REFUSED(FLAMANT_INVALID_ARGUMENT, ignore_eos, 2);
    REFUSED(FLAMANT_INVALID_ARGUMENT, stop_count, 1);
    REFUSED(FLAMANT_LIMIT, stop_count, SIZE_MAX);
    request.stop_count = 1;
    REFUSED(FLAMANT_INVALID_ARGUMENT, stop, &empty);
    REFUSED(FLAMANT_INVALID_ARGUMENT, stop, &missing);
    request.stop_count = 0;
    request.task = FLAMANT_SCORE;
    REFUSED(FLAMANT_INVALID_ARGUMENT, logits, 2);
    request.task = FLAMANT_CLASSIFY;
    REFUSED(FLAMANT_INVALID_ARGUMENT, choices, NULL);
    request.choice_count = 1;
    REFUSED(FLAMANT_INVALID_ARGUMENT, choices, NULL);
    REFUSED(FLAMANT_INVALID_ARGUMENT, choices, &missing);
    REFUSED(FLAMANT_INVALID_ARGUMENT, choices, &empty);
    REFUSED(FLAMANT_INVALID_ARGUMENT, choices, &marker);
#undef REFUSED

    /* What is left of all this works. */
    request.choices = &name;
    EXPECT(FLAMANT_OK, flamant_engine_submit(engine, &request, &id));
    EXPECT(FLAMANT_OK, flamant_engine_free(engine));
}

static void requests(void)
{
    flamant_engine *engine, *other;
    flamant_request request;
    flamant_request_id id, second;
    const flamant_event *event;
    size_t count;
    flamant_engine_options options;
    EXPECT(FLAMANT_OK, flamant_engine_options_init(&options, sizeof options));
    options.queue = 2;
    EXPECT(FLAMANT_OK, flamant_engine_open(&options, &engine));
    EXPECT(FLAMANT_OK, flamant_request_init(&request, sizeof request));
    flamant_part part = text_part("kep.");
    request.parts = &part;
    request.part_count = 1;

    /* One that would not fit if it were alone. */
    options.queue_bytes = 8;
    EXPECT(FLAMANT_OK, flamant_engine_open(&options, &other));
    EXPECT(FLAMANT_LIMIT, flamant_engine_submit(other, &request, &id));
    EXPECT(FLAMANT_OK, flamant_engine_free(other));
    EXPECT(FLAMANT_OK, flamant_engine_open(NULL, &other));
    request.max_new_tokens = 3;
    request.ignore_eos = 1;

    /* A full queue; a place is free again as soon as a request was cancelled. */
    EXPECT(FLAMANT_OK, flamant_engine_submit(engine, &request, &id));
    EXPECT(FLAMANT_OK, flamant_engine_submit(engine, &request, &second));
    CHECK(id != second && id != 0);
    EXPECT(FLAMANT_QUEUE_FULL, flamant_engine_submit(engine, &request, &second));
    EXPECT(FLAMANT_NOT_FOUND, flamant_engine_cancel(other, id));
    EXPECT(FLAMANT_OK, flamant_engine_cancel(engine, id));
    EXPECT(FLAMANT_NOT_FOUND, flamant_engine_cancel(engine, id));
    EXPECT(FLAMANT_NOT_FOUND, flamant_engine_cancel(engine, second + 1000));
    EXPECT(FLAMANT_OK, flamant_engine_submit(engine, &request, &second));

    /* Each has exactly one last event. */
    int cancelled = 0, written = 0, tokens = 0;
    while (EXPECT_EITHER(FLAMANT_OK, FLAMANT_IDLE, flamant_engine_step(engine, &count)) == FLAMANT_OK) {
        while (EXPECT_EITHER(FLAMANT_OK, FLAMANT_NO_EVENT, flamant_engine_next_event(engine, &event)) == FLAMANT_OK) {
            CHECK(event->struct_size == sizeof *event);
            cancelled += event->kind == FLAMANT_EVENT_CANCELLED && event->request == id && event->is_last;
            written += event->kind == FLAMANT_EVENT_WRITTEN && event->token_count == 3 && event->is_last;
            tokens += event->kind == FLAMANT_EVENT_TOKEN && !event->is_last;
            EXPECT(FLAMANT_OK, flamant_event_release(event));
            EXPECT(FLAMANT_INVALID_HANDLE, flamant_event_release(event));
        }
    }
    CHECK(cancelled == 1 && written == 2 && tokens == 6);
    EXPECT(FLAMANT_NOT_FOUND, flamant_engine_cancel(engine, second));

    /* A callback can stop the run, and do all but stepping. */
    running = engine;
    EXPECT(FLAMANT_OK, flamant_engine_submit(engine, &request, &id));
    EXPECT(FLAMANT_STOPPED, flamant_engine_run(engine, reenter, &request));
    CHECK(callbacks == 2);
    EXPECT(FLAMANT_OK, flamant_engine_run(engine, reenter, &request));
    CHECK(callbacks == 4);
    flamant_stats stats;
    EXPECT(FLAMANT_OK, flamant_engine_stats(engine, &stats, sizeof stats));
    CHECK(stats.requests_finished == 3 && stats.requests_cancelled == 5 && stats.requests_waiting == 0);
    CHECK(stats.tokens_written == 9 && stats.text_pages_total > 0 && stats.text_pages_held == 0);

    /* Freed with work and events left, and another engine goes on; so does an event that was taken before. */
    EXPECT(FLAMANT_OK, flamant_engine_submit(engine, &request, &id));
    EXPECT(FLAMANT_OK, flamant_engine_step(engine, NULL));
    EXPECT(FLAMANT_OK, flamant_engine_wait(engine, FLAMANT_WAIT_EVENT, FLAMANT_FOREVER));
    EXPECT(FLAMANT_OK, flamant_engine_next_event(engine, &event));
    EXPECT(FLAMANT_OK, flamant_engine_step(engine, NULL));
    EXPECT(FLAMANT_OK, flamant_engine_free(engine));
    CHECK(event->request == id && event->kind == FLAMANT_EVENT_TOKEN && event->text.data[event->text.length] == 0);
    EXPECT(FLAMANT_OK, flamant_event_release(event));
    EXPECT(FLAMANT_INVALID_HANDLE, flamant_engine_cancel(engine, id));
    EXPECT(FLAMANT_NOT_FOUND, flamant_engine_cancel(other, id));
    EXPECT(FLAMANT_OK, flamant_engine_submit(other, &request, &id));

    /* Freed from within its own callback. */
    callbacks = 0;
    EXPECT(FLAMANT_INVALID_HANDLE, flamant_engine_run(other, free_it, other));
    CHECK(callbacks == 1);
    EXPECT(FLAMANT_INVALID_HANDLE, flamant_engine_free(other));
}

int main(void)
{
    CHECK(flamant_abi_version() == FLAMANT_ABI_VERSION);
    CHECK(strstr(flamant_build_info_json(), flamant_version()) != NULL);
    CHECK(strcmp(flamant_status_name(4711), "unknown status") == 0);
    engines();
    prompts();
    requests();
    puts("done");
    return 0;
}
