#!/usr/bin/env bash
# rexec with nothing but grpcurl and the server's address:
#
#     examples/grpcurl.sh
#
# REXEC_TARGET is the address (host:port or unix:PATH, default 127.0.0.1:50051), REXEC_CALLER a caller's name,
# EVERY the seconds between two lines of the command. The server describes itself: no .proto file is needed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target=${REXEC_TARGET:-127.0.0.1:50051}
service=rexec.v1.ExecutionService
exec_id=count-$(date +%s)-$$

grpcurl=$here/../.venv/bin/grpcurl
[ -x "$grpcurl" ] || grpcurl=grpcurl

options=(-plaintext)
if [ -n "${REXEC_CALLER:-}" ]; then
    options+=(-H "authorization: Bearer $REXEC_CALLER")
fi
if [[ $target == unix:* ]]; then
    options+=(-unix -authority localhost)
    target=${target#unix:}
    target=${target/#\/\/\//\/} # unix:///path is unix:/path
fi

# call WHAT [DATA]: prints the call, then makes it.
call() {
    local data=()
    if [ $# -gt 1 ]; then
        data=(-d "$2")
    fi
    printf '\n$ grpcurl %s\n' "${data[*]:+-d \'$2\' }$target $1"
    "$grpcurl" "${options[@]}" "${data[@]}" "$target" "$1"
}

# The command gets a clean environment, so its program is named by its whole path.
python=$(python3 -c 'import sys; print(sys.executable)')

printf '$ grpcurl %s list\n' "$target"
"$grpcurl" "${options[@]}" "$target" list
printf '\n$ grpcurl %s describe %s\n' "$target" "$service"
"$grpcurl" "${options[@]}" "$target" describe "$service"

# Started once, however often this call is repeated with the same exec_id.
call "$service/Exec" \
    "{\"exec_id\": \"$exec_id\", \"arguments\": [\"$python\", \"$here/count.py\", \"--every\", \"${EVERY:-2}\"]}"
# What it is doing now: the newest lines.
call "$service/Poll" "{\"exec_id\": \"$exec_id\", \"text\": true, \"wait\": \"5s\"}"
# Each line as it comes, until the end.
call "$service/Follow" "{\"exec_id\": \"$exec_id\", \"text\": true}"
# Polling consumes nothing: the newest lines are still there.
call "$service/Poll" "{\"exec_id\": \"$exec_id\", \"text\": true}"
