"""Facts from a text that somebody pasted: a traceback, a log, a screen of nvidia-smi, the output of collect_env.

One small parser for each thing that people paste; what a text does not tell stays ``Unknown``. Nothing in a text is ever run,
opened or looked up.
"""

from __future__ import annotations

from gpudoctor import symptoms
from gpudoctor.facts import Complaint, Facts
from gpudoctor.pasted import cards, environment, excerpt, names, place, smi, tools


def read(text: str, source: str, *, cut: bool = False) -> Facts:
    """The facts that ``text`` tells. ``source`` is what they are quoted from; ``cut`` says that the text is not whole."""
    found = symptoms.read(text, source, pasted=True)
    described = environment.read(text)
    screen = smi.read(text)
    text = excerpt.of(text)
    torch = environment.torch(described, text)
    return Facts(
        system=place.system(text, described, found),
        nvml=cards.nvml(screen, described, text),
        nvidia_smi=screen.banner,
        toolkits=tools.toolkits(described, text),
        build_tools=tools.build_tools(described, text),
        libraries=environment.libraries(described),
        interpreter=place.interpreter(text, described),
        torch=torch,
        companions=environment.companions(described, text),
        variables=place.variables(text),
        complaint=Complaint(source, found, names.read(text), cut=cut),
    )
