#!/usr/bin/env python3
"""Fetches the JVM's JOSE library that the sample in Java verifies with.

    tests/upstreams/jars.py FOLDER

JJWT is published on Maven Central, which not every machine that runs the tests can reach. PySpark's archive on PyPI (434 MB)
carries the same jars, and the Jackson that they need: they are taken out of it, and the archive is not kept.
"""

import hashlib
import re
import sys
import tarfile
import tempfile
import urllib.request
from pathlib import Path

URL = (
    "https://files.pythonhosted.org/packages/9d/0e/5b38d51f1b1c2618cccfbf35093268665af9a3bdb493e5a3ecd991def633/"
    "pyspark-4.0.0.tar.gz"
)
SHA256 = "38db1b4f6095a080d7605e578d775528990e66dc326311d93e94a71cfc24e5a5"
WANTED = re.compile(r"pyspark-4\.0\.0/deps/jars/(jjwt-(?:api|impl|jackson)|jackson-(?:core|databind|annotations))-[\d.]+\.jar")
COUNT = 6


def fetch(folder):
    with tempfile.TemporaryFile() as archive:
        digest = hashlib.sha256()
        with urllib.request.urlopen(URL, timeout=60) as answer:
            while part := answer.read(1 << 20):
                digest.update(part)
                archive.write(part)
        if digest.hexdigest() != SHA256:
            sys.exit(f"{URL} is not what it was: SHA-256 {digest.hexdigest()}")
        archive.seek(0)
        with tarfile.open(fileobj=archive) as members:
            jars = {Path(member.name).name: members.extractfile(member).read() for member in members if WANTED.fullmatch(member.name)}
    if len(jars) != COUNT:
        sys.exit(f"{URL} has {sorted(jars)}")
    folder.mkdir(parents=True, exist_ok=True)
    for name, jar in jars.items():
        (folder / name).write_bytes(jar)


if __name__ == "__main__":
    fetch(Path(sys.argv[1]))
