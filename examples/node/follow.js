// Runs a command through rexec, shows its output as it comes, and exits as it does:
//
//     node follow.js COMMAND [ARGUMENT...]
//
// REXEC_TARGET     the server (host:port or unix:PATH); default 127.0.0.1:50051
// REXEC_CALLER     one's name, for a server in --dev mode
// REXEC_KEY_FILE   a caller's key: every call carries a fresh token made from it
// REXEC_CA         authorities to trust, in PEM: the connection is TLS
// REXEC_HEARTBEAT  seconds between signs of life on a silent stream; default 15
'use strict';

const { randomUUID } = require('node:crypto');
const { once } = require('node:events');
const { readFileSync } = require('node:fs');
const path = require('node:path');
const { setTimeout: delay } = require('node:timers/promises');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');
const { freshToken } = require('./token.js');

const PROTOS = path.join(__dirname, '..', '..', 'protos');
const HEARTBEAT_SECONDS = Number(process.env.REXEC_HEARTBEAT || 15);
const SILENCE_MS = 3 * HEARTBEAT_SECONDS * 1000; // a stream without even heartbeats is dead
const TRIES_WITHOUT_PROGRESS = 60;

// Output that was written out is acknowledged this often: only then may the command, which waits for us, go on.
const ACKNOWLEDGE_BYTES = 4n << 20n;
const ACKNOWLEDGE_MS = 1000;

const REXEC_FAILED = 255;
const NOT_STARTED = 127;

// The connection or the server went away. The command did not notice, so the same call again is right.
const PASSING = new Set(
  ['UNAVAILABLE', 'INTERNAL', 'CANCELLED', 'UNKNOWN', 'DEADLINE_EXCEEDED'].map((name) => grpc.status[name]),
);

function connect() {
  const definition = protoLoader.loadSync('rexec/v1/execution_service.proto', {
    includeDirs: [PROTOS],
    keepCase: true,
    longs: String, // offsets are 64 bits wide
    enums: String,
    oneofs: true,
    arrays: true,
  });
  const { ExecutionService } = grpc.loadPackageDefinition(definition).rexec.v1;
  const { REXEC_CA: ca, REXEC_TARGET: target } = process.env;
  const channel = ca ? grpc.credentials.createSsl(readFileSync(ca)) : grpc.credentials.createInsecure();
  return new ExecutionService(target || '127.0.0.1:50051', channel, { 'grpc.enable_http_proxy': 0 });
}

// Who calls: asked for each call anew, as a token is good for one.
async function metadata() {
  const { REXEC_KEY_FILE: keyFile, REXEC_CALLER: name } = process.env;
  const result = new grpc.Metadata();
  const credential = keyFile ? await freshToken(keyFile) : name;
  if (credential) result.set('authorization', `Bearer ${credential}`);
  return result;
}

// Calls `attempt` until it gives something. `progressed` says whether the failed one got further than those before.
async function persist(attempt, progressed = () => false) {
  for (let failures = 0; ; ) {
    let failure = new Error('the stream keeps ending before the command does');
    try {
      const result = await attempt();
      if (result) return result;
    } catch (error) {
      if (!PASSING.has(error.code)) throw error;
      failure = error;
    }
    failures = progressed() ? 1 : failures + 1;
    if (failures >= TRIES_WITHOUT_PROGRESS) throw failure;
    await delay(Math.min(50 * failures, 1000));
  }
}

// The id is made here, once: when the reply is lost, the same call again cannot run the command twice.
function exec(client, request) {
  const deadline = () => ({ deadline: Date.now() + 30_000 });
  return persist(async () => {
    const caller = await metadata();
    return new Promise((resolve, reject) => {
      client.Exec(request, caller, deadline(), (error, reply) => (error ? reject(error) : resolve(reply)));
    });
  });
}

async function write(stream, data) {
  if (!stream.write(data)) await once(stream, 'drain');
}

// Returns how many bytes are missing.
async function show(message) {
  if (message.event === 'output') {
    for (const chunk of message.output.chunks) {
      await write(chunk.channel === 'CHANNEL_STDERR' ? process.stderr : process.stdout, chunk.data);
    }
  } else if (message.event === 'gap') {
    return BigInt(message.gap.end_offset) - BigInt(message.gap.start_offset ?? 0);
  }
  return 0n;
  // Snapshots and heartbeats show nothing, and neither does an event that a newer server adds.
}

// The holder that the command waits for: it says what has been written out, and delays nothing by that.
class Holder {
  constructor(client, execId) {
    this.name = randomUUID();
    this.client = client;
    this.execId = execId;
    this.used = this.told = 0n;
    this.timer = setInterval(() => this.tell(), ACKNOWLEDGE_MS).unref();
  }

  use(offset) {
    this.used = BigInt(offset);
    if (this.used - this.told >= ACKNOWLEDGE_BYTES) this.tell();
  }

  async tell() {
    if (this.used === this.told) return;
    const offset = this.used;
    this.told = offset;
    const request = { exec_id: this.execId, holder: this.name, offset: String(offset) };
    this.client.Acknowledge(request, await metadata(), { deadline: Date.now() + 30_000 }, (error) => {
      if (error) this.told = 0n; // told again within a second
    });
  }
}

// Streams until the end of the command, over as many streams as that takes.
async function follow(client, execId) {
  const holder = new Holder(client, execId);
  let missing = 0n;
  let offset = '0';
  let offsetBefore = offset;

  async function oneStream() {
    offsetBefore = offset;
    const call = client.Follow(
      { exec_id: execId, offset, holder: holder.name, heartbeat_interval: { seconds: HEARTBEAT_SECONDS } },
      await metadata(),
    );
    const watchdog = setTimeout(() => call.cancel(), SILENCE_MS);
    try {
      for await (const message of call) {
        watchdog.refresh();
        missing += await show(message);
        offset = message.next_offset ?? '0'; // proto3 leaves a 0 out
        if (message.event === 'end') return { execution: message.end, missing };
        holder.use(offset);
      }
    } finally {
      clearTimeout(watchdog);
      call.on('error', () => {}); // cancelling a stream that is over is no error
      call.cancel();
    }
    return undefined; // it stopped without an end: unfinished
  }

  return persist(oneStream, () => offset !== offsetBefore).finally(() => clearInterval(holder.timer));
}

function exitCode({ execution, missing }) {
  if (missing) {
    console.error(`follow: the output is not whole: ${missing} bytes are no longer kept`);
    return REXEC_FAILED;
  }
  if (execution.exit_status === 'exit_code') return execution.exit_code;
  if (execution.exit_status === 'signal') return 128 + execution.signal;
  if (execution.start_error) {
    console.error(`follow: ${execution.start_error.errno}: ${execution.start_error.message}`);
    return NOT_STARTED;
  }
  console.error(`follow: how the command ended is not known (${execution.state})`);
  return REXEC_FAILED;
}

async function main(commandLine) {
  if (commandLine.length === 0) {
    console.error('usage: node follow.js COMMAND [ARGUMENT...]');
    return REXEC_FAILED;
  }
  process.stdout.on('error', () => process.exit(REXEC_FAILED)); // nobody reads any more
  let client;
  try {
    client = connect();
    // Beyond what the server keeps the command waits for us, so that no output is lost.
    const output = { overflow: 'OVERFLOW_WAIT' };
    const { execution } = await exec(client, { exec_id: randomUUID(), arguments: commandLine, output });
    return exitCode(await follow(client, execution.exec_id));
  } catch (error) {
    console.error(`follow: ${error.message}`);
    return REXEC_FAILED;
  } finally {
    client?.close();
  }
}

main(process.argv.slice(2)).then((code) => {
  process.exitCode = code;
});
