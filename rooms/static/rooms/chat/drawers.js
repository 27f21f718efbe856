// On narrow screens the rooms and the members are drawers over the messages; on wide ones the members
// can be folded away. Esc and a tap beside a drawer close it.

import { part } from "./dom.js";
import { clearToasts } from "./notices.js";

export class Drawers {
  #shell = part("shell");
  #opener = null;

  constructor() {
    for (const name of ["rooms", "members"]) {
      part(`toggle-${name}`).addEventListener("click", (event) => this.#toggle(name, event.currentTarget));
    }
    part("shade").addEventListener("click", () => this.close());
    this.#shell.addEventListener("keydown", (event) => event.key === "Escape" && this.close());
  }

  close() {
    if (this.#shell.dataset.drawer) {
      this.#shell.dataset.drawer = "";
      this.#tell();
      this.#opener?.focus();
      this.#opener = null;
    }
  }

  /** Opens a drawer of that name; where it is not a drawer but a column, nothing changes. */
  open(name) {
    this.#shell.dataset.drawer = name;
    this.#tell();
  }

  #toggle(name, opener) {
    if (this.#shell.dataset.drawer === name) {
      this.close();
    } else {
      clearToasts(); // they would lie over it
      this.#opener = opener;
      this.open(name);
      document.getElementById(name).querySelector("button, [tabindex]")?.focus();
    }
  }

  #tell() {
    for (const name of ["rooms", "members"]) {
      part(`toggle-${name}`).setAttribute("aria-expanded", String(this.#shell.dataset.drawer === name));
    }
  }
}
