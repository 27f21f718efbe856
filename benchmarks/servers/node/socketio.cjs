// Rooms of Socket.IO: join one, speak there, and be answered alone.
"use strict";

const { Server } = require("socket.io");

const server = new Server(Number(process.argv[2]), { transports: ["websocket"], perMessageDeflate: false });

server.on("connection", (socket) => {
  socket.on("join", (room) => {
    socket.join(room);
    socket.emit("joined", room);
  });
  socket.on("message", (room, data) => server.to(room).emit("message", data));
  socket.on("echo", (data) => socket.emit("echo", data));
});
