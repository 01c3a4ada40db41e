// A WebSocket of Node's `ws`, driven by the test through a Unix socket: node node.cjs CONTROL
//
// In both directions: four bytes with the size of a JSON header, the header, and as many bytes as its
// `size` says. `fin` and `text` are those of the message or frame.

'use strict';

const fs = require('fs');
const net = require('net');
const WebSocket = require('ws');

const control = net.connect(process.argv[2]);
let ws = null;
let extensions = '';

function tell(header, payload = Buffer.alloc(0)) {
  const head = Buffer.from(JSON.stringify({ ...header, size: payload.length }));
  const size = Buffer.alloc(4);
  size.writeUInt32BE(head.length);
  control.write(Buffer.concat([size, head]));
  control.write(payload);
}

function open({ url, ca, offer }) {
  const options = { perMessageDeflate: offer, maxPayload: 0 };
  if (ca) options.ca = fs.readFileSync(ca);
  ws = new WebSocket(url, options);
  ws.on('upgrade', (response) => {
    extensions = response.headers['sec-websocket-extensions'] || '';
  });
  ws.on('open', () => tell({ event: 'open', extensions }));
  ws.on('message', (data, isBinary) => tell({ event: 'message', text: !isBinary }, data));
  ws.on('pong', (data) => tell({ event: 'pong' }, data));
  ws.on('close', (code, reason) => tell({ event: 'close', code }, reason));
  ws.on('error', (error) => tell({ event: 'error', text: String(error.stack) }));
}

function obey(header, payload) {
  if (header.do === 'open') {
    open(header);
  } else if (header.do === 'send') {
    // A string and a Buffer are sent in different ways by `ws`; as text it is the string that users send.
    const whole = header.text && header.fin && header.first;
    ws.send(whole ? payload.toString() : payload, { binary: !header.text, fin: header.fin, compress: true });
  } else if (header.do === 'ping') {
    ws.ping(payload);
  } else if (header.do === 'close') {
    ws.close(header.code, payload.toString());
  }
}

// Pieces are joined only where a whole order is there, or 16 MiB would be copied once for each of them.
let pieces = [];
let received = 0;
let wanted = 4;

control.on('data', (piece) => {
  pieces.push(piece);
  received += piece.length;
  while (received >= wanted) {
    const data = Buffer.concat(pieces);
    pieces = [data];
    const headEnd = 4 + data.readUInt32BE();
    wanted = headEnd;
    if (received < wanted) continue;
    const header = JSON.parse(data.subarray(4, headEnd));
    wanted += header.size;
    if (received < wanted) continue;
    obey(header, data.subarray(headEnd, wanted));
    pieces = [data.subarray(wanted)];
    received -= wanted;
    wanted = 4;
  }
});
// The test has ended, in whatever way.
control.on('close', () => process.exit(0));
control.on('error', () => process.exit(1));
