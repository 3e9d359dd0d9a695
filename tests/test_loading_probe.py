"""What loading depends on beside the GPU: the target's transformers by its metadata, and room on the disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gpudoctor.facts import Unknown
from gpudoctor.probes import loading
from tests.healthy import INTERPRETER


@pytest.mark.parametrize(
    ("folder", "version"),
    [
        ("transformers-4.38.2.dist-info", "4.38.2"),
        ("transformers-5.24.0.dist-info", "5.24.0"),
        ("transformers-5.0.0rc1.dist-info", "5.0.0rc1"),
        ("transformers_stream_generator-0.0.5.dist-info", None),
        ("sentence_transformers-3.0.0.dist-info", None),
    ],
)
def test_the_version_stands_in_a_folders_name(folder: str, version: str | None, tmp_path: Path) -> None:
    (tmp_path / folder).mkdir()
    target = replace(INTERPRETER, site_packages=("/nonexistent", str(tmp_path)))
    assert loading.transformers_version(target) == version


def test_where_nobody_could_look_there_is_none() -> None:
    assert loading.transformers_version(Unknown("no answer within 10 s")) is None
    assert loading.transformers_version(None) is None


def test_the_disk_is_that_of_the_cache_even_before_there_is_one(tmp_path: Path) -> None:
    found = loading.room_for_models({"HF_HUB_CACHE": str(tmp_path / "not" / "yet")})
    there = loading.room_for_models({"HF_HUB_CACHE": str(tmp_path)})
    assert found is not None
    assert there is not None
    assert abs(found - there) < 1 << 30  # others write meanwhile
