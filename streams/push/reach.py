"""Whom a server may be told to call by somebody it does not trust: https, public addresses, no redirects.

An endpoint is judged when it is given and each time it is called, and a name by what it stands for in that moment: the
connection is made to an address that was judged, so that a name that changes its mind leads nowhere.
"""

from __future__ import annotations

import ipaddress
import re
import socket

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

LONGEST = 2_048
_PLAIN = re.compile(r"[!-~]+")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class EndpointError(ValueError):
    """An endpoint that is not called; the text says why."""


class NotPublicError(OSError):
    """A name that stands for no public address."""


def is_public(address: str) -> bool:
    """True for an address that everybody can reach; one inside another is judged as the inner one."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return found.is_global and not found.is_multicast


def endpoint_url(text: str, anywhere: bool) -> URL:
    """The endpoint, to be called exactly as it was given. `anywhere`: http, any port and address will do.

    Raises:
        EndpointError: it is none, or not to be called.
    """
    if len(text) > LONGEST or not _PLAIN.fullmatch(text):
        raise EndpointError(f"endpoint is a URL of at most {LONGEST:,} characters of ASCII")
    try:
        url = URL(text, encoded=True)
        host, port = url.host or "", url.port
    except ValueError:
        raise EndpointError("endpoint is no URL") from None
    if not host or url.scheme not in ("http", "https") or url.user is not None or url.password is not None:
        raise EndpointError("endpoint is a URL with https and a host, without a user")
    if anywhere:
        return url
    if url.scheme != "https" or port != 443:
        raise EndpointError("endpoint is https, at its usual port")
    if _is_address(host) and not is_public(host):
        raise EndpointError("endpoint is at a private address")
    return url


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


class PublicResolver(AbstractResolver):
    """Resolves names to public addresses only."""

    def __init__(self) -> None:
        self._resolver = aiohttp.ThreadedResolver()

    async def resolve(self, host: str, port: int = 0,
                      family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        found = [one for one in await self._resolver.resolve(host, port, family) if is_public(one["host"])]
        if not found:
            raise NotPublicError(f"{host} has no public address")
        return found

    async def close(self) -> None:
        await self._resolver.close()
