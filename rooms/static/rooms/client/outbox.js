// Requests that wait for their turn, in order. What the server did not acknowledge is sent again on
// the next connection where that cannot do harm, and what it refused "for now" (`retry: true`) is
// sent again, in order, after a pause. Next: ../client.js, which opens and closes it.

import { disconnected } from "./errors.js";

const IN_FLIGHT = 8; // enough to hide latency, few enough not to hit the rate limit in one go
const PATIENCE = 6; // refusals "for now" before a request fails for good
const SHORTEST_PAUSE = 1_000;
const LONGEST_PAUSE = 20_000;

export class Outbox {
  #ask;
  #random;
  #entries = [];
  #opened = false;
  #pause = null;
  #refusals = 0;

  constructor(ask, { random = Math.random } = {}) {
    this.#ask = ask;
    this.#random = random;
  }

  /**
   * Asks as soon as it may. `fields` is an object, or a function that makes it at the time of sending.
   * A `repeatable` request survives the loss of its connection; any other one does so unless it was sent.
   */
  push(type, fields, { repeatable = false, onReply } = {}) {
    return new Promise((resolve, reject) => {
      const make = typeof fields === "function" ? fields : () => fields;
      this.#entries.push({ type, make, repeatable, onReply, resolve, reject, sent: false, refusals: 0 });
      this.#flush();
    });
  }

  open() {
    this.#opened = true;
    this.#flush();
  }

  close() {
    this.#opened = false;
    clearTimeout(this.#pause);
    this.#pause = null;
    this.#refusals = 0;
  }

  /** Fails everything that waits: the user goes. */
  clear() {
    const entries = this.#entries;
    this.#entries = [];
    entries.forEach(({ reject }) => reject(disconnected()));
  }

  #flush() {
    if (!this.#opened || this.#pause) {
      return;
    }
    let free = IN_FLIGHT - this.#entries.filter(({ sent }) => sent).length;
    for (const entry of this.#entries) {
      if (free <= 0) {
        return;
      }
      if (!entry.sent) {
        free -= 1;
        this.#dispatch(entry);
      }
    }
  }

  #dispatch(entry) {
    entry.sent = true;
    this.#ask(entry.type, entry.make(), entry.onReply).then(
      (data) => {
        this.#refusals = 0;
        this.#settle(entry, () => entry.resolve(data));
      },
      (error) => this.#failed(entry, error),
    );
  }

  #failed(entry, error) {
    if (error.code === "disconnected" && entry.repeatable) {
      entry.sent = false; // its place in the line is kept
      return;
    }
    if (error.retry && error.code !== "disconnected" && entry.refusals < PATIENCE) {
      entry.refusals += 1;
      entry.sent = false;
      this.#holdOn();
      return;
    }
    this.#settle(entry, () => entry.reject(error));
  }

  #settle(entry, finish) {
    this.#entries = this.#entries.filter((other) => other !== entry);
    finish();
    this.#flush();
  }

  #holdOn() {
    if (!this.#opened || this.#pause) {
      return;
    }
    const pause = Math.min(LONGEST_PAUSE, SHORTEST_PAUSE * 2 ** this.#refusals);
    this.#refusals += 1;
    this.#pause = setTimeout(() => {
      this.#pause = null;
      this.#flush();
    }, pause * (1 + this.#random() / 2));
  }
}
