# Threads, fork with a pipe (as Puma and Unicorn do), sockets, OpenSSL, a temporary file.
require "digest"
require "openssl"
require "socket"
require "tempfile"

def check(what, got, wanted)
  abort "#{what}: #{got.inspect}, not #{wanted.inspect}" unless got == wanted
end

count = 0
lock = Mutex.new
20.times.map { Thread.new { 500.times { lock.synchronize { count += 1 } } } }.each(&:join)
check "threads", count, 10_000

workers = 4.times.map do |number|
  reader, writer = IO.pipe
  pid = fork do
    reader.close
    writer.write(Digest::SHA256.hexdigest(number.to_s))
    exit!(number)
  end
  writer.close
  [number, pid, reader]
end
workers.each do |number, pid, reader|
  check "fork", reader.read, Digest::SHA256.hexdigest(number.to_s)
  check "exit status", Process.wait2(pid)[1].exitstatus, number
end

server = TCPServer.new("127.0.0.1", 0)
thread = Thread.new { 10.times { client = server.accept; client.puts(client.gets.upcase); client.close } }
answers = 10.times.map do |number|
  socket = TCPSocket.new("127.0.0.1", server.addr[1])
  socket.puts("line #{number}")
  socket.read
end
thread.join
check "sockets", answers, (0...10).map { |number| "LINE #{number}\n" }

key = OpenSSL::PKey::EC.generate("prime256v1")
check "signature", key.dsa_verify_asn1("digest", key.dsa_sign_asn1("digest")), true

Tempfile.create do |file|
  file.write("x" * 100_000)
  file.flush
  check "file", File.size(file.path), 100_000
end
check "command", `echo $((6 * 7))`, "42\n"
puts "ruby: all done as #{Process.uid}"
