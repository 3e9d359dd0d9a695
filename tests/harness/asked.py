"""``gpudoctor check`` with a smoke test of another model than the built-in one: ``asked.py ROOT PYTHON OPTIONS``.

``check`` generates with the built-in model only, and ``smoke`` looks at the live machine only. OPTIONS are those of
``planning.plan`` as JSON, and ``silence``: the seconds without a word after which the test has hung.
"""

from __future__ import annotations

import json
import os
import sys

from gpudoctor import looking, planning
from gpudoctor.cli.delivering import exit_code
from gpudoctor.cures import cures
from gpudoctor.diagnose import diagnose
from gpudoctor.probes import worker
from gpudoctor.probes.scope import Request
from gpudoctor.report import document


def main() -> int:
    """Print the document; the exit code of ``check``."""
    root, python, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    worker.SILENCE = options.pop("silence", worker.SILENCE)
    plan = planning.plan(options.pop("ckpt", None), environ=os.environ, **options)
    facts = looking.look(python, root=root, smoke=Request(plan, asked=True))
    diagnosis = diagnose(facts)
    sys.stdout.write(document.render(facts, diagnosis, cures(facts, diagnosis)))
    return exit_code(diagnosis, strict=False)


if __name__ == "__main__":
    sys.exit(main())
