#!/bin/sh
# Fuzzes each target for some seconds, on the stable toolchain. Needs a C++ compiler.
#
#   fuzz/run.sh SECONDS [TARGET...]
#
# Fails if an input makes a target panic, take too much memory or too long. The input is kept in fuzz/artifacts/TARGET;
# put it into fuzz/corpus/TARGET and `fuzz/run.sh 0 TARGET`, and from then on `cargo nextest run`, feed it again. Inputs
# that reached new code go to fuzz/found/TARGET, which is read as well the next time. Builds go to fuzz/target, or where
# FUZZ_TARGET_DIR says.
set -eu

seconds=${1:?usage: fuzz/run.sh SECONDS [TARGET...]}
shift
cd "$(dirname "$0")"
all="bencode metainfo magnet handshake peer_wire extension tracker_answer tracker_query udp_tracker resume_facts"
all="$all krpc pex lsd dht_node ip_filter socks5 mse utp_stream"
[ $# -gt 0 ] || set -- $all

host=$(rustc -vV | sed -n 's/^host: //p')
target_dir=${FUZZ_TARGET_DIR:-target}

# What `cargo fuzz` passes, as far as stable knows it. With --target, build scripts stay without.
export RUSTFLAGS="-Cpasses=sancov-module
-Cllvm-args=-sanitizer-coverage-level=4
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters
-Cllvm-args=-sanitizer-coverage-pc-table
-Cllvm-args=-sanitizer-coverage-trace-compares
-Ccodegen-units=1 --cfg fuzzing"
RUSTFLAGS=$(echo "$RUSTFLAGS" | tr '\n' ' ')

bins=$(for target in "$@"; do printf -- '--bin %s ' "$target"; done)
# shellcheck disable=SC2086
cargo build --release --locked --target "$host" --target-dir "$target_dir" $bins

failed=
for target in "$@"; do
    mkdir -p "corpus/$target" "found/$target" "artifacts/$target"
    echo "== $target, ${seconds} s"
    options="-max_len=65536 -timeout=10 -rss_limit_mb=512 -malloc_limit_mb=64 -print_final_stats=1"
    if [ "$seconds" -gt 0 ]; then
        options="$options -max_total_time=$seconds"
    else
        options="$options -runs=0"
    fi
    # shellcheck disable=SC2086
    if ! "$target_dir/$host/release/$target" $options -verbosity=0 -artifact_prefix="artifacts/$target/" \
        "found/$target" "corpus/$target" 2>"found/$target.log"; then
        failed="$failed $target"
        tail -n 60 "found/$target.log"
    else
        grep -E 'stat::(number_of_executed_units|average_exec_per_sec|peak_rss_mb)' "found/$target.log" || true
    fi
done
if [ -n "$failed" ]; then
    echo "failed:$failed" >&2
    exit 1
fi
