#!/usr/bin/env bash
#
# One run on several machines of a Slurm cluster: `ray symmetric-run` starts Ray on each, runs the command on the first, and
# stops Ray again. Fill in: the lines with #SBATCH, and below how the environment with augbench is put in place. Home and
# store must be seen by all machines. Two minutes before the time limit the run is stopped as by Ctrl-C, and the job is
# queued again; it goes on where it was, as it does after a preemption. From the root of the repository:
#
#   sbatch cluster/slurm.sh tune_configs/inout_ksdd2.yaml /shared/runs/inout
#   augbench status /shared/runs/inout --watch 60
#
#SBATCH --job-name=augbench
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --cpus-per-task=32
#SBATCH --gpus-per-node=4
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=augbench-%j.log

set -euo pipefail

grid=${1:?the grid, for example tune_configs/demo.yaml}
store=${2:?the store: a folder that all machines see, or a URL}

export AUGBENCH_DATA="${AUGBENCH_DATA:-$HOME/data}"
source "${VENV:-.venv}/bin/activate"

# Not by its name: on many machines their own name means 127.0.1.1. Several networks: say which with HEAD_IP.
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
read -r head_ip _ <<< "${HEAD_IP:-$(srun --overlap --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" hostname --all-ip-addresses)}"
address="${head_ip:?no address of ${nodes[0]}: say it with HEAD_IP}:$((20000 + SLURM_JOB_ID % 20000))"

# Others of this cluster could run code in ours without it. It lies in the home folder, which all machines see.
export RAY_AUTH_MODE=token
ray get-auth-token --generate > /dev/null

# Only the run gets the signal, and Ray after it. It runs where this script does, on the first machine.
stopped=
pid_file=$(mktemp)
stop() { stopped=yes; kill -TERM "$(< "$pid_file")"; }
trap stop TERM

export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" \
  ray symmetric-run --address "$address" --min-nodes "$SLURM_JOB_NUM_NODES" --num-cpus="$SLURM_CPUS_PER_TASK" -- \
  bash -c 'echo $$ > "$0"; exec "$@"' "$pid_file" \
  augbench run "$grid" --store "$store" --address "$address" &
status=0
wait "$!" || status=$?
if [[ "$stopped" ]]; then
  wait "$!" || status=$?  # the signal ended the first wait
  # Not after `scancel`, which sends the same signal: then Slurm no longer calls the job RUNNING.
  if [[ $(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T) == RUNNING ]]; then
    scontrol requeue "$SLURM_JOB_ID"
  fi
fi
rm -f "$pid_file"
exit "$status"
