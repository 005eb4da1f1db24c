from __future__ import annotations

import subprocess
import sys

from tinylens.serving import tally
from tinylens.serving.tally import Tally

COUNT = "import sys; from tinylens.serving.tally import Tally; Tally(int(sys.argv[1])).add()"


def test_a_process_reads_what_another_has_counted():
    with tally.open_file() as file:
        ours = Tally(file.fileno())
        assert ours.count == 0
        command = [sys.executable, "-c", COUNT, str(file.fileno())]
        for _ in range(2):
            subprocess.run(command, pass_fds=[file.fileno()], check=True)
    assert ours.count == 2  # also once the file is closed
    ours.close()
