#!/bin/sh
# Installs the Screener that lies beside this file on this host, as root. `cargo xtask deploy` runs it, here or on other hosts;
# whoever has unpacked the tarball runs it by hand. Each command is printed before it runs.
#
# 1. The new executable is put beside the old one and asked: does it run here, does it take the configuration, does its `doctor`
#    find a problem. If it says no, nothing was changed.
# 2. What will be replaced is kept in /usr/lib/screener/previous; only then each file takes its place by a rename.
# 3. A daemon that runs leaves its place to the new one (`screener upgrade`), and no connection is refused. Where none runs systemd
#    starts it.
# 4. Within a bounded time the new one has to serve, with nothing degraded that was not so before. Else everything is put back.
#
# Exit code: 0 done; 1 not done, and what served before serves; 2 not done, and the old one does not serve either: look at once.
set -u
# Whoever looks on may go, or lose the connection: this goes on to its end.
trap '' HUP INT PIPE

from=$(cd "$(dirname "$0")" && pwd) || exit 1
installed=/usr/sbin/screener
new=$installed.new
kept=/usr/lib/screener/previous
config=/etc/screener/screener.toml
anyway=
patience=60
# For so many seconds in a row it has to be well.
settled=3
# How many seconds the version before has to stand again: whoever was impatient with the new one is not with this one.
patience_with_old=120

say() { echo "install: $*"; }
run() { echo "+ $*"; "$@"; }
refuse() {
    rm -f "$new"
    say "$*"
    say "nothing was changed"
    exit 1
}
has_systemd() { [ -d /run/systemd/system ]; }

usage() {
    echo "usage: install.sh [--anyway] [--patience SECONDS], $settled seconds at the least" >&2
    exit 1
}
while [ $# -gt 0 ]; do
    case $1 in
        --anyway) anyway=yes ;;
        --patience)
            [ $# -ge 2 ] || usage
            patience=$2
            shift
            ;;
        *) usage ;;
    esac
    shift
done
case $patience in
    '' | *[!0-9]*) usage ;;
esac
[ "$patience" -ge "$settled" ] || usage
if [ "$(id -u)" != 0 ]; then
    say "this needs root"
    exit 1
fi
exec 9>/run/screener-install.lock
if ! flock -n 9; then
    say "another installation is at work here"
    exit 1
fi
if [ ! -e "$from$installed" ]; then
    say "another installation has begun meanwhile, and taken these files away"
    exit 1
fi

# The process of the daemon that serves, if one does. One that hangs does not.
daemon() {
    timeout 10 "$installed" status --json 2>/dev/null |
        sed -n -e '/^  "pid": /h' -e '/^  "state": "serving"/{g;s/[^0-9]//gp;}'
}
# What it says is degraded, without the numbers in it, which change.
degraded() { timeout 10 "$installed" status 2>/dev/null | sed -n '/^DEGRADED: /s/[0-9][0-9.]*/N/gp' | sort -u; }
is_installed_one() { [ "/proc/$1/exe" -ef "$installed" ]; }

# 1. Ask it, and what it would replace.
run cp "$from$installed" "$new" && chmod 755 "$new" || refuse "there is no room beside $installed"
run "$new" --version || refuse "the new executable does not run on this host ($(uname -srm))"
before=
file=
arguments=$from/arguments
current=$installed
[ -e "$current" ] || current=$new
if answer=$("$current" status --json 2>&1); then
    before=$(echo "$answer" | sed -n 's/^  "pid": \([0-9]*\),*$/\1/p')
    file=$(echo "$answer" | sed -n 's/^    "file": "\(.*\)",*$/\1/p')
    running=$(readlink "/proc/$before/exe") || refuse "process $before cannot be looked at: is it in a container?"
    case $running in
        "$installed" | "$installed (deleted)") ;;
        *) refuse "the daemon that runs (process $before) is $running: stop it, or install it at $installed first" ;;
    esac
    cat "/proc/$before/cmdline" >"$arguments" || refuse "process $before cannot be looked at"
    degraded >"$from/degraded"
    say "process $before serves"
else
    case $answer in
        *"is not running"*) ;;
        *) refuse "$current cannot ask the daemon: $answer" ;;
    esac
    if has_systemd && systemctl is-active --quiet screener; then
        refuse "a daemon runs, but not at the usual control socket: set SCREENER_SOCKET to control.socket of its configuration"
    fi
    say "no daemon runs"
fi
configured=yes
[ -n "$before" ] || [ -e "$config" ] || configured=

if [ -n "$configured" ]; then
    run "$new" check-config ${file:+--config "$file"} || refuse "the new version does not take this host's configuration"
    if ! run "$new" doctor ${file:+--config "$file"}; then
        [ -n "$anyway" ] || refuse "the new version finds problems on this host (--anyway goes on in spite of them)"
    fi
fi

# 2. The files; the executable last.
changed=
for path in $(cd "$from" && find usr -type f); do
    cmp -s "$from/$path" "/$path" || changed="$changed $path"
done
# A second name for a file, where that can be: files are only ever replaced by renames. It needs no room on a disk that is full.
again() { ln "$1" "$2" 2>/dev/null || cp -p "$1" "$2"; }
# What is replaced can be put back, all of it, before anything is.
keep() {
    rm -rf "$kept.part"
    mkdir -p "$kept.part" || return
    for path in $changed; do
        [ -e "/$path" ] || continue
        mkdir -p "$kept.part/$(dirname "$path")" && again "/$path" "$kept.part/$path" || return
    done
    run rm -rf "$kept" && mv "$kept.part" "$kept"
}
place() {
    # A whole file or none, whatever happens meanwhile.
    mkdir -p "/$(dirname "$2")" && cp "$1/$2" "/$2.part" && chmod "$3" "/$2.part" && mv "/$2.part" "/$2" && return
    rm -f "/$2.part"
    return 1
}
put() {
    for path in $changed; do
        case /$path in
            "$installed") ;;
            *) place "$from" "$path" 644 || return ;;
        esac
    done
    if [ ! -e "$config" ]; then
        place "$from" "${config#/}" 640 || return
    fi
    if ! getent group screener >/dev/null; then
        run groupadd --system screener || return
    fi
    if has_systemd; then
        run systemctl daemon-reload || return
    fi
    if cmp -s "$new" "$installed"; then
        rm -f "$new"
    else
        run mv "$new" "$installed"
    fi
}
put_back() {
    stuck=
    for path in $changed; do
        if [ ! -e "$kept/$path" ]; then
            rm -f "/$path" || stuck="$stuck /$path"
        elif [ ! "$kept/$path" -ef "/$path" ]; then
            rm -f "/$path.part"
            again "$kept/$path" "/$path.part" && mv "/$path.part" "/$path" || stuck="$stuck /$path"
        fi
    done
    rm -f "$new"
    ! has_systemd || run systemctl daemon-reload
    [ -z "$stuck" ] || say "not put back, see $kept:$stuck"
}
# By a clock that nobody sets.
seconds() {
    read -r up _ </proc/uptime
    echo "${up%%.*}"
}
# Waits until a daemon answers for which a condition holds, for some seconds in a row; for at most so many seconds.
wait_for() {
    condition=$1
    until=$(($(seconds) + $2))
    well=0
    while [ "$well" -lt "$settled" ] && [ "$(seconds)" -lt "$until" ]; do
        sleep 1
        pid=$(daemon)
        if [ -n "$pid" ] && "$condition"; then
            well=$((well + 1))
        else
            well=0
        fi
    done
    [ "$well" -ge "$settled" ]
}
is_new_and_well() {
    is_installed_one "$pid" || return
    [ -z "$before" ] || degraded | comm -13 "$from/degraded" - >"$from/worse"
    [ ! -s "$from/worse" ]
}
is_old() { [ "$pid" = "$before" ] || is_installed_one "$pid"; }
# Ends the new daemon if it hangs: it holds what the old version needs.
end_taker() {
    left=50
    while [ -n "$taker" ] && [ -e "/proc/$taker/exe" ] && [ "$left" -gt 0 ]; do
        kill -9 "$taker" 2>/dev/null
        left=$((left - 1))
        sleep 0.2
    done
}
back() {
    say "NOT DONE: $*"
    [ ! -s "$from/worse" ] || cat "$from/worse"
    if [ -z "$before" ]; then
        ! has_systemd || run systemctl stop screener
        [ -e "$kept$installed" ] || run "$installed" kernel detach
        put_back
        if [ -n "$stuck" ]; then
            say "LOOK AT ONCE: no daemon runs, and files of the new version are in their places"
            exit 2
        fi
        say "everything is as it was: no daemon runs"
        exit 1
    fi
    say "putting the old version back"
    put_back
    pid=$(daemon)
    if [ -n "$pid" ]; then
        is_old || run timeout 180 "$installed" upgrade
    elif has_systemd; then
        run systemctl reset-failed screener
        # Not `start`: one that hangs is active.
        run systemctl restart screener
    else
        end_taker
        # As it was called before; the lock is not for it.
        echo "+ setsid $installed $(tail -z -n +2 "$arguments" | tr '\0' ' ')"
        tail -z -n +2 "$arguments" | xargs -0 setsid -f "$installed" >>/var/log/screener.log 2>&1 9>&-
    fi
    if wait_for is_old "$patience_with_old" && [ -z "$stuck" ]; then
        say "the old version serves, as process $pid; what was wrong with the new one: $logs"
        exit 1
    fi
    say "LOOK AT ONCE: the old version is in its place again, but does not serve: $logs"
    exit 2
}
logs="see the daemon's log"
! has_systemd || logs="journalctl -u screener"

if [ -n "$changed" ] && ! keep; then
    rm -rf "$kept.part"
    refuse "what would be replaced cannot be kept in $kept"
fi
put || back "the files cannot be put in place"

# 3. Start it, or have the one that runs leave its place.
taker=
if [ -n "$before" ]; then
    if is_installed_one "$before"; then
        say "process $before is this very executable"
    else
        echo "+ timeout 180 $installed upgrade"
        said=$(timeout 180 "$installed" upgrade 2>&1)
        code=$?
        echo "$said"
        [ "$code" = 0 ] || back "the new version did not take over"
        taker=$(echo "$said" | sed -n 's/^process \([0-9]*\) has taken over .*/\1/p')
    fi
elif [ -z "$configured" ]; then
    say "done, but nothing is started: tell the MTA and $config of each other, then"
    say "    screener check-config && screener doctor, and this again"
    exit 0
elif has_systemd; then
    run systemctl start screener || back "the new version does not start"
else
    say "done, but nothing is started: there is no systemd here; have your supervisor run \`$installed run\`"
    exit 0
fi

# 4. Look at it.
wait_for is_new_and_well "$patience" || back "the new version does not serve well after $patience s"
if has_systemd; then
    run systemctl enable screener
fi
say "done: process $pid serves; what was replaced is in $kept"
