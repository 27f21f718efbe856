// The rooms that the user is in, by name. The tab remembers them, so that a reload comes back to all
// of them, and not just to the one that is shown.

export class JoinedRooms extends Map {
  #storage;
  #key;
  #me;

  /** `me()` tells who we are: what one user was in is no business of the next one in this tab. */
  constructor(application, me, storage = sessionStorage) {
    super();
    this.#storage = storage;
    this.#key = `rooms joined ${application}`;
    this.#me = me;
  }

  /** The names of the rooms that this user was in before the page was loaded. */
  remembered() {
    const { user, names = [] } = JSON.parse(this.#storage.getItem(this.#key)) ?? {};
    return user === this.#me()?.id ? names : [];
  }

  /** The user knows of a room: in it, or on the way in. */
  remember(name) {
    this.#write([...new Set([...this.remembered(), name])]);
  }

  forget(name) {
    this.#write(this.remembered().filter((other) => other !== name));
  }

  set(name, room) {
    this.remember(name);
    return super.set(name, room);
  }

  delete(name) {
    this.forget(name);
    return super.delete(name);
  }

  clear() {
    this.#storage.removeItem(this.#key);
    super.clear();
  }

  #write(names) {
    this.#storage.setItem(this.#key, JSON.stringify({ user: this.#me()?.id, names }));
  }
}
