// Queue of requests: at most one request per room is in flight, the others wait in order. A request without
// an acknowledgement is resent on the next connection if a repetition is harmless, and a temporary error
// (`retry: true`) is retried after a pause at the same place in the queue. See rules 20 to 27 of
// docs/client-behaviour.md.

import { disconnected, queueFull } from "./errors.js";

const MAX_IN_FLIGHT = 8; // enough to hide latency, few enough not to exceed the rate limit at once
const MAX_QUEUED = 1_000;
const MAX_RETRIES = 6; // temporary errors before a request fails
const MIN_RETRY_DELAY = 1_000;
const MAX_RETRY_DELAY = 20_000;
// The server closes a connection after three rate-limit errors within 30 seconds, and after six for good.
// This pause, followed by one request at a time, prevents the third.
const RATE_LIMIT_PAUSE = 15_000;
const SINGLE_REQUEST_PERIOD = 30_000;

export class RequestQueue {
  #send;
  #random;
  #entries = [];
  #pauseTimer = null;
  #singleRequestTimer = null;

  /** Whether the connection accepts requests. */
  isOpen = false;

  /** `send(type, fields, onReply)` sends a request and returns a promise of the reply. */
  constructor(send, { random = Math.random } = {}) {
    this.#send = send;
    this.#random = random;
  }

  /**
   * Queues a request. `fields` is an object, or a function that returns it at the time of sending. A
   * `repeatable` request survives a lost connection; any other request fails if it was already sent. An `urgent`
   * request precedes all others and ignores the limit of the queue.
   */
  push(
    type,
    fields,
    { room = fields.room, repeatable = false, maxRetries = MAX_RETRIES, urgent = false, onReply } = {},
  ) {
    return new Promise((resolve, reject) => {
      if (!urgent && this.#entries.length >= MAX_QUEUED) {
        reject(queueFull(MAX_QUEUED));
        return;
      }
      const getFields = typeof fields === "function" ? fields : () => fields;
      const entry = { type, getFields, room, repeatable, maxRetries, urgent, onReply, resolve, reject };
      Object.assign(entry, { sent: false, retries: 0, retryTimer: null });
      const index = urgent ? this.#entries.findIndex((other) => !other.urgent) : -1;
      this.#entries.splice(index < 0 ? this.#entries.length : index, 0, entry);
      this.#flush();
    });
  }

  open() {
    this.isOpen = true;
    this.#flush();
  }

  /** Stops sending. All pauses end, because they apply to this connection only. */
  close() {
    this.isOpen = false;
    clearTimeout(this.#pauseTimer);
    this.#pauseTimer = null;
    for (const entry of this.#entries) {
      clearTimeout(entry.retryTimer);
      entry.retryTimer = null;
    }
  }

  /** Closes the queue and fails all its requests. */
  clear() {
    this.close();
    const entries = this.#entries;
    this.#entries = [];
    entries.forEach(({ reject }) => reject(disconnected()));
  }

  #flush() {
    if (!this.isOpen || this.#pauseTimer !== null) {
      return;
    }
    const limit = this.#singleRequestTimer === null ? MAX_IN_FLIGHT : 1;
    let inFlight = this.#entries.filter(({ sent }) => sent).length;
    const busyRooms = new Set();
    for (const entry of this.#entries) {
      if (inFlight >= limit) {
        return;
      }
      if (!entry.sent && entry.retryTimer === null && !busyRooms.has(entry.room)) {
        inFlight += 1;
        this.#dispatch(entry);
      }
      if (entry.room !== undefined) {
        busyRooms.add(entry.room);
      }
    }
  }

  #dispatch(entry) {
    entry.sent = true;
    this.#send(entry.type, entry.getFields(), entry.onReply).then(
      (data) => this.#complete(entry, () => entry.resolve(data)),
      (error) => this.#handleError(entry, error),
    );
  }

  #handleError(entry, error) {
    const lost = error.code === "disconnected";
    if (lost ? !entry.repeatable : !error.retry || entry.retries >= entry.maxRetries) {
      this.#complete(entry, () => entry.reject(error));
      return;
    }
    entry.sent = false; // the entry keeps its place in the queue
    if (error.code === "rate_limited") {
      entry.retries += 1;
      this.#pauseForRateLimit();
    } else if (!lost) {
      this.#scheduleRetry(entry);
    }
  }

  #complete(entry, finish) {
    this.#entries = this.#entries.filter((other) => other !== entry);
    finish();
    this.#flush();
  }

  #scheduleRetry(entry) {
    const delay = Math.min(MAX_RETRY_DELAY, MIN_RETRY_DELAY * 2 ** entry.retries);
    entry.retries += 1;
    if (this.isOpen) {
      entry.retryTimer = this.#flushAfter(delay * this.#jitter(), () => (entry.retryTimer = null));
    }
  }

  #pauseForRateLimit() {
    const pause = RATE_LIMIT_PAUSE * this.#jitter();
    clearTimeout(this.#pauseTimer);
    clearTimeout(this.#singleRequestTimer);
    const singleRequestEnd = pause + SINGLE_REQUEST_PERIOD;
    this.#singleRequestTimer = this.#flushAfter(singleRequestEnd, () => (this.#singleRequestTimer = null));
    if (this.isOpen) {
      this.#pauseTimer = this.#flushAfter(pause, () => (this.#pauseTimer = null));
    }
  }

  #jitter() {
    return 1 + this.#random() / 2;
  }

  #flushAfter(milliseconds, change) {
    return setTimeout(() => {
      change();
      this.#flush();
    }, milliseconds);
  }
}
