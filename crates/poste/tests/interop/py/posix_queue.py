"""posix_queue.py send|receive NAME: one message."""

import sys

import posix_ipc

way, name = sys.argv[1:]
queue = posix_ipc.MessageQueue(name)
if way == "send":
    queue.send(sys.stdin.buffer.read())
else:
    body, _priority = queue.receive()
    sys.stdout.buffer.write(body)
queue.close()
