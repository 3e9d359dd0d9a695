"""The versioned JSON document of one count, ``gpudoctor.fit/1`` (docs/fit.schema.json). All sizes are bytes."""

from __future__ import annotations

import json
from typing import Any

import gpudoctor
from gpudoctor.memory.card import Card
from gpudoctor.memory.count import Count
from gpudoctor.memory.options import Option

SCHEMA = "gpudoctor.fit/1"
PARTS = ("weights", "kv_cache", "activations", "workspace", "context", "total")


def document(count: Count) -> dict[str, Any]:
    """The count as plain data, every key always there: null is what is not known."""
    question, work, card = count.question, count.question.work, count.question.card
    return {
        "schema": SCHEMA,
        "gpudoctor": gpudoctor.__version__,
        "model": question.model.name,
        "format": None if question.model.contents is None else question.model.contents.format,
        "parameters": question.model.parameters,
        "runtime": question.runtime.name,
        "runtime_version": question.version,
        "dtype": question.numbers,
        "work": {
            "batch": work.batch,
            "prompt_tokens": work.prompt,
            "new_tokens": work.new,
            "max_seq_len": work.room,
            "gpus": work.gpus,
        },
        "need": {part: getattr(count.need, part) for part in PARTS},
        "need_least": count.need.least,
        "need_most": count.need.most,
        "gpu": None if card is None else _card(card),
        "free": None if card is None else card.free,
        "verdict": count.verdict,
        "reason": count.why_no_card,
        "options": [_option(option) for option in count.options],
        "host": {
            "memory": count.loading.host.memory,
            "memory_free": count.loading.memory_free,
            "download": count.loading.host.download,
            "disk_free": count.loading.disk_free,
            "why": count.loading.host.why,
        },
        "notes": list(count.notes),
    }


def render(count: Count) -> str:
    """The document as JSON text."""
    return json.dumps(document(count), indent=2, ensure_ascii=True, allow_nan=False) + "\n"


def _card(card: Card) -> dict[str, Any]:
    return {
        "name": card.name,
        "count": card.count,
        "here": card.here,
        "total": card.total,
        "held_by": [
            {"pid": holder.pid, "name": holder.name, "user": holder.user, "kind": holder.kind, "bytes": holder.used}
            for holder in card.holders
        ],
    }


def _option(option: Option) -> dict[str, Any]:
    return {
        "action": option.action,
        "summary": option.summary,
        "need": option.need,
        "fits": option.fits,
        "verdict": option.verdict,
        "commands": list(option.commands),
    }
