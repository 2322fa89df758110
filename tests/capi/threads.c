/* Threads at one engine: what is answered while another steps it, a server with threads that submit, step and take
   events, freeing it at any time, and a race to free. Then many threads with an engine each. */
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

/* ---- While one thread runs an engine, another submits, looks, and cancels both requests. */

struct beside {
    flamant_engine *engine;
    flamant_request_id id;
    const flamant_request *request;
    pthread_barrier_t running, done;
    int tokens, cancelled, frees;
};

static int at_work(const flamant_event *event, void *user)
{
    struct beside *beside = user;
    if (event->kind == FLAMANT_EVENT_TOKEN && beside->tokens++ == 0) {
        pthread_barrier_wait(&beside->running);
        pthread_barrier_wait(&beside->done);
    }
    beside->cancelled += event->kind == FLAMANT_EVENT_CANCELLED;
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
    EXPECT(FLAMANT_BUSY, flamant_engine_run(beside->engine, at_work, user));
    CHECK(strcmp(flamant_last_error(), "engine: another call steps it") == 0);
    EXPECT(FLAMANT_NO_EVENT, flamant_engine_next_event(beside->engine, &event));
    EXPECT(FLAMANT_TIMEOUT, flamant_engine_wait(beside->engine, FLAMANT_WAIT_EVENT, 1));
    EXPECT(FLAMANT_OK, flamant_engine_submit(beside->engine, beside->request, &id));
    EXPECT(FLAMANT_OK, flamant_engine_wait(beside->engine, FLAMANT_WAIT_WORK, FLAMANT_FOREVER));
    EXPECT(FLAMANT_OK, flamant_engine_stats(beside->engine, &stats, sizeof stats));
    CHECK(stats.requests_running == 1 && stats.requests_waiting == 1 && stats.steps == 1);
    EXPECT(FLAMANT_OK, flamant_engine_cancel(beside->engine, id));
    EXPECT(FLAMANT_NOT_FOUND, flamant_engine_cancel(beside->engine, id));
    if (beside->frees)
        EXPECT(FLAMANT_OK, flamant_engine_free(beside->engine));
    else
        EXPECT(FLAMANT_OK, flamant_engine_cancel(beside->engine, beside->id));
    EXPECT(beside->frees ? FLAMANT_INVALID_HANDLE : FLAMANT_NOT_FOUND,
           flamant_engine_cancel(beside->engine, beside->id));
    pthread_barrier_wait(&beside->done);
    return NULL;
}

/* The other thread cancels the request that runs, or frees the engine. */
static void while_another_runs(int frees)
{
    const flamant_part part = text_part("kep.");
    const flamant_request request = forever(&part);
    struct beside beside = {.request = &request, .frees = frees};
    pthread_t thread;
    CHECK(pthread_barrier_init(&beside.running, NULL, 2) == 0 && pthread_barrier_init(&beside.done, NULL, 2) == 0);
    EXPECT(FLAMANT_OK, flamant_engine_open(NULL, &beside.engine));
    EXPECT(FLAMANT_OK, flamant_engine_submit(beside.engine, &request, &beside.id));
    CHECK(pthread_create(&thread, NULL, from_beside, &beside) == 0);
    EXPECT(frees ? FLAMANT_INVALID_HANDLE : FLAMANT_OK, flamant_engine_run(beside.engine, at_work, &beside));
    CHECK(beside.tokens == 1 && beside.cancelled == (frees ? 0 : 2));
    /* What went wrong in the other thread is not this one's. */
    CHECK(frees || strcmp(flamant_last_error(), "") == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    EXPECT(frees ? FLAMANT_INVALID_HANDLE : FLAMANT_OK, flamant_engine_free(beside.engine));
    pthread_barrier_destroy(&beside.running);
    pthread_barrier_destroy(&beside.done);
}

/* ---- A server: threads that submit, one that steps, one that takes events. Freeing the engine ends both loops. */

enum { CLIENTS = 3, CALLS = 12, TOKENS = 3 };

struct server {
    flamant_engine *engine;
    pthread_mutex_t lock;
    pthread_cond_t over;
    size_t accepted, refused, ended;
    const flamant_event *last[CLIENTS * CALLS];
};

static void *steps(void *user)
{
    struct server *server = user;
    flamant_status status = FLAMANT_OK;
    while (status == FLAMANT_OK) {
        status = flamant_engine_wait(server->engine, FLAMANT_WAIT_WORK, FLAMANT_FOREVER);
        if (status == FLAMANT_OK)
            status = flamant_engine_step(server->engine, NULL);
        CHECK(status == FLAMANT_OK || status == FLAMANT_INVALID_HANDLE);
    }
    return NULL;
}

static void *takes_events(void *user)
{
    struct server *server = user;
    const flamant_event *event;
    while (EXPECT_EITHER(FLAMANT_OK, FLAMANT_INVALID_HANDLE,
                         flamant_engine_wait(server->engine, FLAMANT_WAIT_EVENT, FLAMANT_FOREVER)) == FLAMANT_OK) {
        while (flamant_engine_next_event(server->engine, &event) == FLAMANT_OK) {
            if (!event->is_last) {
                EXPECT(FLAMANT_OK, flamant_event_release(event));
                continue;
            }
            /* Kept until the engine is gone. */
            CHECK(event->kind == FLAMANT_EVENT_WRITTEN || event->kind == FLAMANT_EVENT_CANCELLED);
            pthread_mutex_lock(&server->lock);
            server->last[server->ended++] = event;
            pthread_cond_signal(&server->over);
            pthread_mutex_unlock(&server->lock);
        }
    }
    return NULL;
}

static void *submits(void *user)
{
    struct server *server = user;
    const flamant_part part = text_part("mo");
    flamant_request request = forever(&part);
    flamant_request_id id;
    flamant_stats stats;
    request.max_new_tokens = TOKENS;
    for (int i = 0; i < CALLS; i++) {
        flamant_status status = flamant_engine_submit(server->engine, &request, &id);
        CHECK(status == FLAMANT_OK || status == FLAMANT_QUEUE_FULL);
        if (status == FLAMANT_OK && i % 4 == 0)
            EXPECT_EITHER(FLAMANT_OK, FLAMANT_NOT_FOUND, flamant_engine_cancel(server->engine, id));
        EXPECT(FLAMANT_OK, flamant_engine_stats(server->engine, &stats, sizeof stats));
        CHECK(stats.requests_failed == 0 && stats.requests_running <= 4);
        pthread_mutex_lock(&server->lock);
        server->accepted += status == FLAMANT_OK;
        server->refused += status != FLAMANT_OK;
        pthread_mutex_unlock(&server->lock);
    }
    return NULL;
}

static void serve(void)
{
    struct server server = {.lock = PTHREAD_MUTEX_INITIALIZER, .over = PTHREAD_COND_INITIALIZER};
    pthread_t stepper, taker, clients[CLIENTS];
    flamant_engine_options options;
    EXPECT(FLAMANT_OK, flamant_engine_options_init(&options, sizeof options));
    options.max_sequences = 4;
    options.queue = 8;
    options.threads = 1;
    EXPECT(FLAMANT_OK, flamant_engine_open(&options, &server.engine));
    CHECK(pthread_create(&stepper, NULL, steps, &server) == 0);
    CHECK(pthread_create(&taker, NULL, takes_events, &server) == 0);
    for (int i = 0; i < CLIENTS; i++)
        CHECK(pthread_create(&clients[i], NULL, submits, &server) == 0);
    for (int i = 0; i < CLIENTS; i++)
        CHECK(pthread_join(clients[i], NULL) == 0);
    pthread_mutex_lock(&server.lock);
    while (server.ended < server.accepted)
        pthread_cond_wait(&server.over, &server.lock);
    pthread_mutex_unlock(&server.lock);
    EXPECT(FLAMANT_OK, flamant_engine_free(server.engine));
    CHECK(pthread_join(stepper, NULL) == 0 && pthread_join(taker, NULL) == 0);

    CHECK(server.accepted + server.refused == CLIENTS * CALLS && server.ended == server.accepted);
    for (size_t i = 0; i < server.ended; i++) {
        const flamant_event *event = server.last[i];
        for (size_t j = 0; j < i; j++)
            CHECK(server.last[j]->request != event->request);
        CHECK(event->kind == FLAMANT_EVENT_CANCELLED || event->token_count == TOKENS);
    }
    for (size_t i = 0; i < server.ended; i++)
        EXPECT(FLAMANT_OK, flamant_event_release(server.last[i]));
}

/* ---- All threads do everything at one engine, and free it: once. */

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
    const flamant_event *event;
    request.max_new_tokens = 2;
    pthread_barrier_wait(&shared->start);
    for (int i = 0; i < 50; i++) {
        EXPECT(FLAMANT_OK, flamant_engine_submit(shared->engine, &request, &id));
        if (i % 2 == 0)
            EXPECT_EITHER(FLAMANT_OK, FLAMANT_NOT_FOUND, flamant_engine_cancel(shared->engine, id));
        flamant_status status = flamant_engine_step(shared->engine, NULL);
        CHECK(status == FLAMANT_OK || status == FLAMANT_BUSY || status == FLAMANT_IDLE);
        EXPECT(FLAMANT_OK, flamant_engine_stats(shared->engine, &stats, sizeof stats));
        EXPECT_EITHER(FLAMANT_OK, FLAMANT_NO_EVENT, flamant_engine_next_event(shared->engine, &event));
        EXPECT(FLAMANT_OK, flamant_event_release(event));
    }
    pthread_barrier_wait(&shared->end);
    if (EXPECT_EITHER(FLAMANT_OK, FLAMANT_INVALID_HANDLE, flamant_engine_free(shared->engine)) == FLAMANT_OK)
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
    while_another_runs(0);
    while_another_runs(1);
    serve();
    many_at_one();
    one_for_each();
    puts("done");
    return 0;
}
