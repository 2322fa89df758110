/* Two threads at one engine: what must be answered while a call is at work, cancelling from beside, and a race to free.
   Then many threads with an engine each, and all of them at one. */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>

#include "check.h"

enum { THREADS = 4 };

static flamant_request forever(const flamant_part *part)
{
    flamant_request request;
    EXPECT(FLAMANT_OK, flamant_request_init(&request, sizeof request));
    request.parts = part;
    request.part_count = 1;
    request.max_new_tokens = 100000;
    request.ignore_eos = 1;
    return request;
}

/* ---- While one thread runs an engine, another cancels its request. */

struct beside {
    flamant_engine *engine;
    flamant_request_id id;
    const flamant_request *request;
    pthread_barrier_t running, done;
    int tokens, cancelled;
};

static int at_work(const flamant_event *event, void *user)
{
    struct beside *beside = user;
    if (event->kind == FLAMANT_EVENT_TOKEN && beside->tokens++ == 0) {
        pthread_barrier_wait(&beside->running);
        pthread_barrier_wait(&beside->done);
    }
    beside->cancelled += event->kind == FLAMANT_EVENT_CANCELLED && event->request == beside->id;
    return 0;
}

static void *from_beside(void *user)
{
    struct beside *beside = user;
    flamant_request_id id;
    flamant_stats stats;
    const flamant_event *event;
    pthread_barrier_wait(&beside->running);
    EXPECT(FLAMANT_BUSY, flamant_engine_step(beside->engine, NULL));
    EXPECT(FLAMANT_BUSY, flamant_engine_next_event(beside->engine, &event));
    EXPECT(FLAMANT_BUSY, flamant_engine_run(beside->engine, at_work, user));
    EXPECT(FLAMANT_BUSY, flamant_engine_submit(beside->engine, beside->request, &id));
    EXPECT(FLAMANT_BUSY, flamant_engine_stats(beside->engine, &stats, sizeof stats));
    EXPECT(FLAMANT_BUSY, flamant_engine_free(beside->engine));
    CHECK(strcmp(flamant_last_error(), "engine: another call is at work on it") == 0);
    EXPECT(FLAMANT_OK, flamant_engine_cancel(beside->engine, beside->id));
    EXPECT(FLAMANT_NOT_FOUND, flamant_engine_cancel(beside->engine, beside->id));
    pthread_barrier_wait(&beside->done);
    return NULL;
}

static void cancel_from_beside(void)
{
    const flamant_part part = text_part("kep.");
    const flamant_request request = forever(&part);
    struct beside beside = {.request = &request};
    pthread_t thread;
    CHECK(pthread_barrier_init(&beside.running, NULL, 2) == 0 && pthread_barrier_init(&beside.done, NULL, 2) == 0);
    EXPECT(FLAMANT_OK, flamant_engine_open(NULL, &beside.engine));
    EXPECT(FLAMANT_OK, flamant_engine_submit(beside.engine, &request, &beside.id));
    CHECK(pthread_create(&thread, NULL, from_beside, &beside) == 0);
    EXPECT(FLAMANT_OK, flamant_engine_run(beside.engine, at_work, &beside));
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(beside.cancelled == 1 && beside.tokens == 1);
    /* What went wrong in the other thread is not this one's. */
    CHECK(strcmp(flamant_last_error(), "") == 0);
    EXPECT(FLAMANT_OK, flamant_engine_free(beside.engine));
    pthread_barrier_destroy(&beside.running);
    pthread_barrier_destroy(&beside.done);
}

/* ---- All threads at one engine: each call is served or turned away, and it is freed once. */

struct shared {
    flamant_engine *engine;
    pthread_barrier_t start, end;
    int freed;
};

static void *crowd(void *user)
{
    struct shared *shared = user;
    const flamant_part part = text_part("mo");
    flamant_request request = forever(&part);
    flamant_request_id id;
    flamant_stats stats;
    request.max_new_tokens = 2;
    pthread_barrier_wait(&shared->start);
    for (int i = 0; i < 50; i++) {
        if (EXPECT_EITHER(FLAMANT_OK, FLAMANT_BUSY, flamant_engine_submit(shared->engine, &request, &id)) == FLAMANT_OK
            && i % 2 == 0)
            EXPECT_EITHER(FLAMANT_OK, FLAMANT_NOT_FOUND, flamant_engine_cancel(shared->engine, id));
        flamant_status status = flamant_engine_step(shared->engine, NULL);
        CHECK(status == FLAMANT_OK || status == FLAMANT_BUSY || status == FLAMANT_IDLE);
        EXPECT_EITHER(FLAMANT_OK, FLAMANT_BUSY, flamant_engine_stats(shared->engine, &stats, sizeof stats));
    }
    pthread_barrier_wait(&shared->end);
    flamant_status status = flamant_engine_free(shared->engine);
    CHECK(status == FLAMANT_OK || status == FLAMANT_BUSY || status == FLAMANT_INVALID_HANDLE);
    if (status == FLAMANT_OK)
        __atomic_fetch_add(&shared->freed, 1, __ATOMIC_SEQ_CST);
    return NULL;
}

static void many_at_one(void)
{
    struct shared shared = {0};
    pthread_t threads[THREADS];
    CHECK(pthread_barrier_init(&shared.start, NULL, THREADS) == 0);
    CHECK(pthread_barrier_init(&shared.end, NULL, THREADS) == 0);
    EXPECT(FLAMANT_OK, flamant_engine_open(NULL, &shared.engine));
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, crowd, &shared) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(shared.freed == 1);
    EXPECT(FLAMANT_INVALID_HANDLE, flamant_engine_free(shared.engine));
    pthread_barrier_destroy(&shared.start);
    pthread_barrier_destroy(&shared.end);
}

/* ---- Each thread with an engine of its own writes what any other writes. */

struct own {
    uint32_t ids[8];
    size_t count;
};

static int keep(const flamant_event *event, void *user)
{
    struct own *own = user;
    if (event->kind == FLAMANT_EVENT_WRITTEN) {
        CHECK(event->token_count == 8);
        memcpy(own->ids, event->ids, sizeof own->ids);
        own->count = event->token_count;
    }
    return 0;
}

static void *alone(void *user)
{
    const flamant_part part = text_part("kep.mul.");
    flamant_request request = forever(&part);
    flamant_request_id id;
    flamant_engine *engine;
    request.max_new_tokens = 8;
    EXPECT(FLAMANT_OK, flamant_engine_open(NULL, &engine));
    EXPECT(FLAMANT_OK, flamant_engine_submit(engine, &request, &id));
    EXPECT(FLAMANT_OK, flamant_engine_run(engine, keep, user));
    EXPECT(FLAMANT_OK, flamant_engine_free(engine));
    return NULL;
}

static void one_for_each(void)
{
    struct own own[THREADS] = {0};
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, alone, &own[i]) == 0);
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        CHECK(own[i].count == 8 && memcmp(own[i].ids, own[0].ids, sizeof own[0].ids) == 0);
    }
}

int main(void)
{
    cancel_from_beside();
    many_at_one();
    one_for_each();
    puts("done");
    return 0;
}
