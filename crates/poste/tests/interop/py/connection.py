"""connection.py send|receive|serve PATH, or HOST PORT: multiprocessing.connection, one message.

serve answers the message with itself turned round."""

import sys
from multiprocessing.connection import Client, Listener

way, *place = sys.argv[1:]
address = (place[0], int(place[1])) if len(place) == 2 else place[0]
if way == "send":
    with Client(address) as connection:
        connection.send_bytes(sys.stdin.buffer.read())
else:
    with Listener(address) as listener, listener.accept() as connection:
        body = connection.recv_bytes()
        sys.stdout.buffer.write(body)
        if way == "serve":
            connection.send_bytes(body[::-1])
