#!/usr/bin/env python3
"""Checks that includes only go down.

Reads the table of levels in ARCHITECTURE.md and every `#include "..."` below src/ and include/softpick/, and prints
one line per include that breaks a rule:
  - every folder of src/ stands in the table, and every included file exists;
  - a file includes its own folder and folders of a lower level;
  - cli sees what a user sees, and base: include/softpick/, src/base/ and its own folder; its files bench_*, which time
    what is inside, see all below;
  - of src/, a public header sees nothing, and of include/softpick/ what its module may see.
Usage: check_layers.py [ROOT]        exit status 1 when a rule is broken
"""

import pathlib
import re
import sys

TABLE_ROW = re.compile(r"^\|\s*(\d+)\s*\|\s*(\w+)\s*\|")
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)
SUFFIXES = {".c", ".h", ".inc", ".cpp", ".cu", ".cuh"}
# Public headers are named after the folder that implements them, but for these.
PUBLIC_FOLDER = {"status": "base", "tensor": "base", "dlpack": "base", "softpick": "attention"}


def read_levels(architecture):
    rows = (TABLE_ROW.match(line) for line in architecture.read_text().splitlines())
    return {row[2]: int(row[1]) for row in rows if row}


def public_folder(name):
    stem = pathlib.PurePath(name).stem
    return PUBLIC_FOLDER.get(stem, stem)


def complaint(root, levels, folder, public, times_inside, target):
    """What is wrong with a file of `folder` (a public header or not) including `target`; None if nothing is."""
    to_public = target.startswith("softpick/")
    if not (root / ("include" if to_public else "src") / target).is_file():
        return "there is no such file in include/ or src/"
    to_folder = public_folder(target) if to_public else target.split("/")[0]
    if to_folder not in levels:
        return f"folder {to_folder} has no level in ARCHITECTURE.md"
    if public and not to_public:
        return "a public header includes a file of src/"
    if folder == "cli" and not times_inside and not to_public and to_folder not in ("cli", "base"):
        return "cli includes only include/softpick/, base and itself"
    if to_folder != folder and levels[to_folder] >= levels[folder]:
        return f"level {levels[folder]} ({folder}) includes level {levels[to_folder]} ({to_folder})"
    return None


def check(root):
    levels = read_levels(root / "ARCHITECTURE.md")
    if not levels:
        return ["ARCHITECTURE.md: no table of levels found"]
    files = [path for top in ("src", "include/softpick") for path in sorted((root / top).rglob("*"))]
    problems = []
    for path in files:
        if path.suffix not in SUFFIXES:
            continue
        name = path.relative_to(root)
        public = name.parts[0] == "include"
        folder = public_folder(path.name) if public else name.parts[1]
        if folder not in levels:
            problems.append(f"{name}: folder {folder} has no level in ARCHITECTURE.md")
            continue
        times_inside = folder == "cli" and path.name.startswith("bench_")
        text = path.read_text()
        for match in INCLUDE.finditer(text):
            wrong = complaint(root, levels, folder, public, times_inside, match[1])
            if wrong:
                line = text.count("\n", 0, match.start(1)) + 1
                problems.append(f'{name}:{line}: "{match[1]}": {wrong}')
    return problems


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent)
    problems = check(root)
    print("\n".join(problems) if problems else "layers: includes only go down")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
