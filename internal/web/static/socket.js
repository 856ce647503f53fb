// A small Socket.IO 5 client over one websocket: connect with a fresh token, hear events, emit with an acknowledgement,
// come back after a break.

export class Socket {
  // auth gives a promise of what the handshake says; on is {event(name, data), up(), down(), refused(error)}.
  constructor(auth, on) {
    this.auth = auth;
    this.on = on;
    this.acks = new Map();
    this.nextAck = 0;
    this.pause = 500;
    this.closed = false;
    this.back = () => { if (this.due) this.again(0); };
    addEventListener("online", this.back);
    this.open();
  }

  async open() {
    this.due = null;
    let auth;
    try {
      auth = await this.auth();
    } catch (e) {
      if (this.closed) return;
      if (e.status === 401 || e.status === 403) this.refuse(e);
      else this.lost();
      return;
    }
    if (this.closed) return;
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const ws = new WebSocket(`${scheme}//${location.host}/socket.io/?EIO=4&transport=websocket`);
    this.ws = ws;
    this.heard(20000); // for the first word
    ws.onmessage = (m) => {
      if (this.ws === ws) this.packet(String(m.data), auth);
    };
    ws.onclose = () => {
      if (this.ws === ws) this.lost();
    };
  }

  // lost says so and comes back later.
  lost() {
    clearTimeout(this.silence);
    this.ws = null;
    for (const ack of this.acks.values()) ack(null);
    this.acks.clear();
    if (this.closed) return;
    this.on.down();
    this.again(this.pause * (0.7 + 0.6 * Math.random())); // not all pages at the same moment
    this.pause = Math.min(this.pause * 2, 10000);
  }

  again(wait) {
    clearTimeout(this.due);
    this.due = setTimeout(() => this.open(), wait);
  }

  // heard notes a sign of life; without another in time the connection is given up.
  heard(patience = this.patience) {
    this.patience = patience;
    clearTimeout(this.silence);
    this.silence = setTimeout(() => this.drop(), patience);
  }

  drop() {
    const ws = this.ws;
    if (!ws) return;
    this.lost();
    ws.close(); // its onclose comes too late to matter
  }

  packet(text, auth) {
    this.heard();
    switch (text[0]) {
      case "0": { // Engine.IO open: connect to the main namespace
        const o = JSON.parse(text.slice(1));
        this.heard((o.pingInterval || 25000) + (o.pingTimeout || 20000));
        this.ws.send("40" + JSON.stringify(auth));
        break;
      }
      case "1":
        this.drop();
        break;
      case "2": // ping
        this.ws.send("3");
        break;
      case "4":
        this.message(text.slice(1));
    }
  }

  message(text) {
    const body = text.slice(1).replace(/^\d+(?=[[{])/, "");
    switch (text[0]) {
      case "0":
        this.pause = 500;
        this.on.up();
        break;
      case "1": // put out: come back, if the token still lets in
        this.drop();
        break;
      case "2": {
        const [name, data] = JSON.parse(body);
        this.on.event(name, data);
        break;
      }
      case "3": {
        const id = Number(/^\d+/.exec(text.slice(1))[0]);
        const ack = this.acks.get(id);
        this.acks.delete(id);
        if (ack) ack(JSON.parse(body)[0]);
        break;
      }
      case "4": {
        const e = JSON.parse(body);
        const code = (e.data && e.data.code) || "";
        if (code === "client.unavailable" || code === "sockets.too_many" || code === "unauthenticated") this.drop(); // a new token tells
        else this.refuse(e);
      }
    }
  }

  refuse(error) {
    this.close();
    this.on.refused(error);
  }

  // ask emits and gives the acknowledgement, or null if the connection breaks.
  ask(name, ...args) {
    return new Promise((done) => {
      if (!this.ws || this.ws.readyState !== WebSocket.OPEN) { done(null); return; }
      const id = this.nextAck++;
      this.acks.set(id, done);
      this.ws.send(`42${id}${JSON.stringify([name, ...args])}`);
    });
  }

  close() {
    this.closed = true;
    removeEventListener("online", this.back);
    clearTimeout(this.due);
    const ws = this.ws;
    this.lost();
    if (ws) ws.close();
  }
}
