// A dashboard as its developer writes it: the official client against the engine that SERVER_URL names. The Go test
// beside this folder starts the engine, with two clients and a rule each.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { afterEach, test } from "node:test";

const { io } = createRequire(process.env.CLIENT_MODULE)("socket.io-client");
const url = process.env.SERVER_URL;
const mine = { clientCode: process.env.CLIENT_CODE, apiKey: process.env.CLIENT_KEY };
const theirs = { clientCode: process.env.OTHER_CODE, apiKey: process.env.OTHER_KEY };

const open = [];
afterEach(() => open.splice(0).forEach((socket) => socket.disconnect()));

function connect(auth, options = {}) {
  const socket = io(url, { auth, forceNew: true, reconnectionDelay: 10, ...options });
  open.push(socket);
  socket.heard = [];
  socket.onAny((event, data) => socket.heard.push({ event, data }));
  return socket;
}

const connected = (socket) => new Promise((resolve, reject) => {
  socket.once("connect", resolve);
  socket.once("connect_error", reject);
});

async function until(what, check) {
  for (const end = Date.now() + 10_000; ;) {
    if (check()) return;
    assert.ok(Date.now() < end, `waited in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

async function tell(auth, phone) {
  const answer = await fetch(`${url}/api/crm/automations/events`, {
    method: "POST",
    headers: { "content-type": "application/json", "x-api-key": auth.apiKey, "x-client-code": auth.clientCode },
    body: JSON.stringify({ trigger: "custom.hello", phone, createLeadIfMissing: true, variables: { name: "Ana" } }),
  });
  assert.equal(answer.status, 202);
  return answer.json();
}

const told = (socket, event, ok) => socket.heard.some((h) => h.event === event && ok(h.data));

for (const [name, options] of Object.entries({
  "as browsers do": {},
  "websocket only": { transports: ["websocket"] },
  "polling only": { transports: ["polling"] },
})) {
  test(`${name}: hears what is its client's, in order, and nothing else`, async () => {
    const socket = connect(mine, options), other = connect(theirs, options);
    await Promise.all([connected(socket), connected(other)]);
    const phone = `91814396${String(Math.floor(Math.random() * 9000) + 1000)}`;
    const { leadId, runs } = await tell(mine, phone);
    await until("the run is done", () => told(socket, "automation.run", (d) => d.run.id === runs[0].runId && d.run.state === "done"));
    await until("the message is read", () => told(socket, "message.status", (d) => d.message.runId === runs[0].runId && d.message.status === "read"));
    assert.ok(told(socket, "lead.created", (d) => d.lead.id === leadId) || told(socket, "lead.updated", (d) => d.lead.id === leadId));
    assert.ok(told(socket, "message.created", (d) => d.message.runId === runs[0].runId && d.message.text === "Hello Ana"));
    assert.ok(told(socket, "conversation.updated", (d) => d.conversation.leadId === leadId));
    const seqs = socket.heard.map((h) => h.data.seq);
    assert.deepEqual(seqs, [...new Set(seqs)].sort((a, b) => a - b));
    assert.deepEqual(other.heard, []);
  });
}

test("catches up after a drop", async () => {
  const witness = connect(mine), socket = connect(mine);
  await Promise.all([connected(witness), connected(socket)]);
  await tell(mine, "918143960001");
  await until("something is heard", () => socket.heard.length > 0);
  socket.io.engine.close(); // as a lost network does
  const last = socket.heard.at(-1).data.seq;
  const { runs } = await tell(mine, "918143960002");
  await until("the witness heard it", () => told(witness, "message.status", (d) => d.message.runId === runs[0].runId && d.message.status === "read"));
  await until("connected again", () => socket.connected);
  const items = [];
  for (let seq = last, more = true; more;) {
    const answer = await socket.timeout(5000).emitWithAck("since", seq);
    assert.equal(answer.reset, false);
    items.push(...answer.items);
    ({ seq, more } = answer);
  }
  const missed = witness.heard.filter((h) => h.data.seq > last);
  assert.ok(missed.length > 3);
  const got = new Map(items.map((i) => [i.data.id, i]));
  for (const h of missed) assert.deepEqual(got.get(h.data.id), h);
});

test("a wrong key is refused, and told so", async () => {
  for (const auth of [{ ...mine, apiKey: "wrong" }, { ...mine, clientCode: theirs.clientCode }, {}, undefined]) {
    const socket = connect(auth, { reconnection: false });
    const error = await connected(socket).then(() => assert.fail("it was let in"), (e) => e);
    assert.equal(error.data?.code, "unauthenticated");
  }
});
