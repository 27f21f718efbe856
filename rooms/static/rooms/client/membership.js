// One joined room and the last position received in its history, from which a join resumes. The position
// prevents that a message is emitted twice.

export class Membership {
  /** The promise of the join under way; its reply contains the messages missed until then. */
  joining = null;
  /** Whether the server has accepted a join. */
  hasJoined = false;
  #position = null;

  constructor(room, { password, limit } = {}) {
    this.room = room;
    this.password = password;
    this.limit = limit;
  }

  /** Returns the fields of the next join request. */
  request() {
    return { room: this.room, password: this.password, limit: this.limit, since: this.#position ?? undefined };
  }

  /**
   * Applies the reply to a join and returns its new messages. `fresh` means that they replace all earlier
   * ones, because this is the first join or the server cannot resume from the position.
   */
  update({ position, recovered, messages }) {
    const after = recovered && this.#position ? this.#position.seq : 0;
    // A room without history has no messages that could replace the earlier ones.
    const fresh = !this.hasJoined || (position !== null && !recovered);
    this.hasJoined = true;
    this.#position = position;
    return { fresh, messages: messages.filter(({ seq }) => seq === null || seq > after) };
  }

  /**
   * Compares a pushed message with the position, and advances it for the next one. Returns "next",
   * "duplicate", or "gap" if messages before it are missing.
   */
  advance(seq) {
    if (seq == null || this.#position === null) {
      return "next";
    }
    if (seq <= this.#position.seq) {
      return "duplicate";
    }
    if (seq > this.#position.seq + 1) {
      return "gap";
    }
    this.#position = { ...this.#position, seq };
    return "next";
  }
}
