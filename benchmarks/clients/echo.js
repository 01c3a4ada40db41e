// The server that clients are measured with: Bun's, which is uWebSockets. Echo on every path.
"use strict";

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: Number(process.argv[2]),
  fetch(request, server) {
    return server.upgrade(request) ? undefined : new Response("a WebSocket\n", { status: 426 });
  },
  websocket: {
    message(ws, message) {
      ws.send(message);
    },
    perMessageDeflate: false,
    maxPayloadLength: 64 << 20,
    backpressureLimit: 64 << 20,
    // Seconds; the most there is.
    idleTimeout: 960,
  },
});
console.log(`listening on ws://127.0.0.1:${server.port}`);
