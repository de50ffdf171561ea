#!/bin/sh
# A base backup of the running server: base-backup.sh ARCHIVE [KEEP]. It lies in ARCHIVE/base under
# its time in UTC, and stands alone. KEEP (2) of them stay, with the WAL from the oldest of them on.
# Where to connect: PGHOST, PGPORT, PGUSER, and PGPASSFILE where a password is asked for.
set -eu
archive=$1 keep=${2:-2}
if [ "$(psql --no-password --no-psqlrc -At -c 'SELECT pg_is_in_recovery()' postgres)" != f ]; then
  echo "base-backup: the server is not there, or still reads the archive; repeat it later" >&2
  exit 1
fi
name=$(date -u +%Y-%m-%dT%H%M%SZ)
mkdir -p "$archive/base"
umask 077
rm -rf "$archive"/base/*.partial
pg_basebackup --no-password --checkpoint=fast --wal-method=stream --format=tar --gzip \
  --pgdata="$archive/base/$name.partial"
mv "$archive/base/$name.partial" "$archive/base/$name"
sync "$archive/base"
echo "$archive/base/$name"

count=0 oldest=
for backup in $(ls -r "$archive/base"); do
  count=$((count + 1))
  if [ "$count" -gt "$keep" ]; then rm -rf "${archive:?}/base/$backup"; else oldest=$backup; fi
done
# Where the oldest begins: "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)".
first=$(tar -xzOf "$archive/base/$oldest/base.tar.gz" backup_label |
  sed -n 's/^START WAL LOCATION: .*(file \([0-9A-F]*\))$/\1/p')
pg_archivecleanup -x .gz "$archive/wal" "$first"
if [ -d "$archive/stream" ]; then pg_archivecleanup "$archive/stream" "$first"; fi
