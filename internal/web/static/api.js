// Calls of the engine's API as the signed-in user: the browser sends the session's cookie, which no script can read.

export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `The engine answered ${status}.`);
    this.status = status;
    this.code = problem.code || "";
  }
}

// onEnd is called when the engine no longer knows the session.
let onEnd = () => {};
export function whenEnded(f) { onEnd = f; }

export async function call(method, path, body, headers = {}) {
  let res;
  try {
    res = await fetch(path, {
      method,
      headers: body === undefined ? headers : { "Content-Type": "application/json", ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new Error("The engine cannot be reached.");
  }
  const text = await res.text().catch(() => "");
  let answer = null;
  try { answer = text ? JSON.parse(text) : null; } catch { /* a proxy's page, perhaps */ }
  if (res.ok) return answer;
  const refused = new Refused(res.status, answer || {});
  if (res.status === 401 && !path.startsWith("/api/sessions")) onEnd();
  throw refused;
}

export const get = (path) => call("GET", path);

// key is for one effect, however often it is asked for.
export function key() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
}
