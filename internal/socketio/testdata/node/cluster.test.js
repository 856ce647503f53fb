// JavaScript's servers and emitters beside ours, over one Redis. SERVER_URLS are two of our servers, REDIS_URL what joins
// them; a server of JavaScript is made here.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, afterEach, before, test } from "node:test";
import { createAdapter } from "@socket.io/redis-adapter";
import { Emitter } from "@socket.io/redis-emitter";
import { Redis } from "ioredis";
import { Server } from "socket.io";
import { io as dial } from "socket.io-client";

const ours = process.env.SERVER_URLS.split(" ");
const redis = () => new Redis(process.env.REDIS_URL);
const [pub, sub, mouth] = [redis(), redis(), redis()];
const http = createServer();
const io = new Server(http, { adapter: createAdapter(pub, sub) });
const emitter = new Emitter(mouth);
let urls;

function handle(socket) {
  socket.on("join", (room, ack) => { socket.join(room); ack(); });
  socket.on("leave", (room, ack) => { socket.leave(room); ack(); });
  socket.on("tell", (rooms, what, ack) => { io.to(rooms).emit("room news", what); ack(); });
  socket.on("tell others", (rooms, what, ack) => { socket.to(rooms).emit("room news", what); ack(); });
}

const open = [];

async function connected(url, path = "/") {
  const socket = dial(url + path, { forceNew: true, reconnection: false, transports: ["websocket"], auth: { token: "right" } });
  open.push(socket);
  await new Promise((resolve, reject) => { socket.once("connect", resolve); socket.once("connect_error", reject); });
  socket.heard = [];
  socket.on("room news", (...args) => socket.heard.push(args.length === 1 ? args[0] : args));
  return socket;
}

const ask = (socket, event, ...args) => socket.timeout(5000).emitWithAck(event, ...args);

async function eventually(what, is) {
  for (const deadline = Date.now() + 10000; ; await new Promise((r) => setTimeout(r, 5))) {
    if (await is()) return;
    assert.ok(Date.now() < deadline, what());
  }
}

// everyone waits until all hear a mark that comes after everything else of each server.
let marks = 0;
async function settle(...sockets) {
  for (const [i, socket] of sockets.entries()) {
    const mark = `mark ${++marks}`;
    const all = sockets.map((s) => new Promise((resolve) => s.on(mark, resolve)));
    if (i === 0) emitter.emit(mark); else if (socket.isOurs) await ask(socket, "to all", mark); else io.emit(mark);
    await Promise.all(all);
  }
}

async function three(path) {
  const all = await Promise.all(urls.map((u) => connected(u, path)));
  all.forEach((s, i) => { s.isOurs = i < 2; });
  return all;
}

before(async () => {
  io.on("connection", handle);
  io.of("/secure").on("connection", handle);
  await new Promise((resolve) => http.listen(0, "127.0.0.1", resolve));
  urls = [...ours, `http://127.0.0.1:${http.address().port}`];
  await eventually(() => "three servers", async () => (await io.of("/").adapter.serverCount()) === 3);
});

afterEach(() => { for (const s of open.splice(0)) s.disconnect(); });

after(async () => {
  await new Promise((resolve) => io.close(resolve));
  for (const r of [pub, sub, mouth]) r.disconnect();
});

test("rooms reach over servers, each socket once", async () => {
  const [a, b, c] = await three();
  await ask(a, "join", "red");
  await ask(b, "join", "red");
  await ask(b, "join", "blue");
  await ask(c, "join", "blue");
  await ask(a, "tell", ["red"], 1);
  await ask(a, "tell", ["red", "blue"], 2);
  await ask(c, "tell", ["red"], 3);
  await ask(c, "tell", ["blue", "red"], 4);
  await ask(b, "tell others", ["red", "blue"], 5);
  await ask(c, "tell others", ["red", "blue"], 6);
  await settle(a, b, c);
  await ask(b, "leave", "red");
  await ask(c, "tell", ["red"], 7);
  await settle(a, b, c);
  const sorted = (s) => s.heard.sort();
  assert.deepEqual([sorted(a), sorted(b), sorted(c)], [[1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 6], [2, 4, 5]]);
});

test("what is said comes as it was said", async () => {
  const [a, , c] = await three();
  await ask(a, "join", "words");
  await ask(c, "join", "words");
  const words = { n: [0, 1, -1, 127, 128, 255, 256, -32, -33, -128, -129, 65535, 65536, -32769, 4294967296, -2147483649, 9007199254740991, 1.5, -0.25, 1.5e-7],
    s: ["", "€ \u001e \u2028 <b> 👋", "x".repeat(40), "y".repeat(300), "z".repeat(70000)], o: { b: [true, false, null], "": {}, "k.$": [] }, many: Array.from({ length: 70000 }, (_, i) => i % 3) };
  await ask(c, "tell", ["words"], words);
  await eventually(() => "from JavaScript", () => a.heard.length === 1 && c.heard.length === 1);
  await ask(a, "tell", ["words"], words);
  await eventually(() => "from ours", () => a.heard.length === 2 && c.heard.length === 2);
  assert.deepEqual(a.heard, [words, words]);
  assert.deepEqual(c.heard, [words, words]);
  const at = new Date(Date.UTC(2026, 1, 3, 4, 5, 6, 789));
  io.to("words").emit("room news", at, undefined, new Date(Date.UTC(1960, 0, 1)), new Date(0), NaN);
  await eventually(() => "dates", () => a.heard.length === 3 && c.heard.length === 3);
  assert.deepEqual(a.heard[2], ["2026-02-03T04:05:06.789Z", null, "1960-01-01T00:00:00.000Z", "1970-01-01T00:00:00.000Z", null]);
  assert.deepEqual(c.heard[2], a.heard[2]);
});

test("emitter: rooms, all but some, namespaces, volatile", async () => {
  const [a, b, c] = await three();
  const [sa, , sc] = await three("/secure");
  await ask(a, "join", "red");
  await ask(b, "join", "blue");
  await ask(c, "join", "red");
  emitter.emit("room news", 1);
  emitter.to("red").emit("room news", 2);
  emitter.to(["red", "blue"]).emit("room news", 3);
  emitter.except("red").emit("room news", 4);
  emitter.except([a.id, c.id]).emit("room news", 5);
  emitter.to(a.id).volatile.compress(false).emit("room news", 6);
  emitter.to("nobody").emit("room news", 7);
  emitter.of("/secure").emit("room news", "secret");
  emitter.of("/nowhere").emit("room news", 8);
  await settle(a, b, c);
  await eventually(() => "the other namespace", () => sa.heard.length === 1 && sc.heard.length === 1);
  assert.deepEqual([a.heard, b.heard, c.heard, sa.heard], [[1, 2, 3, 6], [1, 3, 4, 5], [1, 2, 3], ["secret"]]);
});

test("emitter and server move and disconnect our sockets", async () => {
  const [a, b, c] = await three();
  emitter.in([a.id, b.id]).socketsJoin("moved");
  io.in(c.id).socketsJoin(["moved", "more"]);
  await ask(b, "sockets join", [a.id, c.id], ["by ours"]);
  await eventually(() => "moved", async () => (await io.in("moved").fetchSockets()).length === 3 && (await io.in("by ours").fetchSockets()).length === 2);
  io.to("by ours").emit("room news", 1);
  await settle(a, b, c);
  assert.deepEqual([a.heard, b.heard, c.heard], [[1], [], [1]]);
  io.in(a.id).socketsLeave("moved");
  await ask(a, "sockets leave", ["moved"], ["moved"]);
  await eventually(() => "left", async () => (await io.in("moved").fetchSockets()).length === 0);
  const gone = [a, b, c].map((s) => new Promise((resolve) => s.once("disconnect", resolve)));
  emitter.in(a.id).disconnectSockets(true);
  await ask(a, "echo").catch(() => {});
  assert.equal(await gone[0], "io server disconnect");
  await ask(b, "sockets disconnect", [c.id]);
  assert.equal(await gone[2], "io server disconnect");
  io.in(b.id).disconnectSockets();
  assert.equal(await gone[1], "io server disconnect");
});

test("a server of JavaScript sees our sockets", async () => {
  const [a, b, c] = await three();
  await ask(a, "join", "seen");
  const ids = (list) => list.map((s) => s.id ?? s).sort();
  assert.deepEqual(ids(await io.fetchSockets()), ids([a, b, c]));
  const [seen] = await io.in("seen").fetchSockets();
  assert.deepEqual([seen.id, [...seen.rooms].sort()], [a.id, ["seen", a.id].sort()]);
  assert.ok((await io.of("/").adapter.allRooms()).has("seen"));
});

test("broadcasts that are acknowledged by all", async () => {
  const [a, b, c] = await three();
  for (const [i, s] of [a, b, c].entries()) s.on("question", (n, ack) => ack(n + i));
  assert.deepEqual((await io.timeout(5000).emitWithAck("question", 10)).sort(), [10, 11, 12]);
  assert.deepEqual(await io.to(b.id).timeout(5000).emitWithAck("question", 20), [21]);
  b.off("question");
  await assert.rejects(io.timeout(300).emitWithAck("question", 1), (e) => e.responses.length === 2);
});

test("servers speak to each other", async () => {
  const [a] = await three();
  const heard = [];
  io.on("server news", (...args) => heard.push(args));
  await ask(a, "server emit", "server news", { n: 1 });
  await eventually(() => "heard in JavaScript", () => heard.length === 1);
  assert.deepEqual(heard, [[{ n: 1 }]]);
  io.serverSideEmit("server news", "from JavaScript");
  emitter.serverSideEmit("server news", "from an emitter");
  await eventually(() => "heard by ours", async () => (await Promise.all(ours.map(async (u) => ask(await connected(u), "server news")))).every((n) => n.length >= 2));
  assert.deepEqual((await io.serverSideEmitWithAck("server question", 5)).sort(), [6, 6]);
  io.removeAllListeners("server news");
});

test("binary of others is dropped, and what follows is not", async () => {
  const [a, b, c] = await three();
  io.emit("room news", Buffer.from([1, 2, 3]));
  io.emit("room news", "after");
  await settle(a, b, c);
  assert.deepEqual([a.heard, b.heard, c.heard.length], [["after"], ["after"], 2]);
});
