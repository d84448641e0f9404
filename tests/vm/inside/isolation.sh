# The isolation suite on cgroup v2 under AppArmor, where systemd makes the host's mounts shared: every attempt as shipped and with its
# step taken out.

# What its host has and this one has not: an interface beside lo, and the numbers of all calls.
ip link add other type dummy
install -D -m 0644 unistd_64.h /usr/include/x86_64-linux-gnu/asm/unistd_64.h
# Without `berth-agent run`: thirty installations, each with a pool of its own, would be minutes here.
./deps/isolation --test-threads 1 --skip "run: " >/tmp/out 2>&1
status=$?
grep -E '^test .*FAILED|not tried|not shown' /tmp/out | sed 's/^/    /'
passed=$(sed -n 's/^test result: .* \([0-9]*\) passed.*/\1/p' /tmp/out)
[ $status = 0 ] && [ "${passed:-0}" -ge 100 ]; say $? "isolation suite: ${passed:-0} passed"
ip link del other
