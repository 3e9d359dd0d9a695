"""Teaches apt, pip, uv and wget to take everything from a bundle, for one run of setup.

apt gets a configuration, sources and lists of its own in a folder that is gone afterwards, so that the machine's own stay as
they are. Its sources name the bundle's folder, and the machine's own keyrings: apt checks signatures here as it would from the
network. A source whose keyring a section has yet to bring counts from the line on that follows.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from gpudoctor.bundle import fetches, manifest
from gpudoctor.bundle.bench import own_folder, seen_from
from gpudoctor.bundle.manifest import FILES, WHEELS, Archive, Manifest, NotABundle
from gpudoctor.facts import Facts, Interpreter, System
from gpudoctor.probes import child
from gpudoctor.setup import failures
from gpudoctor.setup.plan import Item
from gpudoctor.setup.shell import Served, Shell

_UPDATE_SECONDS = 300.0
_CONFIGURATION = """\
{included}Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{place}/sources.list.d";
Dir::State::lists "{place}/lists";
Dir::Cache "{place}";
Dir::Cache::archives "{place}/archives";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Acquire::Languages "none";
// the lists are here uncompressed, whatever else their makers offer
Acquire::IndexTargets::deb::Packages::CompressionTypes "uncompressed";
APT::Get::Always-Include-Phased-Updates "true";
// everything is read from a folder that may be this user's alone
APT::Sandbox::User "root";
"""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that is whole, below the root of the machine that is installed on."""

    folder: Path
    root: Path
    manifest: Manifest


def misfit(target: manifest.Target, facts: Facts) -> str | None:
    """Why the bundle is not for this machine; None where it fits, or nobody can say."""
    system, python = facts.system, facts.interpreter
    if isinstance(system, System):
        here, there = (
            _words(system.os_id, system.os_version, system.machine),
            _words(target.os_id, target.os_version, target.machine),
        )
        if here != there:
            return f"it was prepared for {there}, and this is {here}"
    if isinstance(python, Interpreter) and target.python is not None and python.tag != target.python:
        return (
            f"its wheels are for {target.python}, and {python.path} is {python.tag}: name the Python that it is for with --python"
        )
    return None


def _words(os_id: str, version: str, machine: str) -> str:
    return f"{os_id} {version} on {machine}"


def lacking(item: Item, bundle: Manifest, facts: Facts) -> str | None:
    """What a section fetches and the bundle does not hold, as a clause; None where it holds all."""
    found = fetches.of(item.step.commands, fetches.kernels(facts))
    beyond = next((fetch.why for _, fetch in found if isinstance(fetch, fetches.Beyond)), None)
    if beyond is not None:
        return beyond
    missing = [word.partition(":")[2] for _, fetch in found for word in fetches.words(fetch) if word not in bundle.holds]
    if not missing:
        return None
    return f"the bundle does not hold {', '.join(missing)}: prepare one from a report that was made on this machine as it is now"


def serve(bundle: Bundle, environ: Mapping[str, str], shell: Shell) -> Served:
    """Set apt up and let it check the archives' signatures. Raises NotABundle. What is set up is gone when we leave."""
    try:
        place = own_folder(bundle.root, "gpudoctor-bundle-")
    except OSError as error:
        raise NotABundle(
            f"{error.filename or bundle.root / 'tmp'}: {error.strerror}, and apt's settings have to go there"
        ) from error
    for name in ("sources.list.d", "later", "lists/partial", "archives/partial"):
        (place / name).mkdir(parents=True)
    inside = seen_from(bundle.root, place)
    given = environ.get("APT_CONFIG")
    included = f'#include "{given}";\n' if given else ""
    (place / "apt.conf").write_text(_CONFIGURATION.format(place=inside, included=included), encoding="utf-8")
    later = _sources(bundle, place)
    served = Served(_variables(bundle, f"{inside}/apt.conf"), _lead(bundle, inside, later))
    if any((place / "sources.list.d").iterdir()):
        _checked_by_apt(bundle, shell, served, environ)
    return served


def _sources(bundle: Bundle, place: Path) -> dict[str, str]:
    """Write a file for each list; those that wait for a keyring, by name, with the keyring."""
    later: dict[str, str] = {}
    folder = seen_from(bundle.root, bundle.folder)
    for number, archive in enumerate(bundle.manifest.archives):
        name = f"{number}.sources"
        keyrings = [key for key in archive.signed_by.split(",") if key.startswith("/")]
        keyring = next((key for key in keyrings if not (bundle.root / key.lstrip("/")).exists()), None)
        waits = keyring is not None
        if waits and not archive.brought:
            raise NotABundle(
                f"{bundle.folder}: its packages are signed with {keyring} of the machine that prepared it, and this one has "
                "no such file. Put it there if you trust it, then run the same command again"
            )
        (place / ("later" if waits else "sources.list.d") / name).write_text(_stanza(archive, folder), encoding="utf-8")
        if keyring is not None:
            later[name] = keyring
    return later


def _stanza(archive: Archive, folder: str) -> str:
    fields = {
        "Types": "deb",
        "URIs": f"file:{quote(f'{folder}/{archive.folder}')}/",
        "Suites": archive.suite,
        "Components": archive.component,
        "Architectures": archive.architecture,
        "Targets": "Packages",
        "Signed-By": archive.signed_by,
        # a bundle is as old as it is, and says so; a machine without a network may not know the time either
        "Check-Valid-Until": "no",
        "Check-Date": "no",
    }
    return "".join(f"{name}: {value}\n" for name, value in fields.items() if value)


def _variables(bundle: Bundle, configuration: str) -> dict[str, str]:
    links = f"file://{quote(str(bundle.folder / WHEELS))}"
    found = {"APT_CONFIG": configuration}
    # an address, for both split what they are given: pip at blanks, uv at commas
    return found | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": links, "UV_OFFLINE": "1", "UV_FIND_LINKS": links.replace(",", "%2C")}


def _lead(bundle: Bundle, place: str, later: Mapping[str, str]) -> str:
    """Shell text before each line: sources whose keyring has come by now, and wget and curl that serve what the bundle holds."""
    lines = [
        f"if [ -e {shlex.quote(keyring)} ] && [ -e {place}/later/{name} ]; then mv {place}/later/{name} {place}/sources.list.d/; fi"
        for name, keyring in later.items()
    ]
    folder = seen_from(bundle.root, bundle.folder / FILES)
    names = [Path(file.path).name for file in bundle.manifest.files if file.path.startswith(f"{FILES}/")]
    cases = "".join(f'    {shlex.quote(name)}) cp {shlex.quote(f"{folder}/{name}")} "$to" ;;\n' for name in names)
    lines.append(
        "_from_bundle() {\n  local to= address=\n  while [ $# -gt 0 ]; do\n    case $1 in\n"
        "      --output-document | --output) to=$2; shift ;;\n      -*) ;;\n      *) address=$1 ;;\n    esac\n    shift\n  done\n"
        f'  case ${{address##*/}} in\n{cases}    *) echo "The bundle does not hold $address" >&2; return 4 ;;\n  esac\n}}\n'
        'wget() { _from_bundle "$@"; }\ncurl() { _from_bundle "$@"; }'
    )
    return "\n".join(lines) + "\n"


def _checked_by_apt(bundle: Bundle, shell: Shell, served: Served, environ: Mapping[str, str]) -> None:
    """apt reads the lists and checks their signatures, before anything is asked or done. Raises NotABundle."""
    asked = Shell(
        shell.root, attended=False, is_root=True, served=served
    )  # it is in a folder of our own: nobody else's right is needed
    answer = child.run(
        asked.command("apt-get update", "machine"), deadline=_UPDATE_SECONDS, env=asked.environment("machine", environ)
    )
    if answer.exit_code == 0:
        return
    output = answer.stdout + answer.stderr
    known = failures.recognised(output)
    says = known.says if known else "apt cannot read its lists."
    seen = next((line for line in output.splitlines() if line.startswith(("E:", "W:"))), "apt-get update failed")
    raise NotABundle(f"{bundle.folder}: {says} Nothing was done; copy the bundle again, or prepare it again. Seen: {seen}")


def located(path: str, root: str) -> Path:
    """The folder of a bundle, which programs below ``root`` have to see; raises NotABundle."""
    folder = Path(path).absolute().resolve()
    if not folder.is_relative_to(Path(root).resolve()):
        raise NotABundle(
            f"--bundle: {path} is not below --root {root}, where its steps run: copy or bind-mount it to a place below {root}"
        )
    return folder


def held(folder: Path, root: str) -> Bundle:
    """The bundle in that folder, which has not been checked yet; raises NotABundle."""
    return Bundle(folder, Path(root).resolve(), manifest.read(folder))
