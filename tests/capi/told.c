/* What a library says of itself, of its machine and of a model; features of images; lines of its log. */
#include <math.h>
#include <pthread.h>
#include <string.h>

#include "check.h"

struct log {
    size_t lines[FLAMANT_LOG_DEBUG + 1];
    char opened[512];
};

static void on_line(uint32_t level, const char *line, void *user)
{
    struct log *log = user;
    CHECK(level >= FLAMANT_LOG_ERROR && level <= FLAMANT_LOG_DEBUG && strlen(line) > 0 && strchr(line, '\n') == NULL);
    log->lines[level]++;
    if (strncmp(line, "open ", 5) == 0)
        snprintf(log->opened, sizeof log->opened, "%s", line);
    EXPECT(FLAMANT_BUSY, flamant_set_log(FLAMANT_LOG_OFF, NULL, NULL));
}

static flamant_request_id submit(flamant_engine *engine, uint32_t task, const flamant_part *parts, size_t count)
{
    flamant_request request;
    flamant_request_id id = 0;
    EXPECT(FLAMANT_OK, flamant_request_init(&request, sizeof request));
    request.task = task;
    request.parts = parts;
    request.part_count = count;
    request.max_new_tokens = 2;
    request.ignore_eos = 1;
    EXPECT(FLAMANT_OK, flamant_engine_submit(engine, &request, &id));
    CHECK(id != 0);
    return id;
}

/* The last event of a request, to be released. */
static const flamant_event *last(flamant_engine *engine, flamant_request_id id)
{
    for (;;) {
        const flamant_event *event;
        if (EXPECT_EITHER(FLAMANT_OK, FLAMANT_NO_EVENT, flamant_engine_next_event(engine, &event)) == FLAMANT_NO_EVENT)
            EXPECT(FLAMANT_OK, flamant_engine_step(engine, NULL));
        else if (event->request == id && event->is_last)
            return event;
        else
            EXPECT(FLAMANT_OK, flamant_event_release(event));
    }
}

static void features(flamant_engine *engine)
{
    unsigned char dark[48], light[48];
    memset(dark, 10, sizeof dark);
    memset(light, 240, sizeof light);
    light[0] = 0;
    flamant_part frames[2] = {pixels_part(dark, 4, 4), pixels_part(dark, 4, 4)};
    flamant_part parts[3] = {pixels_part(dark, 4, 4), pixels_part(light, 4, 4), video_part(frames, 2)};
    flamant_request_id id = submit(engine, FLAMANT_FEATURES, parts, 3);
    EXPECT(FLAMANT_NOT_FOUND, flamant_engine_cancel(engine, id));
    EXPECT(FLAMANT_OK, flamant_engine_wait(engine, FLAMANT_WAIT_WORK, 0));
    const flamant_event *event = last(engine, id);
    CHECK(event->kind == FLAMANT_EVENT_FEATURES && event->feature_count == 3 && event->feature_width > 0);
    double products[2] = {0, 0}, lengths[3] = {0, 0, 0};
    for (size_t i = 0; i < event->feature_width; i++) {
        const float *row = event->features + i;
        for (size_t n = 0; n < 3; n++)
            lengths[n] += (double)row[n * event->feature_width] * row[n * event->feature_width];
        products[0] += (double)row[0] * row[event->feature_width];
        products[1] += (double)row[0] * row[2 * event->feature_width];
    }
    for (size_t n = 0; n < 3; n++)
        CHECK(fabs(lengths[n] - 1) < 1e-5);
    /* A video of an image twice is that image; another image is not. */
    CHECK(products[1] > 0.99999 && products[0] < products[1]);
    EXPECT(FLAMANT_OK, flamant_event_release(event));
    flamant_part text = text_part("kep.");
    flamant_request request;
    EXPECT(FLAMANT_OK, flamant_request_init(&request, sizeof request));
    request.task = FLAMANT_FEATURES;
    EXPECT(FLAMANT_INVALID_ARGUMENT, flamant_engine_submit(engine, &request, &id));
    request.parts = &text, request.part_count = 1;
    EXPECT(FLAMANT_INVALID_ARGUMENT, flamant_engine_submit(engine, &request, &id));
    CHECK(strstr(flamant_last_error(), "part 0: kind") != NULL);
}

/* An image of more pixels than usual is read where a request says so. */
static void long_image(flamant_engine *engine)
{
    static unsigned char pixels[3 * 20000];
    flamant_part parts[2] = {pixels_part(pixels, 20000, 1), text_part("kep.")};
    flamant_request request;
    flamant_request_id id = 0;
    EXPECT(FLAMANT_OK, flamant_request_init(&request, sizeof request));
    CHECK(request.max_pixels == 0);
    request.task = FLAMANT_SCORE;
    request.parts = parts, request.part_count = 2;
    EXPECT(FLAMANT_LIMIT, flamant_engine_submit(engine, &request, &id));
    CHECK(strstr(flamant_last_error(), "width in pixels: 20000 is over the limit of 16384") != NULL);
    /* A caller that was compiled before there was this field has none of it. */
    request.max_pixels = 100000000;
    request.struct_size = offsetof(flamant_request, max_pixels);
    EXPECT(FLAMANT_LIMIT, flamant_engine_submit(engine, &request, &id));
    request.struct_size = sizeof request;
    EXPECT(FLAMANT_OK, flamant_engine_submit(engine, &request, &id));
    const flamant_event *event = last(engine, id);
    CHECK(event->kind == FLAMANT_EVENT_SCORED && event->images == 1);
    EXPECT(FLAMANT_OK, flamant_event_release(event));
}

static void *steps(void *engine)
{
    while (flamant_engine_wait(engine, FLAMANT_WAIT_WORK, FLAMANT_FOREVER) == FLAMANT_OK)
        flamant_engine_step(engine, NULL);
    return NULL;
}

/* Features asked for beside a thread that steps; some are due when the engine is freed. */
static void features_of_a_server(void)
{
    flamant_engine *engine;
    pthread_t thread;
    unsigned char grey[12] = {100};
    flamant_part part = pixels_part(grey, 2, 2), text = text_part("kep.");
    EXPECT(FLAMANT_OK, flamant_engine_open(NULL, &engine));
    CHECK(pthread_create(&thread, NULL, steps, engine) == 0);
    for (int i = 0; i < 5; i++) {
        flamant_request_id id = submit(engine, FLAMANT_FEATURES, &part, 1);
        submit(engine, FLAMANT_GENERATE, &text, 1);
        for (int over = 0; !over;) {
            const flamant_event *event;
            EXPECT(FLAMANT_OK, flamant_engine_wait(engine, FLAMANT_WAIT_EVENT, FLAMANT_FOREVER));
            EXPECT(FLAMANT_OK, flamant_engine_next_event(engine, &event));
            over = event->request == id;
            CHECK(!over || (event->kind == FLAMANT_EVENT_FEATURES && event->is_last));
            EXPECT(FLAMANT_OK, flamant_event_release(event));
        }
    }
    for (int i = 0; i < 5; i++)
        submit(engine, FLAMANT_FEATURES, &part, 1);
    EXPECT(FLAMANT_OK, flamant_engine_free(engine));
    CHECK(pthread_join(thread, NULL) == 0);
}

int main(void)
{
    struct log log = {{0}, ""}, other = log;
    const char *json;
    flamant_engine *engine;
    EXPECT(FLAMANT_OK, flamant_devices_json(&json));
    CHECK(json[0] == '[' && strstr(json, "\"device\":\"cpu\"") != NULL);

    EXPECT(FLAMANT_INVALID_ARGUMENT, flamant_set_log(5, on_line, &log));
    EXPECT(FLAMANT_OK, flamant_set_log(FLAMANT_LOG_DEBUG, NULL, NULL));
    EXPECT(FLAMANT_OK, flamant_set_log(FLAMANT_LOG_INFO, on_line, &log));
    EXPECT(FLAMANT_OK, flamant_engine_open(NULL, &engine));
    CHECK(log.lines[FLAMANT_LOG_INFO] == 1 && strstr(log.opened, "device=cpu") != NULL);

    EXPECT(FLAMANT_OK, flamant_engine_info_json(engine, &json));
    CHECK(json[0] == '{' && strstr(json, "\"family\":\"Idefics\"") != NULL && strstr(json, "\"folder\":null") != NULL);
    features(engine);
    long_image(engine);
    size_t infos = log.lines[FLAMANT_LOG_INFO];

    flamant_part text = text_part("kep.");
    EXPECT(FLAMANT_OK, flamant_event_release(last(engine, submit(engine, FLAMANT_GENERATE, &text, 1))));
    CHECK(log.lines[FLAMANT_LOG_INFO] == infos + 1 && log.lines[FLAMANT_LOG_DEBUG] == 0);
    EXPECT(FLAMANT_OK, flamant_set_log(FLAMANT_LOG_DEBUG, on_line, &other));
    EXPECT(FLAMANT_OK, flamant_event_release(last(engine, submit(engine, FLAMANT_GENERATE, &text, 1))));
    CHECK(other.lines[FLAMANT_LOG_INFO] == 1 && other.lines[FLAMANT_LOG_DEBUG] >= 2);
    EXPECT(FLAMANT_OK, flamant_set_log(FLAMANT_LOG_OFF, on_line, &other));
    EXPECT(FLAMANT_OK, flamant_event_release(last(engine, submit(engine, FLAMANT_GENERATE, &text, 1))));
    CHECK(log.lines[FLAMANT_LOG_INFO] == infos + 1 && other.lines[FLAMANT_LOG_INFO] == 1);
    EXPECT(FLAMANT_OK, flamant_engine_free(engine));

    /* Files that are read, and not needed afterwards: there are none here. */
    flamant_engine_options options;
    EXPECT(FLAMANT_OK, flamant_engine_options_init(&options, sizeof options));
    CHECK(options.load == FLAMANT_LOAD_MAP);
    options.load = FLAMANT_LOAD_READ;
    EXPECT(FLAMANT_OK, flamant_engine_open(&options, &engine));
    EXPECT(FLAMANT_OK, flamant_engine_free(engine));
    features_of_a_server();
    puts("done");
    return 0;
}
