"""The install pages keep their promises: complete, safe to paste, and true to docs/pages-format.md."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gpudoctor import steps
from gpudoctor.fill import VARIABLE, fill
from gpudoctor.findings import Fix
from gpudoctor.steps import Section

INSTALL = Path(__file__).parent.parent / "install"
DEFAULT = steps.DEFAULT_RELEASE
FIELDS = ("when", "where", "risk", "do", "verify", "undo", "source")
SECTIONS = [
    pytest.param(release, section, id=f"{release}/{section.page}#{section.name}")
    for release in steps.releases()
    for page in steps.pages(release)
    for section in steps.sections(release, page)
]
PAGES = [pytest.param(release, page, id=f"{release}/{page}") for release in steps.releases() for page in steps.pages(release)]
READMES = sorted(INSTALL.glob("*/README.md"))
EXPECTED = {
    "driver", "secure-boot", "nouveau", "kernel-modules", "cuda-toolkit", "cudnn", "nccl", "pytorch",
    "container-toolkit", "fabric-manager", "wsl", "hardware", "memory", "smoke", "launch", "gpudoctor", "packages",
}  # fmt: skip
every_section = pytest.mark.parametrize(("release", "section"), SECTIONS)
each_section = pytest.mark.parametrize("section", [pytest.param(param.values[1], id=param.id) for param in SECTIONS])
# SC2016: "$(ARCH)" and dpkg's "${Package}" are meant literally. SC2009: pgrep does not know a process's state.
SHELLCHECK = (str(Path(sys.executable).parent / "shellcheck"), "-s", "bash", "-e", "SC2016,SC2009", "-")


def commands(section: Section) -> list[str]:
    return [line for lines in section.code.values() for line in lines]


def raw(release: str, page: str) -> str:
    return (INSTALL / release / f"{page}.md").read_text(encoding="utf-8")


def blocks(release: str, section: Section) -> list[str]:
    """The section's sh blocks as they stand, comments included."""
    text = raw(release, section.page).partition(f"\n## {section.name}\n")[2].partition("\n## ")[0]
    return re.findall(r"^ *```sh\n(.*?)^ *```$", text, flags=re.DOTALL | re.MULTILINE)


def filled(line: str, section: Section) -> list[str]:
    """The words of a line with stand-ins for its values."""
    return shlex.split(fill(line, dict.fromkeys((*steps.wanted(section), *steps._DERIVED_FROM), "value")))


def test_all_pages_are_there() -> None:
    assert set(steps.pages()) == EXPECTED
    assert steps.releases() == ("ubuntu-22.04", "ubuntu-24.04")


@each_section
def test_a_section_has_every_field_and_known_words(section: Section) -> None:
    for field in FIELDS:
        assert section.fields.get(field) or section.code.get(field), field
    assert set(section.fields) | set(section.code) <= {*FIELDS, "cures", "elsewhere", "setup", "interpreter"}
    assert section.fields["where"] in steps.WHERE
    assert section.fields["risk"] in steps.RISK
    assert "cures" not in section.fields or section.cures


@each_section
def test_what_setup_may_run_is_whole_and_disturbs_nobody(section: Section) -> None:
    """A shell of its own runs each line: what only a person's own shell can do, or only shows something, is left to them."""
    allowed = section.fields.get("setup", "")
    assert re.fullmatch(r"|runs|asks: .+", allowed)
    if allowed:
        assert section.code.get("do")
        assert not any(re.match(r"(export|unset)\b", line) for line in section.code["do"])
        assert section.fields["where"] in {"machine", "environment"}
    if allowed == "runs":
        assert section.fields["risk"] in {"none", "reboots"}
        assert not any(re.search(r"\b(purge|remove|kill|rmmod)\b", line) for line in section.code["do"])


@pytest.mark.parametrize(("release", "page"), PAGES)
def test_section_names_are_unique_and_fit_for_a_link(release: str, page: str) -> None:
    names = [section.name for section in steps.sections(release, page)]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in names)
    assert len(names) == len(re.findall(r"^## ", raw(release, page), flags=re.MULTILINE))


@every_section
def test_bash_and_shellcheck_accept_every_block(release: str, section: Section) -> None:
    for block in blocks(release, section):
        script = "".join(line.removeprefix("  ") for line in block.splitlines(keepends=True))
        parsed = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, timeout=20, check=False)
        assert parsed.returncode == 0, parsed.stderr
        checked = subprocess.run(SHELLCHECK, input=script, capture_output=True, text=True, timeout=20, check=False)
        assert checked.returncode == 0, checked.stdout


@every_section
def test_every_block_is_read_and_no_other_fence_is_left_open(release: str, section: Section) -> None:
    lines = [line for block in blocks(release, section) for line in block.splitlines()]
    expected = [line[2:].rstrip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not any(line.endswith("\\") for line in expected):
        assert sorted(commands(section)) == sorted(expected)


@every_section
def test_values_are_documented_on_the_page_and_double_quoted(release: str, section: Section) -> None:
    table = set(re.findall(r"^\| `\$([A-Z_]+)` \|", raw(release, section.page), flags=re.MULTILINE))
    for line in commands(section):
        for name in VARIABLE.findall(line):
            if fill(line, {name.strip("${}"): "x"}) == line:
                continue  # after a backslash or in single quotes: the shell leaves it alone too
            assert name.strip("${}") in table, f"{name} in: {line}"
            bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", line)
            assert name not in bare, f"{name} stands outside double quotes in: {line}"


@every_section
def test_a_value_given_fills_every_command(release: str, section: Section) -> None:
    wanted = steps.wanted(section)
    fix = Fix(f"{section.page}#{section.name}", tuple((name, "a value's $(id)") for name in wanted))
    step = steps.resolve(fix, release)
    assert step.where in steps.WHERE
    left = [line for line in (*step.commands, *step.verify) for name in wanted if f'"${name}' in line]
    assert not left


@each_section
def test_removals_name_exact_packages_and_are_simulated_first(section: Section) -> None:
    seen: list[str] = []
    for line in (*section.code.get("do", ()), *section.code.get("undo", ())):
        words = filled(line, section)
        verb = next((word for word in words if word in {"remove", "purge", "autoremove"}), None)
        if verb is None or not {"apt", "apt-get"} & set(words):
            seen.append(line)
            continue
        names = words[words.index(verb) + 1 :]
        assert not any(re.search(r"[*?^\[]", name) for name in names), line
        if "-s" not in words:
            simulated = line.removeprefix("sudo ").replace("apt-get ", "apt-get -s ")
            assert simulated in seen, f"not simulated before: {line}"
            assert section.fields["risk"] == "removes" or line in section.code.get("undo", ())
        seen.append(line)


@each_section
def test_nothing_dangerous_is_offered(section: Section) -> None:
    text = re.sub(r"\$\([^()]*\)", "", "\n".join(commands(section)))
    for pattern in (
        r"\b(curl|wget)\b[^\n]*\|",
        r"--allow-unauthenticated",
        r"--force-yes",
        r"\bapt-key\b",
        r"\[trusted=yes\]",
        r"--break-system-packages",
        r"\bkill(all)? +-(9|KILL)\b",
        r"\bpkill\b",
        r"\brm +-[a-zA-Z]*r",
        r"apt(-get)? [^\n]*(-y\b|--yes\b)",
        r"pci=noacpi",
    ):
        assert not re.search(pattern, text), pattern


@each_section
def test_a_key_of_another_fingerprint_ends_the_section(section: Section, tmp_path: Path) -> None:
    prose = re.sub(r"\s", "", section.fields["do"])
    for line in section.code.get("do", ()):
        if "gpg --show-keys" not in line:
            continue
        expected = re.findall(r"[0-9A-F]{40}", line)
        assert len(expected) == 1
        assert expected[0] in prose
        judge = line.partition("--with-colons")[2].partition("|")[2]
        for found, verdict in (
            (expected, 0),
            (["0" * 40], 1),
            ([], 1),
            ([expected[0], "0" * 40], 1),
        ):
            colons = "".join(
                f"pub:-:4096:1:0::::::::::\nfpr:::::::::{key}:\nsub:-:4096:1:0::::::\nfpr:::::::::{'1' * 40}:\n" for key in found
            )
            done = subprocess.run(
                ["bash", "-c", judge], input=colons, capture_output=True, text=True, timeout=20, check=False, cwd=tmp_path
            )
            assert done.returncode == verdict, found
            assert done.stdout.split() == found


@each_section
def test_sudo_begins_a_command(section: Section) -> None:
    for line in commands(section):
        assert not re.search(r"\bxargs\b[^|;&]*\bsudo\b|-exec(dir)? sudo\b", line), line


@each_section
def test_looking_for_what_may_not_be_there_does_not_end_a_section(section: Section) -> None:
    for line in section.code.get("do", ()):
        if re.search(r"\| (grep|head)\b", line) and not re.search(r"\btee\b|> ~", line):  # an empty list of packages is an end
            assert line.endswith("|| true"), line


@each_section
def test_a_reboot_is_the_last_command_and_is_announced(section: Section) -> None:
    lines = section.code.get("do", ())
    for number, line in enumerate(lines):
        if re.search(r"\b(reboot|shutdown|poweroff)\b", line):
            assert line == "sudo reboot"
            assert number == len(lines) - 1
            assert section.fields["risk"] in {"reboots", "removes"}
    assert not any("reboot" in line for line in section.code.get("verify", ()))


@each_section
def test_a_place_without_a_kernel_of_its_own_gets_no_kernel_commands(section: Section) -> None:
    if section.fields["where"] not in {"environment", "image", "windows", "code"} and section.page != "wsl":
        return
    for line in section.code.get("do", ()):
        assert not re.search(r"(^|\bsudo )(modprobe|rmmod|dkms|mokutil|update-initramfs|reboot)\b", line), line


@each_section
def test_lines_stand_alone(section: Section) -> None:
    for line in commands(section):
        assert not re.match(r"(cd|if|for|while|function|set|source|\.)\b", line), line
        assert "<<" not in line
        assert not line.endswith("\\")


@each_section
def test_no_version_of_a_driver_cuda_or_pytorch_is_written_down(section: Section) -> None:
    text = "\n".join(commands(section)).replace("cuda-keyring_1.1-1_all.deb", "")
    assert not re.search(r"torch==\d|cu1[0-9]\d|cuda-\d|nvidia-[a-z-]*\d{3}\b|\bgcc-\d", text)


@each_section
def test_sources_are_addresses_or_say_that_there_is_none(section: Section) -> None:
    source = section.fields["source"]
    assert "https://" in source or re.search(r"experience, not confirmed by a page|this project", source)


def test_the_long_text_of_a_code_stands_once() -> None:
    told: dict[str, str] = {}
    for page in steps.pages():
        for section in steps.sections(DEFAULT, page):
            _, colon, text = section.fields.get("cures", "").partition(":")
            parts = re.findall(r"`([a-z0-9-]+)`: ", text)
            assert set(parts) <= set(section.cures)
            assert not colon or parts or len(section.cures) == 1, f"{page}#{section.name}: which code is told?"
            for code in (parts or section.cures) if colon else ():
                assert code not in told, f"{code} is told in {told[code]} and {page}#{section.name}"
                told[code] = f"{page}#{section.name}"
    cured = {code for page in steps.pages() for section in steps.sections(DEFAULT, page) for code in section.cures}
    assert cured == set(told)


def test_each_told_code_has_words_of_its_own() -> None:
    codes = {code for page in steps.pages() for section in steps.sections(DEFAULT, page) for code in section.cures}
    texts = [steps.about(code) for code in codes]
    assert all(text and len(text) > 60 for text in texts)
    assert len(set(texts)) == len(texts)


def test_other_releases_have_only_sections_of_the_default_one() -> None:
    for release in steps.releases():
        for page in steps.pages(release):
            names = {section.name for section in steps.sections(DEFAULT, page)}
            for section in steps.sections(release, page):
                assert section.name in names
                told = ":" in section.fields.get("cures", "")
                assert release == DEFAULT or not told, "the long text stands in the default release"


@pytest.mark.parametrize("release", steps.releases())
def test_a_release_names_only_its_own_repository(release: str) -> None:
    own = release.replace("-", "").replace(".", "")
    for path in (INSTALL / release).glob("*.md"):
        if path.name != "README.md":
            assert set(re.findall(r"repos/(ubuntu\d{4})", path.read_text(encoding="utf-8"))) <= {own}


def anchors(path: Path) -> set[str]:
    return {line[3:].strip() for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("## ")}


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_links_of_a_readme_lead_somewhere(readme: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", readme.read_text(encoding="utf-8"))
    assert links
    for link in links:
        name, _, anchor = link.partition("#")
        target = (readme.parent / name).resolve()
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


def test_sections_named_in_prose_exist() -> None:
    for path in INSTALL.glob("*/*.md"):
        for page, name in re.findall(r"\b([a-z-]+)#([a-z0-9-]+)", path.read_text(encoding="utf-8")):
            if page in EXPECTED:
                assert steps.find(f"{page}#{name}")


def test_a_section_that_cures_nothing_is_named_by_the_readme() -> None:
    readme = (INSTALL / DEFAULT / "README.md").read_text(encoding="utf-8")
    for page in steps.pages():
        for section in steps.sections(DEFAULT, page):
            if not section.cures:
                assert f"{page}.md#{section.name}" in readme
