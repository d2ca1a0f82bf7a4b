"""For HEALTHCHECK: exit code 0 if /readyz answers 200 on any of the ports given; the reasons on standard output."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request

TIMEOUT_S = 2.5


def main(ports: list[str]) -> int:
    """0 if one of the ports is ready."""
    for port in ports:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{int(port)}/readyz", timeout=TIMEOUT_S) as answer:
                print(answer.read().decode())
                return 0
        except urllib.error.HTTPError as error:
            print(f"port {port}: {error.read().decode()[:500]}")
        except OSError as error:
            print(f"port {port}: {error}")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
