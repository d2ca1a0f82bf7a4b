"""What starts Apache Kafka, as far as it needs none."""

from __future__ import annotations

from infra.kafka.server import cluster_id


def test_no_cluster_id_reads_as_an_option() -> None:
    found = {cluster_id() for _ in range(2_000)}
    assert len(found) == 2_000
    assert {len(one) for one in found} == {22}
    assert not [one for one in found if one.startswith("-")]
