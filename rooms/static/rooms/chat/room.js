// The data of one joined room, shown or not.

import { Members } from "./members.js";
import { MessageLog } from "./message-log.js";
import { deletesState } from "./message-view.js";

export class Room {
  members = new Members();
  state = new Map();
  draft = "";
  unread = 0;
  hasOlder = false;
  loading = false;
  /** The error text of the last message if the user is muted, or null. */
  mutedReason = null;

  constructor(name, isOwn) {
    this.name = name;
    this.info = { name, title: name };
    this.log = new MessageLog(isOwn);
  }

  get title() {
    return this.info.title || this.name;
  }

  /** Takes the entry of the room list; returns whether the user's permissions may have changed. */
  updateInfo({ title, mode, max_members }) {
    const modeChanged = mode !== this.info.mode;
    this.info = { ...this.info, title, mode, max_members };
    return modeChanged;
  }

  /** Takes the reply to a join; returns whether it contained missed messages. */
  update({ room, members, count, state, messages, fresh }) {
    this.info = room;
    this.members.reset(members, count);
    this.state = new Map(state.map((message) => [message.event, message]));
    if (fresh) {
      this.log.reset(messages);
      this.hasOlder = (this.log.oldest ?? 1) > 1;
    } else {
      messages.forEach((message) => this.add(message));
    }
    return !fresh && messages.length > 0;
  }

  /** Takes a pushed message; returns whether it adds a visible message. */
  add(message) {
    if (deletesState(message)) {
      this.state.delete(message.event);
    } else if (message.state) {
      this.state.set(message.event, message);
    }
    return this.log.add(message) && !deletesState(message);
  }
}
