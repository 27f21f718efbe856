// Scrolls the message log: follows new messages at the end, keeps the position elsewhere, and loads older
// messages near the beginning.

const END_MARGIN = 80; // pixels from the end within which new messages are followed
const BEGINNING_MARGIN = 300; // pixels from the beginning within which older messages are loaded

export class Scroller {
  #area;
  #jumpButton;
  #loadOlder;
  #unseen = 0;
  #atEnd = true;

  /** `loadOlder` is called near the beginning; it does nothing if there are no older messages. */
  constructor(area, jumpButton, loadOlder) {
    this.#area = area;
    this.#jumpButton = jumpButton;
    this.#loadOlder = loadOlder;
    area.addEventListener("scroll", () => this.#handleScroll(), { passive: true });
    jumpButton.addEventListener("click", () => this.scrollToEnd());
    // The area shrinks when the composer grows or a phone's keyboard opens.
    new ResizeObserver(() => this.#atEnd && this.scrollToEnd()).observe(area);
  }

  scrollToEnd() {
    this.#area.scrollTop = this.#area.scrollHeight;
    this.#handleScroll();
  }

  /** `change` adds at the end and returns whether it added a message. An `own` message is always scrolled to. */
  append(change, { own = false } = {}) {
    const follow = this.#atEnd || own;
    const added = change();
    if (follow) {
      this.scrollToEnd();
    } else if (added) {
      this.#unseen += 1;
      this.#jumpButton.hidden = false;
      this.#jumpButton.querySelector("span").textContent =
        this.#unseen === 1 ? "1 new message" : `${this.#unseen} new messages`;
    }
  }

  /** `change` adds at the beginning; the visible messages stay in place. */
  prepend(change) {
    const distanceToEnd = this.#area.scrollHeight - this.#area.scrollTop;
    change();
    this.#area.scrollTop = this.#area.scrollHeight - distanceToEnd;
    this.#handleScroll();
  }

  #handleScroll() {
    this.#atEnd = this.#area.scrollHeight - this.#area.scrollTop - this.#area.clientHeight < END_MARGIN;
    if (this.#atEnd) {
      this.#unseen = 0;
      this.#jumpButton.hidden = true;
    }
    if (this.#area.scrollTop < BEGINNING_MARGIN) {
      this.#loadOlder();
    }
  }
}
