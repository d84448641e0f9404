#!/usr/bin/env bash
# Crash safety in the long run: faults at every step of launch, teardown and adoption, then random kills. Takes hours with
# `--points all`; the tests of every day do a sample of it.
#
#   tests/faults/run.sh [--points N|all] [--only TEXT] [--kills N] [--seed N]
#
# --points  how many fault points, chosen by the seed (all)
# --only    only points whose line contains TEXT, such as "agent, Start" or "mkdir"
# --kills   how many random kills (1000)
# --seed    which points, whom and when (20261124)
set -euo pipefail

cd "$(dirname "$0")/../.."
points=all only='' kills=1000 seed=20261124
while [ $# -gt 0 ]; do
  case $1 in
    --points) points=$2; shift ;;
    --only) only=$2; shift ;;
    --kills) kills=$2; shift ;;
    --seed) seed=$2; shift ;;
    -h|--help) sed -n '2,11p' "$0"; exit 0 ;;
    *) echo "run.sh: unknown option $1; see --help" >&2; exit 2 ;;
  esac
  shift
done
cargo build --workspace </dev/null
export BERTH_FAULT_POINTS=$points BERTH_FAULT_ONLY=$only BERTH_FAULT_KILLS=$kills BERTH_FAULT_SEED=$seed
cargo test -p berth-tests --test faults </dev/null
