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

async function call(path, body, headers) {
  const answer = await fetch(url + path, { method: "POST", headers: { "content-type": "application/json", ...headers }, body: body && JSON.stringify(body) });
  return { status: answer.status, body: await answer.json() };
}

const asClient = (auth) => ({ "x-api-key": auth.apiKey, "x-client-code": auth.clientCode });
const login = () => call("/api/sessions", { clientCode: mine.clientCode, email: process.env.USER_EMAIL, password: process.env.USER_PASSWORD }, {});

test("a session's token and a socket token let in; what they are not for, they do not do", async () => {
  const session = await login();
  assert.equal(session.status, 201);
  const ticket = await call("/api/realtime/tokens", undefined, asClient(mine));
  assert.equal(ticket.status, 201);
  const other = connect(theirs);
  const sockets = [session.body.token, ticket.body.token].map((token) => connect({ token }));
  await Promise.all([...sockets, other].map(connected));
  const { leadId } = await tell(mine, "918143960003");
  for (const socket of sockets) await until("it hears its client's", () => socket.heard.some((h) => h.data.lead?.id === leadId));
  assert.deepEqual(other.heard, []);
  const rest = await fetch(`${url}/api/crm/leads`, { headers: { authorization: `Bearer ${ticket.body.token}` } });
  assert.equal(rest.status, 401);
  for (const token of ["x", `${ticket.body.token}x`, mine.apiKey]) {
    const error = await connected(connect({ token }, { reconnection: false })).then(() => assert.fail("it was let in"), (e) => e);
    assert.equal(error.data?.code, "unauthenticated");
  }
});

test("the end of a session is the end of its sockets", async () => {
  const { body } = await login();
  const socket = connect({ token: body.token });
  await connected(socket);
  const reason = new Promise((resolve) => socket.once("disconnect", resolve));
  const out = await fetch(`${url}/api/sessions/current`, { method: "DELETE", headers: { authorization: `Bearer ${body.token}` } });
  assert.equal(out.status, 204);
  const late = new Promise((_, reject) => setTimeout(() => reject(new Error("it stays")), 5000).unref());
  assert.equal(await Promise.race([reason, late]), "io server disconnect");
});

test("typing and presence in a conversation of its own client", async () => {
  const { body } = await login();
  const ana = connect({ token: body.token }), key = connect(mine), foreign = connect(theirs);
  await Promise.all([ana, key, foreign].map(connected));
  await tell(mine, "918143960004");
  const list = await fetch(`${url}/api/whatsapp/conversations`, { headers: asClient(mine) });
  const conversationId = (await list.json()).items[0].id;
  const refused = await foreign.emitWithAck("subscribe", { conversationId });
  assert.deepEqual(refused, { ok: false, error: "conversation.not_found" });
  for (const socket of [ana, key]) assert.equal((await socket.emitWithAck("subscribe", { conversationId })).ok, true);
  await until("both are here", () => told(ana, "presence", (d) => d.here.length === 2 && d.here.some((p) => p.name === "Ana")));
  assert.equal((await ana.emitWithAck("typing", { conversationId })).ok, true);
  await until("the other hears who types", () => told(key, "typing", (d) => d.by.name === "Ana" && d.typing && d.conversationId === conversationId));
  assert.ok(!told(ana, "typing", () => true));
  key.disconnect();
  await until("one is left", () => ana.heard.filter((h) => h.event === "presence").at(-1).data.here.length === 1);
  assert.ok(!told(foreign, "presence", () => true));
});

test("hears how jobs end", async () => {
  const socket = connect(mine);
  await connected(socket);
  const { runs } = await tell(mine, "918143960005");
  await until("the sending job has ended", () => told(socket, "job.updated", (d) => d.job.causation.runId === runs[0].runId && d.job.state === "succeeded"));
});
