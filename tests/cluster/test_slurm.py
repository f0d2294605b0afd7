"""cluster/slurm.sh on a Slurm of one node, which starts in seconds; stand-ins for Ray and augbench."""

import getpass
import os
import shutil
import socket
import subprocess
import time

import pytest
from helpers import ROOT
from multinode import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(shutil.which, ("slurmctld", "slurmd", "munged", "sbatch"))),
        reason="Slurm is not installed (Debian: slurm-wlm, munge), or its daemons are not on PATH",
    ),
]
CONF = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthInfo=socket={folder}/munge/socket,cred_expire=5
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000
PartitionName=main Nodes=ALL Default=YES
"""
RAY = """#!/usr/bin/env bash
[[ $1 == symmetric-run ]] || exit 0
echo "cpus: $SLURM_CPUS_PER_TASK"
while [[ $1 != -- ]]; do shift; done
shift; exec "$@"
"""
AUGBENCH = """#!/usr/bin/env bash
echo "run $((++SLURM_RESTART_COUNT))"
[[ -e $4/begun ]] && { echo "went on"; exit 0; }
touch "$4/begun"
trap 'echo Stopped; exit 143' TERM
while true; do sleep 0.1; done
"""


def wait_for(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """The environment of Slurm's commands."""
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir(mode=0o700)
    key = folder / "munge" / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    host = socket.gethostname().partition(".")[0]
    conf = CONF.format(host=host, folder=folder, user=getpass.getuser(), ports=(free_port(), free_port()))
    (folder / "slurm.conf").write_text(conf)
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    files = [f"--{name}-file={folder}/munge/{name}" for name in ("key", "pid", "log", "seed")]
    commands = (["munged", "--foreground", "--force", f"--socket={folder}/munge/socket", *files],
                ["slurmctld", "-D"], ["slurmd", "-D"])  # fmt: skip
    daemons = []
    try:
        for command in commands:
            with (folder / f"{command[0]}.log").open("w") as log:
                daemons.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            wait_for((folder / "munge" / "socket").exists)
        wait_for(lambda: "idle" in said(environment, "sinfo", "-h", "-o", "%T"))
        yield environment
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(timeout=30)


def said(environment, *command):
    return subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True).stdout


def test_the_time_limit_stops_a_run_which_then_goes_on(slurm, tmp_path):
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "activate").write_text(f'PATH="{bin_folder}:$PATH"\n')
    for name, text in (("ray", RAY), ("augbench", AUGBENCH)):
        (bin_folder / name).write_text(text)
        (bin_folder / name).chmod(0o755)
    environment = {**slurm, "VENV": str(tmp_path), "HEAD_IP": "127.0.0.1"}

    def submitted(name):
        store, log = tmp_path / name, tmp_path / f"{name}.log"
        store.mkdir()
        size = ["--nodes=1", "--cpus-per-task=2", "--gpus-per-node=0", f"--output={log}"]
        command = ["sbatch", "--parsable", *size, ROOT / "cluster" / "slurm.sh", "grid.yaml", store]
        job = said(environment, *command).strip()
        wait_for((store / "begun").exists)
        return job, log

    def state(job):
        fields = said(slurm, "scontrol", "--oneliner", "show", "job", job).split()
        return next((field for field in fields if field.startswith("JobState=")), "").partition("=")[2]

    job, log = submitted("limited")
    said(slurm, "scancel", "--batch", "--signal=TERM", job)  # what Slurm sends two minutes before the time limit
    wait_for(lambda: state(job) == "COMPLETED")
    lines = [line for line in log.read_text().splitlines() if line.startswith(("run", "cpus", "Stopped", "went"))]
    assert lines == ["cpus: 2", "run 1", "Stopped", "cpus: 2", "run 2", "went on"]
    job, log = submitted("cancelled")
    said(slurm, "scancel", job)
    wait_for(lambda: state(job) == "CANCELLED")
    time.sleep(1)
    assert state(job) == "CANCELLED" and "run 2" not in log.read_text()
