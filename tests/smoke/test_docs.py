"""What docs/generate.md shows runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here; .ci/run installs one for these tests")

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "generate.md"


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    with torch.no_grad():
        exec(compile(example, str(PAGE), "exec"), {})  # noqa: S102 - the page is ours
    lines = capsys.readouterr().out.splitlines()
    assert [len(re.findall(r"-\d+\.\d+", line)) for line in lines] == [8, 8]
