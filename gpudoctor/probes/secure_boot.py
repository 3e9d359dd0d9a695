"""Secure Boot and the Machine Owner Keys, from the firmware's variables; mokutil where those cannot be read.

A module's ``sig_key`` (modinfo) is the serial number of the signing certificate for the PKCS#7 signatures that kernels
have used since 4.3, and the subject key identifier in the older form (kmod, libkmod/libkmod-signature.c). So both are
given for every enrolled certificate, and a check compares by membership. Not in these lists: the keys that are built
into the kernel (Canonical's, that of a build); a module from the distribution's own archive is signed with one of them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gpudoctor.facts import Unknown
from gpudoctor.probes.child import NotStarted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpudoctor.probes.scope import Scope

FIRMWARE = "/sys/firmware"
EFIVARS = f"{FIRMWARE}/efi/efivars"
_SECURE_BOOT = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
_SHIM = "605dab50-e046-4300-abb6-3dd810dd8b23"
_DEADLINE = 3.0
_ATTRIBUTES = 4  # efivarfs puts a variable's attributes before its value
_X509 = bytes.fromhex("a159c0a5e494a74a87b5ab155c2bf072")  # EFI_CERT_X509_GUID
_KEY_IDENTIFIER = bytes.fromhex("0603551d0e")  # object identifier 2.5.29.14
_PAIRS = r"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){0,63}"
_SERIAL = re.compile(rf"Serial Number:\s{{0,40}}(?:(?P<pairs>{_PAIRS})\s|\d{{1,24}} \(0x(?P<number>[0-9a-f]{{1,16}})\))")
_IDENTIFIER = re.compile(rf"Subject Key Identifier:[^\n]{{0,20}}\s{{1,40}}(?P<pairs>{_PAIRS})")


def enabled(scope: Scope) -> bool | None | Unknown:
    """Whether Secure Boot is on; None on a machine without EFI."""
    value = scope.data(f"{EFIVARS}/{_SECURE_BOOT}", 16)
    if value is not None and len(value) > _ATTRIBUTES:
        return value[_ATTRIBUTES] == 1
    if _without_efi(scope):
        return None
    text = _mokutil(scope, "--sb-state")
    if isinstance(text, Unknown):
        return text
    if "SecureBoot enabled" in text:
        # validation can be switched off in shim while the firmware's switch stays on
        return "validation is disabled in shim" not in text
    if "SecureBoot disabled" in text:
        return False
    if "not supported" in text or "doesn't support Secure Boot" in text:
        return None
    return Unknown(f"mokutil --sb-state said {text.strip()[:80]!r}")


def pending(scope: Scope) -> bool | Unknown:
    """Whether an enrolment waits for its confirmation at the next boot."""
    value = scope.data(f"{EFIVARS}/MokNew-{_SHIM}", 16)
    if value is not None:
        return len(value) > _ATTRIBUTES
    if scope.names(EFIVARS) or _without_efi(scope):
        return False
    text = _mokutil(scope, "--list-new")
    return text if isinstance(text, Unknown) else "[key" in text


def enrolled(scope: Scope) -> tuple[str, ...] | Unknown:
    """Serial numbers and subject key identifiers of the enrolled certificates, as upper-case hex pairs joined by colons."""
    value = scope.data(f"{EFIVARS}/MokListRT-{_SHIM}", 1 << 20)
    if value is not None and len(value) > _ATTRIBUTES:
        return _unique(name for der in certificates(value[_ATTRIBUTES:]) for name in _names(der))
    if _without_efi(scope):
        return ()
    text = _mokutil(scope, "--list-enrolled")
    if isinstance(text, Unknown):
        return text
    return _unique(fingerprint(match) for pattern in (_SERIAL, _IDENTIFIER) for match in _values(pattern, text))


def fingerprint(text: str) -> str:
    """Hex digits in any writing as upper-case pairs joined by colons, without leading zero bytes (modinfo drops them)."""
    digits = re.sub(r"[^0-9A-Fa-f]", "", text).upper()
    digits = digits.zfill(len(digits) + len(digits) % 2)
    pairs = [digits[at : at + 2] for at in range(0, len(digits), 2)]
    while len(pairs) > 1 and pairs[0] == "00":
        pairs.pop(0)
    return ":".join(pairs)


def certificates(lists: bytes) -> Iterator[bytes]:
    """The X.509 certificates (DER) in a chain of EFI_SIGNATURE_LISTs (UEFI specification, 32.4.1); stops at nonsense."""
    at = 0
    while at + 28 <= len(lists):
        size, header, entry = (int.from_bytes(lists[at + n : at + n + 4], "little") for n in (16, 20, 24))
        if size < 28 + header or at + size > len(lists) or entry <= 16:
            return
        if lists[at : at + 16] == _X509:
            for start in range(at + 28 + header, at + size - entry + 1, entry):
                yield lists[start + 16 : start + entry]
        at += size


def _names(der: bytes) -> Iterator[str]:
    serial = _serial(der)
    if serial:
        yield fingerprint(serial.hex())
    at = der.find(_KEY_IDENTIFIER)
    if at >= 0:  # OCTET STRING in an OCTET STRING: 04 len 04 len value
        inner = der[at + len(_KEY_IDENTIFIER) + 2 : at + len(_KEY_IDENTIFIER) + 68]
        if len(inner) > 2 and inner[0] == 4 and 0 < inner[1] <= len(inner) - 2:
            yield fingerprint(inner[2 : 2 + inner[1]].hex())


def _serial(der: bytes) -> bytes:
    """The first INTEGER of a certificate after its optional version (RFC 5280, 4.1); empty when this is none."""
    rest = _content(_content(der, 0x30), 0x30)
    if rest[:1] == b"\xa0" and len(rest) > 1:
        rest = rest[2 + rest[1] :]
    return _content(rest, 0x02)[:64]


def _content(der: bytes, tag: int) -> bytes:
    if len(der) < 2 or der[0] != tag:
        return b""
    length, start = der[1], 2
    if length & 0x80:
        count = length & 0x7F
        length, start = int.from_bytes(der[2 : 2 + count], "big"), 2 + count
    return der[start : start + length]


def _without_efi(scope: Scope) -> bool:
    """The kernel shows its firmware, and there is no EFI in it; an empty folder is what a container sees."""
    entries = scope.names(FIRMWARE)
    return bool(entries) and "efi" not in entries


def _mokutil(scope: Scope, option: str) -> str | Unknown:
    answers = scope.once("mokutil", lambda: _ask_mokutil(scope))
    return answers if isinstance(answers, Unknown) else answers[option]


def _ask_mokutil(scope: Scope) -> dict[str, str] | Unknown:
    """Its words for each option that is used here; one that hangs is not asked again."""
    program = scope.which("mokutil")
    if program is None:
        return Unknown("the firmware's variables cannot be read here, and there is no mokutil")
    told: dict[str, str] = {}
    for option in ("--sb-state", "--list-new", "--list-enrolled"):
        try:
            answer = scope.run(program, option, deadline=_DEADLINE)
        except NotStarted as error:
            return Unknown(f"mokutil could not be started: {error}")
        if answer.hung:
            return Unknown("mokutil gave no answer in time")
        told[option] = answer.stdout + answer.stderr
    if any("ermission denied" in text for text in told.values()):
        return Unknown("the firmware's variables may not be read by this user")
    return told


def _values(pattern: re.Pattern[str], text: str) -> Iterator[str]:
    for match in pattern.finditer(text):
        yield next(value for value in match.groupdict().values() if value)


def _unique(values: Iterator[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))
