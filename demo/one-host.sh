#!/usr/bin/env bash
# Berth on this one machine: installs what it needs from Debian, builds, starts every daemon under one data
# directory, makes the stack image, creates an app, pushes it with real git, and stays up until Ctrl-C.
#
#   ./demo/one-host.sh                 bring it up; a second run reuses what the first made
#   ./demo/one-host.sh --once          walk through everything, assert it from outside, clean up, exit
#   ./demo/one-host.sh --daemons-only  bring up the daemons and the stack, no app (tests use this)
#
# Options: --data DIR (/var/lib/berth-demo), --installation ID (one-host), --bin DIR (skip the build),
#          --api-port N (7070), --edge-port N (8080), --stack FILE (skip making the stack image), --pool-gib N (8)
#
# This file: arguments, and the order of things. The parts are in demo/parts/, one a file.
set -Eeuo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
mode=stay data=/var/lib/berth-demo installation=one-host bin= api_port=7070 edge_port=8080 stack= pool_gib=8
while [ $# -gt 0 ]; do
  case $1 in
    --once) mode=once ;;
    --daemons-only) mode=daemons ;;
    --data) data=$2; shift ;;
    --installation) installation=$2; shift ;;
    --bin) bin=$2; shift ;;
    --api-port) api_port=$2; shift ;;
    --edge-port) edge_port=$2; shift ;;
    --stack) stack=$2; shift ;;
    --pool-gib) pool_gib=$2; shift ;;
    -h|--help) sed -n '2,12p' "$0"; exit 0 ;;
    *) echo "one-host.sh: unknown option $1; see --help" >&2; exit 2 ;;
  esac
  shift
done

for part in say prerequisites daemons stack app snapshot once; do
  # shellcheck source=/dev/null
  . "$root/demo/parts/$part.sh"
done

main() {
  require_root
  install_packages
  build_binaries
  [ "$mode" != once ] || snapshot_take before
  prepare_data
  trap 'daemons_down' EXIT
  trap 'exit 130' INT TERM
  daemons_up
  stack_import
  case $mode in
    daemons) ready_file ;;
    stay) app_create python; app_push python; print_addresses ;;
    once) once_walk; daemons_down; trap - EXIT; once_nothing_left; once_summary; exit 0 ;;
  esac
  wait_for_interrupt
}

main
