#!/bin/sh
# Adds users to Mosquitto's password file, or gives them new passwords. It reads lines NAME:PASSWORD
# from stdin, so that no password stands on a command line: users.sh PASSWORD_FILE < lines
set -eu
umask 077
target=$1
touch "$target"
# Beside the target: renaming it at the end replaces the file in one step.
new=$target.new
trap 'rm -f "$new" "$new.plain"' EXIT
awk -F: '!/^[^:]+:[^:]+$/ || $1 ~ /[#+\/]/ { print "line " NR ": write NAME:PASSWORD" > "/dev/stderr"; bad = 1 }
  { last[$1] = $0 } END { if (bad) exit 1; for (name in last) print last[name] }' > "$new.plain"
[ -s "$new.plain" ] || exit 0
# Those that are not told stay; of the others the old line goes.
awk -F: 'NR == FNR { told[$1] = 1; next } !($1 in told)' "$new.plain" "$target" > "$new"
mosquitto_passwd -U "$new.plain"
cat "$new.plain" >> "$new"
if [ "$(id -u)" = 0 ]; then chown mosquitto "$new"; fi
mv "$new" "$target"
