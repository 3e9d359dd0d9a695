# What the programs of this machine share; /usr/local/lib/machine.sh there. Its state is the machine's own files where the
# real thing keeps it in files (/proc, /sys, /dev, efivars, which are plain folders here), else /var/lib/fake-machine.
# shellcheck shell=bash
state=/var/lib/fake-machine
libraries=/usr/lib/x86_64-linux-gnu
efivars=/sys/firmware/efi/efivars
secure_boot_variable=$efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c
shim=605dab50-e046-4300-abb6-3dd810dd8b23
modprobe_folders=(/etc/modprobe.d /run/modprobe.d /usr/local/lib/modprobe.d /usr/lib/modprobe.d)
[ -z "${initramfs:-}" ] || modprobe_folders=("$initramfs")

running() { cat /proc/sys/kernel/osrelease; }

kernel_says() { printf 'Nov 28 09:00:00 box kernel: %s\n' "$@" >> /var/log/kern.log; }

# module_file NAME [KERNEL]: where the module lies, that of DKMS first, as depmod would have it
module_file() {
  local name=${1//-/_} kernel=${2:-$(running)} folder found
  for folder in updates/dkms updates kernel; do
    found=$(find "/lib/modules/$kernel/$folder" -name "$name.ko" 2> /dev/null | sort | tail -n 1)
    [ -z "$found" ] || { echo "$found"; return; }
  done
  return 1
}

# module_field FILE NAME
module_field() { sed -n "s/^$2: *//p" "$1" | head -n 1; }

loaded() { grep -q "^${1//-/_} " /proc/modules; }

# configured EXPRESSION: whether a line of modprobe.d says so; in the early start only what the initramfs has of it counts
configured() {
  find "${modprobe_folders[@]}" -name '*.conf' -exec cat {} + 2> /dev/null | grep -qE "^[[:space:]]*$1"
}

secure_boot() { [ -s $secure_boot_variable ] && [ "$(tail -c 1 $secure_boot_variable | od -An -tu1 | tr -d ' ')" = 1 ]; }

# trusted FILE: whether the kernel takes this module; the serial number of a key is what modinfo calls sig_key
trusted() {
  local key
  [[ $(module_field "$1" signer) == Canonical* ]] && return
  key=$(module_field "$1" sig_key | tr -d ':')
  [ -n "$key" ] && serials "$efivars/MokListRT-$shim" | grep -qix "0*$key"
}

# serials VARIABLE: of the certificates in a list of the firmware
serials() {
  local certificate
  for certificate in $(firmware-keys list "$1"); do
    openssl x509 -inform der -in "$certificate" -noout -serial | cut -d = -f 2
  done
}

driver_link() { find /sys/devices/pci0000:00 -maxdepth 1 -name '0000:01:00.0'; }

# bind DRIVER: the card belongs to this driver; to none without a name
bind() {
  local card
  card=$(driver_link)
  [ -n "$card" ] || return 0
  rm -f "$card/driver"
  [ -z "${1:-}" ] || { mkdir -p "/sys/bus/pci/drivers/$1"; ln -s "../../../bus/pci/drivers/$1" "$card/driver"; }
}

bound() { basename "$(readlink "$(driver_link)/driver" 2> /dev/null)" 2> /dev/null || true; }

library_version() { readlink "$libraries/libnvidia-ml.so.1" 2> /dev/null | sed 's/^libnvidia-ml\.so\.//'; }
