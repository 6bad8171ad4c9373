"""Reads the part of the Dockerfile language that deploy/images/Dockerfile uses; anything else is refused by name.

Python's standard library alone.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field

# Known, and what is refused: not needed here, or not to be replayed honestly without an engine.
INSTRUCTIONS = ("ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "FROM", "HEALTHCHECK", "LABEL", "RUN", "STOPSIGNAL", "USER",
                "WORKDIR")
FLAGS = {"COPY": ("from", "chmod"), "HEALTHCHECK": ("interval", "timeout", "start-period", "retries")}
VARIABLE = re.compile(r"\$(?:\{(\w+)([^}]*)\}|(\w+))")
SCRATCH = "scratch"


class DockerfileError(Exception):
    """The file uses what is not understood; the message says where and what."""


@dataclass
class Instruction:
    line: int
    name: str
    text: str  # what follows the name and its flags, variables as written
    flags: dict[str, str] = field(default_factory=dict)

    def error(self, message: str) -> DockerfileError:
        return DockerfileError(f"line {self.line}: {self.name}: {message}")

    def words(self) -> list[str]:
        return shlex.split(self.text)

    def command(self) -> list[str]:
        """The words of an exec form. DockerfileError for a shell form."""
        try:
            found = json.loads(self.text)
        except json.JSONDecodeError:
            found = None
        if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
            raise self.error("want the exec form, [\"program\", \"argument\"]: a shell would take the signals")
        return found


@dataclass
class Stage:
    name: str
    base: str  # of another stage, or of an image
    line: int
    steps: list[Instruction] = field(default_factory=list)


def substitute(text: str, values: dict[str, str], step: Instruction) -> str:
    def value(match: re.Match) -> str:
        name = match[1] or match[3]
        if match[2]:
            raise step.error(f"${{{name}{match[2]}}} is not understood; want $NAME or ${{NAME}}")
        if name not in values:
            raise step.error(f"nothing sets {name}")
        return values[name]
    return VARIABLE.sub(value, text)


def instructions(text: str) -> list[Instruction]:
    """Every instruction, in order. Comments are dropped, continued lines joined."""
    found: list[Instruction] = []
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        start, joined = number, ""
        while number < len(lines):
            line = lines[number]
            number += 1
            if re.match(r"\s*(#|$)", line):
                if start == number - 1 and re.match(r"#\s*(syntax|escape|check)\s*=", line):
                    raise DockerfileError(f"line {number}: parser directives are not understood")
                if not joined:
                    break
                continue
            if line.rstrip().endswith("\\"):
                joined += line.rstrip()[:-1]
                continue
            joined += line
            break
        if not joined.strip():
            continue
        name, _, rest = joined.strip().partition(" ")
        step = Instruction(start + 1, name.upper(), rest.strip())
        if step.name not in INSTRUCTIONS:
            raise step.error("this instruction is not understood here")
        while match := re.match(r"--([\w-]+)(?:=(\S+))?(?:\s+|$)", step.text):
            if match[1] not in FLAGS.get(step.name, ()):
                raise step.error(f"--{match[1]} is not understood here")
            step.flags[match[1]] = match[2] or ""
            step.text = step.text[match.end():]
        if re.search(r"<<-?\s*['\"]?\w+", step.text) and step.name in ("RUN", "COPY"):
            raise step.error("here documents are not understood")
        found.append(step)
    return found


def stages(text: str, arguments: dict[str, str]) -> tuple[list[Stage], dict[str, str]]:
    """The stages in order, and the values of the arguments before the first one. Those without a value are not there."""
    values: dict[str, str] = {}
    found: list[Stage] = []
    for step in instructions(text):
        if step.name == "FROM":
            words = substitute(step.text, values, step).split()
            if len(words) != 3 or words[1].upper() != "AS":
                raise step.error("want FROM base AS name")
            if any(stage.name == words[2] for stage in found):
                raise step.error(f"there are two stages {words[2]}")
            found.append(Stage(words[2], words[0], step.line))
        elif not found:
            if step.name != "ARG":
                raise step.error("comes before the first FROM")
            name, _, default = step.text.partition("=")
            if name in arguments or default:
                values[name] = arguments.get(name, default)
        else:
            found[-1].steps.append(step)
    if not found:
        raise DockerfileError("there is no FROM")
    return found, values


def needed(found: list[Stage], given: tuple[str, ...] = ()) -> list[Stage]:
    """The stages that the last one needs, in order, without those that are given."""
    by_name = {stage.name: stage for stage in found}
    wanted: set[str] = set()

    def visit(name: str) -> None:
        if name not in by_name or name in wanted or name in given:
            return
        wanted.add(name)
        stage = by_name[name]
        visit(stage.base)
        for step in stage.steps:
            if "from" in step.flags:
                if step.flags["from"] not in by_name:
                    raise step.error(f"there is no stage {step.flags['from']}")
                visit(step.flags["from"])
    visit(found[-1].name)
    return [stage for stage in found if stage.name in wanted]
