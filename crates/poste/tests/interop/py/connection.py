"""connection.py WAY PATH, or HOST PORT: multiprocessing.connection, one message.

WAY is send or receive (one side of a transfer); serve (one question, answered in capitals); ask."""

import sys
from multiprocessing.connection import Client, Listener

way, *place = sys.argv[1:]
address = (place[0], int(place[1])) if len(place) == 2 else place[0]
if way in ("send", "ask"):
    with Client(address) as connection:
        connection.send_bytes(sys.stdin.buffer.read())
        if way == "ask":
            sys.stdout.buffer.write(connection.recv_bytes())
else:
    with Listener(address) as listener, listener.accept() as connection:
        body = connection.recv_bytes()
        if way == "serve":
            connection.send_bytes(body.upper())
        else:
            sys.stdout.buffer.write(body)
