// Notifications of the page: a banner for the connection, toasts, and a hidden live region for screen readers.
// The message log is not a live region, because some screen readers would read all of it again.

import { element, part } from "./dom.js";

const TOAST_DURATION = 8_000;
const MAX_ANNOUNCEMENTS = 5;

/** Shows a text for a few seconds. */
export function toast(text) {
  const button = element("button", { type: "button", class: "icon-button", "aria-label": "Dismiss" }, "×");
  const box = element("div", { class: "toast" }, element("span", {}, text), button);
  button.addEventListener("click", () => box.remove());
  part("toasts").append(box);
  setTimeout(() => box.remove(), TOAST_DURATION);
}

/** Removes all toasts. */
export function clearToasts() {
  part("toasts").replaceChildren();
}

/** Adds a text to the live region. */
export function announce(text) {
  const region = part("announcer");
  region.append(element("p", {}, text));
  while (region.children.length > MAX_ANNOUNCEMENTS) {
    region.firstChild.remove();
  }
}

/** A line above the room while there is no connection. */
export class Banner {
  #banner = part("banner");
  #text = part("banner-text");
  #button = part("banner-button");

  /** `action` is {label, run} for a button, or null. `final`: the client does not reconnect by itself. */
  show(text, action, { final = false } = {}) {
    this.#text.textContent = text;
    this.#button.hidden = action === null;
    this.#button.textContent = action?.label;
    this.#button.onclick = action?.run;
    this.#banner.classList.toggle("final", final);
    this.#banner.hidden = false;
  }

  hide() {
    this.#banner.hidden = true;
  }
}
