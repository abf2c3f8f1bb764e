"""Hands one message to the relay with Python's smtplib.

Reads an order as JSON; writes the content that was sent."""
import base64
import json
import smtplib
import ssl
import sys

order = json.load(sys.stdin)
content = base64.b64decode(order["content"])

context = None
if order["mode"] != "plain":
    context = ssl.create_default_context(cafile=order["ca"])
if order["mode"] == "tls":
    server = smtplib.SMTP_SSL(order["host"], order["port"], "smtplib.example", timeout=60, context=context)
else:
    server = smtplib.SMTP(order["host"], order["port"], "smtplib.example", timeout=60)
with server:
    server.set_debuglevel(1)
    if order["mode"] == "starttls":
        server.starttls(context=context)
    server.ehlo()
    server.user, server.password = order["user"], order["password"]
    mechanism = order["mechanism"]
    server.auth(mechanism, getattr(server, "auth_" + mechanism.lower()))
    options = ["BODY=8BITMIME"] if server.has_extn("8bitmime") else []
    server.sendmail(order["sender"], [order["recipient"]], content, options)
sys.stdout.buffer.write(content)
