// Requests that wait for their turn: each room's in line, one on its way at a time. What the server did
// not acknowledge is sent again on the next connection where that cannot do harm, and what it refused
// "for now" (`retry: true`) after a pause, in its old place. Rules 20 to 27 of docs/client-behaviour.md.
// Next: ../client.js, which opens and closes it.

import { disconnected, queueFull } from "./errors.js";

const IN_FLIGHT = 8; // enough to hide latency, few enough not to hit the rate limit in one go
const MOST_WAITING = 1_000;
const PATIENCE = 6; // refusals "for now" before a request fails for good
const SHORTEST_PAUSE = 1_000;
const LONGEST_PAUSE = 20_000;
// The server closes after three refusals for the rate within 30 seconds, and after six for good: with
// this pause, and one request at a time afterwards, there cannot be three.
const RATE_PAUSE = 15_000;
const CAREFUL_FOR = 30_000;

export class Outbox {
  #ask;
  #random;
  #entries = [];
  #quiet = null;
  #careful = null;

  /** Whether requests go out now. */
  opened = false;

  constructor(ask, { random = Math.random } = {}) {
    this.#ask = ask;
    this.#random = random;
  }

  /**
   * Asks as soon as it may. `fields` is an object, or a function that makes it at the time of sending. A `repeatable`
   * request survives the loss of its connection; any other one does so unless it was sent. What is `urgent` goes
   * before everything that waits, however much that is.
   */
  push(type, fields, { room = fields.room, repeatable = false, patience = PATIENCE, urgent = false, onReply } = {}) {
    return new Promise((resolve, reject) => {
      if (!urgent && this.#entries.length >= MOST_WAITING) {
        reject(queueFull(MOST_WAITING));
        return;
      }
      const make = typeof fields === "function" ? fields : () => fields;
      const entry = { type, make, room, repeatable, patience, urgent, onReply, resolve, reject };
      Object.assign(entry, { sent: false, refusals: 0, pause: null });
      const others = urgent ? this.#entries.findIndex((other) => !other.urgent) : -1;
      this.#entries.splice(others < 0 ? this.#entries.length : others, 0, entry);
      this.#flush();
    });
  }

  open() {
    this.opened = true;
    this.#flush();
  }

  /** The connection takes no more. On the next one nothing has to be waited for. */
  close() {
    this.opened = false;
    clearTimeout(this.#quiet);
    this.#quiet = null;
    for (const entry of this.#entries) {
      clearTimeout(entry.pause);
      entry.pause = null;
    }
  }

  /** Fails everything that waits: the user goes. */
  clear() {
    this.close();
    const entries = this.#entries;
    this.#entries = [];
    entries.forEach(({ reject }) => reject(disconnected()));
  }

  #flush() {
    if (!this.opened || this.#quiet !== null) {
      return;
    }
    const most = this.#careful === null ? IN_FLIGHT : 1;
    let onTheirWay = this.#entries.filter(({ sent }) => sent).length;
    const busy = new Set();
    for (const entry of this.#entries) {
      if (onTheirWay >= most) {
        return;
      }
      if (!entry.sent && entry.pause === null && !busy.has(entry.room)) {
        onTheirWay += 1;
        this.#dispatch(entry);
      }
      if (entry.room !== undefined) {
        busy.add(entry.room);
      }
    }
  }

  #dispatch(entry) {
    entry.sent = true;
    this.#ask(entry.type, entry.make(), entry.onReply).then(
      (data) => this.#settle(entry, () => entry.resolve(data)),
      (error) => this.#failed(entry, error),
    );
  }

  #failed(entry, error) {
    const lost = error.code === "disconnected";
    if (lost ? !entry.repeatable : !error.retry || entry.refusals >= entry.patience) {
      this.#settle(entry, () => entry.reject(error));
      return;
    }
    entry.sent = false; // its place in the line is kept
    if (error.code === "rate_limited") {
      entry.refusals += 1;
      this.#beCareful();
    } else if (!lost) {
      this.#holdOn(entry);
    }
  }

  #settle(entry, finish) {
    this.#entries = this.#entries.filter((other) => other !== entry);
    finish();
    this.#flush();
  }

  #holdOn(entry) {
    const pause = Math.min(LONGEST_PAUSE, SHORTEST_PAUSE * 2 ** entry.refusals);
    entry.refusals += 1;
    if (this.opened) {
      entry.pause = this.#after(pause * this.#jitter(), () => (entry.pause = null));
    }
  }

  #beCareful() {
    const pause = RATE_PAUSE * this.#jitter();
    clearTimeout(this.#quiet);
    clearTimeout(this.#careful);
    this.#careful = this.#after(pause + CAREFUL_FOR, () => (this.#careful = null));
    if (this.opened) {
      this.#quiet = this.#after(pause, () => (this.#quiet = null));
    }
  }

  #jitter() {
    return 1 + this.#random() / 2;
  }

  #after(milliseconds, change) {
    return setTimeout(() => {
      change();
      this.#flush();
    }, milliseconds);
  }
}
