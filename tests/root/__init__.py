"""A machine to be cured: a real root of Debian's that says it is Ubuntu 22.04, with real apt, dpkg and gpg. README.md tells how."""
