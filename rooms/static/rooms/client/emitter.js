// Named events for plain objects. Listeners subscribe with a function and get back the one
// that unsubscribes, so nobody has to keep a listener to remove it. Next: connection.js.

export class Emitter {
  #listeners = new Map();

  /** Calls `listener` for every `event` from now on; returns the function that ends it. */
  on(event, listener) {
    const listeners = this.#listeners.get(event) ?? new Set();
    this.#listeners.set(event, listeners.add(listener));
    return () => listeners.delete(listener);
  }

  emit(event, detail) {
    // A copy, so that a listener may unsubscribe while it is being called.
    for (const listener of [...(this.#listeners.get(event) ?? [])]) {
      listener(detail);
    }
  }
}
