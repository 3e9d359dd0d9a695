#!/bin/bash
echo "nvidia-bug-report.sh will now collect information about your system"
journalctl | gzip > nvidia-bug-report.log.gz
