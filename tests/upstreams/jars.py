#!/usr/bin/env python3
"""Fetches the JVM's JOSE library that the sample in Java verifies with.

    VENV/bin/python3 tests/upstreams/jars.py FOLDER

JJWT is published on Maven Central, which not every machine that runs the tests can reach. PySpark's archive on PyPI (434 MB)
carries the same jars, and the Jackson that they need: pip fetches it, they are taken out of it, and it is not kept.
"""

import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ARCHIVE = "pyspark==4.0.0 --hash=sha256:38db1b4f6095a080d7605e578d775528990e66dc326311d93e94a71cfc24e5a5"
WANTED = re.compile(r"pyspark-4\.0\.0/deps/jars/(jjwt-(?:api|impl|jackson)|jackson-(?:core|databind|annotations))-[\d.]+\.jar")
COUNT = 6


def fetch(folder):
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        (scratch / "archive.txt").write_text(ARCHIVE + "\n")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-cache-dir", "--no-deps"]
        exact = ["--no-binary", "pyspark", "--require-hashes", "--requirement", str(scratch / "archive.txt")]
        if subprocess.run([*pip, *exact, "--dest", str(scratch)]).returncode:
            sys.exit(f"pip did not give {ARCHIVE}")
        [archive] = scratch.glob("*.tar.gz")
        with tarfile.open(archive) as members:
            jars = {Path(member.name).name: members.extractfile(member).read() for member in members if WANTED.fullmatch(member.name)}
    if len(jars) != COUNT:
        sys.exit(f"of the jars, the archive has {sorted(jars)}")
    folder.mkdir(parents=True, exist_ok=True)
    for name, jar in jars.items():
        (folder / name).write_bytes(jar)


if __name__ == "__main__":
    fetch(Path(sys.argv[1]))
