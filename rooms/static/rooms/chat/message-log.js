// The messages of one room, ordered by sequence number. A message of the user stays at the end, marked as
// pending, until the server assigns its number. Scrolling is in scroller.js.

import { element } from "./dom.js";
import { renderMessage } from "./message-view.js";
import { isSameDay } from "./time.js";

const GROUP_INTERVAL = 5 * 60_000; // within this time, messages of one user share a heading

export class MessageLog {
  #entries = [];
  #bySeq = new Map();
  #pending = new Map();
  #isOwn;

  element = element("ol", { class: "messages" });

  /** `isOwn(user)` returns whether this is the user of the page. */
  constructor(isOwn) {
    this.#isOwn = isOwn;
  }

  /** The lowest sequence number that is shown, or null. */
  get oldest() {
    return this.#entries.find(({ message }) => message.seq !== null)?.message.seq ?? null;
  }

  /** Shows a message of the server; returns whether it is new. */
  add(message) {
    const existing = this.#bySeq.get(message.seq);
    if (existing) {
      this.#redraw(existing, message); // an extension may have changed the text of the user's own message
      return false;
    }
    this.#insert({ message, node: this.#render(message) });
    return true;
  }

  /** Replaces all messages but the pending ones. */
  reset(messages) {
    for (const entry of this.#entries.filter(({ key }) => !key)) {
      this.#remove(entry);
    }
    messages.forEach((message) => this.add(message));
  }

  /** Shows a message that is being sent. */
  addPending(key, message) {
    const entry = { key, message: { ...message, seq: null }, node: this.#render(message) };
    this.#pending.set(key, entry);
    this.#insert(entry);
    this.retry(key);
  }

  /** Completes a pending message. `answer`: the text with which an extension answered it, or null. */
  confirm(key, { seq, time, answer }) {
    const entry = this.#pending.get(key);
    this.#remove(entry);
    if (answer !== null) {
      // Only the sender sees this message and its answer, and the server stores neither.
      this.add({ ...entry.message, time, to: [], answer });
    } else if (seq !== null && !this.#bySeq.has(seq)) {
      // Without a number the server broadcasts its own copy, or an extension has handled the message. With a
      // number the broadcast may already be shown.
      this.add({ ...entry.message, seq, time });
    }
  }

  /** Marks a message as being sent again. */
  retry(key) {
    this.#setStatus(this.#pending.get(key), "pending", element("span", { class: "status" }, "Sending…"));
  }

  /** Marks a message as refused by the server or not delivered. */
  fail(key, reason, { retry, discard }) {
    const retryButton = element("button", { type: "button", class: "link", click: retry }, "Try again");
    const discardButton = element("button", { type: "button", class: "link", click: discard }, "Discard");
    const text = `Not sent. ${reason} `;
    const status = element("span", { class: "status" }, text, retryButton, " ", discardButton);
    this.#setStatus(this.#pending.get(key), "failed", status);
  }

  /** Removes a pending message. */
  discard(key) {
    this.#remove(this.#pending.get(key));
  }

  #render(message) {
    return renderMessage(message, this.#isOwn(message.from));
  }

  #redraw(entry, message) {
    const node = this.#render(message);
    entry.node.replaceWith(node);
    Object.assign(entry, { message, node });
    this.#group(this.#entries.indexOf(entry));
  }

  #setStatus({ node }, state, status) {
    node.classList.remove("pending", "failed");
    node.classList.add(state);
    node.querySelector(".status")?.remove();
    node.querySelector(".bubble").append(status);
  }

  #insert(entry) {
    const { seq } = entry.message;
    let index = this.#entries.length;
    const belongsAfter = ({ key, message }) => (key ? !entry.key : seq !== null && message.seq > seq);
    while (index > 0 && belongsAfter(this.#entries[index - 1])) {
      index -= 1;
    }
    this.element.insertBefore(entry.node, this.#entries[index]?.node ?? null);
    this.#entries.splice(index, 0, entry);
    if (seq !== null) {
      this.#bySeq.set(seq, entry);
    }
    this.#group(index);
    this.#group(index + 1);
  }

  #remove(entry) {
    const index = this.#entries.indexOf(entry);
    this.#entries.splice(index, 1);
    this.#pending.delete(entry.key);
    this.#bySeq.delete(entry.message.seq);
    entry.node.remove();
    this.#group(index);
  }

  /** Shows the date above the first message of a day, and the name only where the sender changes. */
  #group(index) {
    const entry = this.#entries[index];
    if (!entry) {
      return;
    }
    const previous = this.#entries[index - 1];
    const [time, previousTime] = [entry, previous].map((each) => each && new Date(each.message.time));
    const newDay = !previous || !isSameDay(time, previousTime);
    const grouped =
      !newDay &&
      time - previousTime < GROUP_INTERVAL &&
      previous.message.from?.name === entry.message.from?.name &&
      previous.node.classList.contains("user-text") === entry.node.classList.contains("user-text");
    entry.node.classList.toggle("new-day", newDay);
    entry.node.classList.toggle("grouped", grouped);
  }
}
