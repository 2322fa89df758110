"""How the peers are timed: CUDA events, medians of at least 50, never one buffer again and again."""
import json
import statistics

import torch

SAMPLES = 50
ROTATED_BYTES = 128 << 20  # twice the largest second-level cache
COPIES_MAX = 32


def copies(bytes_moved):
    """Sets of buffers that no cache holds together."""
    return max(1, min(COPIES_MAX, -(-ROTATED_BYTES // max(1, int(bytes_moved)))))


def median(run, samples=SAMPLES, warm=5):
    """Seconds of one call."""
    for _ in range(warm):
        run()
    torch.cuda.synchronize()
    pairs = []
    for _ in range(samples):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        pairs.append((begin, end))
    torch.cuda.synchronize()
    return statistics.median(begin.elapsed_time(end) for begin, end in pairs) / 1e3


def replayed(run, sets):
    """Seconds of run(*buffers), in a CUDA graph that goes through all sets of buffers: no launch gaps."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            for buffers in sets:
                run(*buffers)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = [run(*buffers) for buffers in sets]
    seconds = median(graph.replay) / len(sets)
    del kept
    return seconds


def tell(name, peer, seconds):
    print(json.dumps({"name": name, "peer": peer, "seconds": seconds}), flush=True)
