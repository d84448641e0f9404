# Every quota on v2: of a group against the kernel; of an app at its first release, changed while it runs, and seen to bite; freeze,
# reclaim and thaw are among the tests of the groups.

./deps/agent --test-threads 1 cgroup:: >/tmp/out 2>&1
status=$?
passed=$(sed -n 's/^test result: .* \([0-9]*\) passed.*/\1/p' /tmp/out)
grep -E '^test .*FAILED|skipped' /tmp/out | sed 's/^/    /'
[ $status = 0 ] && [ "${passed:-0}" -ge 25 ]; say $? "control groups against this kernel, frozen and thawed, too: ${passed:-0} passed"

fallocate -l 256M /swap && chmod 600 /swap && mkswap -q /swap && swapon /swap
berth_is_up
mkdir -p /tmp/quota && cd /tmp/quota
echo 'i am quota' >index.html
# What is written to /tmp/say is what the app says in its log.
cat >Procfile <<'PROCFILE'
web: mkfifo /tmp/say; (while :; do cat /tmp/say; done) & exec busybox httpd -f -p $PORT -h /app
PROCFILE
scaled() { berth scale -a quota "$@" >/tmp/out 2>&1; }
berth apps create quota >/tmp/out 2>&1
scaled web=1 web.memory.floor=16M web.memory=64M web.memory.high=48M web.swap=8M web.pids=40 web.cpu.floor=10m web.cpu=500m \
  web.cpu.burst=100m web.disk.floor=4M web.disk=16M web.io=20M web.io.ops=500 web.egress=4M web.nofile=512 web.log-rate=50 &&
  berth deploy . -a quota >/tmp/out 2>&1 && until_true 60 serves quota 'i am quota'
say $? "an app with a quota of everything is deployed"
cd /opt/berth

# The quota's own group is the one above init's and the command's.
group=$(grep -l . $(find "$mine" -name cgroup.procs) 2>/dev/null | while read -r procs; do
  for pid in $(cat "$procs"); do grep -qa '^BERTH_APP=quota$' <(tr '\0' '\n' <"/proc/$pid/environ") && dirname "$procs"; done; done | head -n 1)
[ -e "$group/memory.max" ] && [ "$(cat "$group/memory.max")" != max ] || group=$(dirname "$group")
web=$(for pid in $(find "$group" -name cgroup.procs -exec cat {} +); do grep -q httpd "/proc/$pid/cmdline" && echo "$pid"; done | head -n 1)

# holds FILE VALUE: the group's file, or the line of io.max, says so.
holds() { grep -qE "$2" "$group/$1" || { echo "$1 is $(cat "$group/$1"), not $2"; return 1; }; }
all_hold() {
  local text=$1 file; shift
  : >/tmp/out
  local wrong=0
  while [ $# -gt 0 ]; do holds "$1" "$2" >>/tmp/out || wrong=1; shift 2; done
  say $wrong "$text"
}
all_hold "at the first release the kernel holds all of it" memory.max '^67108864$' memory.high '^50331648$' memory.swap.max '^8388608$' \
  memory.low '^16777216$' memory.oom.group '^1$' pids.max '^40$' cpu.max '^50000 100000$' cpu.max.burst '^10000$' cpu.weight '^1$' \
  io.max 'rbps=20971520 wbps=20971520 riops=500 wiops=500'
grep -E 'open files +512 ' "/proc/$web/limits" >/tmp/out; say $? "and of open files"

scaled web.memory=96M web.memory.high=72M web.swap=16M web.pids=30 web.cpu.floor=100m web.cpu=200m web.cpu.burst=50m web.io=2M \
  web.io.ops=100 web.egress=1M web.nofile=256 web.log-rate=5
say $? "all of it is changed while it runs"
all_hold "and the kernel holds that" memory.max '^100663296$' memory.high '^75497472$' memory.swap.max '^16777216$' pids.max '^30$' \
  cpu.max '^20000 100000$' cpu.max.burst '^5000$' cpu.weight '^10$' io.max 'rbps=2097152 wbps=2097152 riops=100 wiops=100'
{ grep -E 'open files +256 ' "/proc/$web/limits" && serves quota 'i am quota'; } >/tmp/out 2>&1
say $? "under the same process"

# bites TEXT WORDS COMMAND: in the running instance.
inside() { berth exec -T quota:web.1 -- sh <<<"$1" >/tmp/out 2>&1; }
bites() { inside "$3"; grep -qE "$2" /tmp/out; say $? "$1"; }
counter() { sed -n "s/^$2 //p" "$group/$1"; }
log_is_short() {
  berth logs -n 1000 -a quota >/tmp/log && grep -q R22 /tmp/log && [ "$(grep -cE '\]: [0-9]+$' /tmp/log)" -lt 1000 ]
}
out_of_memory() { berth events -n 100 -a quota | grep R14; }

bites "open files: no more than the max" '^256$' 'ulimit -n'
bites "disk: no more than the max" 'No space|[Qq]uota' 'dd if=/dev/zero of=/app/big bs=1M count=40; rm -f /app/big'
inside 'n=0; while [ $n -lt 40 ]; do sleep 20 & n=$((n + 1)); done; true'
[ "$(counter pids.events max)" -gt 0 ]; say $? "pids: no more than the max"
before=$(counter cpu.stat nr_throttled)
inside 'end=$(($(date +%s) + 5)); while [ $(date +%s) -lt $end ]; do :; done'
[ "$(counter cpu.stat nr_throttled)" -gt "$before" ]; say $? "cpu: throttled at its max"
began=$SECONDS; inside 'dd if=/dev/zero of=/app/large bs=1M count=8 conv=fsync'
took=$((SECONDS - began)); echo "8 MiB at 2 MiB a second took $took s" >>/tmp/out; [ $took -ge 3 ]; say $? "io: no faster than the max"
began=$SECONDS; curl -fsS --max-time 120 -H 'Host: quota.localhost' -o /tmp/large http://127.0.0.1/large >/tmp/out 2>&1
took=$((SECONDS - began)); echo "8 MiB at 1 MiB a second took $took s" >>/tmp/out
[ $took -ge 5 ] && [ "$(stat -c %s /tmp/large)" = 8388608 ]; say $? "egress: no faster than the max"
inside 'seq 1 2000 >/tmp/say'
until_true 60 log_is_short; say $? "log rate: lines above the max are counted instead"
# What lies in /tmp is memory: above the high mark it goes to swap, and no more of it than may.
inside 'dd if=/dev/zero of=/tmp/full bs=1M count=84'
{ cat "$group"/memory.{current,swap.current,events}; } >>/tmp/out 2>&1
[ "$(counter memory.events high)" -gt 0 ] && [ "$(cat "$group/memory.swap.peak")" -gt 0 ] && [ "$(cat "$group/memory.swap.peak")" -le 16777216 ]
say $? "memory.high and swap: reclaimed above the one, no more than the other"
inside 'dd if=/dev/zero of=/tmp/fuller bs=1M count=64'
until_true 60 out_of_memory; say $? "memory.max: the whole instance ends, named, and another comes"
until_true 60 serves quota 'i am quota'; say $? "and serves"
