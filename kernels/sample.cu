// From logits to tokens without moving them to the host: for each row the most likely token, or one drawn at random
// after temperature, top-k and top-p; or the logits of a list of tokens; or the most likely ones, for beams; and the
// log-sum-exp that turns logits into log-probabilities. Bound by reading a row once, twice if drawn or listed; what
// follows works on the tokens within reach of the best, or on those of one thread.
//
// A draw is three searches in one order, most likely first and lower tokens first among equals: for the place of the
// k-th token, for the place at which probabilities reach top-p, for the place at which they reach the random number.
// Each halves a range of places by measuring the tokens down to its middle, their count or the sum of their
// probabilities. Nothing is sorted. Sums are f32 in one fixed order, in which more tokens never measure less, so that a
// search always ends at the place where its goal is reached.
//
// sample: grid count, threads 1024 (a block alone must keep enough reads under way), shared bytes 512.
#include <string.h>

#include "common.cuh"

constexpr uint32_t SAMPLE_THREADS = 1024;
constexpr uint32_t WARPS = SAMPLE_THREADS / LANES;
/// Reads of a thread that are under way together.
constexpr uint32_t READS = 8;
/// Tokens e^-12 times as likely as the best, or less, are looked at only if the others do not suffice.
constexpr float REACH = 12.0f;
constexpr float LOWEST = -3.40282347e38f;
constexpr float SMALLEST = 1.17549435e-38f;

/// Calls `visit(token, logit)` for each of this thread's tokens, in ascending order.
template <typename Visit>
DEVICE void for_tokens(const float* logits, uint32_t width, Visit visit) {
    for (uint32_t first = threadIdx.x; first < width; first += READS * SAMPLE_THREADS) {
        float logit[READS];
#pragma unroll
        for (uint32_t i = 0; i < READS; ++i) {
            const uint32_t token = first + i * SAMPLE_THREADS;
            logit[i] = token < width ? load_global(logits + token) : 0.0f;
        }
#pragma unroll
        for (uint32_t i = 0; i < READS; ++i) {
            const uint32_t token = first + i * SAMPLE_THREADS;
            if (token < width) visit(token, logit[i]);
        }
    }
}

/// Whether a token must not be chosen.
DEVICE bool is_forbidden(const SampleArguments& arguments, uint32_t token) {
    uint32_t first = 0;
    uint32_t end = arguments.suppressed_count;
    while (first < end) {
        const uint32_t middle = (first + end) / 2;
        if (load_global(arguments.suppressed + middle) < token) {
            first = middle + 1;
        } else {
            end = middle;
        }
    }
    return first < arguments.suppressed_count && load_global(arguments.suppressed + first) == token;
}

/// What one pass over logits finds.
struct alignas(16) Summary {
    float best;      // the largest logit of a token that may be chosen
    uint32_t token;  // the first token that has it; NO_TOKEN if none may be chosen
    float most;      // the largest logit
    float sum;       // of e^(logit - most)
};

DEVICE Summary accumulate_tile(const Summary& a, const Summary& b) {
    const bool second = b.best > a.best || (b.best == a.best && b.token < a.token);
    const float most = larger(a.most, b.most);
    return {second ? b.best : a.best, second ? b.token : a.token, most,
            a.sum * exponential(a.most - most) + b.sum * exponential(b.most - most)};
}

/// The summary of a row; every thread gets it. `scratch` is shared memory of one summary a warp.
DEVICE Summary summarise(const SampleArguments& arguments, const float* logits, Summary* scratch) {
    Summary own = {-INFINITY, NO_TOKEN, LOWEST, 0.0f};
    for_tokens(logits, arguments.width, [&](uint32_t token, float logit) {
        const bool better = logit > own.best || own.token == NO_TOKEN;
        if (better && !is_forbidden(arguments, token)) {
            own.best = logit;
            own.token = token;
        }
        if (logit > own.most) {
            own.sum *= exponential(own.most - logit);
            own.most = logit;
        }
        own.sum += exponential(logit - own.most);
    });
    for (uint32_t distance = LANES / 2; distance > 0; distance /= 2) {
        own = accumulate_tile(own, {shuffle_xor(own.best, distance), shuffle_xor(own.token, distance),
                          shuffle_xor(own.most, distance), shuffle_xor(own.sum, distance)});
    }
    if (threadIdx.x % LANES == 0) store_shared(scratch + threadIdx.x / LANES, own);
    block_barrier();
    Summary all = load_shared(scratch);
    for (uint32_t warp = 1; warp < WARPS; ++warp) all = accumulate_tile(all, load_shared(scratch + warp));
    return all;
}

/// A token that may be drawn; its logit divided by the temperature.
struct alignas(8) Candidate {
    float logit;
    uint32_t token;
};

/// The candidates of a row. Each thread keeps what it found itself: every SAMPLE_THREADS-th entry of the row's scratch.
struct Candidates {
    Candidate* own;       // this thread's first
    uint32_t count;       // this thread's
    float most;           // largest logit of all candidates
    uint32_t token_bits;  // enough for any token
    float* sums;          // shared memory of one float a warp
};

/// A number that is larger the more likely a candidate is, and among equals the lower its token.
DEVICE uint64_t place_of(float logit, uint32_t token, uint32_t token_bits) {
    const float without_negative_zero = logit + 0.0f;
    uint32_t bits;
    memcpy(&bits, &without_negative_zero, sizeof bits);
    const uint32_t ascending = bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
    return ((uint64_t(ascending) + 1) << token_bits) - 1 - token;
}
DEVICE uint32_t token_at(uint64_t place, uint32_t token_bits) {
    const uint32_t mask = (1u << token_bits) - 1;
    return mask - (static_cast<uint32_t>(place) & mask);
}

/// How many candidates there are from the first place down to `least`, or what their probabilities add up to, where the
/// best candidate's is 1.
template <bool COUNTED>
DEVICE float measure(const Candidates& candidates, uint64_t least) {
    float sum = 0.0f;
    for (uint32_t i = 0; i < candidates.count; ++i) {
        const Candidate candidate = load_global(candidates.own + i * SAMPLE_THREADS);
        if (place_of(candidate.logit, candidate.token, candidates.token_bits) >= least) {
            sum += COUNTED ? 1.0f : exponential(candidate.logit - candidates.most);
        }
    }
    return block_sum(sum, candidates.sums);
}

/// The first place down to which the candidates measure `goal`, which is more than 0; `least` if there is none before.
template <bool COUNTED>
DEVICE uint64_t place_that_reaches(const Candidates& candidates, float goal, uint64_t least) {
    uint64_t first = place_of(candidates.most, 0, candidates.token_bits);
    while (least < first) {
        const uint64_t middle = least + (first - least + 1) / 2;
        if (measure<COUNTED>(candidates, middle) >= goal) {
            least = middle;
        } else {
            first = middle - 1;
        }
    }
    return least;
}

/// Collects the candidates whose logits are not more than `reach` below the best; the sum of the probabilities of all
/// tokens that may be chosen.
DEVICE float collect(Candidates& candidates, const SampleArguments& arguments, const float* logits, float temperature,
                     float reach) {
    const float least = larger(candidates.most - reach, LOWEST);
    float sum = 0.0f;
    uint32_t count = 0;
    for_tokens(logits, arguments.width, [&](uint32_t token, float unscaled) {
        const float logit = unscaled / temperature;
        if (!is_forbidden(arguments, token)) {
            sum += exponential(logit - candidates.most);
            if (logit >= least) {
                store_global(candidates.own + count * SAMPLE_THREADS, Candidate{logit, token});
                count += 1;
            }
        }
    });
    candidates.count = count;
    return block_sum(sum, candidates.sums);
}

/// A token drawn at random. `most` is the largest logit that may be chosen, divided by the temperature.
DEVICE uint32_t draw(const SampleArguments& arguments, const float* logits, float most, float* sums) {
    const SampleRequest* request = arguments.requests + blockIdx.x;
    const float temperature = load_global(&request->temperature);
    const float top_k = static_cast<float>(load_global(&request->top_k));
    const float top_p = load_global(&request->top_p);
    const float uniform = load_global(&request->uniform);
    Candidate* scratch = reinterpret_cast<Candidate*>(arguments.scratch) + uint64_t(blockIdx.x) * arguments.width;
    uint32_t token_bits = 1;
    while (arguments.width >> token_bits != 0) token_bits += 1;
    Candidates candidates = {scratch + threadIdx.x, 0, most, token_bits, sums};

    // Whatever the searches may ask for must lie among the candidates.
    float sum = collect(candidates, arguments, logits, temperature, REACH);
    const float within_reach = top_k > 0.0f ? measure<true>(candidates, 0) : measure<false>(candidates, 0);
    const float needed = top_k > 0.0f ? top_k : (top_p < 1.0f ? top_p : uniform) * sum;
    uint64_t least = place_of(larger(most - REACH, LOWEST), arguments.width, token_bits);
    if (within_reach < needed) {
        collect(candidates, arguments, logits, temperature, INFINITY);
        least = 0;
        sum = measure<false>(candidates, least);
    }

    if (top_k > 0.0f) {
        least = place_that_reaches<true>(candidates, top_k, least);
        least = least >> token_bits << token_bits;  // ties with the k-th stay
        sum = measure<false>(candidates, least);
    }
    if (top_p < 1.0f) {
        least = place_that_reaches<false>(candidates, top_p * sum, least);
        sum = measure<false>(candidates, least);
    }
    const float goal = smaller(uniform * sum, measure<false>(candidates, least));
    const uint64_t place = place_that_reaches<false>(candidates, larger(goal, SMALLEST), least);
    return token_at(place, token_bits);
}

/// Writes a token with its logit to a list.
DEVICE void list(const SampleArguments& arguments, const float* logits, SampleToken* place, uint32_t token) {
    const float logit = token < arguments.width ? load_global(logits + token) : -INFINITY;
    store_global(place, SampleToken{token, logit});
}

/// The largest number of a block; every thread gets it. `scratch` is shared memory of one number a warp.
DEVICE uint64_t block_max(uint64_t value, uint64_t* scratch) {
    for (uint32_t distance = LANES / 2; distance > 0; distance /= 2) {
        Word2 words;
        memcpy(&words, &value, sizeof words);
        words = {shuffle_xor(words.x, distance), shuffle_xor(words.y, distance)};
        uint64_t other;
        memcpy(&other, &words, sizeof other);
        value = larger(value, other);
    }
    block_barrier();
    if (threadIdx.x % LANES == 0) store_shared(scratch + threadIdx.x / LANES, value);
    block_barrier();
    uint64_t most = load_shared(scratch);
    for (uint32_t warp = 1; warp < WARPS; ++warp) most = larger(most, load_shared(scratch + warp));
    return most;
}

/// Lists the most likely tokens of a row, by the score of what is before them plus their log-probability, lower tokens
/// first among equals; those that are forbidden are not likely at all. Each thread knows the first of its own tokens
/// that is not listed, so that of each that is listed only its own thread looks for the next.
DEVICE void list_most_likely(const SampleArguments& arguments, const float* logits, float log_sum_exp,
                             uint64_t* scratch) {
    const SampleRequest* request = arguments.requests + blockIdx.x;
    SampleToken* found = arguments.found + load_global(&request->first) + 1;
    const uint32_t count = load_global(&request->count);
    const float score = load_global(&request->score);
    uint32_t token_bits = 1;
    while (arguments.width >> token_bits != 0) token_bits += 1;

    uint64_t own = UINT64_MAX;
    bool listed = true;
    for (uint32_t i = 0; i < count; ++i) {
        if (listed) {
            const uint64_t limit = own;
            own = 0;
            for_tokens(logits, arguments.width, [&](uint32_t token, float logit) {
                uint64_t place = place_of(score + (logit - log_sum_exp), token, token_bits);
                if (place <= own) return;
                if (is_forbidden(arguments, token)) place = place_of(-INFINITY, token, token_bits);
                if (place > own && place < limit) own = place;
            });
        }
        const uint64_t first = block_max(own, scratch);
        listed = own == first;
        if (threadIdx.x == 0) list(arguments, logits, found + i, first > 0 ? token_at(first, token_bits) : NO_TOKEN);
    }
}

// One block fills a multiprocessor: nvcc is not to spill registers to make room for another.
LARGE_KERNEL(sample, SampleArguments, 1024) {
    const uint32_t row = blockIdx.x;
    const float* logits = arguments.logits + uint64_t(row) * arguments.stride;
    const SampleRequest* request = arguments.requests + row;
    Summary* scratch = reinterpret_cast<Summary*>(shared_memory());
    const Summary summary = summarise(arguments, logits, scratch);
    const float log_sum_exp = summary.most + logf(summary.sum);

    const uint32_t place = load_global(&request->first);
    SampleToken* found = arguments.found + place;
    const SampleTask task = load_global(&request->task);
    if (threadIdx.x == 0) store_global(found, SampleToken{NO_TOKEN, log_sum_exp});
    if (task == SampleTask::TopK) {
        list_most_likely(arguments, logits, log_sum_exp, reinterpret_cast<uint64_t*>(scratch));
    } else if (task == SampleTask::Targets) {
        const uint32_t end = load_global(&request->count) + 1;
        for (uint32_t i = threadIdx.x + 1; i < end; i += SAMPLE_THREADS) {
            list(arguments, logits, found + i, load_global(arguments.targets + place + i));
        }
    } else {
        uint32_t token = summary.token;
        const float temperature = load_global(&request->temperature);
        const float most = summary.best / temperature;
        // Without a finite best there are no probabilities.
        if (temperature > 0.0f && fabsf(most) < INFINITY) {
            token = draw(arguments, logits, most, reinterpret_cast<float*>(scratch));
        }
        if (threadIdx.x == 0) list(arguments, logits, found + 1, token);
    }
}
