"""Receives mail with aiosmtpd on a loopback port, until standard input ends.

Arguments: files with a certificate and its key for STARTTLS. Writes one JSON
object a line: first the port, then each message."""
import asyncio
import base64
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP


def tell(**what):
    print(json.dumps(what), flush=True)


class Handler:
    async def handle_DATA(self, server, session, envelope):
        tell(
            recipients=envelope.rcpt_tos,
            tls=session.ssl is not None,
            content=base64.b64encode(envelope.original_content).decode(),
        )
        return "250 2.0.0 kept"


async def main(certificate, key):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(Handler(), hostname="aiosmtpd.example", tls_context=context, enable_SMTPUTF8=True, data_size_limit=50 << 20),
        "127.0.0.1",
    )
    tell(port=server.sockets[0].getsockname()[1])
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


asyncio.run(main(*sys.argv[1:]))
