// Rooms by hand on `ws`: a set of sockets for each, a message made into text once and sent to each socket.
"use strict";

const { WebSocketServer } = require("ws");

const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]), perMessageDeflate: false });
const rooms = new Map();

function join(socket, name) {
  if (!rooms.has(name)) rooms.set(name, new Set());
  rooms.get(name).add(socket);
  socket.on("close", () => rooms.get(name).delete(socket));
  socket.send(JSON.stringify({ type: "joined", room: name }));
}

server.on("connection", (socket) => {
  socket.on("error", () => socket.terminate());
  socket.on("message", (bytes) => {
    const { type, room, data } = JSON.parse(bytes.toString());
    if (type === "join") join(socket, room);
    else if (type === "echo") socket.send(JSON.stringify({ type, data }));
    else {
      const text = JSON.stringify({ type: "message", room, data });
      for (const member of rooms.get(room) ?? []) member.send(text);
    }
  });
});
