// Leads, campaigns, appointments, runs and jobs, as they change.

import { get } from "/api.js";
import { $, el, fill, link, list, soon, time } from "/dom.js";

const LATELY = 30 * 60000; // appointments that began so long ago are still shown
const MOST = { leads: 50, campaigns: 6, appointments: 12, runs: 20, jobs: 30 };

let kept = {}; // by kind, then by id
let rules = new Map(); // names
let names = new Map(); // of leads; null: asked for
const counting = new Map(); // timers, by campaign

// end forgets everything; an answer that is still on its way finds the maps of another session, and is dropped.
export function end() {
  for (const t of counting.values()) clearTimeout(t);
  counting.clear();
  kept = { leads: new Map(), campaigns: new Map(), appointments: new Map(), runs: new Map(), jobs: new Map() };
  rules = new Map();
  names = new Map();
  for (const kind of Object.keys(kept)) $(kind).replaceChildren();
  $("leads-table").hidden = true;
}
end();

// Each of them reads a part anew.
export const load = {
  leads: () => fillWith("leads", () => get(`/api/crm/leads?sort=-updatedAt&limit=${MOST.leads}`)),
  campaigns: () => fillWith("campaigns", async () => {
    const { items } = await get(`/api/campaigns?limit=${MOST.campaigns}`);
    return { items: await Promise.all(items.map(async (c) => ({ ...c, counts: (await get(`/api/campaigns/${c.id}/stats`)).counts }))) };
  }),
  appointments: () => fillWith("appointments", () => get(`/api/appointments?limit=${MOST.appointments}&from=${new Date(Date.now() - LATELY).toISOString()}`)),
  runs: () => fillWith("runs", async () => {
    const of = rules;
    for (const r of (await get("/api/crm/automations/rules?limit=200")).items) of.set(r.id, r.name);
    return get(`/api/crm/automations/runs?limit=${MOST.runs}`);
  }),
  jobs: () => fillWith("jobs", async () => ({ items: (await get(`/api/jobs?limit=${MOST.jobs}`)).items.reverse() })),
};

async function fillWith(kind, read) {
  const of = kept;
  const { items } = await read();
  if (of !== kept) return;
  kept[kind] = new Map(items.map((i) => [i.id, i]));
  redraw[kind]();
}

// put takes what the news say of one.
export function put(kind, item) {
  const of = kept[kind];
  const old = of.get(item.id);
  if (old && old.version > item.version) return;
  if (kind === "campaigns") {
    if (!item.counts) item.counts = old && old.counts;
    countSoon(item.id);
  }
  if (kind === "jobs") of.delete(item.id); // it passes by last
  of.set(item.id, item);
  redraw[kind]();
}

export function remove(kind, id) {
  kept[kind].delete(id);
  redraw[kind]();
}

// Deliveries and reads of a campaign are counted after its news.
function countSoon(id) {
  if (counting.has(id)) return;
  counting.set(id, setTimeout(async () => {
    counting.delete(id);
    try {
      const { counts } = await get(`/api/campaigns/${id}/stats`);
      const c = kept.campaigns.get(id);
      if (c) { c.counts = counts; redraw.campaigns(); }
    } catch { /* the next news count again */ }
  }, 3000));
}

const drawings = { leads, campaigns, appointments, runs, jobs };
const redraw = Object.fromEntries(Object.entries(drawings).map(([kind, f]) => [kind, soon(f)]));

// newest gives those of a kind that are shown, by a member, the greatest first, and forgets the others.
function newest(kind, member) {
  const shown = [...kept[kind].values()].sort((a, b) => (b[member] || "").localeCompare(a[member] || "")).slice(0, MOST[kind]);
  kept[kind] = new Map(shown.map((i) => [i.id, i]));
  return shown;
}

function leads() {
  const shown = newest("leads", "updatedAt");
  $("leads-table").hidden = !shown.length;
  for (const l of shown) names.set(l.id, l.name || l.phone || l.email || "");
  list("leads", shown, (tr, l) => fill(tr,
    el("td", null, el("strong", null, l.name || l.phone || l.email || "Unknown"), l.name && l.phone ? el("div", { class: "soft" }, l.phone) : null),
    el("td", null, l.stage, l.status === "open" ? null : el("span", { class: l.status === "won" ? "good" : "bad" }, ` ${l.status}`)),
    el("td", { class: "number" }, Math.round(l.score)),
    el("td", null, ...l.tags.map((t) => el("span", { class: "chip" }, t))),
    el("td", { class: "late soft" }, time(l.updatedAt))), { tag: "tr", none: "No leads yet." });
}

function campaigns() {
  list("campaigns", newest("campaigns", "createdAt"), (li, c) => {
    const n = c.counts || {};
    const all = ["planned", "sent", "failed", "bounced", "suppressed", "unconfirmed"].reduce((sum, k) => sum + (n[k] || 0), 0);
    const done = all - (n.planned || 0);
    const parts = [`${n.sent || 0} of ${all} sent`];
    for (const k of ["delivered", "read", "failed", "bounced", "suppressed", "unconfirmed", "opted_out"]) if (n[k]) parts.push(`${n[k]} ${k.replace("_", " ")}`);
    fill(li, el("div", { class: "line" }, el("strong", null, c.name), el("span", { class: "chip" }, c.state)),
      el("progress", { max: Math.max(all, 1), value: done, "aria-label": `Progress of ${c.name}` }),
      el("div", { class: "soft" }, `${c.channel === "email" ? "E-mail" : "WhatsApp"}: ${parts.join(", ")}`),
      c.trouble ? el("div", { class: "bad" }, c.trouble.detail || c.trouble.code) : null);
  }, { none: "No campaigns yet." });
}

function appointments() {
  const over = new Date(Date.now() - LATELY).toISOString();
  const shown = [...kept.appointments.values()].filter((a) => a.startsAt > over).sort((a, b) => a.startsAt.localeCompare(b.startsAt)).slice(0, MOST.appointments);
  kept.appointments = new Map(shown.map((a) => [a.id, a]));
  list("appointments", shown, (li, a) => {
    let meet = null;
    if (a.status === "cancelled") meet = el("span", { class: "bad" }, "cancelled");
    else if (a.meetUrl) meet = link(a.meetUrl, "Join by Meet", { "aria-label": `Join ${a.title} by Google Meet` });
    else if (a.meet.state === "failed") meet = el("span", { class: "bad" }, "no Meet link");
    else if (a.meet.requested) meet = el("span", { class: "soft" }, "Meet link in the making…");
    const fired = a.reminderPlan.filter((r) => r.state === "fired").length;
    fill(li, el("div", { class: "line" }, el("strong", null, a.title), meet),
      el("div", { class: "soft" }, `${time(a.startsAt, a.timeZone)} (${a.timeZone}), ${a.durationMinutes} min`,
        a.reminderPlan.length ? `, ${fired} of ${a.reminderPlan.length} reminders sent` : ""),
      a.meet.error ? el("div", { class: "bad" }, a.meet.error.detail || a.meet.error.code) : null);
  }, { none: "No appointments ahead." });
}

// lead is a lead's name; an unknown one is asked for, once.
function lead(id) {
  if (!names.has(id)) {
    const of = names;
    of.set(id, null);
    get(`/api/crm/leads/${encodeURIComponent(id)}`).then((l) => { of.set(id, l.name || l.phone || ""); redraw.runs(); }, () => {});
    if (names.size > 2000) names.delete(names.keys().next().value);
  }
  return names.get(id) || "";
}

function runs() {
  list("runs", newest("runs", "startedAt"), (li, r) => {
    const done = r.steps.filter((s) => s.state === "done").length;
    const why = [];
    if (r.state === "waiting" && r.waitUntil) why.push(`until ${new Date(r.waitUntil).toLocaleTimeString("en-GB")}`);
    if (r.exitReason) why.push(`because of ${r.exitReason.replace("_", " ")}`);
    if (r.held) why.push(`${r.held.reason.replace("_", " ")} ${(r.held.names || []).join(", ")}`);
    if (r.error) why.push(r.error.code || "");
    fill(li, el("div", { class: "line" }, el("strong", null, rules.get(r.ruleId) || "A rule"),
      el("span", { class: r.state === "failed" || r.state === "held" ? "chip bad" : "chip" }, r.state)),
    el("div", { class: "soft" }, [lead(r.leadId), `${done} of ${r.steps.length} steps`, ...why, time(r.startedAt)].filter(Boolean).join(", ")));
  }, { none: "No automation has run yet.", mark: (r) => JSON.stringify([r, rules.get(r.ruleId), names.get(r.leadId)]) });
}

function jobs() {
  const shown = [...kept.jobs.values()].slice(-MOST.jobs).reverse();
  kept.jobs = new Map([...shown].reverse().map((j) => [j.id, j]));
  list("jobs", shown, (li, j) => fill(li, el("div", { class: "line" }, el("span", null, j.type),
    el("span", { class: j.state === "dead" ? "bad" : "soft" }, j.state, j.attempt ? `, try ${j.attempt + 1}` : "", j.state === "scheduled" ? ` for ${time(j.runAt)}` : "")),
  j.error && j.state !== "succeeded" ? el("div", { class: "bad" }, j.error.message || j.error.code) : null), { none: "No jobs yet." });
}
