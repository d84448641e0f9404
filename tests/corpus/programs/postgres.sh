# Initialises a cluster, starts it, works with it by several connections at once, and stops it in order.
set -eu
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
export PGDATA=/app/cluster PGHOST=/tmp PGUSER=app PGDATABASE=postgres
initdb --auth=trust --no-instructions >/dev/null
pg_ctl --wait --log=/tmp/server.log --options="-c listen_addresses='' -c unix_socket_directories=/tmp" start >/dev/null || { cat /tmp/server.log; exit 1; }
psql -qc "CREATE TABLE numbers AS SELECT n FROM generate_series(1, 100000) AS n" -c "CREATE INDEX ON numbers (n)"
for writer in 1 2 3 4; do
    psql -qc "INSERT INTO numbers SELECT n + 100000 * $writer FROM generate_series(1, 1000) AS n" &
    writers="${writers:-} $!"
done
for writer in $writers; do wait "$writer"; done
psql -qc "SET min_parallel_table_scan_size = 0" -c "SET parallel_setup_cost = 0" -c "SELECT count(*), sum(n % 7) > 0 FROM numbers" -At
psql -qc "CHECKPOINT" -c "VACUUM (PARALLEL 2) numbers"
pg_ctl --wait --mode=fast stop >/dev/null
echo "postgres: all done as $(id -u)"
