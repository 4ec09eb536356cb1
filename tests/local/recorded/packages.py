"""The packages that the recorded calls push, rebuilt from what the recordings show of them, as git repositories."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

DEMO = """
variables:
  default:
    global:
      delay: 1
      greeting: hello
components:
- stage: 0
  name: Greet
  command:
    executable: echo
    arguments: "%(greeting)s world"
- stage: 0
  name: MakeDir
  command:
    executable: bin/mkdir.py
    arguments: extra.txt
  references: [data/extra.txt:copy]
- stage: 0
  name: Compute
  command:
    executable: bin/compute.py
    arguments: molecules.csv %(delay)s
  references: [input/molecules.csv:copy]
- stage: 1
  name: Cat
  command:
    executable: cat
    arguments: stage0.Greet/out.stdout:ref
  references: [stage0.Greet/out.stdout:ref]
output:
  Archive:
    data-in: stage0.MakeDir/bundle.zip:copy
  Energies:
    data-in: stage0.Compute/energies.csv:copy
  Folder:
    data-in: stage0.MakeDir/results:copy
  Greeting:
    data-in: stage1.Cat/out.stdout:copy
interface:
  description: Computes toy properties of toy molecules
  inputSpec:
    namingScheme: SMILES
    inputExtractionMethod:
      csvColumn:
        source:
          path: input/molecules.csv
        args:
          column: smiles
  propertiesSpec:
  - name: energy
    description: toy energy
    propertyExtractionMethod:
      csvDataFrame:
        source:
          keyOutput: Energies
  - name: weight
    description: toy weight
    propertyExtractionMethod:
      csvDataFrame:
        source:
          keyOutput: Energies
"""

COMPUTE = """#!/usr/bin/env python3
import csv, sys, time
time.sleep(float(sys.argv[2]))
rows = [row["smiles"] for row in csv.DictReader(open(sys.argv[1]))]
with open("energies.csv", "w") as target:
    target.write("input-id,smiles,energy,weight\\n")
    for smiles in rows:
        energy = "nan" if smiles == "NAN" else -1.5 * len(smiles)
        target.write(f"{smiles},{smiles},{energy},{12.0 * len(smiles)}\\n")
"""

MAKE_DIRECTORY = """#!/usr/bin/env python3
import pathlib, shutil, sys
folder = pathlib.Path("results", "sub")
(folder / "empty").mkdir(parents=True)
shutil.copy(sys.argv[1], "results")
pathlib.Path("results", "a.txt").write_text("a\\n")
(folder / "b.bin").write_bytes(bytes(range(256)))
(folder / 'caf\\u00e9 "x".txt').write_text("unicode\\n")
shutil.make_archive("bundle", "zip", "results")
"""

SUM_NUMBERS = """
variables:
  default:
    global:
      numberOfPoints: 2
platforms: [default, openshift, scafellpike]
blueprint:
  openshift:
    global:
      resourceManager:
        config:
          backend: kubernetes
components:
- stage: 0
  name: GenerateInput
  command:
    executable: echo
    arguments: "%(numberOfPoints)s"
  resourceManager: &resources
    kubernetes:
      image: quay.io/st4sd/official-base/st4sd-runtime-core
- stage: 1
  name: PartialSum
  command:
    executable: cat
    arguments: stage0.GenerateInput/out.stdout:ref
  references: [stage0.GenerateInput/out.stdout:ref]
  resourceManager: *resources
- stage: 2
  name: Sum
  command:
    executable: cat
    arguments: stage1.PartialSum/out.stdout:ref
  references: [stage1.PartialSum/out.stdout:ref]
  resourceManager: *resources
- stage: 3
  name: Cat
  command:
    executable: cat
    arguments: stage2.Sum/out.stdout:ref data/cat_me.txt:ref
  references: [stage2.Sum/out.stdout:ref, data/cat_me.txt:ref]
  resourceManager: *resources
output:
  TotalSum:
    data-in: stage3.Cat/out.stdout:copy
"""

SLOW = """
variables:
  default:
    global:
      seconds: 60
components:
- stage: 0
  name: Sleep
  command:
    executable: sleep
    arguments: "%(seconds)s"
- stage: 1
  name: Done
  command:
    executable: echo
    arguments: done stage0.Sleep:output
  references: [stage0.Sleep:output]
output:
  Done:
    data-in: stage1.Done/out.stdout:copy
"""

# Asking for restarts but allowing none spares the 25 seconds in which the orchestrator watches whether the failure was
# the system's.
FAIL = """
components:
- stage: 0
  name: Boom
  command:
    executable: "false"
  workflowAttributes:
    restartHookOn: [KnownIssue]
    maxRestarts: 0
- stage: 1
  name: After
  command:
    executable: echo
    arguments: stage0.Boom:output
  references: [stage0.Boom:output]
output:
  After:
    data-in: stage1.After/out.stdout:copy
"""

BIG = """
variables:
  default:
    global:
      smallFiles: 200
      bigMiB: 128
components:
- stage: 0
  name: Fill
  command:
    executable: echo
    arguments: "%(smallFiles)s %(bigMiB)s"
output:
  BigFolder:
    data-in: stage0.Fill/big:copy
"""

BAD_REFERENCE = """
components:
- stage: 0
  name: A
  command:
    executable: echo
- stage: 1
  name: B
  command:
    executable: echo
  references: [stage0.A:ref]
"""

BROKEN = """
components:
- stage: 0
  name: A
  command:
    executable: cat
    arguments: stage0.DoesNotExist/out.stdout:ref
  references: [stage0.DoesNotExist/out.stdout:ref]
"""

DSL = """
entrypoint:
  entry-instance: main
  execute:
  - target: <entry-instance>
    args:
      foo: world
workflows:
- signature:
    name: main
    parameters:
    - name: foo
      default: world
  steps:
    greet: greeter
  execute:
  - target: <greet>
    args:
      message: "%(foo)s"
components:
- signature:
    name: greeter
    parameters:
    - name: message
      default: hello
  command:
    executable: echo
    arguments: hello %(message)s
"""

CHEAP = """
components:
- stage: 0
  name: Guess
  command:
    executable: cat
    arguments: smiles.txt smiles.txt
  references: [input/smiles.txt:copy]
"""

EXPENSIVE = """
components:
- stage: 0
  name: Optimize
  command:
    executable: cat
    arguments: smiles.txt
  references: [input/smiles.txt:copy]
- stage: 1
  name: Report
  command:
    executable: cat
    arguments: stage0.Optimize/out.stdout:ref
  references: [stage0.Optimize/out.stdout:ref]
output:
  R:
    data-in: stage1.Report/out.stdout:copy
"""

FLOWIR, DSL_FILE = "conf/flowir_package.yaml", "conf/dsl.yaml"
PACKAGES: dict[str, dict[str, str]] = {
    "demo": {FLOWIR: DEMO, "data/extra.txt": "extra\n", "bin/compute.py": COMPUTE, "bin/mkdir.py": MAKE_DIRECTORY},
    "sum-numbers": {FLOWIR: SUM_NUMBERS, "data/cat_me.txt": "cat\n"},
    "slow": {FLOWIR: SLOW},
    "fail": {FLOWIR: FAIL},
    "big": {FLOWIR: BIG},
    "badref": {FLOWIR: BAD_REFERENCE},
    "broken": {FLOWIR: BROKEN},
    "vanish": {FLOWIR: SLOW},
    "dsl": {DSL_FILE: DSL},
    "cheap": {FLOWIR: CHEAP},
    "expensive": {FLOWIR: EXPENSIVE},
}
"""Name of a package -> its files."""
START_FILES = {"molecules.csv": "index,smiles\n0,CCO\n1,NAN\n2,CCCC\n", "data/extra.txt": "overridden\n"}
"""Files of the recorded start of "demo"."""
PROPERTIES = "input-id;smiles;energy;weight\nCCCC;CCCC;-6.0;48.0\nCCO;CCO;-4.5;36.0\nNAN;NAN;;36.0\n"
"""What the orchestrator makes of the recorded run's molecules."""
REPOSITORIES = (*PACKAGES, "does-not-exist")
"""The repositories that the calls name."""


class Repositories:
    """Git repositories of the packages below one folder, each with branch ``main`` and tag ``1.0.0``."""

    def __init__(self, folder: Path) -> None:
        """Copy the repositories into the folder."""
        self._folder = folder
        shutil.copytree(_created(), folder, dirs_exist_ok=True)
        self._commits = len(PACKAGES)

    def url(self, name: str) -> str:
        """Return the URL of a repository, which may not exist."""
        return (self._folder / name).as_uri()

    def commit(self, name: str) -> None:
        """Add a commit with a new file, and move the tag to it."""
        self._commits += 1
        _commit(self._folder / name, self._commits)

    def head(self, name: str) -> str:
        """Return the id of the newest commit."""
        return _git(self._folder / name, "rev-parse", "HEAD").strip()

    def remove(self, name: str) -> None:
        """Remove a repository."""
        shutil.rmtree(self._folder / name)


@cache
def _created() -> Path:
    """Create the repositories, once in a process."""
    folder = Path(tempfile.mkdtemp(prefix="st4sd-recorded-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for number, (name, files) in enumerate(PACKAGES.items(), 1):
        for path, content in files.items():
            file = folder / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content, encoding="utf-8")
            file.chmod(0o755 if path.startswith("bin/") else 0o644)
        _git(folder / name, "init", "--quiet", "--template=", "--initial-branch=main")
        _commit(folder / name, number)
    return folder


def _commit(repository: Path, number: int) -> None:
    (repository / "README.md").write_text(f"commit {number}\n")
    _git(repository, "add", "--all")
    _git(repository, "commit", "--quiet", "--message=commit")
    _git(repository, "tag", "--force", "1.0.0")


def _git(repository: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=tests", "-c", "user.email=tests@example.com", "-c", "commit.gpgSign=false")
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=repository, check=True, capture_output=True, text=True).stdout


def demo_outputs() -> dict[str, bytes | dict[str, bytes]]:
    """Execute the programs of "demo", and return what the simulator cannot know: the content of key-outputs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path, content in {**PACKAGES["demo"], **START_FILES}.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(content, encoding="utf-8")
        for command in (["bin/mkdir.py", "data/extra.txt"], ["bin/compute.py", "molecules.csv", "0"]):
            subprocess.run([sys.executable, *command], cwd=folder, check=True)
        results = {str(path.relative_to(folder / "results")): path for path in (folder / "results").rglob("*")}
        return {
            "Archive": (folder / "bundle.zip").read_bytes(),
            "Energies": (folder / "energies.csv").read_bytes(),
            "Folder": {name: path.read_bytes() for name, path in results.items() if path.is_file()},
        }
