"""The standard: bytes in, messages and bytes out. No gevent, no socket, no clock."""
