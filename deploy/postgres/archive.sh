#!/bin/sh
# PostgreSQL's archive_command: archive.sh PATH NAME FOLDER. Keeps a WAL file as NAME.gz, which has
# its name only when it is whole and on disk; a file that is there already is never replaced.
set -eu
path=$1 target=$3/$2.gz
if [ -f "$target" ]; then
  # After a crash the server may not know that it was archived.
  gzip -dc "$target" | cmp -s - "$path" && exit 0
  echo "archive: $target is there already with other content: does another server write to it?" >&2
  exit 1
fi
gzip -1 -c "$path" | dd of="$target.partial" bs=1M conv=fsync status=none
gzip -dc "$target.partial" | cmp - "$path" >&2
mv "$target.partial" "$target"
sync "$3"
