# One container after another from a prebuilt image on cgroup v2, each quota seen to bite, nothing left.

mkdir image && tar -C image --numeric-owner -xf image.tar

# run TEXT WANTED-STATUS WANTED-WORDS FLAGS… -- COMMAND…
run() {
  local text=$1 status=$2 words=$3; shift 3
  berth-agent run "$@" >/tmp/out 2>&1
  local got=$?
  echo "(exit status $got)" >>/tmp/out
  [ "$got" = "$status" ] && grep -qE "$words" /tmp/out
  say $? "$text"
}
what_is_there() {
  find /sys/fs/cgroup -type d -path '*berth*' | sort
  ip -o link | cut -d: -f2
  findmnt -rno TARGET
  losetup -nO BACK-FILE -a
  nft list tables
  ls -d /var/tmp/berth-* 2>/dev/null
  pgrep -l berth-
}
before=$(what_is_there)

run "a container runs as another user than root, on cgroup v2" 0 '^1000 0::/$' \
  image -- sh -c 'echo "$(id -u) $(cat /proc/self/cgroup)"'
run "its exit status comes through" 7 . image -- sh -c 'exit 7'
run "memory: over its max it is killed as a whole, and named" 137 'R14|ut of memory' --memory-mib 64 \
  image -- python3 -c 'x = bytearray(200 << 20); print(len(x))'
run "pids: no more than its max" 0 'refused' --pids 20 \
  image -- python3 -c '
import os, time
try:
    for _ in range(50):
        if os.fork() == 0: time.sleep(30); os._exit(0)
except OSError: print("refused")'
run "disk: no more than its max" 0 'No space|quota' --disk-mib 20 \
  image -- sh -c 'dd if=/dev/zero of=/app/big bs=1M count=60 2>&1; true'
run "cpu: throttled at its max" 0 'throttled' --cpu-millis 100 \
  image -- sh -c 'end=$(( $(date +%s) + 3 )); while [ $(date +%s) -lt $end ]; do :; done; n=$(sed -n "s/^nr_throttled //p" /sys/fs/cgroup/cpu.stat); [ "$n" -gt 0 ] && echo throttled'
run "no device node can be made" 0 'refused' \
  image -- sh -c 'command -v mknod >/dev/null && ! mknod /tmp/disk b 254 0 2>/dev/null && echo refused'
run "no new user namespace" 0 'refused' \
  image -- sh -c 'command -v unshare >/dev/null && ! unshare -U true 2>/dev/null && echo refused'

# The device rule is on the group, so whoever is in it has it: here root of the guest, who has every node.
berth-agent run image -- sh -c 'echo ready; sleep 300' >/tmp/held 2>&1 & held=$!
for _ in $(seq 120); do grep -q ready /tmp/held && break; sleep 1; done
group=$(find /sys/fs/cgroup -type d -path '*/berth-run-*/*' | head -n 1)
( echo $BASHPID >"$group/cgroup.procs" && head -c 1 /dev/zero >/dev/null && ! head -c 1 /dev/vda ) >/tmp/out 2>&1 &&
  grep -q 'not permitted' /tmp/out
say $? "no device but the usual ones can be opened"
kill -TERM $held; wait $held
got=$?; echo "exit status $got" >/tmp/out; cat /tmp/held >>/tmp/out
[ $got = 143 ]; say $? "SIGTERM reaches the command, and what ended it is told"

after=$(what_is_there)
diff <(echo "$before") <(echo "$after") >/tmp/out
[ "$before" = "$after" ]; say $? "nothing is left behind"
rm -rf image
