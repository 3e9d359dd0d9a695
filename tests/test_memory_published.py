"""What is counted, against what others measured and published: the claims of docs/memory-published.md."""

from __future__ import annotations

import pytest

from tests.vram.published import AFTER_THE_LAST, Row, left_in_blocks, mean, rows
from tests.vram.table import PAGE, hard, misses, written

PEAKS = "hf-transformers-4.46"


def in_bf16(*runtimes: str) -> list[Row]:
    return [row for row in rows() if row.runtime in runtimes and row.numbers == "bf16" and row.kind == "total" and row.fits]


def test_each_row_has_a_source_and_a_model_and_numbers_that_we_know() -> None:
    assert len(rows()) == 184
    for row in rows():
        assert row.source, row.id
        assert row.known.parameters, row.id
        assert row.dtype, row.id


def test_bf16_in_transformers_from_4_45_on_is_met_to_one_percent() -> None:
    assert len(in_bf16(PEAKS, AFTER_THE_LAST)) == 27
    assert mean([row.error for row in in_bf16(PEAKS)]) < 0.005
    assert mean([row.error for row in in_bf16(AFTER_THE_LAST)]) < 0.0032
    assert max(abs(row.error) for row in in_bf16(PEAKS)) < 0.016


def test_the_kv_cache_is_met_to_a_thousandth() -> None:
    errors = [row.error for row in rows() if row.kind == "kv"]
    assert len(errors) == 4
    assert mean(errors) < 0.001


def test_vllms_weights_in_bf16_are_met_to_the_published_digit() -> None:
    errors = [row.error for row in rows() if row.runtime == "vllm" and row.kind == "weights" and row.numbers == "bf16"]
    assert len(errors) == 3
    assert max(map(abs, errors)) < 0.0002


@pytest.mark.parametrize("row", [row for row in rows() if not row.fits], ids=lambda row: row.id)
def test_what_was_out_of_memory_is_called_no(row: Row) -> None:
    assert row.verdict == "no"


def test_nothing_that_ran_is_called_no() -> None:
    ran = [row for row in rows() if row.fits and row.verdict is not None]
    assert len(ran) == 161
    assert [row.id for row in ran if row.verdict == "no"] == []


def test_the_rows_of_4_51_are_not_the_peak() -> None:
    """Longer prompts differ by their cache alone, and a peak would hold what passes through the layers too."""
    long = {row.prompt: row for row in in_bf16(AFTER_THE_LAST) if row.model == "qwen3-32b"}
    for shorter, longer in ((6144, 14336), (14336, 30720)):
        cache = (long[longer].need().kv_cache - long[shorter].need().kv_cache) / 2**30
        assert long[longer].gib - long[shorter].gib == pytest.approx(cache, abs=0.002)
        assert long[longer].peak - long[shorter].peak > cache + 1
    assert mean([row.peak / row.gib - 1 for row in in_bf16(AFTER_THE_LAST)]) == pytest.approx(0.0575, abs=0.0005)
    assert all(row.peak > row.gib for row in in_bf16(AFTER_THE_LAST))


def test_most_of_what_is_missing_in_4_46_is_left_in_the_allocators_blocks() -> None:
    with_rests = [(row.counted + left_in_blocks(row)) / row.gib - 1 for row in in_bf16(PEAKS)]
    assert mean(with_rests) == pytest.approx(0.0023, abs=0.0001)


def test_old_releases_are_met_by_what_their_code_held() -> None:
    assert mean([row.error for row in in_bf16("hf-transformers-4.38")]) < 0.001


def test_hard_verdicts() -> None:
    """Within 5 % of the card: one wrong yes, of a run whose release and measure nobody tells, and no wrong no."""
    cases = hard()
    assert len(cases) == 53
    assert [case.row.id for case in cases if case.wrong == "wrong yes"] == ["gt0379"]
    assert [case.row.id for case in cases if case.wrong == "wrong no"] == []
    assert {case.row.runtime.partition("-")[0] for case in cases} == {"hf", "llama.cpp", "meta", "vllm"}


def test_every_miss_is_explained_or_owned_up_to() -> None:
    assert [line for line in misses() if line.endswith("| not known |")] == []


def test_the_page_holds_what_the_script_writes() -> None:
    page = PAGE.read_text("utf-8")
    assert written(page) == page
