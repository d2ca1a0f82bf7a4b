"""The cache of kernels sees changes in every file that a kernel is built from."""

from __future__ import annotations

from streams import compiled as rules
from streams.lean import decoding


def test_a_kernel_s_stamp_covers_the_files_it_calls_into() -> None:
    stamp = decoding.read._cache._cache_file._source_stamp
    assert stamp[0] == rules._shared()
    assert stamp[1] == rules._room(rules.Path(decoding.__file__).parent)


def test_a_changed_file_changes_the_stamp(monkeypatch) -> None:
    before = rules._shared.__wrapped__()
    monkeypatch.setattr(rules, "_digest", lambda path: "changed" if path.name == "number.py" else "same")
    one = rules._shared.__wrapped__()
    monkeypatch.setattr(rules, "_digest", lambda path: "same")
    assert len({before, one, rules._shared.__wrapped__()}) == 3


def test_so_does_a_changed_file_of_the_same_room(monkeypatch, tmp_path) -> None:
    for name in ("caller", "called"):
        (tmp_path / f"{name}.py").write_text("from streams.compiled import bare\n")
    before = rules._room.__wrapped__(tmp_path)
    monkeypatch.setattr(rules, "_digest", lambda path: "changed" if path.name == "called.py" else "same")
    one = rules._room.__wrapped__(tmp_path)
    monkeypatch.setattr(rules, "_digest", lambda path: "same")
    assert len({before, one, rules._room.__wrapped__(tmp_path)}) == 3
