// What the page itself has to say: a banner about the connection, passing toasts, and a hidden line
// that screen readers read out. (The log of messages is not live: some would read all of it again.)

import { element, part } from "./dom.js";

const TOAST_STAYS = 8_000;

/** Shows a sentence for a while. */
export function toast(text) {
  const close = element("button", { type: "button", class: "icon-button", "aria-label": "Dismiss" }, "×");
  const note = element("div", { class: "toast" }, element("span", {}, text), close);
  close.addEventListener("click", () => note.remove());
  part("toasts").append(note);
  setTimeout(() => note.remove(), TOAST_STAYS);
}

/** Takes the sentences away that nobody has to read any more. */
export function clearToasts() {
  part("toasts").replaceChildren();
}

/** Reads a sentence out to those who listen. */
export function announce(text) {
  const line = element("p", {}, text);
  const lines = part("announcer");
  lines.append(line);
  while (lines.children.length > 5) {
    lines.firstChild.remove();
  }
}

/** A line over the room for as long as something is wrong. */
export class Banner {
  #banner = part("banner");
  #text = part("banner-text");
  #button = part("banner-button");

  /** `action` is {label, act} for a button, or null. `final`: it does not pass by itself. */
  show(text, action, { final = false } = {}) {
    this.#text.textContent = text;
    this.#button.hidden = action === null;
    this.#button.textContent = action?.label;
    this.#button.onclick = action?.act;
    this.#banner.classList.toggle("final", final);
    this.#banner.hidden = false;
  }

  hide() {
    this.#banner.hidden = true;
  }
}
