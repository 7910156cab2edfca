#!/bin/sh
# tools/parquet_text.py: texts of Parquet files, their way into `softpick tokenize`, and its refusals.
# Usage: test_text_parquet.sh TOOL
# Skipped without pyarrow (SOFTPICK_PYTHON may name an interpreter that has it) and, but for the refusals, without the data.
set -u
# shellcheck source=cli_support.sh
. "$(dirname "$0")/cli_support.sh"

python=${SOFTPICK_PYTHON:-python3}
"$python" -c "import pyarrow.parquet" 2>/dev/null || exit 77
last=parquet_text.py
source=$(dirname "$here")
script=$source/tools/parquet_text.py
data=${SOFTPICK_DATA:-$source/../shared/data}

# a small file with all that matters: an empty text, a missing one, quotes, other languages, several row groups
"$python" - "$work" <<'END' || wrong "cannot write a Parquet file"
import pyarrow, pyarrow.parquet, sys
table = pyarrow.table({"text": ["one \"two\"\nthree", None, "", "d\u00eda \u65e5 \u2028 end", "last"], "n": [1, 2, 3, 4, 5]})
pyarrow.parquet.write_table(table, sys.argv[1] + "/a.parquet", row_group_size=2)
END

# runs the script; its exit code is $1
run() {
    wanted=$1
    shift
    "$python" "$script" "$@" >out 2>err
    code=$?
    last="parquet_text.py $*"
    [ "$code" = "$wanted" ] || wrong "exit code $code, not $wanted"
}

run 0 a.parquet
printf '{"text": "one \\"two\\"\\nthree"}\n{"text": "d\303\255a \346\227\245 \342\200\250 end"}\n{"text": "last"}\n' >expected
cmp -s out expected || wrong "other lines"
run 0 --limit 1 .
[ "$(wc -l <out)" = 1 ] || wrong "--limit 1 wrote $(wc -l <out) lines"

# refusals: one line, on both streams
refused() {
    text=$1
    shift
    run 3 "$@"
    says err "$text"
    one_line
    [ "$(tail -n 1 out)" = "$(cat err)" ] || wrong "who reads the lines is not told"
}
refused 'nowhere.parquet: no such file' nowhere.parquet
refused 'a.parquet: no column "body", there are text, n' --column body a.parquet
refused 'column "n" holds int64, not text' --column n a.parquet
mkdir empty
refused 'empty: no *.parquet file' empty
head -c 300 a.parquet >cut.parquet
refused 'cut.parquet: ' cut.parquet

# a failure in the middle is one of the reader too
"$python" "$script" a.parquet cut.parquet 2>err | "$tool" tokenize --text - --out shards -q 2>>err
[ -e shards/train-00000.tokens ] && wrong "half of the files was taken for all"

[ "$failures" = 0 ] && [ ! -d "$data/parquet" ] && exit 77
for name in duckdb-snappy arrowrs-snappy duckdb-zstd; do
    run 0 "$data/parquet/fineweb_edu_layout.$name.parquet"
    "$python" - "$data/parquet/fineweb_edu_layout.expect.tsv" <<'END' || wrong "$name: other texts"
import hashlib, json, sys
expected = [line.split() for line in open(sys.argv[1])][1:]
lines = open("out", encoding="utf-8").read().rstrip("\n").split("\n")
assert len(lines) in (120, 60, 40), len(lines)
for line, (row, _, n_bytes, digest) in zip(lines, expected):
    text = json.loads(line)["text"].encode()
    assert len(text) == int(n_bytes) and hashlib.sha256(text).hexdigest() == digest, row
END
done
"$python" "$script" "$data/parquet/fineweb_edu_layout.duckdb-zstd.parquet" |
    "$tool" tokenize --text - --vocabulary 400 --validation 0 --out shards --json -q >out 2>err ||
    wrong "tokenize fails"
says out '"documents": 40'
finish
