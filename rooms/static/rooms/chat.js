// The chat page. It connects the parts: events of the client (client.js) change the rooms (chat/room.js), which
// the room view (chat/room-view.js) shows; actions of the user reach the client through chat/navigation.js
// and chat/conversation.js.

import { Conversation } from "./chat/conversation.js";
import { part } from "./chat/dom.js";
import { Drawers } from "./chat/drawers.js";
import { EntryForm } from "./chat/entry-form.js";
import { JoinedRooms } from "./chat/joined-rooms.js";
import { deletesState, messageText } from "./chat/message-view.js";
import { Navigation } from "./chat/navigation.js";
import { Banner, announce, toast } from "./chat/notifications.js";
import { RoomList } from "./chat/room-list.js";
import { RoomView } from "./chat/room-view.js";
import { Room } from "./chat/room.js";
import { closeText, errorText } from "./chat/texts.js";
import { RoomsClient } from "./client.js";

const ROOM_LIST_INTERVAL = 30_000; // the server sends no joins and leaves of rooms that are not joined

const config = JSON.parse(document.getElementById("rooms-config").textContent);
const socketAddress = new URL(config.socket, location.href.replace(/^http/, "ws"));

const client = new RoomsClient(socketAddress.href);
const rooms = new JoinedRooms(config.application, () => client.user);
const isOwn = (user) => user !== null && user.id === client.user?.id && user.guest === client.user.guest;

const drawers = new Drawers();
const banner = new Banner();
const entryForm = new EntryForm((name) => client.connect({ name }));
const list = new RoomList((name) => navigation.open(name));
const view = new RoomView({
  getUser: () => client.user,
  send: (text) => conversation.send(text),
  loadOlder: () => conversation.loadOlder(),
});
const conversation = new Conversation(client, view);
const navigation = new Navigation({ client, rooms, view, list, drawers });

let initialRoom = config.room; // shown after the first login

async function refreshRoomList() {
  list.reset((await client.request("rooms")).rooms);
  navigation.refresh();
}

function showEntryForm(error = null) {
  part("shell").hidden = true;
  entryForm.show(error);
}

client.on("state", (change) => {
  if (change.state === "waiting") {
    const action = { label: "Reconnect now", run: () => client.reconnect() };
    banner.show("Connection lost. Reconnecting…", change.canRetryNow ? action : null);
    view.setConnection("lost");
  } else if (change.state === "closed") {
    banner.show(closeText(change), { label: "Try again", run: () => client.reconnect() }, { final: true });
    view.setConnection("closed");
    if (client.user === null && config.user === null) {
      showEntryForm();
    }
  }
});

client.on("login", (user) => {
  entryForm.hide();
  banner.hide();
  part("shell").hidden = false;
  view.setConnection("open");
  part("my-name").textContent = user.name;
  part("leave-chat").hidden = !user.guest;
  refreshRoomList().catch((error) => toast(errorText(error)));
  navigation.rejoinStored(initialRoom);
  if (initialRoom !== null) {
    navigation.open(initialRoom);
  } else if (!view.room) {
    drawers.open("rooms");
  }
  initialRoom = null;
});

client.on("login_required", (error) => {
  if (config.user === null) {
    banner.hide();
    showEntryForm(error.code === "not_logged_in" ? null : error);
  } else {
    // After a reload the site decides how the user signs in.
    view.setConnection("closed");
    banner.show(errorText(error), { label: "Sign in again", run: () => location.reload() }, { final: true });
  }
});

client.on("room", (reply) => {
  const { name } = reply.room;
  const room = rooms.get(name) ?? new Room(name, isOwn);
  rooms.set(name, room);
  view.append(room, () => room.update(reply));
  navigation.refresh();
});

client.on("message", (message) => {
  const room = rooms.get(message.room);
  const own = isOwn(message.from);
  view.append(room, () => room.add(message) && !own, { own });
  if (room !== view.room || message.state) {
    navigation.refresh();
  }
  if (room === view.room && !own && !deletesState(message)) {
    announce(`${message.from?.name ?? "Announcement"}: ${messageText(message) ?? message.event}`);
  }
});

// Pushes that only change the lists of rooms and members.
const listPushes = {
  joined: ({ room, user }) => rooms.get(room)?.members.add(user),
  left: ({ room, user }) => rooms.get(room)?.members.remove(user),
  members: (push) => rooms.get(push.room)?.members.applyDiff(push),
  room_added: ({ room }) => {
    list.add(room);
    if (rooms.get(room.name)?.updateInfo(room)) {
      // The reply to a join contains the user's permissions.
      client.join(room.name).catch((error) => toast(errorText(error)));
    }
  },
  room_removed: ({ room }) => list.remove(room),
};
for (const [type, apply] of Object.entries(listPushes)) {
  client.on(type, (push) => {
    apply(push);
    navigation.refresh();
  });
}

client.on("removed", (push) => navigation.handleRemoved(push));
client.on("error", (error) => toast(errorText(error)));

part("leave-chat").addEventListener("click", async () => {
  await client.logout();
  rooms.clear();
  navigation.show(null);
  showEntryForm();
});

setInterval(() => {
  if (client.user && document.visibilityState === "visible") {
    refreshRoomList().catch(() => {}); // the banner already shows a lost connection
  }
}, ROOM_LIST_INTERVAL);

if (config.user !== null || client.hasStoredLogin) {
  client.connect();
} else {
  entryForm.show();
}
