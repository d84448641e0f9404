# Sets and gets, and saves in a fork while it goes on serving.
set -eu
redis-server --port 0 --unixsocket /tmp/redis.sock --dir /app --save '' >/tmp/redis.log &
ask() { redis-cli -s /tmp/redis.sock "$@"; }
tries=0
until [ "$(ask ping 2>/dev/null)" = PONG ]; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || { cat /tmp/redis.log; exit 1; }
    sleep 0.1
done
ask debug populate 20000 key 100 >/dev/null 2>&1 || seq 20000 | sed 's/.*/SET key:& value/' | ask --pipe >/dev/null
ask set greeting hello
ask bgsave
ask set greeting goodbye
until ask info persistence | grep -q 'rdb_bgsave_in_progress:0'; do sleep 0.1; done
ask info persistence | grep -q 'rdb_last_bgsave_status:ok' || { cat /tmp/redis.log; exit 1; }
ask get greeting
[ -s /app/dump.rdb ]
ask shutdown nosave || true
wait
echo "redis: all done as $(id -u)"
