// Delays between connection attempts: exponential, with full jitter, so that the clients of a restarted
// server do not all reconnect at the same moment.

export class Backoff {
  #attempts = 0;

  constructor({ min = 200, max = 20_000, random = Math.random } = {}) {
    this.min = min;
    this.max = max;
    this.random = random;
  }

  /** Returns the milliseconds to wait before the next attempt. */
  next() {
    const ceiling = Math.min(this.max, this.min * 2 ** this.#attempts);
    this.#attempts += 1;
    return this.random() * ceiling;
  }

  reset() {
    this.#attempts = 0;
  }
}
