// The chat page. It only ties things together: what the client (client.js) hears goes to the rooms
// (chat/room.js) and from there to the stage (chat/stage.js); what the user does goes through
// chat/navigation.js and chat/conversation.js back to the client.

import { endsState, wordsOf } from "./chat/bubble.js";
import { Conversation } from "./chat/conversation.js";
import { part } from "./chat/dom.js";
import { Drawers } from "./chat/drawers.js";
import { Entry } from "./chat/entry.js";
import { JoinedRooms } from "./chat/joined.js";
import { Navigation } from "./chat/navigation.js";
import { Banner, announce, toast } from "./chat/notices.js";
import { Room } from "./chat/room.js";
import { RoomList } from "./chat/roomlist.js";
import { Stage } from "./chat/stage.js";
import { closingText, errorText } from "./chat/words.js";
import { RoomsClient } from "./client.js";

const RECOUNT_EVERY = 30_000; // rooms that we are not in do not tell when somebody comes or goes

const config = JSON.parse(document.getElementById("rooms-config").textContent);
const address = new URL(config.socket, location.href.replace(/^http/, "ws"));

const client = new RoomsClient(address.href);
const rooms = new JoinedRooms(config.application, () => client.user);
const isOwn = (user) => user !== null && user.id === client.user?.id && user.guest === client.user.guest;

const drawers = new Drawers();
const banner = new Banner();
const entry = new Entry((name) => client.connect({ name }));
const list = new RoomList((name) => navigation.open(name));
const stage = new Stage({
  me: () => client.user,
  send: (text) => conversation.send(text),
  older: () => conversation.older(),
});
const conversation = new Conversation(client, stage);
const navigation = new Navigation({ client, rooms, stage, list, drawers });

let wanted = config.room; // the room to show as soon as we are in

async function recount() {
  list.reset((await client.request("rooms")).rooms);
  navigation.draw();
}

function outside(error = null) {
  part("shell").hidden = true;
  entry.show(error);
}

client.on("state", (change) => {
  if (change.state === "waiting") {
    const hurry = { label: "Try now", act: () => client.reconnect() };
    banner.show("The connection is lost. Coming back…", change.mayHurry ? hurry : null);
    stage.connected("lost");
  } else if (change.state === "closed") {
    banner.show(closingText(change), { label: "Try again", act: () => client.reconnect() }, { final: true });
    stage.connected("ended");
    if (client.user === null && config.user === null) {
      outside();
    }
  }
});

client.on("login", (user) => {
  entry.hide();
  banner.hide();
  part("shell").hidden = false;
  stage.connected("here");
  part("my-name").textContent = user.name;
  part("leave-chat").hidden = !user.guest;
  recount().catch((error) => toast(errorText(error)));
  navigation.comeBack(wanted);
  if (wanted !== null) {
    navigation.open(wanted);
  } else if (!stage.room) {
    drawers.open("rooms");
  }
  wanted = null;
});

client.on("login_needed", (error) => {
  if (config.user === null) {
    banner.hide();
    outside(error.code === "not_logged_in" ? null : error);
  } else {
    // The site's own page knows how one signs in.
    stage.connected("ended");
    banner.show(errorText(error), { label: "Sign in again", act: () => location.reload() }, { final: true });
  }
});

client.on("room", (reply) => {
  const { name } = reply.room;
  const room = rooms.get(name) ?? new Room(name, isOwn);
  rooms.set(name, room);
  stage.appending(room, () => room.update(reply));
  navigation.draw();
});

client.on("message", (message) => {
  const room = rooms.get(message.room);
  const own = isOwn(message.from);
  stage.appending(room, () => room.add(message) && !own, { own });
  if (room !== stage.room || message.state) {
    navigation.draw();
  }
  if (room === stage.room && !own && !endsState(message)) {
    announce(`${message.from?.name ?? "Announcement"}: ${wordsOf(message) ?? message.event}`);
  }
});

// Pushes that only change what is listed.
const changes = {
  joined: ({ room, user }) => rooms.get(room)?.people.joined(user),
  left: ({ room, user }) => rooms.get(room)?.people.left(user),
  members: (push) => rooms.get(push.room)?.people.digest(push),
  room_added: ({ room }) => {
    list.add(room);
    if (rooms.get(room.name)?.relabel(room)) {
      // The reply says what we may do there now.
      client.join(room.name).catch((error) => toast(errorText(error)));
    }
  },
  room_removed: ({ room }) => list.remove(room),
};
for (const [name, change] of Object.entries(changes)) {
  client.on(name, (push) => {
    change(push);
    navigation.draw();
  });
}

client.on("removed", (push) => navigation.removed(push));
client.on("trouble", (error) => toast(errorText(error)));

part("leave-chat").addEventListener("click", async () => {
  await client.logout();
  rooms.clear();
  navigation.show(null);
  outside();
});

setInterval(() => {
  if (client.user && document.visibilityState === "visible") {
    recount().catch(() => {}); // the banner tells already
  }
}, RECOUNT_EVERY);

if (config.user !== null || client.remembered) {
  client.connect();
} else {
  entry.show();
}
