# What a machine could be left with: taken before anything starts and after everything stopped, and compared.
# Only kinds of things that Berth makes; values that change by themselves (counters, caches) are left out.

snapshot_take() { # NAME
  local dir=$data.snapshots/$1
  rm -rf "$dir" && mkdir -p "$dir"
  ps -eo args= | grep -E "(^|/)(berth[a-z-]*|berthd)( |$)|$installation" | grep -vE "grep|one-host.sh" | sort >"$dir/processes" || true
  cut -d' ' -f5- /proc/self/mountinfo | sort >"$dir/mounts"
  lsns -n -o NS,TYPE 2>/dev/null | awk '{print $2}' | sort | uniq -c >"$dir/namespaces"
  ip -o link | awk '{print $2}' | sort >"$dir/interfaces"
  ip route show table all | grep -v '^local\|^broadcast\|^multicast' | sort >"$dir/routes" || true
  find /sys/fs/cgroup -type d 2>/dev/null | sort >"$dir/cgroups"
  nft list tables 2>/dev/null | sort >"$dir/nft"
  losetup -n -O NAME,BACK-FILE | sort >"$dir/loop-devices"
  sysctl -a 2>/dev/null | grep -E '^(net\.(ipv4|ipv6|core)|kernel\.(pid_max|threads-max)|fs\.inotify|user\.|vm\.)' |
    grep -vE 'conntrack_count|\.stable_secret|nr_hugepages|stat_refresh|route\.|fib_notify|dirty_' | sort >"$dir/sysctl"
}

# Prints what the second has and the first has not (for sysctls: what changed), nothing when they are alike.
snapshot_differences() { # BEFORE AFTER
  local kind before=$data.snapshots/$1 after=$data.snapshots/$2
  for kind in processes mounts namespaces interfaces routes cgroups nft loop-devices sysctl; do
    comm -13 "$before/$kind" "$after/$kind" | sed "s/^/$kind: /"
  done
}
