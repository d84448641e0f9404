<?php
// SQLite through PDO, child processes, a socket pair, sessions on disk, and the built-in server with workers.
declare(strict_types=1);

if (PHP_SAPI === 'cli-server') {
    session_save_path('/tmp');
    session_start();
    echo 'hello ', $_GET['name'] ?? '';
    return;
}

function check(string $what, mixed $got, mixed $wanted): void
{
    if ($got !== $wanted) {
        fwrite(STDERR, "$what: " . var_export($got, true) . "\n");
        exit(1);
    }
}

$database = new PDO('sqlite:/tmp/php.db');
$database->exec('CREATE TABLE numbers (n INTEGER)');
$insert = $database->prepare('INSERT INTO numbers VALUES (?)');
$database->beginTransaction();
foreach (range(1, 1000) as $number) {
    $insert->execute([$number]);
}
$database->commit();
check('sqlite', $database->query('SELECT sum(n) FROM numbers')->fetchColumn(), 500500);

$child = proc_open(['tr', 'a-z', 'A-Z'], [['pipe', 'r'], ['pipe', 'w']], $pipes);
fwrite($pipes[0], 'through a pipe');
fclose($pipes[0]);
check('proc_open', stream_get_contents($pipes[1]), 'THROUGH A PIPE');
check('its status', proc_close($child), 0);

[$ours, $theirs] = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
fwrite($ours, 'ping');
check('socket pair', fread($theirs, 4), 'ping');

putenv('PHP_CLI_SERVER_WORKERS=4');
$server = proc_open([PHP_BINARY, '-S', '127.0.0.1:8087', __FILE__], [2 => ['file', '/tmp/php.log', 'w']], $none);
for ($try = 0; $try < 100 && !@fsockopen('127.0.0.1', 8087); $try++) {
    usleep(100_000);
}
foreach (range(1, 20) as $number) {
    check('served', file_get_contents("http://127.0.0.1:8087/?name=$number"), "hello $number");
}
proc_terminate($server);
echo 'php: all done as ', posix_getuid(), "\n";
