#!/usr/bin/env bash
# Backups that were restored before they are called so (docs/backup.md).
#
#   backup.sh backup          dump, restore into a fresh server, compare, keep; delete the oldest
#   backup.sh verify FILE     restore a dump into a fresh server and compare it
#   backup.sh restore FILE    restore a dump into the empty database of the URL file
#
# FILE is a name in BACKUP_DIR, or `latest`. Errors are one sentence on stderr and exit code 1, 75
# if another run is under way. A dump NAME.dump has NAME.tables (rows and a checksum of each table
# in the dump's own snapshot) and NAME.sha256 of both; whatever is unfinished begins with `.partial`.
set -euo pipefail
umask 077
export LC_ALL=C

: "${BACKUP_DIR:?is the folder of the backups}"
work_in=${BACKUP_WORK:-${TMPDIR:-/tmp}}
keep=${BACKUP_KEEP:-7}
url_file=${BACKUP_URL_FILE:-}
partial=$BACKUP_DIR/.partial
server=

fail() {
  printf 'backup: %s\n' "$1" >&2
  exit "${2:-1}"
}

# What a tool said first; of restored rows, which the server's messages may quote, nothing.
said() {
  local first
  first=$(sed -n -e '/ERROR:/q' -e '/error:/{s/^[a-z_]*: error: //;p;q;}' "$work/${1:-said}")
  printf '%s' "${first:-the server refused it}"
}

clean() {
  if [[ -n $server ]]; then
    kill -QUIT "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
  fi
  rm -rf "$work"
}

decoded() {
  local plain=${1//\\/\\\\}
  printf '%b' "${plain//%/\\x}"
}

# The URL as a service file: a password on a command line would be everybody's.
write_service() {
  [[ -r $url_file ]] || fail "BACKUP_URL_FILE cannot be read"
  local url rest login place
  url=$(<"$url_file")
  [[ $url == postgres*://* ]] || fail "BACKUP_URL_FILE does not hold a postgresql:// URL"
  rest=${url#*://}
  local options=
  [[ $rest == *\?* ]] && options=${rest#*\?}
  rest=${rest%%\?*}
  login=
  [[ $rest == *@* ]] && login=${rest%@*}
  rest=${rest##*@}
  place=${rest%%/*}
  {
    echo '[valence]'
    echo "dbname=$(decoded "${rest#*/}")"
    [[ -z $login ]] || echo "user=$(decoded "${login%%:*}")"
    [[ $login != *:* ]] || echo "password=$(decoded "${login#*:}")"
    if [[ $place =~ ^\[(.*)\](:([0-9]+))?$ ]]; then
      echo "host=${BASH_REMATCH[1]}"
      echo "port=${BASH_REMATCH[3]:-5432}"
    elif [[ -n $place ]]; then
      echo "host=$(decoded "${place%%:*}")"
      [[ $place != *:* ]] || echo "port=${place##*:}"
    fi
    local option
    for option in ${options//&/ }; do
      echo "${option%%=*}=$(decoded "${option#*=}")"
    done
  } >"$work/service"
}

source_psql() { PGSERVICEFILE=$work/service PGSERVICE=valence psql -XAtq -v ON_ERROR_STOP=1 "$@"; }
fresh_psql() { psql -XAtq -v ON_ERROR_STOP=1 -h "$work" -U postgres -d restored "$@"; }

# A query for every table: its name, its rows, and a sum that does not depend on their order.
write_sums() {
  cat >"$work/sums.sql" <<'SQL'
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

# One session sees one moment: the dump is made of it, and the sums are.
dump() {
  coproc HOLDER { source_psql 2>"$work/held"; }
  local holder=$HOLDER_PID ask=${HOLDER[1]} answer=${HOLDER[0]} snapshot=
  printf '%s;\n' "SET idle_in_transaction_session_timeout = 0" \
    "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY" "SELECT pg_export_snapshot()" \
    >&"$ask" 2>/dev/null || true # it may be gone: then it does not answer
  read -r -t 60 snapshot <&"$answer" || fail "the database does not answer: $(said held)"
  PGSERVICEFILE=$work/service PGSERVICE=valence pg_dump --format=custom --no-password \
    --lock-wait-timeout=60s --snapshot="$snapshot" --file="$partial.dump" 2>"$work/said" ||
    fail "the dump failed: $(said)"
  printf '%s\n' "\\o $partial.tables" "\\i $work/sums.sql" '\q' >&"$ask"
  wait "$holder" || fail "the tables could not be read for their checksums: $(said held)"
}

# A server of our own that nobody else can reach: its socket is in a folder of ours.
start_server() {
  local user=()
  if ! getent passwd "$(id -u)" >/dev/null; then
    # initdb wants to know what its user is called; the official image has a library for that.
    local library
    library=$(find /usr/lib -name libnss_wrapper.so 2>/dev/null | head -n 1)
    echo "valence:x:$(id -u):$(id -g)::/:/bin/false" >"$work/passwd"
    echo "valence:x:$(id -g):" >"$work/group"
    user=(env "LD_PRELOAD=$library" "NSS_WRAPPER_PASSWD=$work/passwd" "NSS_WRAPPER_GROUP=$work/group")
  fi
  "${user[@]}" initdb --pgdata="$work/data" --username=postgres --auth=trust --encoding=UTF8 \
    --no-locale --no-sync --no-instructions >"$work/said" 2>&1 ||
    fail "a fresh server could not be made: $(said)"
  # The lock is ours, not its: it must not outlive us.
  "${user[@]}" postgres -D "$work/data" -c listen_addresses= -c unix_socket_directories="$work" \
    -c fsync=off -c full_page_writes=off -c autovacuum=off -c log_error_verbosity=terse \
    -c log_min_error_statement=panic >"$work/server.log" 2>&1 9>&- &
  server=$!
  local tries=0
  until pg_isready --quiet --host="$work" --username=postgres; do
    kill -0 "$server" 2>/dev/null || fail "a fresh server could not be started"
    ((tries += 1))
    [[ $tries -lt 600 ]] || fail "a fresh server did not answer for a minute"
    sleep 0.1
  done
  psql -XAtq -h "$work" -U postgres -d postgres -c "CREATE DATABASE restored TEMPLATE template0"
}

# compare TABLES TOOL: whether what the tool's psql sees is what was dumped.
compare() {
  "$2" -f "$work/sums.sql" >"$work/tables" 2>"$work/said" ||
    fail "the restored tables could not be read: $(said)"
  cmp -s "$1" "$work/tables" || fail "the restored tables are not those of the dump"
  local revision
  revision=$("$2" -c "SELECT version_num FROM alembic_version" 2>"$work/said") ||
    fail "the restored database has no alembic_version: $(said)"
  [[ -n $revision ]] || fail "the restored database has no revision"
}

# drill DUMP TABLES: foreign keys are made, and so checked, by restoring.
drill() {
  [[ -s $1 ]] || fail "the dump is empty"
  start_server
  pg_restore --exit-on-error --no-owner --no-privileges --host="$work" --username=postgres \
    --dbname=restored "$1" >/dev/null 2>"$work/said" || fail "the dump cannot be restored: $(said)"
  compare "$2" fresh_psql
}

# Sets `dump_file` and `tables_file` of a backup whose checksums are right.
choose() {
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
    fail "$name.dump is corrupted: its SHA-256 is another"
}

backups() { (cd "$BACKUP_DIR" && find . -maxdepth 1 -name '[0-9]*.dump' | sed 's|^\./||' | sort); }

lock() {
  exec 9>"$BACKUP_DIR/.lock" || fail "the folder of the backups cannot be written"
  flock --nonblock 9 || fail "another run is under way" 75
}

# What runs that were killed have left: a dump gets its name last, so without it the rest is nothing.
sweep() {
  rm -f "$partial".*
  local file
  for file in "$BACKUP_DIR"/[0-9]*.{tables,sha256}; do
    [[ -e ${file%.*}.dump ]] || rm -f "$file"
  done
}

make_backup() {
  [[ $keep =~ ^[1-9][0-9]*$ ]] || fail "BACKUP_KEEP must be at least 1"
  lock
  sweep
  write_service
  dump
  drill "$partial.dump" "$partial.tables"
  local name old
  until name=$(date -u +%Y%m%dT%H%M%SZ) && [[ ! -e $BACKUP_DIR/$name.dump ]]; do
    sleep 0.1 # the one before has the name of this second
  done
  mv "$partial.tables" "$BACKUP_DIR/$name.tables"
  (cd "$BACKUP_DIR" && {
    sha256sum "${partial##*/}.dump" | sed "s|${partial##*/}|$name|"
    sha256sum "$name.tables"
  }) >"$partial.sha256" || fail "the checksum could not be written"
  sync "$partial.dump" "$partial.sha256" "$BACKUP_DIR/$name.tables"
  mv "$partial.sha256" "$BACKUP_DIR/$name.sha256"
  mv "$partial.dump" "$BACKUP_DIR/$name.dump" # last: a dump that is called so is whole
  sync "$BACKUP_DIR"
  backups | head -n "-$keep" | while read -r old; do
    rm -f "$BACKUP_DIR/$old" "$BACKUP_DIR/${old%.dump}".{tables,sha256}
  done
  printf 'backup: %s.dump was restored and compared: %s tables, %s rows, %s bytes\n' "$name" \
    "$(wc -l <"$work/tables")" "$(awk -F'|' '{n += $2} END {print n + 0}' "$work/tables")" \
    "$(wc -c <"$BACKUP_DIR/$name.dump")"
}

verify() {
  choose "$1"
  drill "$dump_file" "$tables_file"
  printf 'backup: %s was restored and compared\n' "${dump_file##*/}"
}

restore() {
  choose "$1"
  write_service
  local tables
  tables=$(source_psql -c "SELECT count(*) FROM pg_class JOIN pg_namespace ON
    pg_namespace.oid = relnamespace WHERE relkind IN ('r', 'p') AND nspname !~ '^pg_'
    AND nspname <> 'information_schema'" 2>"$work/said") ||
    fail "the database does not answer: $(said)"
  [[ $tables == 0 ]] || fail "the database is not empty: restore into one without tables"
  PGSERVICEFILE=$work/service pg_restore --exit-on-error --single-transaction --no-owner \
    --no-privileges --dbname=service=valence "$dump_file" >/dev/null 2>"$work/said" ||
    fail "the dump could not be restored, and nothing was changed: $(said)"
  compare "$tables_file" source_psql
  printf 'backup: %s is restored; give the roles their rights: valence_common.migrations upgrade\n' \
    "${dump_file##*/}"
}

work=$(mktemp -d "$work_in/backup-XXXXXX") || fail "BACKUP_WORK cannot be written"
export TMPDIR=$work
trap clean EXIT
trap 'exit 143' TERM INT
trap '' PIPE
write_sums
case "${1:-}/${2:-}" in
  backup/) make_backup ;;
  verify/?*) verify "$2" ;;
  restore/?*) restore "$2" ;;
  *) fail "say \`backup\`, \`verify FILE\` or \`restore FILE\`" ;;
esac
