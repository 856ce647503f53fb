import { Socket } from "/socket.js";

const $ = (id) => document.getElementById(id);
let session = JSON.parse(sessionStorage.getItem("ecod") || "null");
let socket = null;
let seq = -1; // of the last event heard; -1: none yet

async function get(path) {
  const res = await fetch(path, { headers: { "x-client-code": session.code, "x-api-key": session.key } });
  const body = await res.json();
  if (!res.ok) throw new Error(body.detail || res.statusText);
  return body;
}

// row makes an element of texts: nothing that a customer wrote is ever markup.
function row(tag, cellTag, texts, name) {
  const el = document.createElement(tag);
  if (name) el.className = name;
  for (const t of texts) {
    const c = document.createElement(cellTag);
    c.textContent = t ?? "";
    el.append(c, cellTag === "td" ? "" : " ");
  }
  return el;
}

const clock = (s) => (s ? new Date(s).toLocaleTimeString() : "");

async function refresh() {
  const [leads, conversations, jobs] = await Promise.all([
    get("/api/crm/leads?limit=20&sort=-updatedAt"), get("/api/whatsapp/conversations?limit=20"), get("/api/jobs?limit=20"),
  ]);
  $("leads").replaceChildren(...leads.items.map((l) => row("tr", "td", [l.name, l.phone, l.stage, l.tags.join(", "), l.score])));
  $("conversations").replaceChildren(...conversations.items.map((c) =>
    row("li", "span", [c.name || c.phone || "unknown", c.unread ? `(${c.unread} new)` : "", clock(c.lastMessageAt)])));
  $("jobs").replaceChildren(...jobs.items.map((j) => row("tr", "td", [j.type, j.state, j.attempt, clock(j.createdAt)])));
}

let due = null;
function refreshSoon() {
  due ??= setTimeout(() => { due = null; refresh().catch((e) => { $("state").textContent = e.message; }); }, 300);
}

function heard(name, data) {
  if (data.seq <= seq) return; // told twice
  seq = data.seq;
  const live = $("live");
  live.prepend(row("li", "span", [clock(data.at), name]));
  while (live.children.length > 50) live.lastChild.remove();
  if (data.message) message(data.message);
  refreshSoon();
}

function message(m) {
  const line = row("li", "span", [m.direction === "in" ? "←" : "→", m.text ?? `[${m.type}]`, m.status], m.direction);
  line.id = m.id;
  const old = document.getElementById(m.id);
  if (old) { old.replaceWith(line); return; }
  $("messages").prepend(line);
  while ($("messages").children.length > 50) $("messages").lastChild.remove();
}

async function catchUp() {
  while (seq >= 0) {
    const a = await socket.ask("since", seq);
    if (!a || a.error) return;
    for (const i of a.items) heard(i.event, i.data);
    if (a.reset) seq = a.seq;
    if (!a.more) return;
  }
}

function show(signedIn) {
  $("enter").hidden = signedIn;
  $("board").hidden = !signedIn;
  $("leave").hidden = !signedIn;
  if (!signedIn) $("state").textContent = "not signed in";
}

async function enter() {
  await refresh(); // a wrong key shows here
  sessionStorage.setItem("ecod", JSON.stringify(session));
  show(true);
  socket = new Socket({ clientCode: session.code, apiKey: session.key }, {
    event: heard,
    up: () => { $("state").textContent = `live as ${session.code}`; catchUp(); refreshSoon(); },
    down: () => { $("state").textContent = "reconnecting"; },
    refused: (e) => leave(e.message),
  });
}

function leave(why) {
  if (socket) socket.close();
  socket = null;
  session = null;
  seq = -1;
  sessionStorage.removeItem("ecod");
  show(false);
  $("why").textContent = why || "";
}

$("enter").addEventListener("submit", (e) => {
  e.preventDefault();
  const form = new FormData(e.target);
  session = { code: form.get("code").trim(), key: form.get("key").trim() };
  $("why").textContent = "";
  enter().then(() => e.target.reset(), (err) => leave(err.message));
});
$("leave").addEventListener("click", () => leave(""));
if (session) enter().catch((err) => leave(err.message));
