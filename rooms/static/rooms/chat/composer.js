// The message field. Enter sends, Shift+Enter inserts a line break.

import { part } from "./dom.js";

export class Composer {
  #form = part("composer");
  #field = part("composer-field");
  #button = part("composer-send");
  #note = part("composer-note");

  /** `send(text)` is called with the text of the field. */
  constructor(send) {
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      const text = this.#field.value.trim();
      if (text && !this.#field.disabled) {
        this.text = "";
        send(text);
      }
      this.#field.focus();
    });
    this.#field.addEventListener("keydown", (event) => {
      // During the composition of an input method, Enter confirms a candidate.
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.#form.requestSubmit();
      }
    });
    this.#field.addEventListener("input", () => this.#update());
  }

  get text() {
    return this.#field.value;
  }

  set text(text) {
    this.#field.value = text;
    this.#update();
  }

  /** `note` replaces the placeholder, or is null; `disabled` disables the field. */
  show(title, note, { disabled }) {
    this.#field.disabled = disabled;
    this.#field.placeholder = note ?? `Write to ${title}`;
    this.#note.textContent = note ?? "";
    this.#update();
  }

  focus() {
    // On a touch screen the focus opens the keyboard, which covers the messages.
    if (matchMedia("(pointer: fine)").matches) {
      this.#field.focus();
    }
  }

  #update() {
    this.#button.disabled = this.#field.disabled || !this.#field.value.trim();
    if (!CSS.supports("field-sizing", "content")) {
      this.#field.style.height = "auto";
      this.#field.style.height = `${this.#field.scrollHeight}px`;
    }
  }
}
