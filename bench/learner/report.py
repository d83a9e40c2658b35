"""What both peers report."""
import json
import resource
import time

import torch


def report(step, tokens, device="cpu"):
    """Calls step() once to warm up, then for three seconds; prints tokens a second and the peak of memory (of the process, or of a GPU's tensors) as a JSON line."""
    on_gpu = device != "cpu"

    def done():
        step()
        if on_gpu:
            torch.cuda.synchronize()

    done()
    begin, steps = time.perf_counter(), 0
    while steps < 3 or time.perf_counter() - begin < 3:
        done()
        steps += 1
    seconds = (time.perf_counter() - begin) / steps
    peak = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"tokens_per_second": tokens / seconds, "peak_mib": peak}))
