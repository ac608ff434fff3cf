"""The one thing that pyproject.toml cannot say:
the commands are installed inside a package, not as a top-level `scripts`."""

from setuptools import find_packages, setup

ROOMS = ["training", "rope", "gan", "retrieval", "pegasus_zh"]

setup(
    packages=[*find_packages(include=[*ROOMS, *(f"{room}.*" for room in ROOMS)]), "pegasus_zh.commands"],
    package_dir={"pegasus_zh.commands": "scripts"},
)
