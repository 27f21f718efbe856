// The joined rooms by name. The tab stores the names, so that a reload joins all of them again and not only
// the room that is shown.

export class JoinedRooms extends Map {
  #storage;
  #storageKey;
  #getUser;

  /** `getUser()` returns the current user, because stored names apply to one user only. */
  constructor(application, getUser, storage = sessionStorage) {
    super();
    this.#storage = storage;
    this.#storageKey = `rooms joined ${application}`;
    this.#getUser = getUser;
  }

  /** Returns the names of the rooms that this user had joined before the page was loaded. */
  storedNames() {
    const { user, names = [] } = JSON.parse(this.#storage.getItem(this.#storageKey)) ?? {};
    return user === this.#getUser()?.id ? names : [];
  }

  /** Stores the name of a room that is joined or about to be joined. */
  storeName(name) {
    this.#write([...new Set([...this.storedNames(), name])]);
  }

  removeName(name) {
    this.#write(this.storedNames().filter((other) => other !== name));
  }

  set(name, room) {
    this.storeName(name);
    return super.set(name, room);
  }

  delete(name) {
    this.removeName(name);
    return super.delete(name);
  }

  clear() {
    this.#storage.removeItem(this.#storageKey);
    super.clear();
  }

  #write(names) {
    this.#storage.setItem(this.#storageKey, JSON.stringify({ user: this.#getUser()?.id, names }));
  }
}
