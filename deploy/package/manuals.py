"""Man pages of every program and sluicectl's completion of shells, made of what the built programs say of themselves.

`sluicectl man` and `sluicectl completion` write theirs. The pages of the other programs are their `--help` and that of their
subcommands, set as a man page, with the exit codes of the code; sluice-health's is the comment at its head. A help text that
is not understood is an error, so that no page lacks an option unnoticed. Stateless.
"""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tools"))
import process_reference  # noqa: E402  # its folder is known from here on

HELPED = ("sluice-learner", "sluice-actor", "sluice-reward", "sluice-inspect")  # CLI11 prints their --help
PAGES = (*HELPED, "sluicectl", "sluice-health")
# Where Debian's shells look.
COMPLETIONS = {"bash": "usr/share/bash-completion/completions/sluicectl", "zsh": "usr/share/zsh/vendor-completions/_sluicectl",
               "fish": "usr/share/fish/vendor_completions.d/sluicectl.fish"}
DESCRIPTION_COLUMN = 30  # CLI11's


class ManualError(Exception):
    """A help text that is not understood, or a program that does not answer; the message says which."""


@dataclass
class Help:
    """One --help: what it is for, how it is called, and (name, description) of what stands under each heading."""

    about: str
    usage: str
    sections: dict[str, list[tuple[str, str]]] = field(default_factory=dict)


def read_help(text: str, program: str) -> Help:
    """What CLI11 1.9 to 2.4 print. ManualError names the line that is none of it."""
    head, found, body = text.partition("\nUsage: ")
    if not found:
        raise ManualError(f"{program} --help has no line 'Usage: '")
    lines = body.splitlines()
    result = Help(" ".join(head.split()), lines[0])
    entries: list[tuple[str, str]] | None = None
    for line in lines[1:]:
        if not line.strip():
            continue
        indent = len(line) - len(line.lstrip(" "))
        if heading := re.fullmatch(r"([A-Z]\w*):", line):
            entries = result.sections.setdefault(heading[1], [])
        elif entries is not None and indent == 2:
            name, _, description = line.strip().partition("  ")
            entries.append((name.strip(), description.strip()))
        elif entries and indent == DESCRIPTION_COLUMN:  # of a name that is too long for its column
            name, description = entries[-1]
            entries[-1] = (name, f"{description} {line.strip()}".strip())
        else:
            raise ManualError(f"{program} --help: this line is not understood: {line!r}")
    for heading, found_entries in result.sections.items():
        for name, description in found_entries:
            if not description:
                raise ManualError(f"{program} --help: {heading}: {name} has no description")
    return result


def roff(text: str) -> str:
    """Text for a line of a man page: as it stands, whatever roff makes of such signs."""
    for sign, escape in (("\\", "\\e"), ("-", "\\-"), ("'", "\\(aq"), ("`", "\\(ga"), ("^", "\\(ha"), ("~", "\\(ti")):
        text = text.replace(sign, escape)
    return "\\&" + text if text.startswith(".") else text


def entries_of(entries: list[tuple[str, str]]) -> str:
    return "".join(f".TP\n\\fB{roff(name)}\\fR\n{roff(description)}\n" for name, description in entries)


def title(program: str, release: str, about: str) -> str:
    return (f".TH {program.upper()} 1 \"\" \"Sluice {release}\" \"Sluice\"\n"
            f".SH NAME\n{roff(program)} \\- {roff(about.rstrip('.'))}\n")


def program_page(program: str, release: str, texts: dict[str, str], codes: list[tuple[int, str, str]]) -> str:
    """texts: --help by subcommand, "" the program's own."""
    own = read_help(texts[""], program)
    page = title(program, release, own.about)
    usages = [own.usage, *(read_help(text, f"{program} {name}").usage for name, text in texts.items() if name)]
    page += ".SH SYNOPSIS\n" + "\n.br\n".join(f"\\fB{roff(usage)}\\fR" for usage in usages) + "\n"
    for heading, entries in own.sections.items():
        if heading != "Subcommands":
            page += f".SH {heading.upper()}\n" + entries_of(entries)
    if len(texts) > 1:
        page += ".SH COMMANDS\n"
        for name, text in texts.items():
            if name:
                one = read_help(text, f"{program} {name}")
                page += f".SS {roff(name)}\n{roff(one.about)}\n"
                for entries in one.sections.values():
                    page += entries_of(entries)
    page += ".SH EXIT STATUS\n" + entries_of([(str(code), meaning) for code, _, meaning in codes])
    return page + ".SH SEE ALSO\n.BR sluicectl (1);\nthe pages in /usr/share/doc/sluice\n"


def script_page(program: str, release: str, text: str) -> str:
    """text: of a script whose head is a comment: "WHAT: EXIT STATUS", an indented line "PROGRAM ARGUMENTS  MEANING", and more."""
    comment = []
    for line in text.splitlines()[1:]:
        if not line.startswith("#"):
            break
        comment.append(line[1:].removeprefix(" "))
    usage = next((i for i, line in enumerate(comment) if line.strip().startswith(program)), None)
    if not usage:
        raise ManualError(f"the comment at the head of {program} does not say what it is for and how it is called")
    call, _, meaning = comment[usage].strip().partition("  ")
    words, below = [meaning.strip()], usage + 1
    while below < len(comment) and comment[below].startswith("    "):
        words.append(comment[below].strip())
        below += 1
    about, _, rest = " ".join(comment[:usage]).partition(": ")
    return (title(program, release, about) + f".SH SYNOPSIS\n\\fB{roff(call)}\\fR\n"
            f".SH DESCRIPTION\n{roff(' '.join(words))}\n.PP\n{roff(' '.join(comment[below:]))}\n"
            f".SH EXIT STATUS\n{roff(rest)}\n")


def answer(folder: str, *words: str) -> str:
    path = os.path.join(folder, words[0])
    try:
        said = subprocess.run([path, *words[1:]], capture_output=True, text=True, timeout=60)
    except OSError as error:
        raise ManualError(f"{path} does not run here: {error.strerror}") from None
    if said.returncode != 0 or not said.stdout:
        raise ManualError(f"{' '.join(words)} ended with {said.returncode}: {said.stderr.strip()}")
    return said.stdout


def helps(folder: str, program: str) -> dict[str, str]:
    """--help of a program and of its subcommands."""
    try:
        texts = {"": process_reference.help_text(folder, (program,))}
        for name, _ in read_help(texts[""], program).sections.get("Subcommands", []):
            texts[name] = process_reference.help_text(folder, (program, name))
    except (OSError, ValueError) as error:
        raise ManualError(str(error)) from None
    return texts


def manuals(folder: str, release: str, date: str, top: str = TOP) -> dict[str, bytes]:
    """Place below the root -> bytes, of everything that the programs in `folder` say of themselves. date: 2026-01-31."""
    with open(os.path.join(top, "common", "status", "exit_code.h"), encoding="utf-8") as file:
        codes = process_reference.exit_codes(file.read())
    pages = {name: program_page(name, release, helps(folder, name), codes) for name in HELPED}
    pages["sluicectl"] = answer(folder, "sluicectl", "man")
    with open(os.path.join(top, "deploy", "images", "sluice-health"), encoding="utf-8") as file:
        pages["sluice-health"] = script_page("sluice-health", release, file.read())
    found = {}
    for name, text in pages.items():
        heading, undated, rest = text.partition(' 1 ""')
        if not undated or not heading.startswith(".TH "):
            raise ManualError(f"the man page of {name} does not begin with .TH {name.upper()} 1 and no date")
        found[f"usr/share/man/man1/{name}.1.gz"] = gzip.compress(f'{heading} 1 "{date}"{rest}'.encode(), 9, mtime=0)
    for shell, place in COMPLETIONS.items():
        found[place] = answer(folder, "sluicectl", "completion", shell).encode()
    return found
