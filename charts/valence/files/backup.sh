#!/usr/bin/env bash
# Backups of Postgres, each restored and compared before it counts as one (docs/backup.md).
#
#   backup.sh backup          dump, restore into a temporary server, compare; delete the oldest
#   backup.sh verify FILE     restore a dump into a temporary server and compare it
#   backup.sh restore FILE    restore a dump into the empty database of the URL file
#
# FILE is a name in BACKUP_DIR, or `latest`. An error is one sentence on stderr and exit code 1, or
# 75 if another run is in progress. Beside NAME.dump are NAME.tables (the row count and a checksum
# of each table, from the snapshot of the dump) and NAME.sha256 of both. The names of unfinished
# files begin with `.partial`.
set -euo pipefail
umask 077
export LC_ALL=C

: "${BACKUP_DIR:?must be the directory of the backups}"
work_parent=${BACKUP_WORK:-${TMPDIR:-/tmp}}
keep=${BACKUP_KEEP:-7}
url_file=${BACKUP_URL_FILE:-}
partial=$BACKUP_DIR/.partial
server=

fail() {
  printf 'backup: %s\n' "$1" >&2
  exit "${2:-1}"
}

# The first error in a tool's output. The server's own messages are left out: they may quote rows.
first_error() {
  local first
  first=$(sed -n -e '/ERROR:/q' -e '/error:/{s/^[a-z_]*: error: //;p;q;}' "$work/${1:-output}")
  printf '%s' "${first:-the server reported an error}"
}

cleanup() {
  if [[ -n $server ]]; then
    kill -QUIT "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
  fi
  rm -rf "$work"
}

percent_decode() {
  local plain=${1//\\/\\\\}
  printf '%b' "${plain//%/\\x}"
}

# Write the URL as a libpq service file: every user can read the passwords of command lines.
write_service() {
  [[ -r $url_file ]] || fail "BACKUP_URL_FILE cannot be read"
  local url rest login address
  url=$(<"$url_file")
  [[ $url == postgres*://* ]] || fail "BACKUP_URL_FILE does not hold a postgresql:// URL"
  rest=${url#*://}
  local options=
  [[ $rest == *\?* ]] && options=${rest#*\?}
  rest=${rest%%\?*}
  login=
  [[ $rest == *@* ]] && login=${rest%@*}
  rest=${rest##*@}
  address=${rest%%/*}
  {
    echo '[valence]'
    echo "dbname=$(percent_decode "${rest#*/}")"
    [[ -z $login ]] || echo "user=$(percent_decode "${login%%:*}")"
    [[ $login != *:* ]] || echo "password=$(percent_decode "${login#*:}")"
    if [[ $address =~ ^\[(.*)\](:([0-9]+))?$ ]]; then
      echo "host=${BASH_REMATCH[1]}"
      echo "port=${BASH_REMATCH[3]:-5432}"
    elif [[ -n $address ]]; then
      echo "host=$(percent_decode "${address%%:*}")"
      [[ $address != *:* ]] || echo "port=${address##*:}"
    fi
    local option
    for option in ${options//&/ }; do
      echo "${option%%=*}=$(percent_decode "${option#*=}")"
    done
  } >"$work/service"
}

source_psql() { PGSERVICEFILE=$work/service PGSERVICE=valence psql -XAtq -v ON_ERROR_STOP=1 "$@"; }
temporary_psql() { psql -XAtq -v ON_ERROR_STOP=1 -h "$work" -U postgres -d restored "$@"; }

# Write the SQL that returns, for each table, its name, its row count and a checksum of its rows
# that does not depend on their order.
write_checksum_sql() {
  cat >"$work/checksums.sql" <<'SQL'
SET TIME ZONE 'UTC';
SET datestyle = 'ISO';
SET intervalstyle = 'iso_8601';
SET bytea_output = 'hex';
SET extra_float_digits = 3;
SELECT format('SELECT %L, count(*), coalesce(sum((%L || left(md5(_row_::text), 15))::bit(60)::bigint), 0)'
    ' FROM %I.%I AS _row_', relname, 'x', nspname, relname)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE relkind = 'r' AND nspname !~ '^pg_' AND nspname <> 'information_schema'
ORDER BY nspname COLLATE "C", relname COLLATE "C" \gexec
SQL
}

# Take the dump and the checksums from one exported snapshot.
dump() {
  coproc HOLDER { source_psql 2>"$work/holder"; }
  local holder=$HOLDER_PID input=${HOLDER[1]} output=${HOLDER[0]} snapshot=
  printf '%s;\n' "SET idle_in_transaction_session_timeout = 0" \
    "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY" "SELECT pg_export_snapshot()" \
    >&"$input" 2>/dev/null || true # if psql has exited, the read below fails
  read -r -t 60 snapshot <&"$output" || fail "the database does not answer: $(first_error holder)"
  PGSERVICEFILE=$work/service PGSERVICE=valence pg_dump --format=custom --no-password \
    --lock-wait-timeout=60s --snapshot="$snapshot" --file="$partial.dump" 2>"$work/output" ||
    fail "the dump failed: $(first_error)"
  printf '%s\n' "\\o $partial.tables" "\\i $work/checksums.sql" '\q' >&"$input"
  wait "$holder" || fail "the checksums of the tables could not be computed: $(first_error holder)"
}

# Start a temporary server that only this script can reach: its socket is in the work directory.
start_server() {
  local user=()
  if ! getent passwd "$(id -u)" >/dev/null; then
    # initdb needs a user name for the uid; the official image has nss_wrapper for that.
    local library
    library=$(find /usr/lib -name libnss_wrapper.so 2>/dev/null | head -n 1)
    echo "valence:x:$(id -u):$(id -g)::/:/bin/false" >"$work/passwd"
    echo "valence:x:$(id -g):" >"$work/group"
    user=(env "LD_PRELOAD=$library" "NSS_WRAPPER_PASSWD=$work/passwd" "NSS_WRAPPER_GROUP=$work/group")
  fi
  "${user[@]}" initdb --pgdata="$work/data" --username=postgres --auth=trust --encoding=UTF8 \
    --no-locale --no-sync --no-instructions >"$work/output" 2>&1 ||
    fail "a temporary server could not be initialized: $(first_error)"
  # Close the lock's descriptor: a server that outlives this script must not keep the lock.
  "${user[@]}" postgres -D "$work/data" -c listen_addresses= -c unix_socket_directories="$work" \
    -c fsync=off -c full_page_writes=off -c autovacuum=off -c log_error_verbosity=terse \
    -c log_min_error_statement=panic >"$work/server.log" 2>&1 9>&- &
  server=$!
  local tries=0
  until pg_isready --quiet --host="$work" --username=postgres; do
    kill -0 "$server" 2>/dev/null || fail "the temporary server did not start"
    ((tries += 1))
    [[ $tries -lt 600 ]] || fail "the temporary server did not answer within a minute"
    sleep 0.1
  done
  psql -XAtq -h "$work" -U postgres -d postgres -c "CREATE DATABASE restored TEMPLATE template0"
}

# compare TABLES PSQL: fail unless the database that PSQL connects to has the dumped tables.
compare() {
  "$2" -f "$work/checksums.sql" >"$work/tables" 2>"$work/output" ||
    fail "the restored tables could not be read: $(first_error)"
  cmp -s "$1" "$work/tables" || fail "the restored tables differ from the dump"
  local revision
  revision=$("$2" -c "SELECT version_num FROM alembic_version" 2>"$work/output") ||
    fail "the restored database has no alembic_version: $(first_error)"
  [[ -n $revision ]] || fail "the restored database has no revision"
}

# verify_dump DUMP TABLES: restore into a temporary server, which also checks the foreign keys.
verify_dump() {
  [[ -s $1 ]] || fail "the dump is empty"
  start_server
  pg_restore --exit-on-error --no-owner --no-privileges --host="$work" --username=postgres \
    --dbname=restored "$1" >/dev/null 2>"$work/output" || fail "the dump cannot be restored: $(first_error)"
  compare "$2" temporary_psql
}

# Set `dump_file` and `tables_file` to those of a backup whose SHA-256 sums are right.
select_backup() {
  local name=$1
  if [[ $name == latest ]]; then
    name=$(backups | tail -n 1)
    [[ -n $name ]] || fail "there is no backup"
  fi
  name=$(basename "$name" .dump)
  dump_file=$BACKUP_DIR/$name.dump tables_file=$BACKUP_DIR/$name.tables
  [[ -f $dump_file ]] || fail "there is no backup $name.dump"
  [[ -f $BACKUP_DIR/$name.sha256 ]] || fail "$name.dump has no $name.sha256"
  (cd "$BACKUP_DIR" && sha256sum --check --status "$name.sha256" 2>/dev/null) ||
    fail "$name.dump is corrupted: its SHA-256 does not match"
}

backups() { (cd "$BACKUP_DIR" && find . -maxdepth 1 -name '[0-9]*.dump' | sed 's|^\./||' | sort); }

lock() {
  exec 9>"$BACKUP_DIR/.lock" || fail "the directory of the backups is not writable"
  flock --nonblock 9 || fail "another run is in progress" 75
}

# Remove what killed runs have left. The dump is renamed last: files without one are unfinished.
remove_unfinished() {
  rm -f "$partial".*
  local file
  for file in "$BACKUP_DIR"/[0-9]*.{tables,sha256}; do
    [[ -e ${file%.*}.dump ]] || rm -f "$file"
  done
}

make_backup() {
  [[ $keep =~ ^[1-9][0-9]*$ ]] || fail "BACKUP_KEEP must be at least 1"
  lock
  remove_unfinished
  write_service
  dump
  verify_dump "$partial.dump" "$partial.tables"
  local name old
  until name=$(date -u +%Y%m%dT%H%M%SZ) && [[ ! -e $BACKUP_DIR/$name.dump ]]; do
    sleep 0.1 # a backup with this name exists already
  done
  mv "$partial.tables" "$BACKUP_DIR/$name.tables"
  (cd "$BACKUP_DIR" && {
    sha256sum "${partial##*/}.dump" | sed "s|${partial##*/}|$name|"
    sha256sum "$name.tables"
  }) >"$partial.sha256" || fail "the checksum could not be written"
  sync "$partial.dump" "$partial.sha256" "$BACKUP_DIR/$name.tables"
  mv "$partial.sha256" "$BACKUP_DIR/$name.sha256"
  mv "$partial.dump" "$BACKUP_DIR/$name.dump" # last: a dump with its final name is complete
  sync "$BACKUP_DIR"
  backups | head -n "-$keep" | while read -r old; do
    rm -f "$BACKUP_DIR/$old" "$BACKUP_DIR/${old%.dump}".{tables,sha256}
  done
  printf 'backup: %s.dump was restored and compared: %s tables, %s rows, %s bytes\n' "$name" \
    "$(wc -l <"$work/tables")" "$(awk -F'|' '{n += $2} END {print n + 0}' "$work/tables")" \
    "$(wc -c <"$BACKUP_DIR/$name.dump")"
}

verify() {
  select_backup "$1"
  verify_dump "$dump_file" "$tables_file"
  printf 'backup: %s was restored and compared\n' "${dump_file##*/}"
}

restore() {
  select_backup "$1"
  write_service
  local tables
  tables=$(source_psql -c "SELECT count(*) FROM pg_class JOIN pg_namespace ON
    pg_namespace.oid = relnamespace WHERE relkind IN ('r', 'p') AND nspname !~ '^pg_'
    AND nspname <> 'information_schema'" 2>"$work/output") ||
    fail "the database does not answer: $(first_error)"
  [[ $tables == 0 ]] || fail "the database is not empty: restore into a database without tables"
  PGSERVICEFILE=$work/service pg_restore --exit-on-error --single-transaction --no-owner \
    --no-privileges --dbname=service=valence "$dump_file" >/dev/null 2>"$work/output" ||
    fail "the dump could not be restored, and nothing was changed: $(first_error)"
  compare "$tables_file" source_psql
  printf 'backup: %s is restored; now grant the roles their rights: valence_common.migrations upgrade\n' \
    "${dump_file##*/}"
}

work=$(mktemp -d "$work_parent/backup-XXXXXX") || fail "BACKUP_WORK is not writable"
export TMPDIR=$work
trap cleanup EXIT
trap 'exit 143' TERM INT
trap '' PIPE
write_checksum_sql
case "${1:-}/${2:-}" in
  backup/) make_backup ;;
  verify/?*) verify "$2" ;;
  restore/?*) restore "$2" ;;
  *) fail "usage: backup.sh backup | verify FILE | restore FILE" ;;
esac
