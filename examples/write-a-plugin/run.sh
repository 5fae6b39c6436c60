#!/usr/bin/env bash
# The path of someone who writes a first plugin: from `plugin new` to a merge that a cluster runs, a second version that
# is tried, used and taken back, and a failed merge that is replayed and resolved. Each step prints what it took.
#
#   examples/write-a-plugin/run.sh                     builds rejoin first
#   REJOIN=path/to/rejoin examples/write-a-plugin/run.sh
#
# OFFLINE=1 builds the plugin without the network. Everything is in one temporary directory, which is removed, as is the
# cluster. The exit code is 0 if every step did what it should.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/write-a-plugin.XXXXXX")
log=$work/log
current=start
dev=
names=()
times=()
unset REJOIN_PROFILE
export NO_COLOR=1

# Microseconds, or those of whole seconds where bash is old.
now() {
    local at=${EPOCHREALTIME:-$(date +%s).000000}
    echo "${at//[.,]/}"
}

# NAME FUNCTION: runs a step and notes its time. Nothing here stands in a condition, so that the first command of a step
# that fails ends the script.
step() {
    current=$1
    local began
    began=$(now)
    echo "== $current" >>"$log"
    "$2" >>"$log" 2>&1
    names+=("$current")
    times+=($(($(now) - began)))
}

table() {
    local all=0 index
    for index in "${!names[@]}"; do
        printf '%-52s %4d.%d s\n' "${names[index]}" $((times[index] / 1000000)) $((times[index] / 100000 % 10))
        all=$((all + times[index]))
    done
    printf '%-52s %4d.%d s\n' "all ${#names[@]} steps" $((all / 1000000)) $((all / 100000 % 10))
}

finish() {
    local code=$?
    trap - EXIT INT TERM
    if [ -n "$dev" ]; then
        kill "$dev" 2>/dev/null || true
        wait "$dev" 2>/dev/null || true
    fi
    if [ "$code" -ne 0 ]; then
        cat "$log" "$work"/dev.err >&2 || true
        echo "failed: $current" >&2
    fi
    table
    rm -rf "$work"
    exit "$code"
}
touch "$log"
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# WHAT EXPECTED: fails unless they are equal.
same() {
    if [ "$1" != "$2" ]; then
        echo "expected $2, got $1"
        return 1
    fi
}

# TEXT WORDS: fails unless the text has the words.
has() {
    case $1 in
    *"$2"*) ;;
    *)
        echo "expected $2 in: $1"
        return 1
        ;;
    esac
}

# BUCKET KEY VALUE: waits until readers see the value. A change of a bucket reaches all nodes within seconds.
sees() {
    local try value=
    for try in $(seq 50); do
        value=$("$rejoin" get "$1" "$2" || true)
        if [ "$value" = "$3" ]; then
            return
        fi
        sleep 0.1
    done
    echo "$1/$2 is $value after $try reads, and not $3"
    return 1
}

build_rejoin() {
    cargo build --manifest-path "$root/Cargo.toml" --release --package rejoin --bin rejoin
}

start_cluster() {
    local base try
    for base in $(seq 23400 200 29800); do
        : >"$work/dev.json"
        TMPDIR=$work "$rejoin" dev --base-port "$base" --data "$work/cluster-$base" --json \
            >"$work/dev.json" 2>"$work/dev.err" &
        dev=$!
        for try in $(seq 600); do
            if [ -s "$work/dev.json" ]; then
                export REJOIN_PROFILE=$work/cluster-$base/profile.toml
                echo "the cluster is up after $try looks"
                return
            fi
            kill -0 "$dev" 2>/dev/null || break
            sleep 0.1
        done
        # It has ended, because something else uses its ports, or it hangs.
        kill "$dev" 2>/dev/null || true
        wait "$dev" || true
        dev=
        grep -q "cannot be used" "$work/dev.err" || return 1
    done
    return 1
}

new_plugin() {
    "$rejoin" plugin new "$work/high-scores" --sdk "$root/guest-sdk"
}

# DIR FILE
build_plugin() {
    "$rejoin" plugin build "$1" -o "$2" ${OFFLINE:+--offline}
}

build_first() {
    build_plugin "$work/high-scores" "$work/high-scores.wasm"
}

test_first() {
    "$rejoin" plugin test "$work/high-scores.wasm" --intent "$work/high-scores/intent.json"
}

run_first() {
    local shown
    shown=$("$rejoin" plugin run "$work/high-scores.wasm" --key ann 7 9)
    echo "$shown"
    has "$shown" 'result      "9"'
}

bench_first() {
    local shown
    shown=$("$rejoin" plugin bench "$work/high-scores.wasm" --siblings 2 --seconds 1 --json)
    echo "$shown"
    has "$shown" '"p99_us"'
}

push_first() {
    first=$("$rejoin" plugin push "$work/high-scores.wasm")
    has "$("$rejoin" plugin list)" "$first"
}

make_bucket() {
    "$rejoin" bucket create scores --plugin "$first"
}

see_it_merge() {
    "$rejoin" put scores ann 5
    "$rejoin" put scores ann 7 --blind
    sees scores ann 7
}

# The second version keeps the lowest number: lawful, and another answer that a reader notices.
build_second() {
    local lib=$work/high-scores/src/lib.rs
    sed -i.before 's/into_iter()\.max()/into_iter().min()/' "$lib"
    if cmp -s "$lib" "$lib.before"; then
        echo "the new plugin has no maximum to change"
        return 1
    fi
    sed -i.before 's/^version = "0.1.0"$/version = "0.2.0"/' "$work/high-scores/Cargo.toml"
    build_plugin "$work/high-scores" "$work/low-scores.wasm"
}

test_second() {
    "$rejoin" plugin test "$work/low-scores.wasm"
}

push_second() {
    second=$("$rejoin" plugin push "$work/low-scores.wasm")
    has "$("$rejoin" plugin show high-scores@0.2.0)" "$second"
}

activate_second() {
    "$rejoin" plugin activate scores high-scores@0.2.0
}

see_the_second() {
    "$rejoin" put scores bob 5
    "$rejoin" put scores bob 9 --blind
    sees scores bob 5
}

roll_back() {
    "$rejoin" plugin rollback scores
    sees scores bob 9
}

# Values that were written before the bucket had a plugin, and that this one cannot read.
meet_a_conflict() {
    local try
    "$rejoin" bucket create notes
    "$rejoin" put notes ann many
    "$rejoin" put notes ann 9 --blind
    "$rejoin" plugin activate notes high-scores@0.1.0
    for try in $(seq 50); do
        if "$rejoin" get notes ann 2>"$work/conflict"; then
            echo "two siblings of which one is no number were merged"
            return 1
        fi
        if grep -q malformed "$work/conflict"; then
            return
        fi
        sleep 0.1
    done
    cat "$work/conflict"
    return 1
}

list_conflicts() {
    has "$("$rejoin" conflict list notes)" ann
    has "$("$rejoin" conflict show notes ann)" many
}

resolve_the_conflict() {
    "$rejoin" conflict resolve notes ann --value 9
    sees notes ann 9
    local left
    left=$("$rejoin" conflict list notes)
    same "$left" ""
}

shadow_the_second() {
    "$rejoin" plugin shadow scores high-scores@0.2.0
    "$rejoin" put scores cid 4
    local try shown=
    for try in $(seq 100); do
        # Readers get what the active one makes of it. The difference is counted later, and where there is no free
        # moment for the shadow it is not, so there is another merge each time.
        "$rejoin" put scores cid 3 --blind
        sees scores cid 4
        shown=$("$rejoin" plugin shadow scores --json)
        case $shown in
        *'"different":'[1-9]*) return ;;
        esac
        sleep 0.1
    done
    echo "no difference was counted after $try looks: $shown"
    return 1
}

compare_the_versions() {
    local shown code=0
    shown=$("$rejoin" plugin diff scores high-scores@0.1.0 high-scores@0.2.0) || code=$?
    echo "$shown"
    same "$code" 1
    has "$shown" cid
}

export_the_conflict() {
    "$rejoin" conflict export notes ann -o "$work/ann.merges"
    test -s "$work/ann.merges"
}

replay_the_conflict() {
    local shown
    shown=$("$rejoin" plugin replay "$work/ann.merges" 2>&1)
    echo "$shown"
    has "$shown" malformed
}

rejoin=${REJOIN:-}
if [ -z "$rejoin" ]; then
    step "cargo build --release" build_rejoin
    rejoin=${CARGO_TARGET_DIR:-$root/target}/release/rejoin
fi
rejoin=$(cd "$(dirname "$rejoin")" && pwd)/$(basename "$rejoin")
cd "$work"

step "rejoin dev: a cluster of three" start_cluster
step "plugin new" new_plugin
step "plugin build, the first time" build_first
step "plugin test" test_first
step "plugin run" run_first
step "plugin bench" bench_first
step "plugin push" push_first
step "bucket create" make_bucket
step "two writes at once, and a read that merges them" see_it_merge
step "plugin build, a second version" build_second
step "plugin test, of the second version" test_second
step "plugin push, of the second version" push_second
step "plugin shadow: the second version beside the first" shadow_the_second
step "plugin diff" compare_the_versions
step "plugin activate" activate_second
step "a read that the second version merges" see_the_second
step "plugin rollback, until readers see it" roll_back
step "a merge that fails" meet_a_conflict
step "conflict list, conflict show" list_conflicts
step "conflict export" export_the_conflict
step "plugin replay" replay_the_conflict
step "conflict resolve" resolve_the_conflict
