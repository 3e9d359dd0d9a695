"""The programs that a machine's doctor may ask, as shell scripts on a PATH of their own.

Nothing else is on that PATH, so a machine without mokutil has no mokutil. What a real program prints for its arguments
is written out beforehand; the scripts choose.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.harness.world import module_file

Json = Any  # recorded JSON

_MODINFO = """#!/bin/sh
# modinfo [-b DIR] [-k RELEASE] [-F FIELD] NAME|FILE
release={kernel} field= name=
while [ $# -gt 0 ]; do
  case $1 in
    -b|--basedir) shift ;;
    -k|--set-version) release=$2; shift ;;
    -F|--field) field=$2; shift ;;
    -*) ;;
    *) name=$1 ;;
  esac
  shift
done
case $name in
  */lib/modules/*) release=${{name##*/lib/modules/}}; release=${{release%%/*}} ;;
esac
[ -r {answers}/"$release" ] || {{ echo "modinfo: ERROR: Module $name not found." >&2; exit 1; }}
while IFS= read -r line; do
  if [ -z "$field" ]; then
    printf '%s\\n' "$line"
  elif [ "${{line%%:*}}" = "$field" ]; then
    value=${{line#*:}}
    while [ "${{value# }}" != "$value" ]; do value=${{value# }}; done
    printf '%s\\n' "$value"
  fi
done < {answers}/"$release"
"""

_MOKUTIL = """#!/bin/sh
case $1 in
  --sb-state) printf '%s\\n' {state} ;;
  --list-enrolled|-l) printf '%s\\n' {enrolled} ;;
  --list-new|-N) printf '%s\\n' {pending} ;;
  --test-key|-t) printf '%s is not enrolled\\n' "$2"; exit 0 ;;
  *) echo "Usage: mokutil OPTIONS" >&2; exit 1 ;;
esac
"""

_SYSTEMCTL = """#!/bin/sh
# systemctl is-active|is-enabled|show UNIT...
verb= code=0
for word do
  case $word in
    -*) ;;
    is-active|is-enabled|show|status|list-unit-files|cat) verb=$word ;;
    *)
      unit=${{word%.service}}
      state=inactive; loaded=not-found; enabled=
      [ -r {answers}/"$unit" ] && {{ read -r state < {answers}/"$unit"; loaded=loaded; enabled=enabled; }}
      case $verb in
        is-active) echo "$state"; [ "$state" = active ] || code=3 ;;
        is-enabled) [ -n "$enabled" ] && echo enabled || {{ echo "no unit file for $unit.service" >&2; code=1; }} ;;
        show) printf 'Id=%s.service\\nLoadState=%s\\nActiveState=%s\\n\\n' "$unit" "$loaded" "$state" ;;
        *) echo "$unit.service $enabled" ;;
      esac ;;
  esac
done
exit $code
"""


def build(record: Json, folder: Path) -> str:
    """Write the programs below ``folder``; the PATH that has them and nothing else."""
    programs = folder / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    scripts = {**_of_kernels(record, folder), **_of_firmware(record), **_of_services(record, folder), **_of_log(record, folder)}
    for name, answer in record.get("commands", {}).items():
        if answer is None:
            continue
        scripts[name] = _answering(answer, folder / "answers" / name)
    for name, script in scripts.items():
        path = programs / name
        path.write_text(script, encoding="utf-8")
        path.chmod(0o755)
    return str(programs)


def _of_kernels(record: Json, folder: Path) -> dict[str, str]:
    if "kernels" not in record:
        return {}
    answers = folder / "modinfo"
    answers.mkdir(parents=True, exist_ok=True)
    for release, kernel in record["kernels"].items():
        if kernel.get("nvidia"):
            (answers / release).write_text(_modinfo(release, kernel), encoding="utf-8")
    running = shlex.quote(record.get("vars", {}).get("kernel", ""))
    return {"modinfo": _MODINFO.format(kernel=running, answers=shlex.quote(str(answers)))}


def _modinfo(release: str, kernel: Mapping[str, str]) -> str:
    fields = {
        "filename": f"/lib/modules/{release}/{module_file(kernel)}",
        "alias": "char-major-195-*",
        "version": kernel["nvidia"],
        "supported": "external",
        "license": kernel.get("license", "NVIDIA"),
        "srcversion": "F5B1C0B5E63F2B9F3F0F2A5",
        "depends": "drm",
        "name": "nvidia",
        "vermagic": f"{release} SMP preempt mod_unload modversions ",
    }
    if kernel.get("signer"):
        fields |= {
            "sig_id": "PKCS#7",
            "signer": kernel["signer"],
            "sig_key": kernel.get("sig_key", "14:DF:34:D1:A8:7C:F3:76:25:AB:EC:03:9E:F2:BF:52:12:49:B9:69"),
        }
        fields |= {"sig_hashalgo": "sha512"}
    return "".join(f"{name + ':':<16}{value}\n" for name, value in fields.items())


def _of_firmware(record: Json) -> dict[str, str]:
    firmware = record.get("secure_boot")
    if firmware is None:
        return {}
    keys = [_certificate(number, key) for number, key in enumerate(firmware.get("enrolled", []), start=1)]
    state = "SecureBoot enabled" if firmware.get("on") else "SecureBoot disabled"
    pending = _certificate(1, firmware["pending"]) if firmware.get("pending") else "MokNew is empty"
    return {
        "mokutil": _MOKUTIL.format(
            state=shlex.quote(state), enrolled=shlex.quote("\n\n".join(keys) or "MokListRT is empty"), pending=shlex.quote(pending)
        )
    }


def _certificate(number: int, key: str) -> str:
    """A certificate as ``mokutil`` prints it, cut to what tells keys apart."""
    return (
        f"[key {number}]\n"
        f"SHA1 Fingerprint: 76:a0:92:06:58:00:bf:37:69:01:c3:72:cd:55:a9:0e:1f:de:d2:e{number % 10}\n"
        "Certificate:\n    Data:\n        Version: 3 (0x2)\n"
        f"        Serial Number:\n            {key.lower()}\n"
        "        Signature Algorithm: sha256WithRSAEncryption\n        Issuer: CN = box Secure Boot Module Signature key\n"
        f"        X509v3 extensions:\n            X509v3 Subject Key Identifier: \n                {key}\n"
        "            X509v3 Basic Constraints: critical\n                CA:FALSE"
    )


def _of_services(record: Json, folder: Path) -> dict[str, str]:
    if "services" not in record:
        return {}
    answers = folder / "services"
    answers.mkdir(parents=True, exist_ok=True)
    for unit, state in record["services"].items():
        (answers / unit).write_text(f"{state}\n", encoding="utf-8")
    return {"systemctl": _SYSTEMCTL.format(answers=shlex.quote(str(answers)))}


def _of_log(record: Json, folder: Path) -> dict[str, str]:
    """journalctl and dmesg, which print the same lines, each in its own form."""
    if "log" not in record:
        return {}
    journal = "".join(f"Aug 20 09:00:00 box kernel: {line}\n" for line in record["log"])
    ring = "".join(f"[{12 + number:5d}.000000] {line}\n" for number, line in enumerate(record["log"]))
    return {
        "journalctl": _answering({"stdout": journal}, folder / "answers" / "journalctl"),
        "dmesg": _answering({"stdout": ring}, folder / "answers" / "dmesg"),
    }


def _answering(answer: Json, stem: Path) -> str:
    """A program that prints the same whatever it is asked, or never answers."""
    if answer.get("hang"):
        return "#!/bin/sh\nexec /bin/sleep 600\n"
    stem.parent.mkdir(parents=True, exist_ok=True)
    data = bytes.fromhex(answer["hex"]) if "hex" in answer else answer.get("stdout", "").encode()
    stem.with_suffix(".out").write_bytes(data)
    stem.with_suffix(".err").write_text(answer.get("stderr", ""), encoding="utf-8")
    out, err = shlex.quote(str(stem.with_suffix(".out"))), shlex.quote(str(stem.with_suffix(".err")))
    return f"#!/bin/sh\n/bin/cat {out}\n/bin/cat {err} >&2\nexit {answer.get('exit', 0)}\n"
