"""A browser with its keys, and the push service that it subscribes at: a real HTTP server that believes nobody.

It checks who sends (RFC 8292) and reads what a browser would (RFC 8291), by code of its own.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import struct
import time
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

P256 = ec.SECP256R1()


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def key_of(scalar: str) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(unb64(scalar), "big"), P256)


def public(key: Any) -> bytes:
    return bytes(key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))


def hkdf(salt: bytes, secret: bytes, info: bytes, length: int) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=salt, info=info).derive(secret)


class Browser:
    """Holds the keys of a subscription."""

    def __init__(self, scalar: str = "", auth: str = "") -> None:
        self.private = key_of(scalar) if scalar else ec.generate_private_key(P256)
        self.auth = unb64(auth) if auth else os.urandom(16)

    @property
    def keys(self) -> dict[str, str]:
        return {"p256dh": b64(public(self.private.public_key())), "auth": b64(self.auth)}

    def read(self, body: bytes) -> bytes:
        """The message of a body in aes128gcm; raises if it is anything else."""
        salt, (size, length) = body[:16], struct.unpack("!IB", body[16:21])
        sender, sealed = body[21:21 + length], body[21 + length:]
        assert length == 65 and len(sealed) <= size <= 4096
        shared = self.private.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(P256, sender))
        info = b"WebPush: info\x00" + public(self.private.public_key()) + sender
        secret = hkdf(self.auth, shared, info, 32)
        key = hkdf(salt, secret, b"Content-Encoding: aes128gcm\x00", 16)
        nonce = hkdf(salt, secret, b"Content-Encoding: nonce\x00", 12)
        plain = AESGCM(key).decrypt(nonce, sealed, None).rstrip(b"\x00")
        assert plain[-1:] == b"\x02", "the delimiter of the last record"
        return plain[:-1]


def claims_of(header: str, audience: str, subscribed_with: str) -> dict[str, Any]:
    """What a VAPID header claims; raises unless its signature, audience, end and key are right."""
    scheme, _, rest = header.partition(" ")
    parts = dict(part.strip().split("=", 1) for part in rest.split(","))
    assert scheme == "vapid" and parts["k"] == subscribed_with
    head, body, signature = parts["t"].split(".")
    raw = unb64(signature)
    assert len(raw) == 64 and json.loads(unb64(head)) == {"typ": "JWT", "alg": "ES256"}
    whole = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    sender = ec.EllipticCurvePublicKey.from_encoded_point(P256, unb64(parts["k"]))
    sender.verify(whole, f"{head}.{body}".encode(), ec.ECDSA(hashes.SHA256()))
    claims: dict[str, Any] = json.loads(unb64(body))
    assert claims["aud"] == audience and time.time() < claims["exp"] <= time.time() + 24 * 3600
    return claims


class PushService:
    """Keeps what came for each device; answers with the statuses it is given, then with 201."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.url = ""
        self.browsers: dict[str, Browser] = {}
        self.delays_s: dict[str, float] = {}
        self.answers: dict[str, list[tuple[int, dict[str, str]]]] = {}
        self.tries: dict[str, int] = {}
        self.told: dict[str, list[dict[str, Any]]] = {}
        self.headers: list[dict[str, str]] = []
        self.claims: list[dict[str, Any]] = []

    def device(self, name: str, *answers: int | tuple[int, dict[str, str]]) -> dict[str, Any]:
        """A new device; the subscription that its browser gives a page."""
        self.browsers[name] = Browser()
        self.answers[name] = [one if isinstance(one, tuple) else (one, {}) for one in answers]
        return {"endpoint": f"{self.url}/send/{name}", "keys": self.browsers[name].keys}

    def ids(self, name: str) -> list[str]:
        return [message["alert_id"] for message in self.told.get(name, [])]

    async def take(self, request: web.Request) -> web.Response:
        name, body = request.match_info["name"], await request.read()
        self.tries[name] = self.tries.get(name, 0) + 1
        await asyncio.sleep(self.delays_s.get(name, 0.0))
        status, headers = self.answers[name].pop(0) if self.answers[name] else (201, {})
        if status >= 300:
            return web.Response(status=status, headers=headers)
        try:
            self.claims.append(claims_of(request.headers["Authorization"], self.url, self.key))
        except (AssertionError, InvalidSignature, KeyError, ValueError):
            return web.Response(status=403)
        if len(body) > 4096 or request.headers.get("Content-Encoding") != "aes128gcm" or "TTL" not in request.headers:
            return web.Response(status=400)
        self.headers.append(dict(request.headers))
        self.told.setdefault(name, []).append(json.loads(self.browsers[name].read(body)))
        return web.Response(status=status, headers={"Location": f"{self.url}/message/1"})


@contextlib.asynccontextmanager
async def push_service(key: str) -> AsyncIterator[PushService]:
    """One on a free port, for browsers that subscribe with this key."""
    found = PushService(key)
    application = web.Application()
    application.router.add_post("/send/{name}", found.take)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield found
    finally:
        await runner.cleanup()
