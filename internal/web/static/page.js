// The page: who is signed in, what is read at the beginning, and where each of the client's news goes.

import { call, get, whenEnded } from "/api.js";
import * as board from "/board.js";
import * as chat from "/chat.js";
import { $ } from "/dom.js";
import { Live } from "/live.js";

let live = null;

function state(text, good) {
  $("state").textContent = text;
  $("state").className = good ? "live" : "";
}

const loaders = { leads: board.load.leads, conversations: chat.load, campaigns: board.load.campaigns, appointments: board.load.appointments, automation: board.load.runs, jobs: board.load.jobs };

// reload reads everything; what cannot be read is said, and the rest is shown.
async function reload() {
  const of = live;
  const kinds = Object.keys(loaders);
  const done = await Promise.allSettled(kinds.map((k) => loaders[k]()));
  if (live !== of || !live) return;
  const bad = kinds.filter((_, i) => done[i].status === "rejected");
  const why = done.find((d) => d.status === "rejected");
  $("trouble").hidden = !bad.length;
  $("trouble").textContent = bad.length ? `Cannot be read: ${bad.join(", ")}. ${why.reason.message} Trying again…` : "";
  if (bad.length) setTimeout(() => { if (live === of) reload(); }, 5000);
}

function heard(name, data) {
  switch (name) {
    case "message.created": chat.message(data.message, true); break;
    case "message.status": chat.message(data.message, false); break;
    case "conversation.updated": chat.conversation(data.conversation); break;
    case "lead.created":
    case "lead.updated": board.put("leads", data.lead); break;
    case "lead.deleted": board.remove("leads", data.lead.id); break;
    case "campaign.progress": board.put("campaigns", data.campaign); break;
    case "appointment.updated": board.put("appointments", data.appointment); break;
    case "automation.run": board.put("runs", data.run); break;
    case "job.updated": board.put("jobs", data.job); break;
  }
}

// enter shows the board of a session.
function enter(session) {
  localStorage.setItem("ecod", "in"); // no more than that there is a session to ask for
  document.title = `ecod: ${session.clientCode}`;
  $("who").textContent = `${session.clientCode}, ${session.user.name} (${session.user.role})`;
  $("enter").hidden = true;
  $("board").hidden = $("leave").hidden = false;
  $("why").textContent = "";
  chat.begin(session.user.role);
  state("connecting…");
  live = new Live(async () => (await call("POST", "/api/realtime/tokens")).token, {
    event: heard,
    reload,
    up: () => state("live", true),
    down: () => state("connection lost, trying again…"),
    refused: (e) => (e.status === 401 ? leave("Your session has ended. Please sign in again.") : leave(e.message)),
  });
}

// leave goes back to the form, and says why.
function leave(why) {
  if (live) live.close();
  live = null;
  localStorage.removeItem("ecod");
  chat.end();
  board.end();
  document.title = "ecod";
  $("who").textContent = "";
  $("trouble").hidden = true;
  $("board").hidden = $("leave").hidden = true;
  $("enter").hidden = false;
  state("not signed in");
  $("why").textContent = why;
  $("enter").elements.clientCode.focus();
}

whenEnded(() => { if (live) leave("Your session has ended. Please sign in again."); });

$("enter").addEventListener("submit", async (e) => {
  e.preventDefault();
  const form = e.target;
  const button = form.querySelector("button");
  button.disabled = true;
  $("why").textContent = "";
  try {
    const session = await call("POST", "/api/sessions", Object.fromEntries(["clientCode", "email", "password"].map((n) => [n, n === "password" ? form.elements[n].value : form.elements[n].value.trim()])));
    form.reset();
    enter(session);
    $("h-conversations").focus();
  } catch (err) {
    $("why").textContent = err.message;
    form.elements.password.select();
  }
  button.disabled = false;
});

$("leave").addEventListener("click", async () => {
  try {
    await call("DELETE", "/api/sessions/current");
  } catch (e) {
    if (e.status !== 401) {
      $("trouble").hidden = false;
      $("trouble").textContent = `You are still signed in: ${e.message}`;
      return;
    }
  }
  leave("");
});

if (localStorage.getItem("ecod")) {
  get("/api/sessions/current").then(enter, (e) => leave(e.status === 401 ? "Your session has ended. Please sign in again." : e.message));
}
