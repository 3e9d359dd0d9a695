"""What boots next, from a folder with GRUB's files in it, honest and hostile ones."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpudoctor.facts import ConfigLine, NextBoot, Unknown
from gpudoctor.probes import next_boot
from tests.probe_world import scope, write

OLD, NEW = "5.15.0-91-generic", "6.8.0-41-generic"
MADE = 1_700_000_000
ENVIRONMENT, MENU, DEFAULTS = "/boot/grub/grubenv", "/boot/grub/grub.cfg", "/etc/default/grub"
BLOCK = "# GRUB Environment Block\n"


def entry(release: str, title: str, identity: str) -> str:
    # as 10_linux writes it: a block of its own in an entry, and a brace in a line
    return (
        f"menuentry '{title}' --class ubuntu --class gnu-linux $menuentry_id_option '{identity}' {{\n"
        "\trecordfail\n\tif [ x$grub_platform = xxen ]; then insmod xzio; fi\n"
        f"\tlinux\t/boot/vmlinuz-{release} root=UUID=4b1f ro  quiet splash $vt_handoff\n\tinitrd\t/boot/initrd.img-{release}\n}}\n"
    )


def menu(default: str) -> str:
    later = "".join(
        entry(release, f"Ubuntu, with Linux {release}{words}", f"gnulinux-{release}-{kind}-4b1f")
        for release in (NEW, OLD)
        for kind, words in (("advanced", ""), ("recovery", " (recovery mode)"))
    )
    return (
        'if [ -s $prefix/grubenv ]; then\n  set have_grubenv=true\n  load_env\nfi\nif [ "${next_entry}" ] ; then\n'
        '   set default="${next_entry}"\n   set next_entry=\n   save_env next_entry\n   set boot_once=true\nelse\n'
        f'   set default="{default}"\nfi\nfunction savedefault {{\n'
        '  if [ -z "${boot_once}" ]; then\n    save_env saved_entry\n  fi\n}\n'
        + entry(NEW, "Ubuntu", "gnulinux-simple-4b1f")
        + "submenu 'Advanced options for Ubuntu' $menuentry_id_option 'gnulinux-advanced-4b1f' {\n"
        + later
        + "}\nmenuentry 'Windows Boot Manager (on /dev/nvme0n1p1)' --class windows $menuentry_id_option 'osprober-efi-AB12' {\n"
        "\tchainloader /EFI/Microsoft/Boot/bootmgfw.efi\n}\n"
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two kernels with their initial RAM disks, GRUB without settings."""
    place = tmp_path / "root"
    for release in (OLD, NEW):
        write(place, {f"/boot/vmlinuz-{release}": "kernel", f"/boot/initrd.img-{release}": "disk"})
    write(place, {"/boot/vmlinuz": f"-> vmlinuz-{NEW}", "/boot/vmlinuz.old": f"-> vmlinuz-{OLD}", ENVIRONMENT: BLOCK, DEFAULTS: ""})
    return place


def boots(root: Path) -> tuple[str | Unknown, str]:
    seen = next_boot.look(scope(root))
    return seen.kernel, seen.chosen_by


def unknown(root: Path) -> str:
    kernel, _ = boots(root)
    assert isinstance(kernel, Unknown)
    return kernel.why


SUB = "gnulinux-advanced-4b1f"


@pytest.mark.parametrize(
    ("default", "block", "expected"),
    [
        ("0", "", (NEW, "first")),
        ("0", f"saved_entry={SUB}>gnulinux-{OLD}-advanced-4b1f\n", (NEW, "first")),  # saved, and GRUB_DEFAULT does not ask
        ("1>2", "", (OLD, "fixed")),
        ("1", "", (NEW, "fixed")),
        (f"{SUB}>gnulinux-{OLD}-advanced-4b1f", "", (OLD, "fixed")),
        (f"Advanced options for Ubuntu>Ubuntu, with Linux {OLD}", "", (OLD, "fixed")),
        ("gnulinux-simple-4b1f", "", (NEW, "fixed")),
        ("no such entry", "", (NEW, "fixed")),
        ("${saved_entry}", "", (NEW, "first")),
        ("${saved_entry}", f"saved_entry={SUB}>gnulinux-{OLD}-advanced-4b1f\n", (OLD, "saved")),
        ("0", f"next_entry=Advanced options for Ubuntu>Ubuntu, with Linux {OLD}\n", (OLD, "once")),
        ("1>2", "next_entry=0\n", (NEW, "once")),
    ],
)
def test_the_menu_says_which_kernel_boots(root: Path, default: str, block: str, expected: tuple[str, str]) -> None:
    write(root, {MENU: menu(default), ENVIRONMENT: BLOCK + block + "#" * 400})
    assert boots(root) == expected


@pytest.mark.parametrize(
    ("setting", "block", "expected"),
    [
        ("", "", (NEW, "first")),
        ("GRUB_DEFAULT=0", "", (NEW, "first")),
        (f'GRUB_DEFAULT="Advanced options for Ubuntu>Ubuntu, with Linux {OLD}"  # keep', "", (OLD, "fixed")),
        (f"GRUB_DEFAULT='Erweiterte Optionen>Ubuntu, mit Linux {OLD}'", "", (OLD, "fixed")),
        ("GRUB_DEFAULT=saved", f"saved_entry={SUB}>gnulinux-{OLD}-advanced-4b1f\n", (OLD, "saved")),
        ("GRUB_DEFAULT=saved", "", (NEW, "first")),
        ("#GRUB_DEFAULT=saved", f"saved_entry={SUB}>gnulinux-{OLD}-advanced-4b1f\n", (NEW, "first")),
        ("GRUB_DEFAULT=0", f"next_entry={SUB}>gnulinux-{OLD}-recovery-4b1f\n", (OLD, "once")),
    ],
)
def test_the_settings_say_it_where_only_root_may_read_the_menu(
    root: Path, setting: str, block: str, expected: tuple[str, str]
) -> None:
    write(root, {DEFAULTS: f"{setting}\nGRUB_TIMEOUT=0\n", ENVIRONMENT: BLOCK + block})
    assert boots(root) == expected


def test_a_file_of_grub_d_has_the_last_word(root: Path) -> None:
    write(
        root, {DEFAULTS: "GRUB_DEFAULT=saved\n", "/etc/default/grub.d/50-cloudimg-settings.cfg": f"GRUB_DEFAULT='1>Linux {OLD}'\n"}
    )
    seen = next_boot.look(scope(root))
    assert (seen.kernel, seen.chosen_by) == (OLD, "fixed")
    assert seen.entry == ConfigLine("/etc/default/grub.d/50-cloudimg-settings.cfg", f"GRUB_DEFAULT=1>Linux {OLD}")


def test_the_order_of_flavours_comes_before_the_version(root: Path) -> None:
    write(root, {"/boot/vmlinuz-5.15.0-1050-aws": "kernel", DEFAULTS: 'GRUB_FLAVOUR_ORDER="gcp aws"\n'})
    assert boots(root) == ("5.15.0-1050-aws", "first")


@pytest.mark.parametrize("default", ["1>2", "2", "Windows Boot Manager (on /dev/nvme0n1p1)", "$(cat /etc/entry)"])
def test_what_only_the_menu_could_say_is_unknown_without_it(root: Path, default: str) -> None:
    write(root, {DEFAULTS: f"GRUB_DEFAULT='{default}'\n"})
    assert "cannot be read" in unknown(root)


def test_another_system_is_no_kernel_of_this_one(root: Path) -> None:
    write(root, {MENU: menu("2")})
    assert "Windows Boot Manager" in unknown(root)


def test_a_kernel_that_is_gone_is_said_so(root: Path) -> None:
    (root / f"boot/vmlinuz-{NEW}").unlink()
    write(root, {MENU: menu("0")})
    assert f"{NEW}, which is not in /boot" in unknown(root)


def test_an_image_without_a_release_in_its_name_is_followed(root: Path) -> None:
    write(root, {MENU: 'menuentry "Mine" {\n linux /boot/vmlinuz root=/dev/sda1\n}\n'})
    assert boots(root) == (NEW, "first")


def test_without_grub_only_a_single_kernel_is_certain(root: Path) -> None:
    for path in (DEFAULTS, ENVIRONMENT):
        (root / path.lstrip("/")).unlink()
    (root / "boot/grub").rmdir()
    assert "2 kernels" in unknown(root)
    (root / f"boot/vmlinuz-{OLD}").unlink()
    assert boots(root) == (NEW, "only")


def test_without_a_kernel_nothing_is_known(tmp_path: Path) -> None:
    seen = next_boot.look(scope(tmp_path))
    assert all(isinstance(value, Unknown) for value in (seen.kernel, seen.initrd, seen.needs_initrd, seen.newer_settings))


# ---------------------------------------------------------------- the initial RAM disk


def test_the_disk_of_the_kernel_that_boots(root: Path) -> None:
    write(root, {"/etc/modprobe.d/a.conf": "# nothing\n"})
    assert next_boot.look(scope(root)) == NextBoot(NEW, "first", None, f"/boot/initrd.img-{NEW}", True, ())


@pytest.mark.parametrize("how", ["gone", "empty", "folder"])
def test_no_disk(root: Path, how: str) -> None:
    disk = root / f"boot/initrd.img-{NEW}"
    disk.unlink()
    if how == "empty":
        disk.write_bytes(b"")
    elif how == "folder":
        disk.mkdir()
    seen = next_boot.look(scope(root))
    assert (seen.initrd, seen.needs_initrd, seen.newer_settings) == (None, True, ())


def test_a_machine_that_starts_without_one(root: Path) -> None:
    for release in (OLD, NEW):
        (root / f"boot/initrd.img-{release}").unlink()
    assert next_boot.look(scope(root)).needs_initrd is False
    write(root, {"/usr/sbin/update-initramfs": "", "/etc/default/grub.d/40-force-partuuid.cfg": "GRUB_FORCE_PARTUUID=4b1f-01\n"})
    assert next_boot.look(scope(root)).needs_initrd is False
    write(root, {"/etc/default/grub.d/40-force-partuuid.cfg": "", "/proc/sys/kernel/osrelease": OLD})
    assert next_boot.look(scope(root)).needs_initrd is True
    write(root, {"/proc/sys/kernel/osrelease": NEW})  # it runs, and has none
    assert next_boot.look(scope(root)).needs_initrd is False


def test_settings_that_were_written_after_the_disk(root: Path) -> None:
    names = {"new": 100, "same": 0, "old": -100, "other": 100}
    texts = {"other": "options snd_hda_intel power_save=0\nblacklist nvidiafb\n"}
    for name, later in names.items():
        write(root, {f"/etc/modprobe.d/{name}.conf": texts.get(name, "# by hand\nblacklist nouveau\noptions nvidia NVreg_x=1\n")})
        os.utime(root / f"etc/modprobe.d/{name}.conf", (MADE + later, MADE + later))
    write(root, {"/etc/modprobe.d/new.conf.before": "blacklist nvidia\n"})
    os.utime(root / f"boot/initrd.img-{NEW}", (MADE, MADE))
    assert next_boot.look(scope(root)).newer_settings == (
        ConfigLine("/etc/modprobe.d/new.conf", "blacklist nouveau"),
        ConfigLine("/etc/modprobe.d/new.conf", "options nvidia NVreg_x=1"),
    )


# ---------------------------------------------------------------- hostile files


@pytest.mark.parametrize("path", [ENVIRONMENT, MENU, DEFAULTS, "/etc/default/grub.d/a.cfg", "/etc/modprobe.d/a.conf"])
def test_a_folder_or_a_loop_in_place_of_a_file(root: Path, path: str) -> None:
    place = root / path.lstrip("/")
    place.unlink(missing_ok=True)
    place.mkdir(parents=True)
    assert boots(root) == (NEW, "first")
    place.rmdir()
    place.symlink_to(place.name)
    assert boots(root) == (NEW, "first")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read what its mode forbids")
def test_a_block_that_may_not_be_read(root: Path) -> None:
    (root / ENVIRONMENT.lstrip("/")).chmod(0)
    assert "cannot be read" in unknown(root)


@pytest.mark.parametrize(
    "text",
    [
        "submenu 'a' {\n" * 300_000,
        "menuentry '" + "a" * 9_000_000,
        ("menuentry '" + "'\\''" * 500 + "' {\n") * 2_000,
        "}\n" * 1_000_000,
        "x {\n" * 500_000,
        'set default="' + ">" * 4000 + '"\n' + "submenu 'a' {\nmenuentry 'b' {\n}\n" * 30_000,
    ],
    ids=["deep", "one-line", "quotes", "closing", "open", "path"],
)
def test_a_giant_menu_costs_no_more_than_its_first_part(root: Path, text: str) -> None:
    write(root, {MENU: text})
    started = time.monotonic()
    next_boot.look(scope(root))
    assert time.monotonic() - started < 2


FILES = (ENVIRONMENT, MENU, DEFAULTS, "/etc/default/grub.d/a.cfg", "/etc/modprobe.d/a.conf", f"/boot/initrd.img-{NEW}")
PIECES = (
    b'set default="${saved_entry}"\n', b"menuentry '", b"' {\n", b"submenu 'x' {\n", b"}\n", b"linux /boot/vmlinuz-", b"1>2>3",
    b"saved_entry=", b"next_entry=", b"GRUB_DEFAULT=", b"\n", b"\xff\x00", b"options nvidia x\n",
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(data=st.binary(max_size=300) | st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join))
def test_any_bytes_in_any_file_never_raise(root: Path, data: bytes) -> None:
    write(root, dict.fromkeys(FILES, data))
    assert isinstance(next_boot.look(scope(root)), NextBoot)
