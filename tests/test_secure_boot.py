"""Secure Boot and its keys, from the firmware's variables and from mokutil."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudoctor.facts import Unknown
from gpudoctor.probes import secure_boot
from tests.probe_world import program, says, scope, write

VARIABLES = "/sys/firmware/efi/efivars"
SECURE_BOOT = f"{VARIABLES}/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
NEW = f"{VARIABLES}/MokNew-605dab50-e046-4300-abb6-3dd810dd8b23"
LIST = f"{VARIABLES}/MokListRT-605dab50-e046-4300-abb6-3dd810dd8b23"
ATTRIBUTES = b"\x06\0\0\0"
SERIAL = "68:1F:37:5D:4F:84:0A:0F:19:F2:7E:B8:3D:61:CC:D2:3B:FA:A1:F3"
IDENTIFIER = "20:3A:E2:88:33:4F:F7:F6:5A:C1:E6:4D:20:EF:AE:3C:65:99:5C:3B"
# made with: openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null -outform DER
#   -subj "/CN=box Secure Boot Module Signature key" -days 36500 -addext basicConstraints=critical,CA:FALSE
CERTIFICATE = base64.b64decode(
    "MIIBsjCCAVigAwIBAgIUaB83XU+ECg8Z8n64PWHM0jv6ofMwCgYIKoZIzj0EAwIwLzEtMCsGA1UEAwwkYm94IFNlY3VyZSBCb290IE1vZHVsZSBTaWduYXR1"
    "cmUga2V5MCAXDTI2MTEyMzA2NDEyMVoYDzIxMjYxMDMwMDY0MTIxWjAvMS0wKwYDVQQDDCRib3ggU2VjdXJlIEJvb3QgTW9kdWxlIFNpZ25hdHVyZSBrZXkw"
    "WTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATOunOLnWeXEb/LukLPulV1ywtwA8yR63FciPsG03LALzO4AWKxN3zdv9os2KAZGsOPBKxGONhjFR9PnwB+Y+Db"
    "o1AwTjAdBgNVHQ4EFgQUIDriiDNP9/ZaweZNIO+uPGWZXDswHwYDVR0jBBgwFoAUIDriiDNP9/ZaweZNIO+uPGWZXDswDAYDVR0TAQH/BAIwADAKBggqhkjO"
    "PQQDAgNIADBFAiArXlppwJp4FrDiSeF+2/eAw6+qqwKOZBe+hDhfjwMTLQIhAL0M/ggqJOAC26kiviuKghIs5v2eJQZxhNl9XCgp1QzM"
)
# mokutil prints certificates with X509_print, as openssl x509 -text does
PRINTED = """[key 1]
SHA1 Fingerprint: 76:a0:92:06:58:00:bf:37:69:01:c3:72:cd:55:a9:0e:1f:de:d2:e0
Certificate:
    Data:
        Version: 3 (0x2)
        Serial Number:
            68:1f:37:5d:4f:84:0a:0f:19:f2:7e:b8:3d:61:cc:d2:3b:fa:a1:f3
        Signature Algorithm: ecdsa-with-SHA256
        Issuer: CN=box Secure Boot Module Signature key
        X509v3 extensions:
            X509v3 Subject Key Identifier:\x20
                20:3A:E2:88:33:4F:F7:F6:5A:C1:E6:4D:20:EF:AE:3C:65:99:5C:3B
            X509v3 Authority Key Identifier:\x20
                keyid:20:3A:E2:88:33:4F:F7:F6:5A:C1:E6:4D:20:EF:AE:3C:65:99:5C:3B

[key 2]
        Serial Number: 1 (0x1)
        Serial Number:
            b9:41:24:a0:18:2c:92:67
"""


def signature_list(*certificates: bytes) -> bytes:
    """EFI_SIGNATURE_LISTs with one certificate each, as shim writes them."""
    kind = bytes.fromhex("a159c0a5e494a74a87b5ab155c2bf072")
    return b"".join(
        kind + (28 + 16 + len(der)).to_bytes(4, "little") + bytes(4) + (16 + len(der)).to_bytes(4, "little") + bytes(16) + der
        for der in certificates
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "root"
    place.mkdir()
    return place


@pytest.mark.parametrize(("byte", "on"), [(b"\1", True), (b"\0", False)])
def test_the_firmware_s_variable(root: Path, byte: bytes, *, on: bool) -> None:
    write(root, {SECURE_BOOT: ATTRIBUTES + byte})
    assert secure_boot.enabled(scope(root)) is on


@pytest.mark.parametrize(
    ("text", "on"),
    [
        ("SecureBoot enabled\n", True),
        ("SecureBoot disabled\n", False),
        ("SecureBoot disabled\nPlatform is in Setup Mode\n", False),
        ("SecureBoot enabled\nSecureBoot validation is disabled in shim\n", False),
        ("EFI variables are not supported on this system\n", None),
        ("This system doesn't support Secure Boot\n", None),
    ],
)
def test_mokutil_where_the_variables_cannot_be_read(root: Path, text: str, *, on: bool | None) -> None:
    says(root, "mokutil", text)
    assert secure_boot.enabled(scope(root)) is on


def test_a_machine_without_efi_has_none(root: Path) -> None:
    write(root, {"/sys/firmware/acpi/tables/DSDT": b""})
    seen = scope(root)
    assert secure_boot.enabled(seen) is None
    assert secure_boot.pending(seen) is False
    assert secure_boot.enrolled(seen) == ()


def test_a_container_s_empty_firmware_folder_is_unknown(root: Path) -> None:
    (root / "sys/firmware").mkdir(parents=True)
    assert isinstance(secure_boot.enabled(scope(root)), Unknown)
    assert isinstance(secure_boot.enrolled(scope(root)), Unknown)


def test_enrolment_asked_for_and_not_confirmed(root: Path) -> None:
    write(root, {SECURE_BOOT: ATTRIBUTES + b"\1"})
    assert secure_boot.pending(scope(root)) is False
    write(root, {NEW: ATTRIBUTES + signature_list(CERTIFICATE)})
    assert secure_boot.pending(scope(root)) is True


def test_pending_by_mokutil(root: Path) -> None:
    program(root, "mokutil", '[ "$1" = --list-new ] && echo "[key 1]"; exit 0')
    assert secure_boot.pending(scope(root)) is True


def test_keys_from_the_firmware_are_those_that_openssl_prints(root: Path) -> None:
    write(root, {LIST: ATTRIBUTES + signature_list(CERTIFICATE, b"no certificate")})
    assert secure_boot.enrolled(scope(root)) == (SERIAL, IDENTIFIER)


def test_keys_from_mokutil(root: Path) -> None:
    says(root, "mokutil", PRINTED)
    assert secure_boot.enrolled(scope(root)) == (SERIAL, "01", "B9:41:24:A0:18:2C:92:67", IDENTIFIER)


def test_a_mokutil_without_permission_is_unknown(root: Path) -> None:
    says(root, "mokutil", "", error="Failed to read MokListRT: Permission denied\n", code=255)
    assert isinstance(secure_boot.enrolled(scope(root)), Unknown)


def test_a_mokutil_that_hangs_is_asked_once(root: Path) -> None:
    program(root, "mokutil", "sleep 60")
    seen, started = scope(root, cap=0.3), time.monotonic()
    assert secure_boot.enabled(seen) == Unknown("mokutil gave no answer in time")
    assert isinstance(secure_boot.pending(seen), Unknown)
    assert isinstance(secure_boot.enrolled(seen), Unknown)
    assert time.monotonic() - started < 1.5


@pytest.mark.parametrize(("text", "same"), [("00:68:1f", "68:1F"), ("681F", "68:1F"), ("1", "01"), ("00", "00"), ("", "")])
def test_fingerprints_compare_in_any_writing(text: str, same: str) -> None:
    assert secure_boot.fingerprint(text) == same


@given(data=st.binary(max_size=400))
def test_any_bytes_hold_certificates_or_none(data: bytes) -> None:
    for der in secure_boot.certificates(data):
        list(secure_boot._names(der))
    for der in secure_boot.certificates(signature_list(data)):
        list(secure_boot._names(der))


@given(cut=st.integers(0, len(CERTIFICATE)), at=st.integers(0, len(CERTIFICATE) - 1), byte=st.integers(0, 255))
def test_any_damage_to_a_certificate_is_borne(cut: int, at: int, byte: int) -> None:
    damaged = bytearray(CERTIFICATE)
    damaged[at] = byte
    list(secure_boot._names(bytes(damaged[:cut])))
