// The field in which one writes. Enter sends, Shift+Enter begins a new line.

import { part } from "./dom.js";

export class Composer {
  #form = part("composer");
  #field = part("composer-field");
  #button = part("composer-send");
  #note = part("composer-note");

  /** `send(text)` is called with what was written. */
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
      // While an input method composes, Enter belongs to it.
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.#form.requestSubmit();
      }
    });
    this.#field.addEventListener("input", () => this.#changed());
  }

  get text() {
    return this.#field.value;
  }

  set text(text) {
    this.#field.value = text;
    this.#changed();
  }

  /** `note`: what is to be known before one writes, or null. `closed`: one cannot write at all. */
  show(title, note, { closed }) {
    this.#field.disabled = closed;
    this.#field.placeholder = note ?? `Write to ${title}`;
    this.#note.textContent = note ?? "";
    this.#changed();
  }

  focus() {
    // On a touch screen focus opens the keyboard, which hides what one came to read.
    if (matchMedia("(pointer: fine)").matches) {
      this.#field.focus();
    }
  }

  #changed() {
    this.#button.disabled = this.#field.disabled || !this.#field.value.trim();
    if (!CSS.supports("field-sizing", "content")) {
      this.#field.style.height = "auto";
      this.#field.style.height = `${this.#field.scrollHeight}px`;
    }
  }
}
