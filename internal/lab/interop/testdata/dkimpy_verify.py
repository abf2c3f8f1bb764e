"""Verifies each DKIM signature of a message with dkimpy and prints the results.

dkimpy_verify.py KEYS MESSAGE: a line of KEYS is a name and the record there.
"""
import sys

import dkim

keys = {}
with open(sys.argv[1], "rb") as file:
    for line in file:
        name, record = line.strip().split(b" ", 1)
        keys[name + b"."] = record


def look_up(name, timeout=5):
    return keys.get(name.encode() if isinstance(name, str) else name)


with open(sys.argv[2], "rb") as file:
    message = dkim.DKIM(file.read(), minkey=1024)
fields = [name for name, _ in message.headers if name.lower() == b"dkim-signature"]
for i in range(len(fields)):
    try:
        passed = message.verify(idx=i, dnsfunc=look_up)
        print(message.domain.decode(), message.selector.decode(), "pass" if passed else "fail")
    except dkim.DKIMException as problem:
        print("error", problem)
