"""`geventwebsocket.protocols`. WAMP 1, which gevent-websocket has besides, is not here."""
