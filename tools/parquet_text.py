#!/usr/bin/env python3
"""Streams a text column of Parquet files as JSON lines, for `softpick tokenize --text -`.

    parquet_text.py [--column NAME] [--limit N] PATH...

Each PATH is a file or a folder, whose *.parquet files are taken in the order of their paths.  Row groups are read one after
another, so memory does not grow with the files.  Rows without text are passed over.  FineWeb-Edu:

    parquet_text.py fineweb-edu/sample/10BT | softpick tokenize --text - --tokenizer llama/tokenizer.model --out shards

Needs the package pyarrow.  Exit code: 0 done, 1 pyarrow is missing or the reader of the lines went away, 2 wrong usage, 3 a file is
missing, damaged, or without such a column of text."""
import argparse
import json
import os
import sys


def fail(code, sentence):
    """Also says so in the place of a line, so that who reads the lines does not take what came so far for all."""
    line = f"parquet_text.py: {' '.join(str(sentence).split())}"
    print(line, file=sys.stderr)
    if not sys.stdout.isatty():
        print(line, flush=True)
    sys.exit(code)


try:
    import pyarrow
    import pyarrow.parquet
except ImportError as error:
    fail(1, f"needs the package pyarrow ({error}): pip install pyarrow")


def find_files(paths):
    """Files, and those in folders, which are not to be empty."""
    for path in paths:
        if not os.path.exists(path):
            fail(3, f"{path}: no such file")
        if not os.path.isdir(path):
            yield path
            continue
        found = sorted(os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names
                       if name.endswith(".parquet"))
        if not found:
            fail(3, f"{path}: no *.parquet file in this folder")
        yield from found


def open_column(path, column):
    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowException) as error:
        fail(3, f"{path}: {error}")
    schema = file.schema_arrow
    if column not in schema.names:
        fail(3, f"{path}: no column \"{column}\", there are {', '.join(schema.names)}")
    kind = schema.field(column).type
    if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
        fail(3, f"{path}: column \"{column}\" holds {kind}, not text")
    return file


def texts_of(path, column):
    try:
        for batch in open_column(path, column).iter_batches(batch_size=1024, columns=[column]):
            yield from batch.column(0).to_pylist()
    except (OSError, UnicodeDecodeError, pyarrow.ArrowException) as error:
        fail(3, f"{path}: {error}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", metavar="PATH")
    parser.add_argument("--column", default="text", metavar="NAME", help='the column to write (default "text")')
    parser.add_argument("--limit", type=int, metavar="N", help="stop after N texts")
    arguments = parser.parse_args()
    n = 0
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    try:
        for path in find_files(arguments.paths):
            for text in texts_of(path, arguments.column):
                if n == arguments.limit:
                    break
                if text:
                    sys.stdout.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
                    n += 1
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
