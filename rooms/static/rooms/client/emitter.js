// Named events for plain objects.

export class Emitter {
  #listeners = new Map();

  /** Calls `listener` for every `event` from now on; returns a function that unsubscribes it. */
  on(event, listener) {
    const listeners = this.#listeners.get(event) ?? new Set();
    this.#listeners.set(event, listeners.add(listener));
    return () => listeners.delete(listener);
  }

  emit(event, detail) {
    // The copy lets a listener unsubscribe during its own call.
    for (const listener of [...(this.#listeners.get(event) ?? [])]) {
      listener(detail);
    }
  }
}
