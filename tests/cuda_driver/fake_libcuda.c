// A libcuda without a GPU, for src/backend/gpu/cuda/tests.rs: device memory is the host's, and work on a stream is
// put off until somebody waits for it, as late as a real device may. It watches over handles, contexts and bounds, and
// any one call can be made to fail.
//
// Kernels: `copy_page` (24 bytes of arguments: to, from, count of bytes, what to add) and any other, which loses the
// device.
// Settings of the environment: FAKE_CUDA_DEVICES, FAKE_CUDA_VERSION, FAKE_CUDA_CAPABILITY; FAKE_CUDA_COOPERATIVE (0: the
// device says that it has no cooperative launches), FAKE_CUDA_OCCUPANCY (blocks a multiprocessor runs at a time), and
// FAKE_CUDA_COOPERATIVE_STATUS (what cooperative launches are answered, whatever the device said).
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NO_DEVICE = 100,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    ILLEGAL_ADDRESS = 700,
    COOPERATIVE_LAUNCH_TOO_LARGE = 720,
    NOT_SUPPORTED = 801,
    STREAM_CAPTURE_INVALIDATED = 901,
};
typedef int Status;

#define DEVICES 4
#define DEVICE_BYTES (64u << 20)
#define SHARED_PLAIN (48 * 1024)
#define SHARED_MAX (227 * 1024)
#define MULTIPROCESSORS 7
#define STACK_MAX 16

// Everything a handle leads to.
enum Kind { MEMORY, PINNED, MODULE, FUNCTION, STREAM, EVENT, GRAPH, GRAPH_EXEC };

struct Work {
    enum { COPY_IN, COPY_OUT, FILL, RUN, MARK } kind;
    uint64_t device;
    char* host;
    size_t bytes;
    int value;
    struct Object* object;  // the function, or the event
    uint64_t arguments[3];
    struct Work* next;
};

struct Object {
    enum Kind kind;
    int device;
    char* bytes;  // memory, pinned memory
    size_t size;
    int is_add;         // function
    int shared_bytes;   // function
    int carveout;       // function: hundredths of its cache that are shared memory
    struct Object* of;  // function: its module
    struct Work* work;  // stream, graph
    int capturing;      // stream
    int marks;          // event: marks not yet reached
    struct Object* next;
};

static struct Object* objects;
static struct { int retained; Status lost; } contexts[DEVICES];
// Contexts are named by their devices; a thread has a stack of them.
static __thread int stack[STACK_MAX], depth, current = -1;
static long calls, fail_at;
static Status fail_with;
static char misuse[256];

// What the test asks for.
void fake_arm(long at, Status status) {
    calls = 0;
    fail_at = at;
    fail_with = status;
}
long fake_calls(void) { return calls; }
long fake_live(void) {
    long live = 0;
    for (struct Object* object = objects; object; object = object->next) live += object->kind != FUNCTION;
    for (int device = 0; device < DEVICES; ++device) live += contexts[device].retained;
    return live;
}
const char* fake_misuse(void) { return misuse; }
// This thread's contexts: how many, and the handle of the uppermost.
long fake_depth(void) { return depth; }
long fake_current(void) { return current + 1; }
// A context of the program that we are part of: nothing of ours may be done in it.
void fake_enter_host(void) { current = stack[depth++] = DEVICES - 1; }
void fake_leave(void) { current = --depth ? stack[depth - 1] : -1; }

static Status wrong(const char* what, Status status) {
    if (!misuse[0]) snprintf(misuse, sizeof misuse, "%s", what);
    return status;
}

static int setting(const char* name, int otherwise) {
    const char* text = getenv(name);
    return text ? atoi(text) : otherwise;
}

static int loses_device(Status status) { return status >= 700 && status < 720 && status != 701; }

// Every call begins here: the status it must fail with, or 0.
static Status enter(void) { return ++calls == fail_at ? fail_with : 0; }

// As `enter`, for calls that need a context: it may be lost, now or already.
static Status enter_context(const char* name) {
    const Status status = enter();
    if (current < 0 || !contexts[current].retained) return wrong(name, INVALID_CONTEXT);
    if (loses_device(status)) contexts[current].lost = status;
    return status ? status : contexts[current].lost;
}

static struct Object* make(enum Kind kind) {
    struct Object* object = calloc(1, sizeof *object);
    object->kind = kind;
    object->device = current;
    object->next = objects;
    return objects = object;
}

static int is(const struct Object* object, enum Kind kind) {
    for (struct Object* known = objects; known; known = known->next) {
        if (known == object) return known->kind == kind && known->device == current;
    }
    return 0;
}

static void unmake(struct Object* object) {
    struct Object** link = &objects;
    while (*link != object) link = &(*link)->next;
    *link = object->next;
    while (object->work) {
        struct Work* work = object->work;
        object->work = work->next;
        free(work);
    }
    free(object->bytes);
    free(object);
}

// Whether so many bytes lie in one live piece of memory.
static int within(enum Kind kind, uint64_t address, size_t bytes) {
    for (struct Object* object = objects; object; object = object->next) {
        const uint64_t start = (uint64_t)object->bytes;
        const int there = object->kind == kind && object->device == current;
        if (there && address >= start && address + bytes <= start + object->size) return 1;
    }
    return 0;
}

static void run(const struct Work* work) {
    switch (work->kind) {
        case COPY_IN:
        case COPY_OUT:
            if (!within(MEMORY, work->device, work->bytes) || !within(PINNED, (uint64_t)work->host, work->bytes)) {
                wrong("copy outside of memory", 0);
            } else if (work->kind == COPY_IN) {
                memcpy((void*)work->device, work->host, work->bytes);
            } else {
                memcpy(work->host, (void*)work->device, work->bytes);
            }
            break;
        case FILL:
            if (!within(MEMORY, work->device, work->bytes)) {
                wrong("fill outside of memory", 0);
            } else {
                memset((void*)work->device, work->value, work->bytes);
            }
            break;
        case RUN: {
            if (!is(work->object, FUNCTION)) {
                wrong("kernel of a module that is gone", 0);
                break;
            }
            if (!work->object->is_add) {
                contexts[current].lost = ILLEGAL_ADDRESS;
                break;
            }
            const uint64_t count = (uint32_t)work->arguments[2], add = work->arguments[2] >> 32;
            if (!count) break;
            if (!within(MEMORY, work->arguments[0], count) || !within(MEMORY, work->arguments[1], count)) {
                wrong("kernel outside of memory", 0);
                break;
            }
            for (uint64_t i = 0; i < count; ++i) {
                ((uint8_t*)work->arguments[0])[i] = ((uint8_t*)work->arguments[1])[i] + add;
            }
            break;
        }
        case MARK:
            if (is(work->object, EVENT)) --work->object->marks;
            break;
    }
}

static void run_next(struct Object* stream) {
    struct Work* work = stream->work;
    stream->work = work->next;
    if (!contexts[current].lost) run(work);
    free(work);
}

static Status run_all(struct Object* stream) {
    while (stream->work) run_next(stream);
    return contexts[current].lost;
}

static Status put(struct Object* stream, struct Work work) {
    if (!is(stream, STREAM)) return wrong("work on no stream", INVALID_HANDLE);
    if (stream->capturing && work.kind != RUN) {
        stream->capturing = -1;
        return wrong("only kernels are captured here", STREAM_CAPTURE_INVALIDATED);
    }
    struct Work** link = stream->capturing ? &stream->of->work : &stream->work;
    while (*link) link = &(*link)->next;
    work.next = NULL;
    *link = malloc(sizeof work);
    **link = work;
    return 0;
}

#define ENTER()                                         \
    do {                                                \
        const Status failed = enter();                  \
        if (failed) return failed;                      \
    } while (0)
#define ENTER_CONTEXT(function)                         \
    do {                                                \
        const Status failed = enter_context(#function); \
        if (failed) return failed;                      \
    } while (0)

Status cuInit(unsigned flags) {
    ENTER();
    if (flags) return INVALID_VALUE;
    return setting("FAKE_CUDA_DEVICES", 2) ? 0 : NO_DEVICE;
}
Status cuDriverGetVersion(int* version) {
    ENTER();
    *version = setting("FAKE_CUDA_VERSION", 13000);
    return 0;
}
Status cuGetErrorName(Status status, const char** text) {
    switch (status) {
        case INVALID_VALUE: *text = "CUDA_ERROR_INVALID_VALUE"; return 0;
        case OUT_OF_MEMORY: *text = "CUDA_ERROR_OUT_OF_MEMORY"; return 0;
        case ILLEGAL_ADDRESS: *text = "CUDA_ERROR_ILLEGAL_ADDRESS"; return 0;
        case COOPERATIVE_LAUNCH_TOO_LARGE: *text = "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE"; return 0;
        case NOT_SUPPORTED: *text = "CUDA_ERROR_NOT_SUPPORTED"; return 0;
        default: *text = NULL; return INVALID_VALUE;
    }
}
Status cuGetErrorString(Status status, const char** text) {
    *text = status < 1000 ? "a fake error" : NULL;
    return *text ? 0 : INVALID_VALUE;
}

Status cuDeviceGetCount(int* count) {
    ENTER();
    *count = setting("FAKE_CUDA_DEVICES", 2);
    return 0;
}
Status cuDeviceGet(int* device, int index) {
    ENTER();
    *device = index;
    return index < setting("FAKE_CUDA_DEVICES", 2) ? 0 : INVALID_VALUE;
}
Status cuDeviceGetName(char* name, int size, int device) {
    ENTER();
    snprintf(name, size, "Fake GPU %d", device);
    return 0;
}
Status cuDeviceTotalMem_v2(size_t* bytes, int device) {
    ENTER();
    (void)device;
    *bytes = DEVICE_BYTES;
    return 0;
}
Status cuDeviceGetAttribute(int* value, int attribute, int device) {
    ENTER();
    (void)device;
    const int capability = setting("FAKE_CUDA_CAPABILITY", 90);
    switch (attribute) {
        case 16: *value = MULTIPROCESSORS; return 0;
        case 75: *value = capability / 10; return 0;  // compute capability
        case 76: *value = capability % 10; return 0;
        case 95: *value = setting("FAKE_CUDA_COOPERATIVE", 1); return 0;
        case 97: *value = SHARED_MAX; return 0;  // shared memory of a block that asks for it
        default: return wrong("unknown attribute", INVALID_VALUE);
    }
}

Status cuDevicePrimaryCtxRetain(uint64_t* context, int device) {
    ENTER();
    ++contexts[device].retained;
    *context = device + 1;
    return 0;
}
Status cuDevicePrimaryCtxRelease_v2(int device) {
    const Status status = enter();
    if (!contexts[device].retained) return wrong("a context released too often", INVALID_CONTEXT);
    if (--contexts[device].retained) return status;
    contexts[device].lost = 0;
    for (struct Object* object = objects; object; object = object->next) {
        if (object->device == device && object->kind != FUNCTION) wrong("a context released before what is in it", 0);
    }
    return status;
}
Status cuCtxPushCurrent_v2(uint64_t context) {
    ENTER();
    if (depth == STACK_MAX) return wrong("contexts are pushed and never popped", INVALID_VALUE);
    current = stack[depth++] = (int)context - 1;
    return 0;
}
// What it returns besides is of work begun earlier: it pops in any case.
Status cuCtxPopCurrent_v2(uint64_t* context) {
    const Status status = enter();
    if (!depth) return wrong("a context popped that was not pushed", INVALID_CONTEXT);
    *context = current + 1;
    fake_leave();
    return status;
}
Status cuMemGetInfo_v2(size_t* free_bytes, size_t* total) {
    ENTER_CONTEXT(cuMemGetInfo_v2);
    *free_bytes = *total = DEVICE_BYTES;
    for (struct Object* object = objects; object; object = object->next) {
        if (object->kind == MEMORY && object->device == current) *free_bytes -= object->size;
    }
    return 0;
}

static Status take(enum Kind kind, char** bytes, size_t size) {
    if (!size) return INVALID_VALUE;
    struct Object* object = make(kind);
    object->size = size;
    object->bytes = aligned_alloc(256, (size + 255) / 256 * 256);
    memset(object->bytes, 0xa5, size);
    *bytes = object->bytes;
    return 0;
}
static Status give(enum Kind kind, const char* bytes) {
    const Status status = enter_context("memory given back without a context");
    for (struct Object* object = objects; object; object = object->next) {
        if (object->kind != kind || object->bytes != bytes) continue;
        if (object->device != current) wrong("memory given back in another context", 0);
        unmake(object);
        return status;
    }
    return wrong("memory given back that was not taken", INVALID_VALUE);
}
Status cuMemAlloc_v2(char** address, size_t size) {
    ENTER_CONTEXT(cuMemAlloc_v2);
    return size > DEVICE_BYTES ? OUT_OF_MEMORY : take(MEMORY, address, size);
}
Status cuMemFree_v2(const char* address) {
    for (struct Object* object = objects; object; object = object->next) {
        if (object->kind == STREAM && object->device == current) run_all(object);
    }
    return give(MEMORY, address);
}
Status cuMemHostAlloc(char** address, size_t size, unsigned flags) {
    ENTER_CONTEXT(cuMemHostAlloc);
    (void)flags;
    return take(PINNED, address, size);
}
Status cuMemFreeHost(const char* address) { return give(PINNED, address); }

Status cuMemcpyHtoDAsync_v2(uint64_t to, char* from, size_t bytes, struct Object* stream) {
    ENTER_CONTEXT(cuMemcpyHtoDAsync_v2);
    return put(stream, (struct Work){.kind = COPY_IN, .device = to, .host = from, .bytes = bytes});
}
Status cuMemcpyDtoHAsync_v2(char* to, uint64_t from, size_t bytes, struct Object* stream) {
    ENTER_CONTEXT(cuMemcpyDtoHAsync_v2);
    return put(stream, (struct Work){.kind = COPY_OUT, .device = from, .host = to, .bytes = bytes});
}
Status cuMemsetD8Async(uint64_t address, unsigned char value, size_t bytes, struct Object* stream) {
    ENTER_CONTEXT(cuMemsetD8Async);
    return put(stream, (struct Work){.kind = FILL, .device = address, .bytes = bytes, .value = value});
}

// A module's kernels stand in its image, which is text here.
Status cuModuleLoadData(struct Object** module, const char* image) {
    ENTER_CONTEXT(cuModuleLoadData);
    if ((uint64_t)image % 8) wrong("an image that is not aligned", 0);
    *module = make(MODULE);
    (*module)->size = strlen(image) + 1;
    (*module)->bytes = strdup(image);
    return 0;
}
static Status destroy(struct Object* object, enum Kind kind) {
    const Status status = enter_context("something destroyed without a context");
    if (!is(object, kind)) return wrong("something destroyed that is not there", INVALID_HANDLE);
    unmake(object);
    return status;
}
Status cuModuleUnload(struct Object* module) {
    for (struct Object *object = objects, *next; object; object = next) {
        next = object->next;
        if (object->kind == FUNCTION && object->of == module) unmake(object);
    }
    return destroy(module, MODULE);
}
Status cuModuleGetFunction(struct Object** function, struct Object* module, const char* name) {
    ENTER_CONTEXT(cuModuleGetFunction);
    if (!is(module, MODULE)) return wrong("a function of no module", INVALID_HANDLE);
    if (strcmp(name, module->bytes)) return NOT_FOUND;
    *function = make(FUNCTION);
    (*function)->of = module;
    (*function)->is_add = !strcmp(name, "copy_page");
    (*function)->shared_bytes = SHARED_PLAIN;
    return 0;
}
Status cuFuncSetAttribute(struct Object* function, int attribute, int value) {
    ENTER_CONTEXT(cuFuncSetAttribute);
    if (!is(function, FUNCTION)) return wrong("attribute of no function", INVALID_HANDLE);
    switch (attribute) {
        case 8:
            if (value > SHARED_MAX) return INVALID_VALUE;
            function->shared_bytes = value;
            return 0;
        case 9:
            if (value > 100) return INVALID_VALUE;
            function->carveout = value;
            return 0;
        default: return wrong("an attribute that no function has", INVALID_VALUE);
    }
}
#ifndef WITHOUT_PARAMETER_INFO
Status cuFuncGetParamInfo(struct Object* function, size_t index, size_t* offset, size_t* bytes) {
    ENTER_CONTEXT(cuFuncGetParamInfo);
    if (!is(function, FUNCTION) || index) return INVALID_VALUE;
    *offset = 0;
    *bytes = 24;
    return 0;
}
#endif
Status cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, struct Object* function, int threads, size_t shared) {
    ENTER_CONTEXT(cuOccupancyMaxActiveBlocksPerMultiprocessor);
    if (!is(function, FUNCTION) || threads <= 0) return wrong("occupancy of no function", INVALID_HANDLE);
    *blocks = (int)shared > function->shared_bytes ? 0 : setting("FAKE_CUDA_OCCUPANCY", 1);
    return 0;
}
Status cuLaunchKernel(struct Object* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                      unsigned block_y, unsigned block_z, unsigned shared_bytes, struct Object* stream,
                      void** parameters, void** extra) {
    ENTER_CONTEXT(cuLaunchKernel);
    if (!is(function, FUNCTION) || extra) return wrong("launch of no function", INVALID_HANDLE);
    const unsigned threads = block_x * block_y * block_z;
    if (!grid_x || !grid_y || !grid_z || !threads || threads > 1024) return INVALID_VALUE;
    if ((int)shared_bytes > function->shared_bytes) return INVALID_VALUE;
    if (shared_bytes > SHARED_PLAIN && function->carveout != 100) wrong("much shared memory, and L1 as large as it was", 0);
    struct Work work = {.kind = RUN, .object = function};
    memcpy(work.arguments, parameters[0], sizeof work.arguments);
    return put(stream, work);
}
Status cuLaunchCooperativeKernel(struct Object* function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                                 unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                                 struct Object* stream, void** parameters) {
    const Status refusal = setting("FAKE_CUDA_COOPERATIVE_STATUS", 0);
    if (refusal) return refusal;
    const unsigned room = MULTIPROCESSORS * setting("FAKE_CUDA_OCCUPANCY", 1);
    if (grid_x * grid_y * grid_z > room) return COOPERATIVE_LAUNCH_TOO_LARGE;
    return cuLaunchKernel(function, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes, stream,
                          parameters, NULL);
}

Status cuStreamCreate(struct Object** stream, unsigned flags) {
    ENTER_CONTEXT(cuStreamCreate);
    if (flags != 1) wrong("a stream that waits for others", 0);
    *stream = make(STREAM);
    return 0;
}
Status cuStreamDestroy_v2(struct Object* stream) {
    // A real one comes to its end by itself.
    if (is(stream, STREAM)) run_all(stream);
    return destroy(stream, STREAM);
}
Status cuStreamSynchronize(struct Object* stream) {
    ENTER_CONTEXT(cuStreamSynchronize);
    if (!is(stream, STREAM) || stream->capturing) return wrong("waiting for no stream", INVALID_HANDLE);
    return run_all(stream);
}
Status cuStreamBeginCapture_v2(struct Object* stream, int mode) {
    ENTER_CONTEXT(cuStreamBeginCapture_v2);
    (void)mode;
    if (!is(stream, STREAM) || stream->capturing) return wrong("capture of no stream", INVALID_HANDLE);
    stream->capturing = 1;
    stream->of = make(GRAPH);
    return 0;
}
Status cuStreamEndCapture(struct Object* stream, struct Object** graph) {
    Status status = enter_context("cuStreamEndCapture");
    if (!is(stream, STREAM) || !stream->capturing) return wrong("end of no capture", INVALID_HANDLE);
    if (stream->capturing < 0) status = STREAM_CAPTURE_INVALIDATED;
    *graph = stream->of;
    stream->capturing = 0;
    stream->of = NULL;
    if (!status) return 0;
    unmake(*graph);
    *graph = NULL;
    return status;
}
Status cuGraphDestroy(struct Object* graph) { return destroy(graph, GRAPH); }
Status cuGraphExecDestroy(struct Object* graph) { return destroy(graph, GRAPH_EXEC); }
Status cuGraphInstantiateWithFlags(struct Object** ready, struct Object* graph, unsigned long long flags) {
    ENTER_CONTEXT(cuGraphInstantiateWithFlags);
    if (!is(graph, GRAPH) || flags) return wrong("no graph", INVALID_HANDLE);
    *ready = make(GRAPH_EXEC);
    (*ready)->work = graph->work;
    graph->work = NULL;
    return 0;
}
#ifndef WITHOUT_GRAPHS
Status cuGraphLaunch(struct Object* graph, struct Object* stream) {
    ENTER_CONTEXT(cuGraphLaunch);
    if (!is(graph, GRAPH_EXEC)) return wrong("launch of no graph", INVALID_HANDLE);
    for (const struct Work* work = graph->work; work; work = work->next) put(stream, *work);
    return 0;
}
#endif

Status cuEventCreate(struct Object** event, unsigned flags) {
    ENTER_CONTEXT(cuEventCreate);
    *event = make(EVENT);
    (*event)->size = flags == 0;
    return 0;
}
Status cuEventDestroy_v2(struct Object* event) { return destroy(event, EVENT); }
Status cuEventRecord(struct Object* event, struct Object* stream) {
    ENTER_CONTEXT(cuEventRecord);
    if (!is(event, EVENT)) return wrong("mark of no event", INVALID_HANDLE);
    ++event->marks;
    event->of = stream;
    return put(stream, (struct Work){.kind = MARK, .object = event});
}
Status cuEventSynchronize(struct Object* event) {
    ENTER_CONTEXT(cuEventSynchronize);
    if (!is(event, EVENT)) return wrong("waiting for no event", INVALID_HANDLE);
    while (event->marks && event->of->work) run_next(event->of);
    return contexts[current].lost;
}
Status cuEventElapsedTime(float* milliseconds, struct Object* begin, struct Object* end) {
    ENTER_CONTEXT(cuEventElapsedTime);
    const int timed = is(begin, EVENT) && is(end, EVENT) && begin->size && end->size;
    if (!timed || begin->marks || end->marks) return wrong("time between no events", INVALID_HANDLE);
    *milliseconds = 1.5f;
    return 0;
}
