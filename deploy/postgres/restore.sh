#!/bin/sh
# Makes an empty data folder that comes back as it was at a time, or, without one, at the end of the
# archive, when the server starts on it: restore.sh ARCHIVE BASE [TIME]
# BASE is a folder of ARCHIVE/base, older than TIME; TIME such as '2026-03-02 14:00:00+08'.
set -eu
archive=$1 base=$1/base/$2 time=${3:-}
scripts=$(cd "$(dirname "$0")" && pwd)
data=${PGDATA:?set PGDATA to the data folder}
[ -f "$base/base.tar.gz" ] || { echo "restore: there is no base backup $base" >&2; exit 1; }
case $time in *\'*) echo "restore: a time holds no quote" >&2; exit 1 ;; esac
umask 077
mkdir -p "$data"
if [ -n "$(ls -A "$data")" ]; then
  echo "restore: $data is not empty; keep what is there elsewhere, then empty it" >&2
  exit 1
fi
chmod 700 "$data"
tar -xzf "$base/base.tar.gz" -C "$data"
tar -xzf "$base/pg_wal.tar.gz" -C "$data/pg_wal"
# The last line of a setting counts, also over those of an earlier restore.
cat >> "$data/postgresql.auto.conf" << END
restore_command = 'sh "$scripts/fetch.sh" "$archive" "%f" "%p"'
recovery_target_time = '$time'
recovery_target_action = 'promote'
recovery_target_timeline = 'latest'
END
touch "$data/recovery.signal"
echo "restored $base; start the server: it reads the archive up to ${time:-its end}, then serves"
