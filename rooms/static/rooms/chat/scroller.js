// Scrolling of the messages: stays at the end while the reader is there, keeps the reader's place
// otherwise, and asks for older messages when the beginning comes into sight.

const NEAR_END = 80; // pixels from the end that still count as being there
const NEAR_BEGINNING = 300; // pixels from the top at which older messages are fetched

export class Scroller {
  #area;
  #jump;
  #older;
  #unseen = 0;
  #stuck = true;

  /** `older` is called when the beginning is near; it does nothing while there is nothing to fetch. */
  constructor(area, jump, older) {
    this.#area = area;
    this.#jump = jump;
    this.#older = older;
    area.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    jump.addEventListener("click", () => this.toEnd());
    // The area shrinks when the composer grows or a phone's keyboard opens.
    new ResizeObserver(() => this.#stuck && this.toEnd()).observe(area);
  }

  toEnd() {
    this.#area.scrollTop = this.#area.scrollHeight;
    this.#scrolled();
  }

  /** `change` adds at the end. `own`: the reader wrote it and wants to see it. */
  appending(change, { own = false } = {}) {
    const follow = this.#stuck || own;
    const added = change();
    if (follow) {
      this.toEnd();
    } else if (added) {
      this.#unseen += 1;
      this.#jump.hidden = false;
      this.#jump.querySelector("span").textContent =
        this.#unseen === 1 ? "1 new message" : `${this.#unseen} new messages`;
    }
  }

  /** `change` adds at the beginning; what the reader looks at stays where it is. */
  prepending(change) {
    const below = this.#area.scrollHeight - this.#area.scrollTop;
    change();
    this.#area.scrollTop = this.#area.scrollHeight - below;
    this.#scrolled();
  }

  #scrolled() {
    this.#stuck = this.#area.scrollHeight - this.#area.scrollTop - this.#area.clientHeight < NEAR_END;
    if (this.#stuck) {
      this.#seen();
    }
    if (this.#area.scrollTop < NEAR_BEGINNING) {
      this.#older();
    }
  }

  #seen() {
    this.#unseen = 0;
    this.#jump.hidden = true;
  }
}
