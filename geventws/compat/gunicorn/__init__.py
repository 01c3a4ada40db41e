"""`geventwebsocket.gunicorn`."""
