# Caddy is a Go program: its scheduler's threads, preemption by signals, net/http with many connections, epoll.
set -eu
mkdir -p /tmp/site
export HOME=/tmp
head -c 4194304 /dev/urandom >/tmp/site/large
caddy file-server --listen 127.0.0.1:8089 --root /tmp/site >/tmp/caddy.log 2>&1 &
server=$!
tries=0
until curl -sf -o /dev/null http://127.0.0.1:8089/large; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || { cat /tmp/caddy.log; exit 1; }
    sleep 0.1
done
[ "$(curl -sf http://127.0.0.1:8089/large | sha256sum)" = "$(sha256sum </tmp/site/large)" ]
curl -sf --parallel --parallel-max 50 -o /dev/null "http://127.0.0.1:8089/large?[1-200]"
[ "$(ls /proc/$server/task | wc -l)" -gt 3 ]
kill -TERM $server
wait $server
echo "go: all done as $(id -u)"
