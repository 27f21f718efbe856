// On narrow screens the room list and the member list are drawers over the messages. Esc and a tap beside a
// drawer close it.

import { part } from "./dom.js";
import { clearToasts } from "./notifications.js";

export class Drawers {
  #shell = part("shell");
  #opener = null;

  constructor() {
    for (const name of ["rooms", "members"]) {
      part(`toggle-${name}`).addEventListener("click", (event) => this.#toggle(name, event.currentTarget));
    }
    part("backdrop").addEventListener("click", () => this.close());
    this.#shell.addEventListener("keydown", (event) => event.key === "Escape" && this.close());
  }

  close() {
    if (this.#shell.dataset.drawer) {
      this.#shell.dataset.drawer = "";
      this.#updateButtons();
      this.#opener?.focus();
      this.#opener = null;
    }
  }

  /** Opens the drawer of that name; on screens that show it as a column, nothing changes. */
  open(name) {
    this.#shell.dataset.drawer = name;
    this.#updateButtons();
  }

  #toggle(name, opener) {
    if (this.#shell.dataset.drawer === name) {
      this.close();
    } else {
      clearToasts(); // toasts would cover the drawer
      this.#opener = opener;
      this.open(name);
      // Without preventScroll the page would jump while the drawer slides in.
      document.getElementById(name).querySelector("button, [tabindex]")?.focus({ preventScroll: true });
    }
  }

  #updateButtons() {
    for (const name of ["rooms", "members"]) {
      part(`toggle-${name}`).setAttribute("aria-expanded", String(this.#shell.dataset.drawer === name));
    }
  }
}
