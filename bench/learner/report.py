"""What both peers report."""
import json
import resource
import time


def report(step, tokens):
    """Calls step() once to warm up, then for three seconds; prints tokens a second and the process's peak of memory as a JSON line."""
    step()
    begin, steps = time.perf_counter(), 0
    while steps < 3 or time.perf_counter() - begin < 3:
        step()
        steps += 1
    seconds = (time.perf_counter() - begin) / steps
    print(json.dumps({"tokens_per_second": tokens / seconds, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
