"""tools/check_layers.py finds each kind of forbidden include in a small planted tree."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

CHECKER = pathlib.Path(__file__).parent.parent / "tools" / "check_layers.py"
TABLE = "| level | folder | what |\n|---|---|---|\n| 0 | base | |\n| 2 | attention | |\n| 2 | layers | |\n| 5 | cli | |\n"


class PlantedTree(unittest.TestCase):
    def check(self, files):
        """Plants the files beside a sound tree; returns the checker's exit status and what it says."""
        sound = {
            "ARCHITECTURE.md": TABLE,
            "include/softpick/status.h": "",
            "include/softpick/attention.h": '#include "softpick/status.h"\n',
            "src/base/status.h": '#include "softpick/status.h"\n',
            "src/attention/rows.h": '#include "base/status.h"\n',
            "src/layers/layers.h": '#include "base/status.h"\n',
            "src/cli/bench_layers.c": '#include "layers/layers.h"\n',
            "src/cli/main.c": '#include "softpick/attention.h"\n#include "base/status.h"\n#include <stdio.h>\n',
        }
        with tempfile.TemporaryDirectory() as folder:
            for name, text in (sound | files).items():
                path = pathlib.Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            run = subprocess.run([sys.executable, CHECKER, folder], capture_output=True, text=True)
        return run.returncode, run.stdout

    def assert_found(self, name, include, reason):
        status, said = self.check({name: f'int x;\n#include "{include}"\n'})
        self.assertEqual(status, 1)
        self.assertIn(f'{name}:2: "{include}"', said)
        self.assertIn(reason, said)

    def test_a_sound_tree_passes(self):
        self.assertEqual(self.check({})[0], 0)

    def test_an_include_that_goes_up_is_found(self):
        self.assert_found("src/base/planted.c", "attention/rows.h", "level 0 (base) includes level 2 (attention)")

    def test_an_include_within_a_level_is_found(self):
        self.assert_found("src/layers/planted.c", "attention/rows.h", "level 2 (layers)")

    def test_a_public_header_counts_with_its_module(self):
        self.assert_found("src/base/planted.c", "softpick/attention.h", "includes level 2")

    def test_a_public_header_that_shows_the_inside_is_found(self):
        self.assert_found("include/softpick/attention.h", "base/status.h", "a public header includes")

    def test_cli_that_reaches_inside_is_found(self):
        self.assert_found("src/cli/planted.c", "layers/layers.h", "cli includes only")

    def test_a_missing_file_is_found(self):
        self.assert_found("src/base/planted.c", "base/nowhere.h", "no such file")

    def test_a_folder_without_a_level_is_found(self):
        status, said = self.check({"src/stray/planted.c": "int x;\n"})
        self.assertEqual(status, 1)
        self.assertIn("src/stray/planted.c: folder stray has no level", said)

    def test_a_missing_table_is_found(self):
        self.assertEqual(self.check({"ARCHITECTURE.md": "no table\n"})[0], 1)


if __name__ == "__main__":
    unittest.main()
