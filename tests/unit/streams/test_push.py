"""Web push: the standard's own example, keys that are kept, and whom a server may be told to call."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest
from aiohttp import ClientConnectorError, ClientSession, InvalidURL, TCPConnector
from hypothesis import given, settings as effort
from hypothesis import strategies as st
from push_world import Browser, b64, claims_of, key_of, public, unb64
from pydantic import ValidationError
from yarl import URL

from streams.push.keys import CLAIM_SECONDS, KEY_FILE, PushKeyError, PushKeys, new_key, push_keys
from streams.push.message import MOST_BYTES, MOST_PLAIN, encrypted, receiver
from streams.push.reach import EndpointError, NotPublicError, PublicResolver, endpoint_url, is_public
from streams.settings import Settings

# RFC 8291, 5 and Appendix A.
PLAIN = b"When I grow up, I want to be a watermelon"
SALT, AUTH = "DGv6ra1nlYgDCS1FRnbzlw", "BTBZMqHH6r4Tts7J_aSIgg"
SENDER = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"
RECEIVER = "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"
P256DH = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
BODY = ("DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru"
        "3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN")


def test_the_example_of_the_standard_comes_out_to_the_byte() -> None:
    assert b64(encrypted(PLAIN, P256DH, AUTH, unb64(SALT), key_of(SENDER))) == BODY
    assert Browser(RECEIVER, AUTH).read(unb64(BODY)) == PLAIN


@effort(max_examples=30, deadline=None)
@given(st.binary(max_size=MOST_PLAIN))
def test_a_browser_reads_what_was_written_and_no_two_bodies_are_alike(plain: bytes) -> None:
    browser = Browser()
    bodies = [encrypted(plain, **browser.keys) for _ in range(2)]
    assert [browser.read(body) for body in bodies] == [plain, plain]
    assert bodies[0][:86] != bodies[1][:86] and len(bodies[0]) <= MOST_BYTES


def test_what_is_too_long_or_for_no_key_is_not_encrypted() -> None:
    keys = Browser().keys
    assert len(encrypted(b"x" * MOST_PLAIN, **keys)) == MOST_BYTES
    with pytest.raises(ValueError, match="at most"):
        encrypted(b"x" * (MOST_PLAIN + 1), **keys)
    off_the_curve = b64(b"\x04" + b"\x01" * 64)
    for p256dh, auth in ((off_the_curve, keys["auth"]), (keys["p256dh"][:-4], keys["auth"]),
                         (keys["p256dh"], "AAAA"), ("?", keys["auth"])):
        with pytest.raises(ValueError):
            receiver(p256dh, auth)


def test_the_key_is_made_once_for_its_owner_only_or_given(tmp_path: Path) -> None:
    made = push_keys(Settings(data_dir=tmp_path / "data"))
    path = tmp_path / "data" / KEY_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert push_keys(Settings(data_dir=tmp_path / "data")).public == made.public
    given_key = new_key()
    found = push_keys(Settings(data_dir=tmp_path, push_key=given_key))
    assert found.public == b64(public(key_of(given_key).public_key())) != made.public
    assert given_key not in repr(Settings(push_key=given_key)) and given_key not in repr(found)


@pytest.mark.parametrize("text", ["x", "A" * 43, b64(b"\xff" * 32), new_key() + "AAAA", "not base64url at all !!"])
def test_what_is_no_key_is_said_without_it(text: str, tmp_path: Path) -> None:
    with pytest.raises(PushKeyError, match="openssl") as said:
        push_keys(Settings(data_dir=tmp_path, push_key=text))
    assert text not in str(said.value)


def test_a_claim_is_for_one_origin_and_signed_anew_before_it_ends() -> None:
    now = [1_000_000.0]
    keys = PushKeys(new_key(), "mailto:ops@streamgauge.example", now_s=lambda: now[0])
    first = keys.authorization(URL("https://push.example/a/b?c"))
    assert first == keys.authorization(URL("https://push.example/other"))
    assert first != keys.authorization(URL("https://push.example:8443/a"))
    now[0] += CLAIM_SECONDS / 2
    assert keys.authorization(URL("https://push.example/a")) != first
    live = PushKeys(new_key(), "mailto:ops@streamgauge.example")
    claims = claims_of(live.authorization(URL("https://push.example/a")), "https://push.example", live.public)
    assert claims["sub"] == "mailto:ops@streamgauge.example"
    silent = PushKeys(new_key())
    assert "sub" not in claims_of(silent.authorization(URL("https://p.example/")), "https://p.example", silent.public)


@pytest.mark.parametrize("contact", ["ops@example.com", "http://x", "mailto:nobody", "javascript:1"])
def test_a_contact_is_an_address(contact: str) -> None:
    with pytest.raises(ValidationError):
        Settings(push_contact=contact)


@pytest.mark.parametrize("text", [
    "http://push.example/x", "https://user@push.example/x", "https://push.example:8443/x", "https://127.0.0.1/x",
    "https://10.0.0.1/x", "https://169.254.169.254/latest", "https://[::1]/", "https://[fe80::1%25eth0]/",
    "https://[::ffff:10.0.0.1]/", "https://[64:ff9b::a00:1]/", "https://0.0.0.0/", "ftp://push.example/",
    "https:///x", "//push.example", "", "https://push.example/\nHost: x", "https://pu sh.example/", "https://[::1/",
    "https://push.example:99999/", "https://push.example/" + "x" * 2_048, "file:///etc/passwd",
    "https://\u30d7.example/"])
def test_an_endpoint_that_is_not_called(text: str) -> None:
    with pytest.raises(EndpointError):
        endpoint_url(text, anywhere=False)


@pytest.mark.parametrize("text", ["https://fcm.googleapis.com/fcm/send/a:b%3Ac", "https://updates.push.example/wpush/v2/g_"
                                  "AA==", "https://8.8.8.8/x", "https://[2606:4700::1111]/x"])
def test_an_endpoint_is_called_as_it_was_given(text: str) -> None:
    assert str(endpoint_url(text, anywhere=False)) == text


def test_addresses_within_addresses_are_judged_by_the_inner_one() -> None:
    assert all(map(is_public, ("1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101")))
    assert not any(map(is_public, (
        "127.0.0.1", "10.1.2.3", "192.168.0.1", "100.64.0.1", "169.254.169.254", "0.0.0.0", "::1", "fe80::1%eth0",
        "fc00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "224.0.0.1", "255.255.255.255", "nothing")))


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f.1"])
async def test_a_name_for_a_private_address_is_not_connected_to(host: str) -> None:
    """However it is written, and whatever listens there."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        async with ClientSession(connector=TCPConnector(resolver=PublicResolver())) as session:
            with pytest.raises((ClientConnectorError, InvalidURL)) as error:
                await session.get(f"http://{host}:{listening.getsockname()[1]}/")
        assert isinstance(error.value, InvalidURL) or isinstance(error.value.os_error, NotPublicError)
        with pytest.raises(BlockingIOError):
            listening.accept()
