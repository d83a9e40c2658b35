"""Two ranks over NCCL on one GPU: `learner_test.py KILLS 2 [shard]` with the learner there and the rollout servers on the CPU, where a rollout does not depend on what it is
generated with. For a machine with a GPU and a build with CUDA (`make test-cuda`)."""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from harness import E3, ROOT

# NCCL gives a GPU to one rank of a host: each rank seems to be on a host of its own.
WRAPPERS = {"e3-learner": 'NCCL_HOSTID=$$ NCCL_SOCKET_IFNAME=lo exec "{real}" "${{@/#cuda:*/cuda:0}}"',
            "e3-rollout-server": 'exec "{real}" "${{@/#cuda*/cpu}}"'}

with tempfile.TemporaryDirectory(prefix="e3-nccl-") as folder:
    for program in pathlib.Path(E3).parent.glob("e3*"):
        target = pathlib.Path(folder, program.name)
        if program.name in WRAPPERS:
            target.write_text("#!/usr/bin/env bash\n" + WRAPPERS[program.name].format(real=program) + "\n")
            target.chmod(0o755)
        else:
            shutil.copy(program, target)
    kills, more = (sys.argv[1] if len(sys.argv) > 1 else "4"), sys.argv[2:]
    sys.exit(subprocess.run([sys.executable, ROOT / "tests/e2e/learner_test.py", kills, "2", *more], env=dict(os.environ, E3_BIN=folder, E3_TEST_DEVICE=os.environ.get("E3_TEST_DEVICE", "cuda"))).returncode)
