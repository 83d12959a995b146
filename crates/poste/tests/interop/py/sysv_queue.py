"""sysv_queue.py send|receive KEY: one message of type 1."""

import sys

import sysv_ipc

way, key = sys.argv[1:]
queue = sysv_ipc.MessageQueue(int(key, 0), max_message_size=8192)
if way == "send":
    queue.send(sys.stdin.buffer.read(), type=1)
else:
    body, _type = queue.receive(type=1)
    sys.stdout.buffer.write(body)
