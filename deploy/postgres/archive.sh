#!/bin/sh
# PostgreSQL's archive_command: archive.sh PATH NAME FOLDER. Copies a WAL file so that it has its
# name only when it is whole and on disk; a file that is there already is never replaced.
set -eu
path=$1 target=$3/$2
if [ -f "$target" ]; then
  # After a crash the server may not know that it was archived.
  cmp -s "$path" "$target" && exit 0
  echo "archive: $target is there already with other content: does another server write to it?" >&2
  exit 1
fi
dd if="$path" of="$target.partial" bs=1M conv=fsync status=none
mv "$target.partial" "$target"
sync "$3"
