import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/** The compiler, the just-in-time compiler, the collector's threads, virtual threads, HTTP and a child process. */
public final class Main {
    private static void check(String what, Object got, Object wanted) {
        if (!got.equals(wanted)) {
            System.err.println(what + ": " + got + ", not " + wanted);
            System.exit(1);
        }
    }

    private static long hot() {
        long sum = 0;
        for (int round = 0; round < 200; round++) {
            for (int n = 0; n < 100_000; n++) {
                sum += (n ^ round) & 1;
            }
        }
        return sum;
    }

    /** Far more than the heap holds at once, so that the collector works. */
    private static int garbage() {
        List<byte[]> kept = new ArrayList<>();
        for (int round = 0; round < 4_000; round++) {
            byte[] bytes = new byte[256 * 1024];
            if (round % 100 == 0) {
                kept.add(bytes);
            }
        }
        return kept.size();
    }

    private static void serve() throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
        try (var threads = Executors.newVirtualThreadPerTaskExecutor()) {
            server.setExecutor(threads);
            server.createContext("/", exchange -> {
                byte[] path = exchange.getRequestURI().getPath().getBytes(StandardCharsets.UTF_8);
                exchange.sendResponseHeaders(200, path.length);
                exchange.getResponseBody().write(path);
                exchange.close();
            });
            server.start();
            HttpClient client = HttpClient.newHttpClient();
            List<Callable<String>> calls = new ArrayList<>();
            for (int n = 0; n < 50; n++) {
                URI uri = URI.create("http://127.0.0.1:" + server.getAddress().getPort() + "/" + n);
                calls.add(() -> client.send(HttpRequest.newBuilder(uri).build(), HttpResponse.BodyHandlers.ofString()).body());
            }
            int n = 0;
            for (Future<String> answer : threads.invokeAll(calls)) {
                check("answer", answer.get(), "/" + n++);
            }
            server.stop(0);
        }
    }

    public static void main(String[] arguments) throws IOException, Exception {
        check("hot loop", hot(), 10_000_000L);
        check("garbage", garbage(), 40);
        serve();
        Process child = new ProcessBuilder("id", "-u").start();
        String user = new String(child.getInputStream().readAllBytes(), StandardCharsets.UTF_8).strip();
        check("child", child.waitFor(), 0);
        System.out.println("java: all done as " + user);
        System.exit(0);
    }
}
