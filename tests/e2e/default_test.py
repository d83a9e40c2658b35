"""The default job, as `make demo` runs it: what it promises is what it does."""
import json

from harness import ROOT, Cluster, check, ledger, run

with Cluster() as c:
    out = run("submit", ROOT / "deploy/jobs/countdown.yaml", "--watch", "--state", c.state)
    output = c.output(out.splitlines()[0])
    three, four = json.loads((output / "summary.json").read_text())["stages"]

    def j(evaluation, budget):
        return evaluation["j"][evaluation["budgets"].index(budget)]

    before, after = (j(three["evaluations"][i], 2 * three["budget"]) for i in (0, -1))
    check(after - before >= 0.15, f"the share solved within twice the training budget rises by at least 0.15 in stage 1: {before:.3f} -> {after:.3f}")
    check(not four["budget_choice"]["fallback"] and four["steps"] >= 5, f"stage 2 takes {four['steps']} steps at the {four['budget']} tokens that Eq. 2 chose")
    records = ledger(output)
    check([r["generated_by"]["step"] for r in records] == list(range(28)), "weights were synced at every step")
    check((output / "model/model.safetensors").exists() and (output / "summary.html").exists(), "model and summary are left")
    minutes = (records[-1]["finished_at_ms"] - records[0]["finished_at_ms"]) / 60000
    print(f"{minutes:.1f} minutes from the first step to the last", flush=True)
