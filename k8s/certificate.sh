#!/bin/sh
# Usage: k8s/certificate.sh NAMESPACE [HOST]
# Creates the Secret valence-tls with a self-signed certificate for the host, unless it exists. Clients
# can trust the certificate as an authority:
#   kubectl -n NAMESPACE get secret valence-tls -o 'jsonpath={.data.tls\.crt}' | base64 -d
set -eu
namespace=$1 host=${2:-valence.localhost}
if kubectl --namespace "$namespace" get secret valence-tls >/dev/null 2>&1; then
  exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 \
  -keyout "$folder/key.pem" -out "$folder/certificate.pem" \
  -subj "/CN=$host" -addext "subjectAltName=DNS:$host" 2>/dev/null
kubectl --namespace "$namespace" create secret tls valence-tls \
  --cert "$folder/certificate.pem" --key "$folder/key.pem"
