// A small Socket.IO 5 client over one websocket: connect with auth, hear events, emit with an acknowledgement, come back
// after a break.

export class Socket {
  constructor(auth, on) {
    this.auth = auth;
    this.on = on; // {event(name, data), up(), down(), refused(error)}
    this.acks = new Map();
    this.nextAck = 0;
    this.pause = 500;
    this.closed = false;
    this.open();
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const ws = new WebSocket(`${scheme}//${location.host}/socket.io/?EIO=4&transport=websocket`);
    this.ws = ws;
    ws.onmessage = (m) => this.packet(String(m.data));
    ws.onclose = () => {
      this.on.down();
      for (const ack of this.acks.values()) ack(null);
      this.acks.clear();
      if (!this.closed) setTimeout(() => this.open(), this.pause);
      this.pause = Math.min(this.pause * 2, 10000);
    };
  }

  packet(text) {
    switch (text[0]) {
      case "0": // Engine.IO open: connect to the main namespace
        this.ws.send("40" + JSON.stringify(this.auth));
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
      case "4":
        this.closed = true;
        this.ws.close();
        this.on.refused(JSON.parse(body));
    }
  }

  // ask emits and gives the acknowledgement, or null if the connection breaks.
  ask(name, ...args) {
    return new Promise((done) => {
      const id = this.nextAck++;
      this.acks.set(id, done);
      this.ws.send(`42${id}${JSON.stringify([name, ...args])}`);
    });
  }

  close() {
    this.closed = true;
    this.ws.close();
  }
}
