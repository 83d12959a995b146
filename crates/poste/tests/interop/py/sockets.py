"""sockets.py WAY unix|seqpacket|dgram PATH, or tcp|udp HOST PORT, or inherited.

WAY is send or receive (one side of a transfer); serve (one question, answered in capitals); ask;
greet (receive, slowly, after a greeting that nobody asked for)."""

import os
import socket
import sys
import time

KINDS = {
    "unix": (socket.AF_UNIX, socket.SOCK_STREAM),
    "seqpacket": (socket.AF_UNIX, socket.SOCK_SEQPACKET),
    "dgram": (socket.AF_UNIX, socket.SOCK_DGRAM),
    "tcp": (socket.AF_INET, socket.SOCK_STREAM),
    "udp": (socket.AF_INET, socket.SOCK_DGRAM),
}
way, kind, *place = sys.argv[1:]
is_stream = kind in ("unix", "tcp", "inherited")
address = (place[0], int(place[1])) if len(place) == 2 else "".join(place)
if kind == "inherited":
    channel = socket.socket(fileno=1 if way == "send" else 0)
else:
    channel = socket.socket(*KINDS[kind])
    if way in ("send", "ask"):
        channel.connect(address)
    else:
        channel.bind(address)
        if kind in ("unix", "seqpacket", "tcp"):
            channel.listen()
            channel, _ = channel.accept()

output = sys.stdout.buffer
if way == "send":
    body = sys.stdin.buffer.read()
    # sendall of nothing would send nothing, also where an empty message is one.
    channel.sendall(body) if is_stream else channel.send(body)
elif way == "greet":
    channel.sendall(b"220 welcome\r\n")
    time.sleep(0.3)
    while piece := channel.recv(65536):
        output.write(piece)
        time.sleep(0.001)
elif way == "receive":
    output.write(channel.recv(65536))
    while is_stream and (piece := channel.recv(65536)):
        output.write(piece)
elif way == "serve":
    question, client = channel.recvfrom(65536)
    # On a connection nobody is named.
    channel.sendto(question.upper(), client) if client else channel.sendall(question.upper())
elif way == "ask":
    if kind == "dgram":
        channel.bind(f"{address}.{os.getpid()}")
    channel.sendall(sys.stdin.buffer.read())
    output.write(channel.recv(65536))
    if kind == "dgram":
        os.unlink(channel.getsockname())
