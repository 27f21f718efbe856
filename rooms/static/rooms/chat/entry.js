// The door: the form in which a guest gives a name.

import { part } from "./dom.js";
import { errorText } from "./words.js";

export class Entry {
  #section = part("entry");
  #form = part("entry-form");
  #field = part("entry-name");
  #button = part("entry-button");
  #error = part("entry-error");

  /** `enter(name)` is called with the name that was given. */
  constructor(enter) {
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      const name = this.#field.value.trim();
      if (name) {
        this.#error.textContent = "";
        this.#button.disabled = true;
        enter(name);
      }
    });
  }

  /** Asks for a name, after an error perhaps. */
  show(error = null) {
    this.#section.hidden = false;
    this.#button.disabled = false;
    this.#error.textContent = error ? errorText(error) : "";
    this.#field.focus();
  }

  hide() {
    this.#section.hidden = true;
  }
}
