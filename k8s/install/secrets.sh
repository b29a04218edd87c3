#!/bin/sh
# Makes the Secrets' files of an overlay once, with random content: k8s/install/secrets.sh FOLDER.
# Files that are there already stay; git ignores the folder.
set -eu
folder=$1
mkdir -p "$folder"
chmod 700 "$folder"
umask 077

random() { # BYTES: base64url without padding
  head -c "$1" /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n'
}
write() { # FILE: from standard input, unless it is there
  if [ -e "$folder/$1" ]; then cat >/dev/null; else cat >"$folder/$1"; fi
}

kid=$(head -c 8 /dev/urandom | od -An -tx1 | tr -d ' \n')
printf '{"active":"%s","keys":[{"kid":"%s","key":"%s","verify_until":null}]}' \
  "$kid" "$kid" "$(random 32)" | write keyring.json
random 24 | write postgres-password
for service in owner auth inference worker; do
  random 24 | write "$service-password"
  printf 'postgresql://valence_%s:%s@valence-postgres:5432/valence' \
    "$service" "$(cat "$folder/$service-password")" | write "$service-url"
done
random 24 | write redis-password
printf 'requirepass %s\n' "$(cat "$folder/redis-password")" | write auth.conf
printf 'redis://:%s@valence-valkey:6379/0' "$(cat "$folder/redis-password")" | write url
