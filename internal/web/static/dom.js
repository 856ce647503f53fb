// Elements made of texts: nothing that a customer wrote is ever markup.

export const $ = (id) => document.getElementById(id);

// el makes an element; children are elements or texts. Nulls are left out.
export function el(tag, attributes, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) if (value != null && value !== false) e.setAttribute(name, value);
  e.append(...children.filter((c) => c != null && c !== "").map((c) => (c instanceof Node ? c : String(c))));
  return e;
}

// link leads out only over https; anything else stays a text.
export function link(address, text, attributes) {
  let url = null;
  try { url = new URL(address); } catch { /* no address */ }
  if (!url || url.protocol !== "https:") return el("span", null, address);
  return el("a", { href: url.href, target: "_blank", rel: "noopener noreferrer", ...attributes }, text);
}

// list shows items as the children of a container, each by its id: what is unchanged is left alone, also the focus in it.
// mark is what a child depends on; draw makes its content. Without items, the container's -none says so.
export function list(name, items, draw, { none, tag = "li", mark = JSON.stringify, fresh = true } = {}) {
  const container = $(name);
  const focused = container.contains(document.activeElement) ? document.activeElement : null;
  const had = new Map(Array.from(container.children, (c) => [c.dataset.id, c]));
  const before = had.size > 0;
  let at = container.firstElementChild;
  for (const item of items) {
    let child = had.get(item.id);
    had.delete(item.id);
    if (!child) {
      child = el(tag, { "data-id": item.id });
      if (before && fresh) child.className = "fresh";
    }
    const now = mark(item);
    if (child.mark !== now) {
      child.mark = now;
      draw(child, item);
    }
    if (child === at) at = at.nextElementSibling;
    else container.insertBefore(child, at);
  }
  for (const gone of had.values()) gone.remove();
  if (focused && document.activeElement !== focused && container.contains(focused)) focused.focus({ preventScroll: true });
  const empty = $(`${name}-none`);
  if (empty) {
    empty.hidden = items.length > 0;
    empty.textContent = none || "";
  }
}

export const fill = (e, ...children) => e.replaceChildren(...children.filter((c) => c != null && c !== ""));

// time is the hour of today, and the day too of other days.
export function time(stamp, zone) {
  if (!stamp) return "";
  const d = new Date(stamp);
  const options = { hour: "2-digit", minute: "2-digit" };
  if (d.toDateString() !== new Date().toDateString()) Object.assign(options, { day: "numeric", month: "short" });
  if (zone) Object.assign(options, { timeZone: zone });
  try {
    return d.toLocaleString("en-GB", options);
  } catch {
    return d.toLocaleString("en-GB", { ...options, timeZone: undefined }); // a zone that the browser does not know
  }
}

// soon collects calls that come close together into one.
export function soon(f, wait = 60) {
  let due = null;
  return () => { due ??= setTimeout(() => { due = null; f(); }, wait); };
}
