// Node's ws. NODE_PATH must name the node_modules directory that holds it.
"use strict";
const { WebSocketServer } = require("ws");

const at = process.argv.indexOf("--port");
const compress = process.argv.includes("--compress");
const server = new WebSocketServer({
  host: "127.0.0.1",
  port: at < 0 ? 8000 : Number(process.argv[at + 1]),
  backlog: 4096,
  maxPayload: 1 << 30,
  perMessageDeflate: compress ? { threshold: 0 } : false,
});

server.on("connection", (socket, request) => {
  socket.broadcasting = request.url === "/broadcast";
  socket.on("error", () => {});
  socket.on("message", (data, binary) => {
    if (!socket.broadcasting) {
      socket.send(data, { binary });
      return;
    }
    for (const receiver of server.clients) {
      if (receiver.broadcasting) receiver.send(data, { binary });
    }
  });
});
