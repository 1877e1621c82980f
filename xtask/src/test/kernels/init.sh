#!/bin/sh
# Process 1 of a guest: runs each test executable of /tests/list and tells by a line on the second serial port how it ended.
# The first serial port is the kernel's console.
export PATH=/bin LC_ALL=C RUST_BACKTRACE=1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run

exec </dev/null >/dev/ttyS1 2>&1
read -r release </proc/sys/kernel/osrelease
echo "guest: kernel $release"
for module in /modules/*; do
    insmod "$module"
done
ip link set lo up

exec 3</tests/list
while read -r name arguments <&3; do
    echo "guest: begin $name"
    # shellcheck disable=SC2086 # the arguments are several words
    "/tests/$name" $arguments 3<&-
    echo "guest: end $name $?"
done

# Closing the port waits until everything is written; only then the machine goes off.
exec >/dev/console 2>&1
echo o >/proc/sysrq-trigger
exec sleep infinity
