#!/usr/bin/env bash
# What a user does with etcdctl, one thing after the other, on an empty cluster. `cargo xtask tour` runs it against etcd and against
# quorate and compares what it prints.
#
#   ETCDCTL   the program
#   ENDPOINTS where to, as --endpoints wants it
set -u
export ETCDCTL_API=3
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$work"' EXIT

section() { printf '\n== %s\n' "$*"; }
# Prints the command, what it says and, if it fails, how it ended.
e() {
    printf '$ etcdctl'
    printf ' %q' "$@"
    printf '\n'
    quiet "$@"
}
quiet() { "$ETCDCTL" --endpoints "$ENDPOINTS" "$@" 2>&1 || echo "(exit $?)"; }
# The same with lines for the command's input.
e_with() {
    local lines=$1
    shift
    printf '$ etcdctl'
    printf ' %q' "$@"
    printf ' <<<%q\n' "$lines"
    printf '%b' "$lines" | quiet "$@"
}
# Starts a watch in the background.
watch_begin() {
    local name=$1
    shift
    printf '$ etcdctl watch'
    printf ' %q' "$@"
    printf ' &\n'
    # There before anybody counts its lines.
    : >"$work/$name"
    "$ETCDCTL" --endpoints "$ENDPOINTS" watch "$@" >"$work/$name" 2>&1 &
    echo $! >"$work/$name.pid"
}
# Waits until the watch has printed this many lines, ends it and shows them.
watch_end() {
    local name=$1 lines=$2 tries=0
    while [ "$(wc -l <"$work/$name")" -lt "$lines" ] && [ $tries -lt 600 ]; do
        sleep 0.05
        tries=$((tries + 1))
    done
    # A little longer, for what should not come.
    sleep 0.1
    kill "$(cat "$work/$name.pid")" 2>/dev/null
    wait "$(cat "$work/$name.pid")" 2>/dev/null
    echo "# the watch printed"
    cat "$work/$name"
}
# The revision of the store as a read of this key shows it.
revision_of() { quiet get "$1" -w json | sed 's/.*"revision":\([0-9]*\).*/\1/'; }
# What a watch starts from that must see what comes next, however late it is served.
next_revision() { echo $(($(revision_of none) + 1)); }
# Most likely the watch is served by now and sees live events; if not, it reads them from the past.
settle() { sleep 0.4; }

# What is never the same twice: ids, terms, times, the order of a lease's keys, and where etcdctl's own memory lies.
normalise() {
    sed -E -e 's/"ts":"[^"]*"/"ts":TIME/; s/"target":"[^"]*"/"target":TARGET/' \
        -e 's/"(cluster_id|member_id|raft_term|raftTerm)":[0-9]+/"\1":NUMBER/g' \
        -e 's/"(ClusterID|MemberID|RaftTerm)" : [0-9]+/"\1" : NUMBER/' \
        -e 's/\b[0-9a-f]{16}\b/LEASE/g; s/"Lease" : [1-9][0-9]*/"Lease" : NUMBER/' \
        -e 's,\[l/2 l/1\],[l/1 l/2],; s/remaining\([0-9]+s\)/remaining(SECONDS)/'
}

{
section puts and gets
e get nothing
e put greeting hello
e get greeting
e put greeting world --prev-kv
e get greeting -w json
e get greeting -w fields
e get greeting --rev 2
e get greeting --hex
e get greeting --print-value-only
e get greeting --keys-only
e put --ignore-value greeting
e get greeting -w json
e put -- -dash 1
e get -- -dash
e_with 'from input' put greeting
e get greeting
e put empty ''
e get empty -w json

section ranges
for key in a a/1 a/2 a/2/x a/3 b b/1 c zz; do e put $key "value of $key"; done
e get a
e get a/ --prefix
e get a/ --prefix --keys-only
e get a/ --prefix --count-only
e get a/ --prefix --count-only -w json
e get a/ --prefix --limit 2
e get a/ --prefix --limit 2 -w json
e get a b
e get b --from-key --keys-only
e get '' --prefix --keys-only
e get '' --from-key --count-only -w fields
e get b a
e get a/ --prefix --order DESCEND
e get a/ --prefix --sort-by MODIFY --order DESCEND --keys-only
e get a/ --prefix --sort-by VALUE --order ASCEND --print-value-only
e get a/ --prefix --sort-by CREATE --limit 2 --keys-only
e get a/ --prefix --sort-by VERSION --order DESCEND --keys-only
e get a/ --prefix --consistency s
e get a --prefix --rev 6 --keys-only

section versions
e put v 1
e put v 2
e del v
e put v 3
e get v -w json
e put v 4
e get v -w json

section deletes
e del nothing
e del a/1
e del a/2 --prev-kv
e del a/ --prefix
e del b c
e get '' --from-key --keys-only
e del zz --from-key
e put d/1 1
e put d/2 2
e del d/ --prefix --prev-kv
e del d/ --prefix -w json

section transactions
e put t/a 1
e put t/b 2
e_with 'value("t/a") = "1"\n\nput t/a 10\nget t/a\n\nput t/a 20\n\n' txn
e get t/a
e_with 'value("t/a") = "1"\n\nput t/a 11\n\nget t/a\nget t/b\n\n' txn
e_with 'version("t/a") = "2"\nmod("t/b") > "1"\ncreate("t/none") = "0"\n\ndel t/b --prev-kv\nput t/new fresh\n\n\n' txn
e_with 'create("t/none") != "0"\n\nput t/none 1\n\nput t/none 2\nget t/none\n\n' txn
e_with 'value("t/absent") != "x"\n\nput t/absent yes\n\nput t/absent no\n\n' txn
e get t/absent
e_with '\nget t/ --prefix\n\n\n' txn
e_with '\nput t/a 1\nput t/a 2\n\n\n' txn
e_with '\nput t/a 1\ndel t/ --prefix\n\n\n' txn
e_with '\ndel t/ --prefix\n\n\n' txn -w json
e_with '\nput t/one 1\nput t/two 2\nget t/ --prefix\n\n\n' txn -w json
e get t/ --prefix -w json

section leases
e put --lease 1234 orphan x
lease=$("$ETCDCTL" --endpoints "$ENDPOINTS" lease grant 100 | awk '{print $2}')
printf 'lease %s\n' "$lease"
e lease timetolive "$lease"
e put --lease "$lease" l/1 one
e put --lease "$lease" l/2 two
e lease timetolive "$lease" --keys
e get l/1 -w fields
e lease keep-alive --once "$lease"
e lease list
e put --ignore-lease l/1 again
e put l/2 detached
e lease timetolive "$lease" --keys
e lease revoke "$lease"
e get l/ --prefix
e lease revoke "$lease"
e lease timetolive "$lease"
e lease keep-alive --once "$lease"
e lease list
e lease grant 0
short=$("$ETCDCTL" --endpoints "$ENDPOINTS" lease grant 1 | tee "$work/grant" | awk '{print $2}')
printf 'lease %s\n' "$short"
cat "$work/grant"
e put --lease "$short" l/short gone
tries=0
while [ -n "$(quiet get l/short)" ] && [ $tries -lt 300 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
e get l/short
e lease timetolive "$short"

section watches
watch_begin one w/key --rev "$(next_revision)"
settle
e put w/key 1
e put w/other 1
e put w/key 2
e del w/key
watch_end one 8
watch_begin prefix w/ --prefix --prev-kv --rev "$(next_revision)"
settle
e put w/a 1
e put w/a 2
e_with '\nput w/b 1\nput w/c 1\ndel w/a\n\n\n' txn
watch_end prefix 18
revision=$(revision_of w/b)
watch_begin past w/ --prefix --rev $((revision - 2))
watch_end past 15
watch_begin json w/b w/d --rev "$revision" -w json
watch_end json 1
watch_begin exec w/key --rev "$(next_revision)" -- sh -c 'echo "told of $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY at $ETCD_WATCH_REVISION"'
settle
e put w/key 3
watch_end exec 4

section compaction
e put c 1
e put c 2
e put c 3
revision=$(revision_of c)
e compaction $((revision - 1))
e get c --rev $((revision - 2))
e get c --rev $((revision - 1))
e compaction $((revision - 1))
e compaction $((revision + 100))
e compaction "$revision" --physical
e get c
e get c --rev $((revision + 100))
watch_begin compacted c --rev 2
watch_end compacted 1

section locks and elections
e lock tour-lock -- sh -c 'echo "holding ${ETCD_LOCK_KEY%/*} at revision $ETCD_LOCK_REV"'
e get tour-lock --prefix
: >"$work/elect"
"$ETCDCTL" --endpoints "$ENDPOINTS" elect tour-election me >"$work/elect" 2>&1 &
elect=$!
tries=0
while [ "$(wc -l <"$work/elect")" -lt 2 ] && [ $tries -lt 300 ]; do
    sleep 0.05
    tries=$((tries + 1))
done
sed 's,/.*,/KEY,' "$work/elect"
e get tour-election --prefix --print-value-only
kill -INT $elect
wait $elect 2>/dev/null
e get tour-election --prefix

section what cannot be
e put '' x
e get ''
e del ''
e put --lease zz x y
e put --ignore-value nobody
e put --ignore-lease nobody x
e get x --rev -1
e get x --sort-by NONSENSE
e lease revoke 77
e lease timetolive 77
head -c 1600000 /dev/zero | tr '\0' x >"$work/big"
echo '$ etcdctl put big <1600000 bytes'
quiet put big <"$work/big"
head -c 3000000 /dev/zero | tr '\0' x >"$work/big"
echo '$ etcdctl put big <3000000 bytes'
quiet put big <"$work/big"
{ echo; for i in $(seq 129); do echo "put many/$i x"; done; echo; echo; } >"$work/many"
echo '$ etcdctl txn <129 puts'
quiet txn <"$work/many"
{ echo; for i in $(seq 128); do echo "put many/$i x"; done; echo; echo; } >"$work/many"
echo '$ etcdctl txn <128 puts'
quiet txn <"$work/many"
e del many/ --prefix

section the cluster
first=${ENDPOINTS%%,*}
echo '$ etcdctl endpoint health'
"$ETCDCTL" --endpoints "$first" endpoint health 2>&1 | sed 's/^[^ ]* is/ENDPOINT is/; s/took = .*/took = TIME/'
echo '$ etcdctl endpoint status -w json'
"$ETCDCTL" --endpoints "$first" endpoint status -w json 2>&1 |
    sed -E 's/"(Endpoint|version|errors)":("[^"]*"|\[[^]]*\])/"\1":SOME/g; s/"(dbSize|dbSizeInUse|raftIndex|raftAppliedIndex|leader)":[0-9]+/"\1":NUMBER/g'
echo '$ etcdctl endpoint hashkv'
"$ETCDCTL" --endpoints "$first" endpoint hashkv 2>&1 | sed -E 's/^[^,]*, [0-9]+$/ENDPOINT, HASH/'
e alarm list
e alarm disarm
# The first of them: ours may be three.
echo '$ etcdctl member list'
"$ETCDCTL" --endpoints "$first" member list 2>&1 | sed -E 's,http://127.0.0.1:[0-9]+,URL,g; s/^[0-9a-f]+,/ID,/' | sort | head -1
e member remove 1234
e member promote 1234
e member update 1234 --peer-urls=http://127.0.0.1:1
e member add n9 --peer-urls=nonsense
member=$(quiet member list | head -1 | cut -d, -f1)
echo '$ etcdctl member promote A-VOTER'
quiet member promote "$member"
echo '$ etcdctl member add n9 --peer-urls=ONE-THAT-IS-TAKEN'
quiet member add n9 --peer-urls="$(quiet member list | head -1 | sed -E 's/^[^,]*, [^,]*, [^,]*, ([^,]*),.*/\1/')"
echo '$ etcdctl defrag'
"$ETCDCTL" --endpoints "$first" defrag 2>&1 | sed -E 's/\[[^]]*\]/[ENDPOINT]/'
} | normalise
