"""A push message as only the subscriber's browser can read it.

    salt 16 | record size 4 | length of the key 1 | the sender's public key of this message 65 | ciphertext and tag

One record of AES-128-GCM. Source: RFC 8291 (message encryption for web push), RFC 8188 (aes128gcm), RFC 5869 (HKDF).
"""

from __future__ import annotations

import os
import struct

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from streams.push.keys import CURVE, from_text, point

#: Push services must take so much (RFC 8030, 7.2).
MOST_BYTES = 4_096
SALT_BYTES, AUTH_BYTES, POINT_BYTES = 16, 16, 65
#: The header, the delimiter of the last record, and the tag.
OVERHEAD = SALT_BYTES + 4 + 1 + POINT_BYTES + 1 + 16
MOST_PLAIN = MOST_BYTES - OVERHEAD
_LAST = b"\x02"


def receiver(p256dh: str, auth: str) -> tuple[ec.EllipticCurvePublicKey, bytes]:
    """A subscription's keys.

    Raises:
        ValueError: they are none; a point that is not on the curve among them.
    """
    secret, raw = from_text(auth), from_text(p256dh)
    if len(secret) != AUTH_BYTES or len(raw) != POINT_BYTES:
        raise ValueError("keys.p256dh is base64url of 65 bytes, keys.auth of 16, as PushSubscription.toJSON() has them")
    return ec.EllipticCurvePublicKey.from_encoded_point(CURVE, raw), secret


def encrypted(plain: bytes, p256dh: str, auth: str, salt: bytes = b"",
              sender: ec.EllipticCurvePrivateKey | None = None) -> bytes:
    """The body of the request; at most 4,096 bytes. `salt` and `sender` are random unless they are given.

    Raises:
        ValueError: the subscription's keys are none, or the message is longer than MOST_PLAIN.
    """
    if len(plain) > MOST_PLAIN:
        raise ValueError(f"a push message has at most {MOST_PLAIN} bytes, this one {len(plain)}")
    theirs, secret = receiver(p256dh, auth)
    salt, sender = salt or os.urandom(SALT_BYTES), sender or ec.generate_private_key(CURVE)
    ours = point(sender.public_key())
    shared = _derived(sender.exchange(ec.ECDH(), theirs), secret, b"WebPush: info\0" + point(theirs) + ours, 32)
    key = _derived(shared, salt, b"Content-Encoding: aes128gcm\0", 16)
    nonce = _derived(shared, salt, b"Content-Encoding: nonce\0", 12)
    head = salt + struct.pack("!IB", MOST_BYTES, len(ours)) + ours
    return head + AESGCM(key).encrypt(nonce, plain + _LAST, None)


def _derived(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(hashes.SHA256(), length, salt, info).derive(secret)
