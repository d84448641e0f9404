// Worker threads, the thread pool (crypto, files), child processes, HTTP, WebAssembly.
const assert = require('node:assert')
const { once } = require('node:events')
const crypto = require('node:crypto')
const fs = require('node:fs/promises')
const http = require('node:http')
const { execFile } = require('node:child_process')
const { promisify } = require('node:util')
const { Worker } = require('node:worker_threads')

async function workers () {
  const source = 'const { parentPort, workerData } = require("node:worker_threads"); let n = 0; for (let i = 0; i < 1e6; i++) n += i % workerData; parentPort.postMessage(n)'
  const sums = await Promise.all([2, 3, 4, 5].map(async (by) => {
    const [sum] = await once(new Worker(source, { eval: true, workerData: by }), 'message')
    return sum
  }))
  assert.deepStrictEqual(sums, [500000, 999999, 1500000, 2000000])
}

async function files () {
  await fs.mkdir('/tmp/node')
  const names = Array.from({ length: 100 }, (_, n) => `/tmp/node/${n}`)
  await Promise.all(names.map((name) => fs.writeFile(name, name)))
  const read = await Promise.all(names.map((name) => fs.readFile(name, 'utf8')))
  assert.deepStrictEqual(read, names)
}

async function serve () {
  const server = http.createServer((request, response) => response.end(request.url)).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const get = async (n) => (await fetch(`http://127.0.0.1:${server.address().port}/${n}`)).text()
  const answers = await Promise.all(Array.from({ length: 50 }, (_, n) => get(n)))
  assert.deepStrictEqual(answers, Array.from({ length: 50 }, (_, n) => `/${n}`))
  server.closeAllConnections()
  server.close()
}

async function compile () {
  // (func (export "add") (param i32 i32) (result i32) local.get 0 local.get 1 i32.add)
  const bytes = Buffer.from('0061736d0100000001070160027f7f017f030201000707010361646400000a09010700200020016a0b', 'hex')
  const { instance } = await WebAssembly.instantiate(bytes)
  assert.strictEqual(instance.exports.add(40, 2), 42)
}

async function main () {
  await Promise.all([workers(), files(), serve(), compile()])
  const { stdout } = await promisify(execFile)('sh', ['-c', 'echo $((6 * 7))'])
  assert.strictEqual(stdout, '42\n')
  const key = await promisify(crypto.scrypt)('password', 'salt', 32)
  assert.strictEqual(key.length, 32)
  console.log('node: all done as', process.getuid())
}

main().catch((error) => { console.error(error); process.exit(1) })
