"""Judges pairs with math-verify: the peer of bench_reward and of docs/reward.md.

usage: math_verify_peer.py IN OUT
IN: JSON lines with "gold" and "response". OUT: a line each, "score" and "seconds".
"""
import json
import sys
import time

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

CONFIG = (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())


def judge(gold, response):
    parsed = parse(f"${gold}$" if "$" not in gold and "boxed" not in gold else gold, extraction_config=CONFIG)
    return bool(verify(parsed, parse(response, extraction_config=CONFIG)))


def main():
    judge("1", "\\boxed{1}")  # imports and caches
    with open(sys.argv[1]) as lines, open(sys.argv[2], "w") as out:
        for line in lines:
            pair = json.loads(line)
            begin = time.perf_counter()
            try:
                score = judge(pair["gold"], pair["response"])
            except Exception as error:  # what the peer cannot judge it does not call right
                score = False
            out.write(json.dumps({"score": int(score), "seconds": time.perf_counter() - begin}) + "\n")


if __name__ == "__main__":
    main()
