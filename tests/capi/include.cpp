// A C++ program, linked with the static library: the header compiles, handles have an owner, events come to a lambda.
#include <flamant.h>

#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace {

void check(flamant_status status)
{
    if (status >= FLAMANT_INVALID_ARGUMENT)
        throw std::runtime_error(flamant_last_error());
}

struct Free {
    void operator()(flamant_engine *engine) const { flamant_engine_free(engine); }
};
using Engine = std::unique_ptr<flamant_engine, Free>;

Engine open(const flamant_engine_options &options)
{
    flamant_engine *engine = nullptr;
    check(flamant_engine_open(&options, &engine));
    return Engine(engine);
}

} // namespace

int main()
{
    flamant_engine_options options;
    check(flamant_engine_options_init(&options, sizeof options));
    options.threads = 1;
    Engine engine = open(options);

    constexpr std::string_view text = "kep.";
    flamant_part part{};
    part.kind = FLAMANT_PART_TEXT;
    part.data = text.data();
    part.length = text.size();
    flamant_request request;
    check(flamant_request_init(&request, sizeof request));
    request.parts = &part;
    request.part_count = 1;
    request.task = FLAMANT_SCORE;
    flamant_request_id id = 0;
    check(flamant_engine_submit(engine.get(), &request, &id));

    std::vector<double> logprobs;
    const auto on_event = [](const flamant_event *event, void *user) noexcept {
        auto &logprobs = *static_cast<std::vector<double> *>(user);
        if (event->kind == FLAMANT_EVENT_SCORED)
            logprobs.assign(event->logprobs, event->logprobs + event->token_count);
        return 0;
    };
    check(flamant_engine_run(engine.get(), on_event, &logprobs));
    // Begin, four letters.
    if (logprobs.size() != 5 || logprobs[0] == logprobs[0] || !(logprobs[4] < 0))
        throw std::runtime_error("not the scores of five tokens");
    try {
        options.device = "abacus";
        open(options);
    } catch (const std::runtime_error &error) {
        std::printf("%s\ndone\n", error.what());
        return 0;
    }
    throw std::runtime_error("an abacus was found");
}
