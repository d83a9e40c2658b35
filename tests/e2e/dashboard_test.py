"""Every query of the Grafana dashboard and every rule is answered by a real Prometheus that scraped a real run."""
import json
import pathlib
import shutil
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request

from harness import ROOT, SKIP, Cluster, check, free_port_base, write_job

if shutil.which("prometheus") is None or shutil.which("promtool") is None:
    print("skipped: prometheus is not installed (deploy/setup/test_tools.sh could not fetch it)")
    raise SystemExit(SKIP)

rules = ROOT / "deploy/prometheus/alerts.yml"
p = subprocess.run(["promtool", "check", "rules", str(rules)], capture_output=True, text=True)
check(p.returncode == 0, f"promtool accepts the alerts {p.stderr}")
p = subprocess.run(["promtool", "check", "config", str(ROOT / "deploy/prometheus/prometheus.yml")], capture_output=True, text=True)
check(p.returncode == 0, f"promtool accepts the configuration {p.stderr}")

with Cluster() as c:
    folder = pathlib.Path(tempfile.mkdtemp())
    targets = [s["metrics"] for s in c.processes().values()]
    (folder / "prometheus.yml").write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": [{"job_name": "e3", "static_configs": [{"targets": targets}]}]}))
    port = free_port_base()
    prometheus = subprocess.Popen(["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        job = c.submit(write_job(c.state, "watched", [(64, 1000)], kl_coef=0.01))
        deadline = time.time() + 60

        def query(expression):
            url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
            with urllib.request.urlopen(url, timeout=10) as reply:
                return json.load(reply)["data"]["result"]

        dashboard = json.loads((ROOT / "deploy/grafana/dashboards/e3.json").read_text())
        expressions = [(p["title"], t["expr"].replace("$job", ".*")) for p in dashboard["panels"] for t in p["targets"]]
        empty = expressions
        while empty and time.time() < deadline:
            time.sleep(2)
            try:
                empty = [(title, e) for title, e in empty if not query(e)]
            except OSError:
                pass
        check(not empty, f"all {len(expressions)} queries of the dashboard have an answer; without: {empty}")
    finally:
        prometheus.terminate()
        prometheus.wait()
