#!/bin/sh
# PostgreSQL's restore_command: fetch.sh ARCHIVE NAME PATH. Takes a WAL file from ARCHIVE/wal, or
# from ARCHIVE/stream, where pg_receivewal writes: its newest file is not full.
set -eu
archive=$1 name=$2 path=$3
if [ -f "$archive/wal/$name.gz" ]; then
  gzip -dc "$archive/wal/$name.gz" > "$path"
  exit
fi
for file in "$archive/stream/$name" "$archive/stream/$name.partial"; do
  if [ -f "$file" ]; then exec cp "$file" "$path"; fi
done
exit 1
