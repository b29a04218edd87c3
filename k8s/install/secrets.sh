#!/bin/sh
# Usage: k8s/install/secrets.sh DIRECTORY
# Creates the files of an overlay's Secrets, with random content. Existing files are kept; git ignores
# the directory.
set -eu
directory=$1
mkdir -p "$directory"
chmod 700 "$directory"
umask 077

random() { # BYTES: base64url without padding
  head -c "$1" /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n'
}
write() { # FILE: write standard input to a file that does not exist yet
  if [ -e "$directory/$1" ]; then cat >/dev/null; else cat >"$directory/$1"; fi
}

kid=$(head -c 8 /dev/urandom | od -An -tx1 | tr -d ' \n')
printf '{"active":"%s","keys":[{"kid":"%s","key":"%s","verify_until":null}]}' \
  "$kid" "$kid" "$(random 32)" | write keyring.json
random 24 | write postgres-password
for service in owner auth inference worker; do
  random 24 | write "$service-password"
  printf 'postgresql://valence_%s:%s@valence-postgres:5432/valence' \
    "$service" "$(cat "$directory/$service-password")" | write "$service-url"
done
random 24 | write redis-password
printf 'requirepass %s\n' "$(cat "$directory/redis-password")" | write auth.conf
printf 'redis://:%s@valence-valkey:6379/0' "$(cat "$directory/redis-password")" | write url
