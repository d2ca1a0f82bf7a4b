"""The written contracts: kept current, true to what is decoded, and whole."""

from __future__ import annotations

import json
import re
from pathlib import Path

from support import ROOT
from typer.testing import CliRunner

from infra.cli import schemas
from infra.cli.main import app
from streams.topics import TOPICS

GOLDEN = ROOT / "tests" / "golden" / "schemas"


def test_the_kept_documents_are_current() -> None:
    assert schemas.differing(GOLDEN) == [], "run `streamgauge schemas tests/golden/schemas` and look at the difference"


def test_every_topic_has_a_file_and_a_channel() -> None:
    found = schemas.documents()
    asyncapi = json.loads(found[schemas.ASYNCAPI])
    names = {row.name for row in TOPICS}
    assert set(found) == {f"{name}.schema.json" for name in names} | {schemas.ASYNCAPI, schemas.GATEWAY}
    assert set(asyncapi["channels"]) == names
    assert {operation["channel"]["$ref"].rsplit("/")[-1] for operation in asyncapi["operations"].values()} == names
    assert asyncapi["operations"]["receive.telemetry"]["action"] == "receive"


def test_every_reference_leads_somewhere() -> None:
    for name, text in schemas.documents().items():
        document = json.loads(text)
        for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', text)):
            inner = document
            for part in reference.split("/"):
                assert part in inner, f"{name}: {reference}"
                inner = inner[part]


def test_a_telemetry_record_may_be_an_event_or_an_array() -> None:
    document = json.loads(schemas.documents()["telemetry.schema.json"])
    one, many = document["oneOf"]
    assert many["items"] == one
    assert set(document["$defs"]["TelemetryEvent"]["required"]) >= {"event_id", "ts", "environment", "model", "version"}


def test_check_passes_on_what_was_written_and_names_what_differs(tmp_path: Path) -> None:
    run = CliRunner()
    assert run.invoke(app, ["schemas", str(tmp_path)]).exit_code == 0
    assert run.invoke(app, ["schemas", "--check", str(tmp_path)]).exit_code == 0
    (tmp_path / "alerts.schema.json").write_text("{}")
    (tmp_path / "gone.schema.json").write_text("{}")
    (tmp_path / "metrics.schema.json").unlink()
    failed = run.invoke(app, ["schemas", "--check", str(tmp_path)])
    assert failed.exit_code == 1
    for name in ("alerts", "gone", "metrics"):
        assert f"{name}.schema.json" in failed.output
    assert "feedback" not in failed.output


def test_check_of_a_folder_that_is_not_there_fails(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["schemas", "--check", str(tmp_path / "none")]).exit_code == 1
