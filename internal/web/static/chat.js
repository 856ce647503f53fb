// Conversations: the list, the open one's messages with their statuses, and the box to answer in.

import { call, get, key } from "/api.js";
import { $, el, fill, list, soon, time } from "/dom.js";

const MOST = 40; // conversations shown
const KEPT = 300; // messages of the open one

let conversations = new Map();
let previews = new Map(); // the last text, by conversation
let open = null; // {id, messages, cursor}
let may = false; // whether the user may write
let sessions = 0; // so far: what was asked for in one is not shown in the next
let pending = null; // {text, key, conversation} of an answer whose fate is unknown

export function begin(role) { may = role !== "viewer"; }

export function end() {
  sessions++;
  conversations = new Map();
  previews = new Map();
  open = pending = null;
  $("thread").hidden = true;
  $("thread-none").hidden = false;
  $("reply-text").value = "";
  for (const id of ["conversations", "messages", "reply-why", "reply-label", "window", "thread-name"]) $(id).replaceChildren();
}

export async function load() {
  const of = sessions;
  const page = await get(`/api/whatsapp/conversations?limit=${MOST}`);
  if (of !== sessions) return;
  conversations = new Map(page.items.map((c) => [c.id, c]));
  draw();
  if (open) {
    if (!conversations.has(open.id)) conversation(await get(`/api/whatsapp/conversations/${open.id}`));
    const newest = await get(`/api/whatsapp/conversations/${open.id}/messages?limit=50`);
    if (of !== sessions || !open) return;
    for (const m of newest.items) if (m.conversationId === open.id) open.messages.set(m.id, m);
    drawThread();
  }
}

export function conversation(c) {
  conversations.set(c.id, c);
  drawSoon();
  if (open && open.id === c.id) {
    drawWindow();
    seen(c);
  }
}

export function message(m, isNew) {
  if (isNew || !previews.has(m.conversationId)) {
    previews.set(m.conversationId, words(m));
    if (previews.size > 500) previews.delete(previews.keys().next().value);
    drawSoon();
  }
  if (open && open.id === m.conversationId && (isNew || open.messages.has(m.id))) {
    open.messages.set(m.id, m);
    drawThreadSoon();
  }
}

function sorted() {
  return [...conversations.values()].sort((a, b) => (b.lastMessageAt || "").localeCompare(a.lastMessageAt || "")).slice(0, MOST);
}

function draw() {
  const shown = sorted();
  const opened = open && conversations.get(open.id);
  conversations = new Map(shown.map((c) => [c.id, c]));
  if (opened) conversations.set(opened.id, opened); // however long ago it was
  list("conversations", shown, (li, c) => {
    let b = li.firstElementChild;
    if (!b) {
      b = el("button", { type: "button" });
      b.addEventListener("click", () => show(c.id));
      li.append(b);
    }
    b.setAttribute("aria-current", String(Boolean(open && open.id === c.id)));
    fill(b, el("span", { class: "line" }, el("strong", null, called(c)), el("small", null, time(c.lastMessageAt))),
      el("span", { class: "line" }, el("span", { class: "preview" }, previews.get(c.id) || c.phone || ""),
        c.unread ? el("span", { class: "new" }, `${c.unread} new`) : null));
  }, {
    none: "Nobody has written yet.",
    mark: (c) => JSON.stringify([c.name, c.phone, c.lastMessageAt, c.unread, previews.get(c.id), open && open.id === c.id]),
  });
}
const drawSoon = soon(draw);

const called = (c) => c.name || c.phone || "Unknown";

// show opens a conversation.
async function show(id) {
  open = { id, messages: new Map(), cursor: null };
  pending = null;
  $("thread").hidden = false;
  $("thread-none").hidden = true;
  $("messages").replaceChildren();
  $("reply-text").value = "";
  $("reply-why").textContent = "";
  $("thread-name").textContent = called(conversations.get(id) || {});
  $("reply-label").textContent = `Reply to ${called(conversations.get(id) || {})}`;
  draw();
  drawWindow();
  await older();
  if (open && open.id === id && conversations.has(id)) seen(conversations.get(id));
  ($("reply-text").disabled ? $("thread-name") : $("reply-text")).focus({ preventScroll: false });
}

async function older() {
  const of = open;
  try {
    const page = await get(`/api/whatsapp/conversations/${of.id}/messages?limit=50${of.cursor ? `&cursor=${encodeURIComponent(of.cursor)}` : ""}`);
    if (open !== of) return;
    for (const m of page.items) if (!of.messages.has(m.id)) of.messages.set(m.id, m);
    of.cursor = page.nextCursor;
    $("earlier").hidden = !of.cursor || of.messages.size >= KEPT;
    if (page.items.length && !previews.has(of.id)) previews.set(of.id, words(page.items[0]));
    drawThread();
  } catch (e) {
    if (open === of) $("reply-why").textContent = `The messages cannot be read: ${e.message}`;
  }
}

// seen marks the open conversation as read, if somebody looks. One at a time: what came meanwhile, or was opened, is next.
let marking = false;
async function seen(c) {
  if (!may || !c.unread || marking || document.visibilityState !== "visible") return;
  marking = true;
  const of = sessions;
  let failed = false;
  try {
    const read = await call("POST", `/api/whatsapp/conversations/${c.id}/read`);
    if (of === sessions) conversation(read);
  } catch {
    failed = true; // it stays unread, and shows so
  }
  marking = false;
  const now = open && conversations.get(open.id);
  if (now && !(failed && now.id === c.id)) seen(now);
}
document.addEventListener("visibilitychange", () => {
  const c = open && conversations.get(open.id);
  if (c) seen(c);
});

function drawThread() {
  const box = $("messages");
  const below = box.scrollHeight - box.scrollTop - box.clientHeight < 60;
  const sortedMessages = [...open.messages.values()].sort((a, b) => (a.createdAt || "").localeCompare(b.createdAt || "") || a.id.localeCompare(b.id));
  for (const m of sortedMessages.slice(0, Math.max(0, sortedMessages.length - KEPT))) open.messages.delete(m.id);
  list("messages", sortedMessages.slice(-KEPT), drawMessage, { fresh: false });
  if (below) box.scrollTop = box.scrollHeight;
}
const drawThreadSoon = soon(() => { if (open) drawThread(); });

const MARKS = { queued: "…", sending: "…", sent: "✓", delivered: "✓✓", read: "✓✓", played: "✓✓", failed: "!", unconfirmed: "?" };

function drawMessage(li, m) {
  li.className = m.direction;
  const parts = [file(m), m.revokedAt ? el("em", null, "This message was deleted.") : said(m)];
  const reactions = Object.values(m.reactions || {}).join(" ");
  if (reactions) parts.push(el("span", { class: "chip" }, reactions));
  const meta = [el("span", null, m.direction === "in" ? "" : m.runId ? "by a rule, " : ""), time(m.createdAt), m.editedAt ? ", edited" : ""];
  if (m.direction === "out") meta.push(" ", el("span", { class: `status-${m.status}` }, el("span", { "aria-hidden": "true" }, MARKS[m.status] || ""), ` ${m.status}`));
  if (m.error) meta.push(el("span", { class: "bad" }, ` ${m.error.title || m.error.code}${m.error.detail ? `: ${m.error.detail}` : ""}`));
  parts.push(el("span", { class: "meta" }, ...meta));
  fill(li, ...parts);
}

// said is a message's words as an element; of what has none, what it is.
function said(m) {
  if (m.text) return el("span", null, m.text);
  return m.media ? null : el("em", null, words(m));
}

// words are a message in one line.
function words(m) {
  if (m.text) return m.text;
  if (m.type === "template") return `Template ${(m.content && m.content.name) || ""}`;
  return m.type === "image" ? "Picture" : m.type.charAt(0).toUpperCase() + m.type.slice(1);
}

// file is a message's file: a picture as its thumbnail, which opens whole, anything else by its name.
function file(m) {
  const f = m.media;
  if (!f) return null;
  const name = f.filename || (m.type === "image" ? "picture" : m.type);
  if (f.status === "failed") return el("em", { class: "bad" }, `The ${name} could not be fetched.`);
  if (f.status !== "stored" || !f.id) return el("em", null, `The ${name} is being fetched…`);
  const at = `/api/media/${encodeURIComponent(f.id)}`;
  const a = el("a", { href: `${at}/content`, target: "_blank", rel: "noopener" });
  if (!/^image\//.test(f.mime) || m.type !== "image") {
    a.append(`${name} (${Math.ceil(f.size / 1024)} KB)`);
    return a;
  }
  const img = el("img", { src: `${at}/thumbnail`, alt: m.text ? `Picture: ${m.text}` : `Picture from ${m.direction === "in" ? "the customer" : "us"}` });
  img.addEventListener("load", () => { // it made the log taller
    const box = $("messages");
    if (box.scrollHeight - box.scrollTop - box.clientHeight < 60 + img.clientHeight) box.scrollTop = box.scrollHeight;
  });
  img.addEventListener("error", () => a.replaceChildren("Picture (its thumbnail cannot be shown)"));
  a.append(img);
  return a;
}

// drawWindow says whether one may write now, and why not.
function drawWindow() {
  if (!open) return;
  const c = conversations.get(open.id) || {};
  const ends = c.windowExpiresAt && new Date(c.windowExpiresAt);
  const isOpen = Boolean(ends && ends > new Date());
  $("reply").hidden = !may;
  $("reply-text").disabled = $("reply").querySelector("button").disabled = !isOpen;
  $("window").textContent = !may ? "You may read, and not write."
    : isOpen ? `You can write freely until ${time(c.windowExpiresAt)}. Enter sends, Shift+Enter begins a line.`
      : "The 24-hour window is closed: WhatsApp takes free texts only within 24 hours after the customer wrote. Until they write again, only templates can be sent.";
}
setInterval(drawWindow, 15000);

async function send() {
  const text = $("reply-text").value.trim();
  if (!text || !open) return;
  const of = open;
  const button = $("reply").querySelector("button");
  button.disabled = true;
  $("reply-why").textContent = "";
  if (!pending || pending.text !== text || pending.conversation !== of.id) pending = { text, key: key(), conversation: of.id };
  try {
    await call("POST", "/api/whatsapp/messages", { conversationId: of.id, type: "text", text }, { "Idempotency-Key": pending.key });
    pending = null;
    if (open === of) $("reply-text").value = "";
  } catch (e) {
    if (e.status && e.status < 500) pending = null; // refused; otherwise the same answer, sent again, is sent once
    if (open === of) $("reply-why").textContent = `Not sent: ${e.message}`;
  }
  button.disabled = false;
  if (open === of) {
    drawWindow();
    if (!$("reply-text").disabled) $("reply-text").focus();
  }
}

$("reply").addEventListener("submit", (e) => { e.preventDefault(); send(); });
$("reply-text").addEventListener("keydown", (e) => {
  if (e.key === "Enter" && !e.shiftKey && !e.isComposing) { e.preventDefault(); if (!$("reply").querySelector("button").disabled) send(); }
});
$("earlier").addEventListener("click", () => older());
