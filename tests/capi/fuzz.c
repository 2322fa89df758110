/* Calls in random order on a few engines, alive, freed and made up, with sound and broken arguments. A small model of
   what must hold says which status is right. Arguments: how many calls, and a seed. */
#include "check.h"

enum { ENGINES = 4, REQUESTS = 64, HANDLES = 4096, HELD = 16 };

struct engine {
    flamant_engine *handle;
    flamant_request_id live[REQUESTS];      /* submitted, neither seen to be over nor cancelled */
    flamant_request_id cancelled[REQUESTS]; /* whose last event did not come yet */
};

static struct engine engines[ENGINES];
static flamant_engine *freed[HANDLES];
static const flamant_event *held[HELD]; /* taken and not given back, whatever became of their engines */
static size_t freed_count, last_events, submitted, lost;
static uint64_t state;

static uint32_t below(uint32_t bound)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((state >> 33) % bound);
}

/* Finds a number in a list, 0 for a free place; null if it is not there. */
static flamant_request_id *find(flamant_request_id *list, flamant_request_id id)
{
    for (int i = 0; i < REQUESTS; i++)
        if (list[i] == id)
            return &list[i];
    return NULL;
}

/* Reads all that an event points to. */
static void look(const flamant_event *event)
{
    double sum = 0;
    for (size_t i = 0; i < event->text.length + (event->text.data != NULL); i++)
        sum += event->text.data[i];
    for (size_t i = 0; i < event->logit_count; i++)
        sum += event->logits[i];
    for (size_t i = 0; i < event->feature_count * event->feature_width; i++)
        sum += event->features[i];
    for (size_t i = 0; i < event->token_count; i++)
        sum += event->ids[i] + event->logprobs[i];
    for (size_t i = 0; i < event->choice_count; i++)
        for (size_t j = 0; j <= event->choices[i].text.length; j++)
            sum += event->choices[i].text.data[j] + event->choices[i].ids[0];
    CHECK(sum == sum || event->kind == FLAMANT_EVENT_SCORED);
}

static void take(struct engine *engine, const flamant_event *event)
{
    flamant_request_id *live = find(engine->live, event->request);
    flamant_request_id *cancelled = find(engine->cancelled, event->request);
    CHECK(event->request != 0 && (live != NULL) != (cancelled != NULL));
    CHECK(event->kind != FLAMANT_EVENT_CANCELLED || cancelled != NULL);
    CHECK(event->kind != FLAMANT_EVENT_FAILED);
    look(event);
    if (event->is_last) {
        *(live != NULL ? live : cancelled) = 0;
        last_events++;
    }
}

/* Gives back what was held in a place, and holds another event there. */
static void hold(const flamant_event *event)
{
    const flamant_event **place = &held[below(HELD)];
    if (*place != NULL)
        look(*place);
    EXPECT(FLAMANT_OK, flamant_event_release(*place));
    *place = event;
}

static void cancel(struct engine *engine)
{
    flamant_request_id id = engine->live[below(REQUESTS)];
    flamant_request_id *place = find(engine->cancelled, 0);
    if (id == 0 || place == NULL)
        return;
    /* Over already, if its last event waits to be taken. */
    if (EXPECT_EITHER(FLAMANT_OK, FLAMANT_NOT_FOUND, flamant_engine_cancel(engine->handle, id)) == FLAMANT_OK) {
        *find(engine->live, id) = 0;
        *place = id;
    }
    EXPECT(FLAMANT_NOT_FOUND, flamant_engine_cancel(engine->handle, id));
}

struct stopping {
    struct engine *engine;
    uint32_t events;
};

static int on_event(const flamant_event *event, void *user)
{
    struct stopping *stopping = user;
    take(stopping->engine, event);
    if (below(8) == 0)
        cancel(stopping->engine);
    if (below(8) == 0)
        EXPECT(FLAMANT_BUSY, flamant_engine_step(stopping->engine->handle, NULL));
    return stopping->events-- == 0;
}

static void open_engine(struct engine *engine)
{
    flamant_engine_options options;
    EXPECT(FLAMANT_OK, flamant_engine_options_init(&options, sizeof options));
    options.threads = 1;
    options.max_sequences = 1 + below(8);
    options.queue = 1 + below(REQUESTS / 4);
    options.context_max = 64;
    options.text_pages = below(2) ? 0 : 8;
    options.media_pages = below(2) ? 0 : 6;
    options.prefix_caching = below(2);
    options.load = below(2) ? FLAMANT_LOAD_MAP : FLAMANT_LOAD_READ;
    if (below(8) == 0) {
        options.load = 2 + below(1000);
        EXPECT(FLAMANT_INVALID_ARGUMENT, flamant_engine_open(&options, &engine->handle));
        options.load = FLAMANT_LOAD_READ;
    }
    EXPECT(FLAMANT_OK, flamant_engine_open(&options, &engine->handle));
    for (size_t i = 0; i < freed_count; i++)
        CHECK(freed[i] != engine->handle);
}

static void free_engine(struct engine *engine)
{
    EXPECT(FLAMANT_OK, flamant_engine_free(engine->handle));
    CHECK(freed_count < HANDLES);
    freed[freed_count++] = engine->handle;
    for (int i = 0; i < REQUESTS; i++)
        lost += (engine->live[i] != 0) + (engine->cancelled[i] != 0);
    memset(engine, 0, sizeof *engine);
}

static void submit(struct engine *engine)
{
    static const char *const texts[] = {"kep.", "mo", "", "zon.mul.", "a b"};
    static unsigned char pixels[3 * 8 * 8];
    static const flamant_text choices[] = {{"kep.", 4}, {"mo", 2}, {"zon.", 4}};
    flamant_part parts[4], frame = pixels_part(pixels, 8, 8);
    flamant_request request;
    flamant_request_id id = 0;
    flamant_request_id *place = find(engine->live, 0);
    if (place == NULL)
        return;
    EXPECT(FLAMANT_OK, flamant_request_init(&request, sizeof request));
    request.parts = parts;
    request.part_count = 1 + below(4);
    for (size_t i = 0; i < request.part_count; i++) {
        pixels[below(sizeof pixels)] = (unsigned char)below(256);
        parts[i] = below(8) == 0 ? pixels_part(pixels, 8, 1 + below(8)) : text_part(texts[below(5)]);
    }
    request.task = 1 + below(3);
    if (below(8) == 0) {
        /* Of these all parts are images, and they cannot be cancelled. */
        request.task = FLAMANT_FEATURES;
        for (size_t i = 0; i < request.part_count; i++)
            parts[i] = below(2) ? pixels_part(pixels, 8, 1 + below(8)) : video_part(&frame, 1);
    }
    request.max_new_tokens = below(4);
    request.temperature = below(2) ? 0.0f : 1.0f;
    request.num_beams = request.temperature == 0.0f ? 1 + below(2) : 1;
    request.ignore_eos = below(2);
    request.seed = below(100);
    request.choices = choices;
    request.choice_count = 1 + below(3);
    request.logits = below(2);
    request.max_pixels = below(2) ? 0 : (uint64_t)1 << below(64);
    int broken = below(8) == 0;
    if (broken) {
        switch (below(6)) {
        case 0: parts[0].kind = 5 + below(1000); break;
        case 1: parts[0].unused = 1; break;
        case 2: request.task = below(2) ? 0 : 5 + below(1000); break;
        case 3: request.struct_size = below(2) ? below(8) : sizeof request + 1; break;
        case 4: request.parts = NULL; break;
        default: request.part_count = SIZE_MAX - below(10);
        }
    }
    flamant_status status = flamant_engine_submit(engine->handle, &request, &id);
    CHECK(broken ? status >= FLAMANT_INVALID_ARGUMENT : status == FLAMANT_OK || status == FLAMANT_QUEUE_FULL);
    CHECK((status == FLAMANT_OK) == (id != 0));
    if (status == FLAMANT_OK) {
        submitted++;
        *place = id;
    }
}

/* Lines of the log, from any thread, which may come until another callback is set. */
static size_t lines;

static void on_line(uint32_t level, const char *line, void *user)
{
    CHECK(level >= FLAMANT_LOG_ERROR && level <= FLAMANT_LOG_DEBUG && strchr(line, '\n') == NULL && user == &lines);
    lines++;
}

/* What the library tells of itself and of an engine. */
static void ask(struct engine *engine)
{
    const char *json;
    uint32_t level = below(FLAMANT_LOG_DEBUG + 2);
    switch (below(4)) {
    case 0:
        EXPECT(FLAMANT_OK, flamant_engine_info_json(engine->handle, &json));
        CHECK(json[0] == '{' && json[strlen(json) - 1] == '}');
        EXPECT(FLAMANT_INVALID_ARGUMENT, flamant_engine_info_json(engine->handle, NULL));
        break;
    case 1:
        json = flamant_build_info_json();
        CHECK(json[0] == '{' && json[strlen(json) - 1] == '}');
        if (below(8) == 0) {
            EXPECT(FLAMANT_OK, flamant_devices_json(&json));
            CHECK(json[0] == '[' && json[strlen(json) - 1] == ']');
        }
        break;
    case 2:
        EXPECT(level <= FLAMANT_LOG_DEBUG ? FLAMANT_OK : FLAMANT_INVALID_ARGUMENT,
               flamant_set_log(level, below(4) ? on_line : NULL, &lines));
        break;
    default:
        CHECK(flamant_abi_version() == FLAMANT_ABI_VERSION && flamant_version()[0] != 0);
        CHECK(flamant_status_name((flamant_status)below(100))[0] != 0);
    }
}

static void call(struct engine *engine)
{
    const flamant_event *event;
    flamant_stats stats;
    size_t count;
    switch (below(32)) {
    case 0:
        if (below(20) == 0)
            free_engine(engine);
        break;
    case 1: {
        struct stopping stopping = {engine, below(20)};
        EXPECT_EITHER(FLAMANT_OK, FLAMANT_STOPPED, flamant_engine_run(engine->handle, on_event, &stopping));
        break;
    }
    case 2: case 3: case 4:
        EXPECT_EITHER(FLAMANT_OK, FLAMANT_IDLE, flamant_engine_step(engine->handle, below(2) ? &count : NULL));
        break;
    case 5: case 6:
        submit(engine);
        break;
    case 7: case 8:
        cancel(engine);
        break;
    case 9: {
        struct engine *other = &engines[below(ENGINES)];
        flamant_request_id id = other->live[below(REQUESTS)];
        if (other != engine)
            EXPECT(FLAMANT_NOT_FOUND, flamant_engine_cancel(engine->handle, id));
        break;
    }
    case 10:
        EXPECT(FLAMANT_OK, flamant_engine_stats(engine->handle, &stats, sizeof stats));
        CHECK(stats.text_pages_held + stats.text_pages_cached <= stats.text_pages_total);
        CHECK(stats.media_pages_held + stats.media_pages_cached <= stats.media_pages_total);
        CHECK(stats.requests_failed == 0);
        break;
    case 11:
        EXPECT(FLAMANT_INVALID_ARGUMENT, flamant_engine_next_event(engine->handle, NULL));
        EXPECT(FLAMANT_INVALID_ARGUMENT, flamant_engine_run(engine->handle, NULL, NULL));
        break;
    case 13:
        ask(engine);
        break;
    case 12: {
        /* Work that was waited for is there, and so is an event. */
        flamant_status work = flamant_engine_wait(engine->handle, FLAMANT_WAIT_WORK, 0);
        EXPECT(work == FLAMANT_OK ? FLAMANT_OK : FLAMANT_IDLE, flamant_engine_step(engine->handle, NULL));
        flamant_status due = flamant_engine_wait(engine->handle, FLAMANT_WAIT_EVENT, 0);
        EXPECT(due == FLAMANT_OK ? FLAMANT_OK : FLAMANT_NO_EVENT, flamant_engine_next_event(engine->handle, &event));
        if (event != NULL)
            take(engine, event);
        hold(event);
        break;
    }
    default:
        EXPECT_EITHER(FLAMANT_OK, FLAMANT_NO_EVENT, flamant_engine_next_event(engine->handle, &event));
        if (event != NULL)
            take(engine, event);
        hold(event);
    }
}

/* The same with a handle that is none. */
static void call_nothing(void)
{
    flamant_engine *handle = NULL;
    const flamant_event *event;
    const char *json;
    flamant_stats stats;
    if (freed_count > 0 && below(2))
        handle = freed[below((uint32_t)freed_count)];
    else if (below(2))
        handle = (flamant_engine *)((uintptr_t)below(UINT32_MAX) << below(33));
    switch (below(8)) {
    case 6: EXPECT(FLAMANT_INVALID_HANDLE, flamant_engine_info_json(handle, &json)); break;
    case 0: EXPECT_EITHER(handle ? FLAMANT_INVALID_HANDLE : FLAMANT_OK, FLAMANT_INVALID_HANDLE,
                          flamant_engine_free(handle)); break;
    case 1: EXPECT(FLAMANT_INVALID_HANDLE, flamant_engine_step(handle, NULL)); break;
    case 2: EXPECT(FLAMANT_INVALID_HANDLE, flamant_engine_next_event(handle, &event)); break;
    case 3: EXPECT(FLAMANT_INVALID_HANDLE, flamant_engine_cancel(handle, below(100))); break;
    case 4: EXPECT(FLAMANT_INVALID_HANDLE, flamant_engine_wait(handle, 1 + below(2), FLAMANT_FOREVER)); break;
    case 5: EXPECT(FLAMANT_INVALID_HANDLE, flamant_event_release((const flamant_event *)&stats)); break;
    default: EXPECT(FLAMANT_INVALID_HANDLE, flamant_engine_stats(handle, &stats, sizeof stats));
    }
}

int main(int count, char **arguments)
{
    CHECK(count == 3);
    long calls = atol(arguments[1]);
    state = strtoull(arguments[2], NULL, 10);
    for (long i = 0; i < calls; i++) {
        struct engine *engine = &engines[below(ENGINES)];
        if (below(16) == 0)
            call_nothing();
        else if (engine->handle == NULL)
            open_engine(engine);
        else
            call(engine);
    }
    /* All come to an end, with one last event each. */
    for (int i = 0; i < ENGINES; i++) {
        struct stopping stopping = {&engines[i], UINT32_MAX};
        if (engines[i].handle == NULL)
            continue;
        EXPECT(FLAMANT_OK, flamant_engine_run(engines[i].handle, on_event, &stopping));
        for (int j = 0; j < REQUESTS; j++)
            CHECK(engines[i].live[j] == 0 && engines[i].cancelled[j] == 0);
        free_engine(&engines[i]);
    }
    for (int i = 0; i < HELD; i++) {
        if (held[i] != NULL)
            look(held[i]);
        EXPECT(FLAMANT_OK, flamant_event_release(held[i]));
    }
    CHECK(submitted == last_events + lost);
    printf("%ld calls, %zu requests, %zu engines\n", calls, submitted, freed_count);
    return 0;
}
