// One room that the user is in: where in its history we stand, so that a join can resume there and
// nothing is handed on twice. Next: ../client.js.

export class Membership {
  /** While a join is under way; whatever was missed comes with its reply. */
  joining = null;
  /** Whether a join was ever answered. */
  entered = false;
  #position = null;

  constructor(room, { password, limit } = {}) {
    this.room = room;
    this.password = password;
    this.limit = limit;
  }

  /** The fields of the next join request. */
  request() {
    return { room: this.room, password: this.password, limit: this.limit, since: this.#position ?? undefined };
  }

  /**
   * Takes a join's reply. Returns what is new in it; `fresh` tells that it replaces what was known of
   * the room before, because this is the first join or the place where we stood is lost.
   */
  enter({ position, recovered, messages }) {
    const from = recovered && this.#position ? this.#position.seq : 0;
    // A room without history has nothing to replace what we saw with.
    const fresh = !this.entered || (position !== null && !recovered);
    this.entered = true;
    this.#position = position;
    return { fresh, messages: messages.filter(({ seq }) => seq === null || seq > from) };
  }

  /** Judges a pushed message by its number: "next", "old" (seen already) or "gap" (some before it are missing). */
  place(seq) {
    if (seq == null || this.#position === null) {
      return "next";
    }
    if (seq <= this.#position.seq) {
      return "old";
    }
    if (seq > this.#position.seq + 1) {
      return "gap";
    }
    this.#position = { ...this.#position, seq };
    return "next";
  }
}
