// How long to wait before trying again: exponential, with full jitter, so that the clients of a
// server that restarts do not all come back in the same moment.

export class Backoff {
  #attempts = 0;

  constructor({ shortest = 200, longest = 20_000, random = Math.random } = {}) {
    this.shortest = shortest;
    this.longest = longest;
    this.random = random;
  }

  /** Milliseconds to wait before the next attempt. */
  next() {
    const ceiling = Math.min(this.longest, this.shortest * 2 ** this.#attempts);
    this.#attempts += 1;
    return this.random() * ceiling;
  }

  reset() {
    this.#attempts = 0;
  }
}
