"""sockets.py send|receive unix|seqpacket|dgram PATH, or tcp|udp HOST PORT, or inherited."""

import socket
import sys

KINDS = {
    "unix": (socket.AF_UNIX, socket.SOCK_STREAM),
    "seqpacket": (socket.AF_UNIX, socket.SOCK_SEQPACKET),
    "dgram": (socket.AF_UNIX, socket.SOCK_DGRAM),
    "tcp": (socket.AF_INET, socket.SOCK_STREAM),
    "udp": (socket.AF_INET, socket.SOCK_DGRAM),
}
way, kind, *place = sys.argv[1:]
if kind == "inherited":
    channel = socket.socket(fileno=1 if way == "send" else 0)
    is_stream = True
else:
    channel = socket.socket(*KINDS[kind])
    is_stream = kind in ("unix", "tcp")
    address = (place[0], int(place[1])) if len(place) == 2 else place[0]

if way == "send":
    body = sys.stdin.buffer.read()
    if kind != "inherited":
        channel.connect(address)
    if is_stream:
        channel.sendall(body)
    else:
        channel.send(body)
else:
    if kind != "inherited":
        channel.bind(address)
        if kind in ("unix", "seqpacket", "tcp"):
            channel.listen()
            channel, _ = channel.accept()
    while True:
        piece = channel.recv(65536)
        sys.stdout.buffer.write(piece)
        if not is_stream or not piece:
            break
