// The client's news, each once and in order, also over breaks: what comes while the page catches up waits for it.

import { Socket } from "/socket.js";

const LATEST = Number.MAX_SAFE_INTEGER; // a number that cannot be yet is answered with the newest

export class Live {
  // on is {event(name, data), reload(), up(), down(), refused(error)}; reload gives a promise.
  constructor(token, on) {
    this.on = on;
    this.seq = -1; // of the last event heard; -1: none yet
    this.waiting = null; // events that came while catching up
    this.times = 0;
    this.socket = new Socket(async () => ({ token: await token() }), {
      event: (name, data) => this.heard(name, data),
      up: () => this.catchUp(),
      down: on.down,
      refused: on.refused,
    });
  }

  heard(name, data) {
    if (this.waiting) { this.waiting.push([name, data]); return; }
    if (!(data.seq > this.seq)) return; // told twice
    this.seq = data.seq;
    this.on.event(name, data);
  }

  async catchUp() {
    const time = ++this.times; // a later break begins a later catching up
    this.waiting = [];
    const first = this.seq < 0;
    for (let more = true; more;) {
      const a = await this.socket.ask("since", first && this.seq < 0 ? LATEST : this.seq);
      if (time !== this.times || !a) return;
      if (a.error) {
        await new Promise((done) => setTimeout(done, 1000));
        if (time !== this.times) return;
        continue;
      }
      if (a.reset) { // too long ago, or the first time: read everything, then go on from here
        this.seq = a.seq;
        await this.on.reload();
        if (time !== this.times) return;
      }
      for (const i of a.items) {
        if (i.data.seq > this.seq) {
          this.seq = i.data.seq;
          this.on.event(i.event, i.data);
        }
      }
      more = a.more;
    }
    const waited = this.waiting;
    this.waiting = null;
    for (const [name, data] of waited) this.heard(name, data);
    this.on.up();
  }

  close() {
    this.times++;
    this.socket.close();
  }
}
