"""autobahn on Twisted."""

from __future__ import annotations

import arguments
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateOfferAccept
from twisted.internet import reactor

options = arguments.read(__doc__)
room = set()


def on_connect(self, request):
    self.broadcasting = request.path == "/broadcast"


def on_open(self):
    if self.broadcasting:
        room.add(self)


def on_message(self, payload, binary):
    if self.broadcasting:
        prepared = factory.prepareMessage(payload, binary)
        for receiver in room:
            receiver.sendPreparedMessage(prepared)
    else:
        self.sendMessage(payload, binary)


def on_close(self, *args):
    room.discard(self)


def accept(offers):
    """Accept the first offer of permessage-deflate."""
    return next(
        (PerMessageDeflateOfferAccept(o) for o in offers if isinstance(o, PerMessageDeflateOffer)), None
    )


methods = {"onConnect": on_connect, "onOpen": on_open, "onMessage": on_message, "onClose": on_close}
factory = WebSocketServerFactory()
factory.protocol = type("Echo", (WebSocketServerProtocol,), methods)
factory.setProtocolOptions(tcpNoDelay=True)
if options.compress:
    factory.setProtocolOptions(perMessageCompressionAccept=accept)
reactor.listenTCP(options.port, factory, backlog=4096, interface="127.0.0.1")
reactor.run()
