#!/bin/sh
# The protocol over HTTP with nothing but curl: curl.sh [ADDRESS]
set -eu
address="${1:-127.0.0.1:8000}"
cd "$(dirname "$0")"
curl --fail-with-body --silent --show-error "http://$address/v2/models/digits"
echo
curl --fail-with-body --silent --show-error --data @infer.json "http://$address/v2/models/digits/infer"
echo
