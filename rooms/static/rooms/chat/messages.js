// The messages of one room, in the order of their numbers. A message that the user has just sent
// stands at the end, marked as pending, until the server has given it a number; then it takes its
// place. Knows nothing of scrolling (scroller.js) or of the connection (../chat.js).

import { bubble } from "./bubble.js";
import { element } from "./dom.js";
import { sameDay } from "./time.js";

const SAME_BREATH = 5 * 60_000; // messages of one person so close together share one heading

export class MessageLog {
  #entries = [];
  #numbered = new Map();
  #pending = new Map();
  #isOwn;

  element = element("ol", { class: "messages" });

  /** `isOwn(user)` tells whether that is us. */
  constructor(isOwn) {
    this.#isOwn = isOwn;
  }

  /** The lowest number that is shown, if any. */
  get oldest() {
    return this.#entries.find(({ message }) => message.seq !== null)?.message.seq ?? null;
  }

  /** Shows a message of the server's; returns whether it is new. */
  add(message) {
    const known = this.#numbered.get(message.seq);
    if (known) {
      this.#redraw(known, message); // ours, as the server keeps it: an extension may have changed the words
      return false;
    }
    this.#insert({ message, node: this.#draw(message) });
    return true;
  }

  /** Forgets what the server has said before, but not what is on its way there. */
  reset(messages) {
    for (const entry of this.#entries.filter(({ key }) => !key)) {
      this.#remove(entry);
    }
    messages.forEach((message) => this.add(message));
  }

  /** Shows a message that is on its way to the server. */
  addPending(key, message) {
    const entry = { key, message: { ...message, seq: null }, node: this.#draw(message) };
    this.#pending.set(key, entry);
    this.#insert(entry);
    this.retry(key);
  }

  /** The server has it. `words`: what an extension answered that took it, or null. */
  confirm(key, { seq, time, words }) {
    const entry = this.#pending.get(key);
    this.#remove(entry);
    if (words !== null) {
      // Nobody else sees question and answer, and the server keeps neither.
      this.add({ ...entry.message, time, to: [], answer: words });
    } else if (seq !== null && !this.#numbered.has(seq)) {
      // Without a number the server's own copy takes its place, or there is none, because an extension took
      // the message for itself. With a number it may be here already.
      this.add({ ...entry.message, seq, time });
    }
  }

  /** It is on its way once more. */
  retry(key) {
    this.#mark(this.#pending.get(key), "pending", element("span", { class: "fate" }, "Sending…"));
  }

  /** The server refused it, or could not be asked. */
  fail(key, reason, { retry, discard }) {
    const again = element("button", { type: "button", class: "link", click: retry }, "Try again");
    const away = element("button", { type: "button", class: "link", click: discard }, "Discard");
    const fate = element("span", { class: "fate" }, `Not sent. ${reason} `, again, " ", away);
    this.#mark(this.#pending.get(key), "failed", fate);
  }

  /** Takes a pending message back. */
  discard(key) {
    this.#remove(this.#pending.get(key));
  }

  #draw(message) {
    return bubble(message, this.#isOwn(message.from));
  }

  #redraw(entry, message) {
    const node = this.#draw(message);
    entry.node.replaceWith(node);
    Object.assign(entry, { message, node });
    this.#arrange(this.#entries.indexOf(entry));
  }

  #mark({ node }, state, fate) {
    node.classList.remove("pending", "failed");
    node.classList.add(state);
    node.querySelector(".fate")?.remove();
    node.querySelector(".bubble").append(fate);
  }

  #insert(entry) {
    const { seq } = entry.message;
    let index = this.#entries.length;
    const goesAfter = ({ key, message }) => (key ? !entry.key : seq !== null && message.seq > seq);
    while (index > 0 && goesAfter(this.#entries[index - 1])) {
      index -= 1;
    }
    this.element.insertBefore(entry.node, this.#entries[index]?.node ?? null);
    this.#entries.splice(index, 0, entry);
    if (seq !== null) {
      this.#numbered.set(seq, entry);
    }
    this.#arrange(index);
    this.#arrange(index + 1);
  }

  #remove(entry) {
    const index = this.#entries.indexOf(entry);
    this.#entries.splice(index, 1);
    this.#pending.delete(entry.key);
    this.#numbered.delete(entry.message.seq);
    entry.node.remove();
    this.#arrange(index);
  }

  /** A heading over the first message of a day, and names only where the speaker changes. */
  #arrange(index) {
    const entry = this.#entries[index];
    if (!entry) {
      return;
    }
    const before = this.#entries[index - 1];
    const [time, timeBefore] = [entry, before].map((each) => each && new Date(each.message.time));
    const newDay = !before || !sameDay(time, timeBefore);
    const goesOn =
      !newDay &&
      time - timeBefore < SAME_BREATH &&
      before.message.from?.name === entry.message.from?.name &&
      before.node.className.includes("said") === entry.node.className.includes("said");
    entry.node.classList.toggle("new-day", newDay);
    entry.node.classList.toggle("goes-on", goesOn);
  }
}
