#!/bin/bash
#SBATCH --job-name=rna-ray
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --time=12:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#
# A sweep on a Ray cluster inside one Slurm allocation. All arguments go to rna-ray run:
#
#     RNA_RAY_STORE=/shared/rna-store sbatch docs/clusters/slurm.sh sweeps/quickstart.yaml --set resources.train.gpu=1
#
# Five minutes before its time is over, Slurm sends USR1: trainings write a checkpoint, and the job queues up again and goes
# on. docs/clusters/slurm.md leads from nothing to a finished sweep.
set -euo pipefail
set -m      # a job of the shell's own for each process below, or bash would have them ignore Ctrl-C

: "${RNA_RAY_STORE:?give the store as a folder that every node sees}"
PATH="${RNA_RAY_ENV:-$PWD/.venv}/bin:$PATH"
# Jobs of other users may run on the same nodes: what talks to this cluster must know a token, and ports and folders are
# the job's own.
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export PATH RNA_RAY_STORE RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
address=${RNA_RAY_HEAD_IP:-$(hostname --ip-address | cut -d' ' -f1)}:$((20000 + SLURM_JOB_ID % 20000))
folder=${TMPDIR:-/tmp}/rna-ray-$SLURM_JOB_ID

# shellcheck disable=SC2329 # srun calls it
node() {    # what runs on each node of the allocation
    local options=(--block --num-cpus="${SLURM_CPUS_PER_TASK:-1}" --num-gpus="${SLURM_GPUS_ON_NODE:-0}")
    options+=(--min-worker-port=0 --max-worker-port=0)
    if [[ $SLURM_PROCID == 0 ]]; then
        exec ray start --head --node-ip-address="${1%:*}" --port="${1##*:}" --temp-dir="$2" --include-dashboard=false \
            "${options[@]}"
    fi
    until ray health-check --address "$1" >/dev/null 2>&1; do sleep 1; done
    exec ray start --address="$1" "${options[@]}"
}
export -f node
srun --kill-on-bad-exit=0 bash -c "node '$address' '$folder'" &
nodes=$!

driver=
stopping=
trap 'stopping=yes; [[ -z $driver ]] || kill -INT "$driver"' USR1

until ray status --address "$address" >/dev/null 2>&1; do
    kill -0 "$nodes"    # ends the job where the nodes did not start
    sleep 1
done
code=130
if [[ ! $stopping ]]; then
    rna-ray run "$@" --address "$address" &
    driver=$!
    # The signal ends a wait early; the driver then takes a while to leave.
    while kill -0 "$driver" 2>/dev/null; do
        code=0
        wait "$driver" || code=$?
    done
fi
kill "$nodes"
wait "$nodes" || true
rm -rf "$folder"
if [[ $stopping && $code == 130 ]]; then
    scontrol requeue "$SLURM_JOB_ID"
    code=0
fi
exit "$code"
