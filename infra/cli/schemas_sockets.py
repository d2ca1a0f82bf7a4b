"""The AsyncAPI 3.0 document of the gateway's WebSockets, from `schemas.sockets`."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from schemas.sockets import ON_ALERTS, ON_ANOMALIES, ON_WINDOWS

SOCKETS = {"alerts": ON_ALERTS, "anomalies": ON_ANOMALIES, "windows": ON_WINDOWS}
_QUERY = {
    "environment": "Only this environment", "model": "Only this model",
    "version": "Only this version", "component": "Only this component",
    "granularity_ms": "Only windows of this size, in milliseconds",
    "severity": "At least: info, warning or critical; for alerts",
    "last_id": "Resume after this id; 0: everything that is kept; absent: only what comes from now on",
    "silenced": "true: also alerts that fall under a silence",
    "leads": "true: of open incidents of one cause, only the first",
    "overflow": "What becomes of a socket that does not keep up: resume (it reads on from the stream), gap (it is told "
                "what it missed), close",
    "token": "The token, where neither a header nor a subprotocol can be set"}
_CLOSES = ("Close codes: 4401, the token has expired or was withdrawn; 1008, the client talks; 1009, its frame is too "
           "large; 1011, no answer to a ping; 1012, the gateway stops. Refusals before the handshake are HTTP answers "
           "{code, message}: 400, 401, 403 (scope, environment, origin), 429 (too many sockets of the token).")


def asyncapi() -> dict[str, Any]:
    """The document."""
    models = list(dict.fromkeys(model for said in SOCKETS.values() for model in said))
    names, defs = models_json_schema([(model, "serialization") for model in models],
                                     ref_template="#/components/schemas/{model}")
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Streamgauge gateway", "version": "1", "license": {"name": "Apache-2.0"},
                 "description": "Alerts, anomalies and windows, live. permessage-deflate is agreed without context "
                                f"takeover. {_CLOSES}"},
        "defaultContentType": "application/json",
        "servers": {"gateway": {"host": "127.0.0.1:8700", "protocol": "ws", "security": [
            {"type": "http", "scheme": "bearer", "description": "Or the subprotocol bearer.TOKEN, or ?token="}]}},
        "channels": {name: _channel(name, said) for name, said in SOCKETS.items()},
        "operations": {f"send.{name}": {
            "action": "send", "channel": {"$ref": f"#/channels/{name}"},
            "messages": [{"$ref": f"#/channels/{name}/messages/{model.__name__}"} for model in said]}
            for name, said in SOCKETS.items()},
        "components": {
            "messages": {model.__name__: {
                "name": model.__name__, "summary": (model.__doc__ or "").strip().splitlines()[0],
                "payload": {"$ref": names[(model, "serialization")]["$ref"]}} for model in models},
            "schemas": defs["$defs"]},
    }


def _channel(name: str, said: tuple[type[BaseModel], ...]) -> dict[str, Any]:
    return {"address": f"/ws/{name}", "messages": {
        model.__name__: {"$ref": f"#/components/messages/{model.__name__}"} for model in said},
        "bindings": {"ws": {"bindingVersion": "0.1.0", "method": "GET", "query": {
            "type": "object", "properties": {key: {"type": "string", "description": text}
                                             for key, text in _QUERY.items()}}}}}
