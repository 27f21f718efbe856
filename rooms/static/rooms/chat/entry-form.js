// The form in which a guest enters a name.

import { part } from "./dom.js";
import { errorText } from "./texts.js";

export class EntryForm {
  #section = part("entry");
  #form = part("entry-form");
  #field = part("entry-name");
  #button = part("entry-button");
  #error = part("entry-error");

  /** `submit(name)` is called with the name of the guest. */
  constructor(submit) {
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      const name = this.#field.value.trim();
      if (name) {
        this.#error.textContent = "";
        this.#button.disabled = true;
        submit(name);
      }
    });
  }

  /** Shows the form, with the error of the last login if there is one. */
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
