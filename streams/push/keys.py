"""The key pair by which push services know this installation, and what is signed with it (VAPID).

Source: RFC 8292 (Voluntary Application Server Identification), RFC 7515 (the signature's form).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from yarl import URL

from streams.kept import kept
from streams.settings import Settings

KEY_FILE = "push-key"
#: A signed claim holds for so long, of at most 24 hours; it is used for half of that.
CLAIM_SECONDS = 12 * 3600
#: Origins whose claims are kept.
MOST_CLAIMS = 256
_SCALAR_BYTES = 32
CURVE = ec.SECP256R1()


class PushKeyError(RuntimeError):
    """STREAMGAUGE_PUSH_KEY, or the file in its place, is no private key of P-256."""

    code = "push_key"
    retriable = False


def to_text(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_text(text: str) -> bytes:
    """The bytes of base64url, padded or not.

    Raises:
        ValueError: it is something else.
    """
    bare = text.rstrip("=")
    return base64.b64decode(bare + "=" * (-len(bare) % 4), altchars=b"-_", validate=True)


def point(key: ec.EllipticCurvePublicKey) -> bytes:
    """A public key as 65 bytes: an uncompressed point."""
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def new_key() -> str:
    """A private key as text: base64url of its 32 bytes, as tools for web push have it."""
    return to_text(ec.generate_private_key(CURVE).private_numbers().private_value.to_bytes(_SCALAR_BYTES, "big"))


class PushKeys:
    """A key pair. `public` is what browsers subscribe with (base64url of 65 bytes)."""

    def __init__(self, private: str, contact: str = "", now_s: Callable[[], float] = time.time) -> None:
        """The keys of a private one.

        Raises:
            PushKeyError: it is none.
        """
        try:
            scalar = from_text(private)
            if len(scalar) != _SCALAR_BYTES:
                raise ValueError(len(scalar))
            self._private = ec.derive_private_key(int.from_bytes(scalar, "big"), CURVE)
        except ValueError:
            raise PushKeyError(f"STREAMGAUGE_PUSH_KEY, or without it the file {KEY_FILE} in the data folder, is not "
                               "base64url of the 32 bytes of a P-256 private key; one way to make it: openssl rand 32 "
                               "| basenc --base64url") from None
        self.public = to_text(point(self._private.public_key()))
        self._secret = scalar
        self._contact = contact
        self._now_s = now_s
        self._claims: dict[str, tuple[float, str]] = {}

    def authorization(self, endpoint: URL) -> str:
        """The header by which the push service knows who sends; signed twice a day for each origin."""
        origin, now = str(endpoint.origin()), self._now_s()
        until, header = self._claims.get(origin, (0.0, ""))
        if not now < until <= now + CLAIM_SECONDS:
            if len(self._claims) >= MOST_CLAIMS:
                self._claims.clear()
            header = f"vapid t={self._signed(origin, int(now) + CLAIM_SECONDS)}, k={self.public}"
            self._claims[origin] = now + CLAIM_SECONDS / 2, header
        return header

    def _signed(self, audience: str, expires_s: int) -> str:
        claims = {"aud": audience, "exp": expires_s} | ({"sub": self._contact} if self._contact else {})
        head = to_text(json.dumps({"typ": "JWT", "alg": "ES256"}).encode())
        said = f"{head}.{to_text(json.dumps(claims).encode())}"
        r, s = decode_dss_signature(self._private.sign(said.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{said}.{to_text(r.to_bytes(_SCALAR_BYTES, 'big') + s.to_bytes(_SCALAR_BYTES, 'big'))}"

    def owner(self, token_digest: str) -> str:
        """How a token is named beside its subscriptions, so that who reads those cannot try passwords on it."""
        return hmac.new(self._secret, token_digest.encode(), hashlib.sha256).hexdigest()


def push_keys(settings: Settings) -> PushKeys:
    """Those of STREAMGAUGE_PUSH_KEY, or of a random key made on the first run and kept in the data folder.

    Raises:
        PushKeyError: what is given is no key.
        OSError: the folder cannot be written.
    """
    given = settings.push_key.get_secret_value().strip()
    return PushKeys(given or kept(settings.data_dir / KEY_FILE, new_key), settings.push_contact)
