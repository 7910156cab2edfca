"""Fills the tables of docs/benchmarks.md from the files in bench/results/.

    python3 bench/fill_benchmarks.py [--check]      --check: says whether the page is as the files are, and changes nothing

Between a line <!-- table: FILE [lines A-B] --> and <!-- end --> stands what is made of FILE: of lines.jsonl of
bench/attention_gpu.sh its tables, of any other file its text or those lines of it.
"""
import io
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGE = os.path.join(ROOT, "docs", "benchmarks.md")
sys.path.insert(0, os.path.join(ROOT, "bench", "peers"))
import attention_gpu_table  # noqa: E402

MARK = re.compile(r"(<!-- table: (\S+)(?: lines (\d+)-(\d+))? -->\n).*?(<!-- end -->\n)", re.DOTALL)


def content(match):
    head, name, first, last, end = match.groups()
    path = os.path.join(ROOT, name)
    if name.endswith(".jsonl"):
        out = io.StringIO()
        attention_gpu_table.show([path], out, attention_gpu_table.MARKDOWN)
        return f"{head}\n{out.getvalue().rstrip()}\n\n{end}"
    with open(path) as file:
        lines = file.read().splitlines()
    lines = lines[int(first) - 1:int(last)] if first else lines
    return head + "\n```\n" + "\n".join(lines) + "\n```\n\n" + end


def main():
    if sys.argv[1:] not in ([], ["--check"]):
        sys.exit(__doc__)
    with open(PAGE) as file:
        page = file.read()
    filled = MARK.sub(content, page)
    if sys.argv[1:]:
        sys.exit(0 if filled == page else "docs/benchmarks.md: not as bench/results/ is: run bench/fill_benchmarks.py")
    with open(PAGE, "w") as file:
        file.write(filled)


if __name__ == "__main__":
    main()
