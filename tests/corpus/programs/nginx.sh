# Two workers, a file by sendfile, many requests at once, an orderly end.
set -eu
mkdir -p /tmp/nginx/files
head -c 8388608 /dev/urandom >/tmp/nginx/files/large
cat >/tmp/nginx/nginx.conf <<'CONF'
worker_processes 2;
daemon off;
pid /tmp/nginx/pid;
error_log /tmp/nginx/error.log info;
events { worker_connections 256; }
http {
    sendfile on;
    aio threads;
    tcp_nopush on;
    access_log /tmp/nginx/access.log;
    client_body_temp_path /tmp/nginx/body;
    proxy_temp_path /tmp/nginx/proxy;
    fastcgi_temp_path /tmp/nginx/fastcgi;
    uwsgi_temp_path /tmp/nginx/uwsgi;
    scgi_temp_path /tmp/nginx/scgi;
    server { listen 127.0.0.1:8088; root /tmp/nginx/files; }
}
CONF
nginx -e /tmp/nginx/error.log -c /tmp/nginx/nginx.conf &
server=$!
tries=0
until curl -sf -o /dev/null http://127.0.0.1:8088/large; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || { cat /tmp/nginx/error.log; exit 1; }
    sleep 0.1
done
wanted=$(sha256sum </tmp/nginx/files/large)
[ "$(curl -sf http://127.0.0.1:8088/large | sha256sum)" = "$wanted" ]
curl -sf --parallel --parallel-max 20 -o /dev/null "http://127.0.0.1:8088/large?[1-40]"
[ "$(grep -c '"GET /large?' /tmp/nginx/access.log)" = 40 ]
[ "$(pgrep -c -P $server)" = 2 ]
kill -QUIT $server
wait $server
echo "nginx: all done as $(id -u)"
