// The official client against the server that SERVER_URL names. The Go test beside
// this folder starts both; CONTROL_URL is its own door, for what no client may ask.
import assert from "node:assert/strict";
import { once } from "node:events";
import { after, afterEach, test } from "node:test";
import { io } from "socket.io-client";

const url = process.env.SERVER_URL;
const control = process.env.CONTROL_URL;

const open = [];

function client(path = "/", options = {}) {
  const socket = io(url + path, { forceNew: true, reconnection: false, ...options });
  open.push(socket);
  return socket;
}

async function connected(path, options) {
  const socket = client(path, options);
  if (!socket.connected) await new Promise((resolve, reject) => {
    socket.once("connect", resolve);
    socket.once("connect_error", reject);
  });
  return socket;
}

const next = (socket, event) => new Promise((resolve) => socket.once(event, (...args) => resolve(args)));
const ask = (socket, event, ...args) => socket.timeout(5000).emitWithAck(event, ...args);
const transportOf = (socket) => socket.io.engine.transport.name;

afterEach(() => {
  for (const socket of open.splice(0)) socket.disconnect();
});

const kinds = {
  "polling, then upgrade": { options: {}, settled: "websocket" },
  "websocket only": { options: { transports: ["websocket"] }, settled: "websocket" },
  "polling only": { options: { transports: ["polling"] }, settled: "polling" },
};

for (const [name, { options, settled }] of Object.entries(kinds)) {
  test(`${name}: connects`, async () => {
    const socket = client("/", options);
    const upgraded = settled === "websocket" && !options.transports
      ? new Promise((resolve) => socket.io.once("open", () => socket.io.engine.once("upgrade", resolve)))
      : null;
    await once(socket, "connect");
    assert.ok(socket.id);
    if (upgraded) await upgraded;
    assert.equal(transportOf(socket), settled);
    assert.deepEqual(await ask(socket, "echo", "still here"), ["still here"]);
  });

  test(`${name}: events`, async () => {
    const socket = await connected("/", options);
    const args = [1, "€ \u001e \u2028 <b>", null, true, { a: [1.5, { b: "" }] }, []];
    socket.emit("bounce", ...args);
    assert.deepEqual(await next(socket, "bounced"), args);
  });

  test(`${name}: acks both ways`, async () => {
    const socket = await connected("/", options);
    assert.deepEqual(await ask(socket, "echo", "a", { b: 2 }), ["a", { b: 2 }]);
    assert.deepEqual(await ask(socket, "echo"), []);
    socket.on("question", (a, answer) => answer(a, "yes"));
    socket.emit("question me", 42);
    assert.deepEqual(await next(socket, "answered"), [[42, "yes"]]);
    socket.off("question"); // never answers again
    socket.emit("question me", 43);
    assert.deepEqual(await next(socket, "unanswered"), ["socketio: acknowledgement timed out"]);
  });

  test(`${name}: many events stay in order, across the upgrade too`, async () => {
    const socket = client("/", options);
    const n = 2000;
    const got = [];
    const all = new Promise((resolve) => socket.on("bounced", (i) => got.push(i) === n && resolve()));
    for (let i = 0; i < n; i++) {
      socket.emit("bounce", i);
      if (i % 100 === 0) await new Promise(setImmediate);
    }
    await all;
    assert.deepEqual(got, Array.from({ length: n }, (_, i) => i));
  });

  test(`${name}: refused with data, then admitted over the same connection`, async () => {
    const socket = client("/secure", { ...options, auth: { token: "wrong" } });
    const [err] = await once(socket, "connect_error");
    assert.equal(err.message, "unauthorized");
    assert.deepEqual(err.data, { code: "unauthenticated" });
    socket.auth = { token: "right" };
    socket.connect();
    await once(socket, "connect");
    assert.deepEqual(await ask(socket, "who am i"), ["the holder of right"]);
  });

  test(`${name}: the server disconnects`, async () => {
    const socket = await connected("/", options);
    const bye = next(socket, "disconnect");
    socket.emit("kick me");
    assert.equal((await bye)[0], "io server disconnect");
  });

  test(`${name}: reconnects after the server's restart`, async () => {
    const socket = await connected("/", { ...options, reconnection: true, reconnectionDelay: 20, reconnectionDelayMax: 50 });
    const { id } = socket;
    const gone = next(socket, "disconnect");
    const back = next(socket, "connect");
    assert.equal((await fetch(`${control}/restart`, { method: "POST" })).status, 200);
    assert.match((await gone)[0], /^transport (close|error)$/);
    await back;
    assert.notEqual(socket.id, id);
    assert.deepEqual(await ask(socket, "echo", "again"), ["again"]);
  });

  test(`${name}: heartbeats keep an idle connection`, async () => {
    const socket = await connected("/", options);
    let pings = 0;
    socket.io.on("ping", () => pings++);
    while (pings < 3) await next(socket.io, "ping");
    assert.ok(socket.connected);
  });
}

test("unknown namespace", async () => {
  const [err] = await once(client("/nowhere"), "connect_error");
  assert.equal(err.message, "Invalid namespace");
});

test("two namespaces share a connection and nothing else", async () => {
  const main = await connected("/");
  const secure = main.io.socket("/secure", { auth: { token: "right" } });
  await once(secure, "connect");
  assert.notEqual(main.id, secure.id);
  assert.deepEqual(await ask(secure, "who am i"), ["the holder of right"]);
  await assert.rejects(main.timeout(100).emitWithAck("who am i"));
  secure.disconnect();
  assert.deepEqual(await ask(main, "echo", 1), [1]);
});

test("rooms are apart", async () => {
  const [a, b, c] = await Promise.all(Object.values(kinds).map(({ options }) => connected("/", options)));
  const heard = [];
  for (const [name, socket] of Object.entries({ a, b, c })) {
    socket.on("room news", (...args) => heard.push([name, ...args].join(" ")));
  }
  await ask(a, "join", "red");
  await ask(b, "join", "red");
  await ask(b, "join", "blue");
  await ask(c, "join", "blue");
  const settle = () => Promise.all([a, b, c].map((s) => ask(s, "echo")));
  await ask(a, "tell", ["red"], 1);
  await ask(a, "tell", ["red", "blue"], 2);
  await ask(a, "tell", [], 3);
  await ask(b, "tell others", ["red", "blue"], 4);
  await settle();
  await ask(b, "leave", "red");
  await ask(a, "tell", ["red"], 5);
  await settle();
  assert.deepEqual(heard.sort(), ["a 1", "a 2", "a 4", "a 5", "b 1", "b 2", "c 2", "c 4"]);
});

test("volatile events are dropped while the client is behind", async () => {
  const slow = await connected("/", { transports: ["websocket"] });
  const other = await connected("/");
  let big = 0;
  const got = [];
  slow.on("big", () => big++);
  slow.on("v", (n) => got.push(n));
  await ask(other, "volatile", slow.id, 1);
  await ask(slow, "echo");
  assert.deepEqual(got, [1]);

  const tcp = slow.io.engine.transport.ws._socket;
  tcp.pause();
  await ask(other, "flood", slow.id, 12); // MiB: more than the network's buffers hold
  await ask(other, "volatile", slow.id, 2);
  tcp.resume();
  while (big < 12) await next(slow, "big");
  await ask(slow, "echo");
  await ask(other, "volatile", slow.id, 3);
  await ask(slow, "echo");
  assert.deepEqual(got, [1, 3]);
});

test("binary is refused by closing", async () => {
  const socket = await connected("/", { transports: ["websocket"] });
  const gone = next(socket, "disconnect");
  socket.emit("bounce", Buffer.from([1, 2, 3]));
  assert.equal((await gone)[0], "transport close");
});

after(() => {
  for (const socket of open) socket.disconnect();
});
