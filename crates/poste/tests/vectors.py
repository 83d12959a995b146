"""Runs the Python of docs/protocol.md against docs/vectors.txt, both named as arguments."""

import re
import sys

page, vectors = (open(path, encoding="utf-8").read() for path in sys.argv[1:])
for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
    exec(block)

count = 0
for record in re.sub("^#.*\n", "", vectors, flags=re.MULTILINE).strip().split("\n\n"):
    fields = dict(line.split(None, 1) for line in record.split("\n"))
    piece = bytes.fromhex(fields["bytes"].strip("-"))
    count += 1
    if "fault" in fields:
        try:
            decode(piece)
        except ValueError as error:
            assert str(error) == fields["fault"], (fields["name"], error)
            continue
        raise AssertionError(fields["name"])
    body = bytes.fromhex(fields["body"].strip("-"))
    blocks = {name: tuple(map(int, fields[name].split())) for name in ("identity", "part", "call") if name in fields}
    if "check" in fields:
        blocks["check"] = (crc32c(body), 0)
        assert blocks["check"][0] == int(fields["check"], 16), fields["name"]
    numbers = int(fields.get("descriptors", 0)), int(fields.get("priority", 0))
    assert encode(body, fields["kind"], *numbers, **blocks) == piece, fields["name"]
    assert decode(piece) == (body, fields["kind"], *numbers, blocks), fields["name"]
print(count, "vectors")
