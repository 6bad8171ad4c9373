#!/usr/bin/env python3
"""Writes docs/reference/files.md: every file that a process writes, who reads it, and whether it may be deleted.

    python3 tools/files_reference.py [--check]

What a file is for stands in the tables below; its name is the code's. Each row names the source that holds the name, and a
name of a file in the code that no row has is an error, as is a row whose name is no longer there. tests/deploy/files_test.py also
compares the rows with the folders of real jobs. Python's standard library alone.
"""

from __future__ import annotations

import glob
import os
import re
import sys
from dataclasses import dataclass

import reference_page

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Words in capitals of a path.
PLACEHOLDERS = {"STEP": r"\d{8}", "RANK": r"\d{4}", "N": r"\d+", "NUMBER": r"\d{8}", "TIME": r"\d+", "DIGEST": r"[0-9a-f]+",
                "JOB": r"[\w.-]+", "FILE": r".+", "MODEL": r"(?:config\.json|model\.safetensors|sluice_encoder\.safetensors|"
                r"sluice_value\.safetensors|tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json|"
                r"vocab\.json|merges\.txt|tokenizer\.model|chat_template\.jinja)"}


class FilesError(Exception):
    """The code and the tables disagree; the message says where."""


@dataclass(frozen=True)
class Entry:
    path: str     # within the folder; words in capitals stand for what differs
    what: str
    writer: str
    readers: str
    form: str     # what is in it, or the page that says so
    delete: str   # may a person delete it?
    named: tuple[tuple[str, str], ...] = ()  # (source file, the text in it that has the name)
    rare: str = ""  # when it is there, if the test's jobs do not write it

    def matches(self, path: str) -> bool:
        pattern = re.sub(r"\b[A-Z]+\b", lambda word: PLACEHOLDERS[word[0]], self.path.replace(".", r"\."))
        return re.fullmatch(pattern, path) is not None


@dataclass(frozen=True)
class Folder:
    title: str
    intro: str
    entries: tuple[Entry, ...]

    def find(self, path: str) -> Entry | None:
        return next((entry for entry in self.entries if entry.matches(path)), None)


RUN_H, CHECKPOINT = "learner/run/run_folder.h", "learner/train/checkpoint.cc"
POLICY = "common/model/policy_files.cc"
DATASET, TRUTH = "common/catalog/dataset.cc", "common/catalog/market_truth.cc"
RESUMES = "no: the job goes on from it"
DIGESTED = "no: the manifest has its digest, and the folder would be refused"

MODEL_FILES = "Hugging Face layout"
MODEL_NAMES = ((POLICY, '"config.json"'), (POLICY, '"model.safetensors"'), (POLICY, '"sluice_encoder.safetensors"'),
               (POLICY, '"sluice_value.safetensors"'), *(("learner/run/job_common.cc", f'"{name}"') for name in (
                   "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
                   "merges.txt", "tokenizer.model", "chat_template.jinja")))


def data_set(prefix: str = "", delete: str = DIGESTED) -> tuple[Entry, ...]:
    """A prepared data set below `prefix`."""
    readers = "ranks, actors' catalogs by way of a rank, `sluice-reward`, `sluicectl inspect`"
    made, rows = "job `prepare`", "[data.md](../data.md)"

    def row(path: str, what: str, source: str = DATASET, literal: str = "", rare: str = "", reads: str = readers) -> Entry:
        name = path.rpartition("/")[2]
        return Entry(prefix + path, what, made, reads, rows, delete, ((source, literal or f'"{name}"'),), rare)
    market = "with `prepare.market`"
    evaluates = "metrics and rankers of known error, no training"
    return (
        row("manifest.json", "name, counts, catalog version, SHA-256 of every other file; written last"),
        row("item_names.json", "items' names by number"), row("user_names.json", "users' names by number"),
        row("first_event.npy", "where each user's events begin"), row("event_item.npy", "events, oldest first"),
        row("event_split.npy", "train, validation, test, reserved or context"), row("item_codes.npy", "semantic IDs"),
        row("item_vectors.npy", "what semantic IDs were made from; absent if an index file gave them", "common/catalog/dataset.h"),
        row("prepare_spec.sha256", "digest of the spec that made it", "learner/run/job_prepare.cc", reads="`prepare`, which makes "
            "nothing twice"),
        row("sequential_ranker/config.json", "shape of the trained ranker", "common/ranker/sequential_ranker.cc", reads="`sluice-reward`"),
        row("sequential_ranker/model.safetensors", "its weights", "common/ranker/sequential_ranker.cc", reads="`sluice-reward`"),
        row("sequential_ranker_unbiased/FILE", "the same of one that saw the whole log", "learner/run/job_prepare.cc",
            "sequential_ranker_unbiased", "with `prepare.ranker.bias`", "`sluice-reward`"),
        row("truth/truth.json", "what is true of a generated market: sizes, seed of the noise", TRUTH, rare=market, reads=evaluates),
        *(row(f"truth/{name}.npy", what, TRUTH, rare=market, reads=evaluates) for name, what in (
            ("item_vectors", "utility is the product of these"), ("user_vectors", "and these"), ("user_region", "users' regions"),
            ("item_cell", "items' cells"), ("log_popularity", "log of items' share of exposures"))))


FOLDERS = (
    Folder("Run folder", "`RUNS/JOB` of the service (`--runs` of the coordinator), `--run-folder` or `RUNS/NAME-DIGEST` of `sluice-learner run`. "
           "When the job is over and nobody will resume, fork or evaluate it, all of it may go: `sluicectl delete JOB --files` does that.", (
        Entry("spec.yaml", "effective spec, all defaults filled in", "first rank, at each start", "reports, `replay`, `advise`, mirrors, "
              "Python", "[job_spec.md](../job_spec.md)", "no: `replay` and `advise` want it", (("learner/run_command.cc", '"spec.yaml"'),)),
        Entry("metrics.jsonl", "what was measured, one JSON object a line", "first rank", "reports, mirrors, Python; a job that resumes "
              "goes on in it", "`step`, `time_s`, then name and number", "no, while the job may go on", ((RUN_H, '"metrics.jsonl"'),)),
        Entry("tensorboard/events.out.tfevents.TIME.sluice", "the same for TensorBoard, a file an attempt", "first rank", "TensorBoard",
              "tfevents", "yes", ((RUN_H, '"tensorboard"'), ("learner/tensorboard/event_writer.cc", '"events.out.tfevents."'))),
        Entry("checkpoint.json", "the epoch that may write checkpoints, the step of the newest", "first rank", "ranks",
              "`learner/run/checkpoint_mark.h`", "no: it keeps a rank that was taken for dead from writing", ((RUN_H, '"checkpoint.json"'),)),
        Entry("checkpoints/step-STEP/manifest.json", "SHA-256 of the checkpoint's files; written last", "first rank", "ranks, `fork`, "
              "mirrors, `sluicectl inspect checkpoint`", "`format` 1", "an older checkpoint: yes, its whole folder; the newest: no",
              (("learner/mirror/checkpoint_manifest.h", '"manifest.json"'), (CHECKPOINT, '"step-"'))),
        Entry("checkpoints/step-STEP/state.json", "step, policy version, spec, digests, gate and sampler numbers", "first rank", "ranks, "
              "`describe`, `inspect`", "JSON", RESUMES, ((CHECKPOINT, '"state.json"'),)),
        Entry("checkpoints/step-STEP/model/MODEL", "the policy", "first rank", "ranks, `fork`", MODEL_FILES, RESUMES, MODEL_NAMES),
        Entry("checkpoints/step-STEP/optimizer.safetensors", "AdamW's moments", "first rank", "ranks", "safetensors, `first` and `second`",
              RESUMES, ((CHECKPOINT, '"optimizer.safetensors"'),)),
        Entry("checkpoints/step-STEP/reference.safetensors", "the reference policy", "first rank", "ranks", "safetensors, `parameters`",
              RESUMES, ((CHECKPOINT, '"reference.safetensors"'),), "with a KL term"),
        Entry("checkpoints/step-STEP/ledger-N.json", "ordinals that are open, of rank N", "first rank", "ranks", "JSON", RESUMES,
              ((CHECKPOINT, '"ledger-"'),)),
        Entry("checkpoints/damaged-step-STEP/FILE", "the last checkpoint that was found damaged", "first rank", "nobody", "a checkpoint",
              "yes", ((CHECKPOINT, '"damaged-"'),), "after damage"),
        Entry("ledger.csv", "what became of every ordinal, up to the last checkpoint", "first rank, of `rl`", "reports, the auditor; a job "
              "that resumes goes on in it", "`learner/ledger/terminal_table.h`", "no, while the job may go on", ((RUN_H, '"ledger.csv"'),)),
        Entry("record/rank-RANK.groups", "every judged group", "each rank, with `rl.record`", "`replay`, `advise`, the auditor",
              "[record.md](../record.md)", "yes, when the job is over", (("learner/record/record_file.cc", '".groups"'),)),
        Entry("contexts.csv", "the cell of every user", "first rank, of `rl` with held-out prompts", "`compare --cells`",
              "`learner/evaluate/context_file.h`", "yes, when the job is over", ((RUN_H, '"contexts.csv"'),),
              "with `rl.prompt_split` test or validation"),
        Entry("examples.json", "what a few users were offered, first and last", "first rank", "reports", "`learner/evaluate/example_file.h`",
              "yes", ((RUN_H, '"examples.json"'),)),
        Entry("outcomes.csv", "what became of every user", "first rank, of `evaluate`", "`compare`", "`learner/evaluate/outcome_file.h`, "
              "format 1", "no, while it is to be compared", ((RUN_H, '"outcomes.csv"'),)),
        Entry("export/best/MODEL", "the model with the best validation", "first rank", "you: `model.path` of a spec, `sluicectl export`, "
              "transformers", MODEL_FILES, "no, while the job may go on", ((RUN_H, '"export"'),)),
        Entry("export/best.json", "the step of that validation; absent while `best` changes", "first rank", "ranks", "`step`",
              "no, while the job may go on", ((RUN_H, '"best.json"'),)),
        Entry("export/final/MODEL", "the model after the last step", "first rank", "you", MODEL_FILES, "yes", ((RUN_H, '"export"'),)),
        Entry("results.json", "closing numbers and paths", "first rank, at the end", "reports, `compare`, Python", "JSON", "no: without it "
              "the run counts as unfinished", ((RUN_H, '"results.json"'),)),
        Entry("report.html", "the report", "first rank, at the end", "you, `sluicectl report`", "[report.md](../report.md)",
              "yes: `sluice-learner report FOLDER` writes one again", ((RUN_H, '"report.html"'),)),
        Entry("lock", "held by the one process that may work here", "`sluice-learner run`", "the same", "empty", "yes, when nothing runs "
              "there", (("learner/run_command.cc", '"lock"'),)),
        Entry("policy_version", "the last policy version that was given out", "`sluice-learner run` of `rl`", "the same", "a number",
              "no: a version would be used twice", (("learner/run/local_services.cc", '"policy_version"'),)),
        Entry("data/FILE", "the data set of a `prepare` without `prepare.output`", "first rank", "as a data set", "[Data set](#data-set)",
              "no, while a spec names it", (("learner/run/job_prepare.cc", '"data"'),), "of such a job"),
        Entry("mirror/FILE", "how far a mirror of this folder is, and its own files", "`sluice-mirror FOLDER`", "the same",
              "[python.md](../python.md)", "no, unless you then mirror to a new place: it knows what was sent", (("client/python/sluice/mirror/source.py", '"mirror"'),),
              "with such a mirror"),
    )),
    Folder("Folder of runs", "`--runs` of the coordinator and of `sluice-learner run`; every rank reaches it by the same path.", (
        Entry("JOB/FILE", "the run folder of a job", "first rank", "see above", "[Run folder](#run-folder)", "see above"),
        Entry("forks/JOB-step-STEP/model/MODEL", "the checkpoint that a fork began with, by hard links", "coordinator", "ranks",
              MODEL_FILES, "no, while the fork may start again; `sluicectl delete JOB --files` of the last such job does",
              (("learner/rpc/job_service.cc", '"forks"'),)),
        Entry(".storage-check-N.tmp/FILE", "a try of the disk", "coordinator, for `doctor`", "the same", "-", "yes",
              (("learner/rpc/storage_check.cc", '".storage-check-"'),), "for a moment"),
    )),
    Folder("State folder", "`--state` of the coordinator, by default its `--runs`. How to copy it: [backup.md](../backup.md).", (
        Entry("jobs.db", "jobs, their states, events, specs, reservations", "coordinator", "the same, `sqlite3`", "SQLite, format 2 "
              "([upgrade.md](../upgrade.md))", "no: the jobs are gone", (("learner/coordinator_command.cc", '"jobs.db"'),)),
        Entry("jobs.db-wal", "what is not in `jobs.db` yet", "coordinator", "the same", "SQLite", "no: acknowledged jobs are in it"),
        Entry("audit.jsonl", "who changed what and who was refused", "coordinator (`--audit-log`)", "you", "[security.md](../security.md)",
              "as your rules of keeping say", (("learner/coordinator_command.cc", '"audit.jsonl"'),)),
        Entry("audit.jsonl.N", "older parts of it", "coordinator", "you", "the same", "as your rules of keeping say",
              (("common/security/audit_log.cc", 'path_, "."'),), "when it has grown"),
    )),
    Folder("Data set", "`prepare.output`; `data` of a spec and `--data` of `sluice-reward` name it. Immutable: delete it as a whole, when no "
           "job and no reward server uses it.", data_set()),
    Folder("Pushed data", "`--data-root` of the coordinator. `sluicectl data rm` removes a folder and its room.", (
        Entry("DIGEST/FILE", "files as they were pushed", "coordinator", "ranks, by `data: digest:...`", "as pushed", "by `sluicectl data rm`"),
        Entry("DIGEST.json", "name, time, files; written last", "coordinator", "the same", "JSON", "by `sluicectl data rm`",
              (("learner/data/data_store.h", "<root>/<digest>.json"),)),
        Entry("incoming/DIGEST/FILE", "a push under way", "coordinator", "the same", "`learner/data/data_store.h`", "yes: the push begins anew",
              (("learner/data/data_store.cc", '"incoming"'), ("learner/data/data_store.cc", '"touched"')), "while one is under way"),
    )),
    Folder("Mirror of checkpoints", "`checkpoint.mirror`: an object store, or a folder. Where nothing is left of the run folder, the job "
           "goes on from here.", (
        Entry("JOB/checkpoints/step-STEP/manifest.json", "the checkpoint's own; written last, removed first", "first rank", "first rank",
              "as in the run folder", "an older checkpoint: yes, its manifest first",
              (("learner/mirror/checkpoint_manifest.h", '"manifest.json"'),)),
        Entry("JOB/checkpoints/step-STEP/DIGEST/FILE", "the checkpoint's files", "first rank", "first rank", "as in the run folder", RESUMES),
        Entry("JOB/checkpoints/step-STEP/DIGEST-beside/FILE", "files that belong to it: `ledger.csv`", "first rank", "first rank",
              "as in the run folder", RESUMES, (("learner/mirror/checkpoint_mirror.cc", '"-beside'),)),
        Entry("JOB/checkpoints/step-STEP/DIGEST-beside.json", "their sizes and SHA-256", "first rank", "first rank",
              "`learner/mirror/checkpoint_mirror.h`", RESUMES, (("learner/mirror/checkpoint_mirror.cc", '"-beside.json"'),)),
        Entry("JOB/metrics.jsonl", "what was measured", "first rank", "first rank", "as in the run folder", "no, while the job may go on"),
        Entry("JOB/export/best/step-STEP/manifest.json", "the same of the best policy so far", "first rank", "first rank",
              "as a checkpoint's", "no, while the job may go on"),
        Entry("JOB/export/best/step-STEP/DIGEST/MODEL", "the best policy so far", "first rank", "first rank", MODEL_FILES,
              "no, while the job may go on"),
    )),
    Folder("Journal", "`--journal` of an actor, a folder of its own.", (
        Entry("journal-NUMBER.jsonl", "what it leased, sampled and sent, and the answers", "actor", "the auditor", "[journal.md](../journal.md)",
              "yes; of more than 8 the oldest go by themselves", (("actor/journal/journal.cc", '".jsonl"'),)),
        Entry("lock", "held by the actor", "actor", "the same", "empty", "yes, when the actor is not running",
              (("actor/journal/journal.cc", '"lock"'),)),
    )),
    Folder("Where `sluicectl` and Python run", "", (
        Entry("~/.config/sluice/contexts.yaml", "named coordinators; or `$SLUICE_CONFIG`, or below `$XDG_CONFIG_HOME`", "`sluicectl context`",
              "`sluicectl`, Python", "[howto.md](../howto.md)", "yes: addresses are given by hand then",
              (("client/cli/contexts.cc", '"sluice/contexts.yaml"'),), "elsewhere"),
        Entry("FILE.part", "a file that is being fetched", "`sluicectl artifacts`, `export`, `report`", "the same command, which goes on there",
              "the first bytes", "yes: it begins anew", (("client/cli/file_commands.cc", '".part"'),), "elsewhere"),
        Entry("FILE.part.identity", "of what it is a part", "the same", "the same", "text", "yes: it begins anew",
              (("client/cli/file_commands.cc", '".part.identity"'),), "elsewhere"),
        Entry("~/.local/state/sluice/mirror/FILE", "how far a mirror of a job is; or below `$XDG_STATE_HOME`", "`sluicectl mirror`", "the same",
              "[python.md](../python.md)", "no, unless you then mirror to a new place: it knows what was sent", (), "elsewhere"),
    )),
)

# Names in the code that no process writes by themselves, and why.
NOT_WRITTEN = {"sluice.json": "a part of a PyTorch package, which a person exports",
               ".safetensors.index.json": "read of models in several files",
               ".taken.tmp": "see the end of the page", "best.mirror.tmp": "see the end of the page"}

INTRO = """# Files

Every file that a process of Sluice writes: who writes and reads it, what is in it, and whether a person may delete it. Written by
`tools/files_reference.py`; a test fails when the code has a file's name that is not here, or a real job writes a file that is not
here. What to copy for a rainy day: [backup.md](../backup.md). Which formats another release reads: [upgrade.md](../upgrade.md).

Words in capitals stand for what differs; `MODEL` for the files of a policy in Hugging Face layout: `config.json`, `model.safetensors`,
`sluice_encoder.safetensors` of merged prompts, `sluice_value.safetensors` of V-STAR, and the tokenizer's files of a model that reads text. *First rank* is rank 0 of the group, or the one-shot `sluice-learner run`.
"""
OUTRO = """
## Left over

A file is written aside and renamed, so that a reader sees the old one or the new one. What a killed process leaves has `.tmp` in its name,
counts for nothing, and may be deleted when the process is gone; checkpoints half written go at the job's next start.
"""
LITERAL = re.compile(r'"([\w.-]*\w\.(?:jsonl?|yaml|csv|html|npy|safetensors|db|groups|sha256|tfevents|tmp|part|identity|txt|model|jinja))"')


def read(path: str, top: str = TOP) -> str:
    with open(os.path.join(top, path), encoding="utf-8") as file:
        return file.read()


def sources(top: str = TOP) -> dict[str, str]:
    """Production C++: path -> text."""
    found = [path for folder in ("common", "learner", "actor", "reward_server", "client")
             for end in ("cc", "h") for path in glob.glob(os.path.join(top, folder, "**", f"*.{end}"), recursive=True)]
    return {os.path.relpath(path, top): read(path, top) for path in sorted(found)}


def breaches(folders: tuple[Folder, ...], texts: dict[str, str], top: str = TOP) -> list[str]:
    """Where the tables and the code disagree."""
    wrong, named = [], set(NOT_WRITTEN)
    for folder in folders:
        for entry in folder.entries:
            named.add(entry.path.rpartition("/")[2])
            for source, literal in entry.named:
                text = texts.get(source) or read(source, top)
                if literal not in text:
                    wrong.append(f"{entry.path}: {source} no longer holds {literal}")
                named.add(literal.strip('"'))
    for source, text in texts.items():
        for name in LITERAL.findall(re.sub(r"//[^\n]*", "", text)):
            if name not in named:
                wrong.append(f"{source} names a file {name}, which no row of tools/files_reference.py has")
    return wrong


def page(folders: tuple[Folder, ...] = FOLDERS) -> str:
    if wrong := breaches(folders, sources()):
        raise FilesError("\n".join(wrong))
    text = INTRO
    for folder in folders:
        text += f"\n## {folder.title}\n\n" + (folder.intro + "\n\n" if folder.intro else "")
        text += "| file | what | written by | read by | what is in it | may it be deleted? |\n| --- | --- | --- | --- | --- | --- |\n"
        for entry in folder.entries:
            what = entry.what + (f" ({entry.rare})" if entry.rare and entry.rare != "elsewhere" else "")
            text += f"| `{entry.path}` | {what} | {entry.writer} | {entry.readers} | {entry.form} | {entry.delete} |\n"
    return text + OUTRO


def main() -> int:
    return reference_page.main("files", "docs/reference/files.md", page, FilesError)


if __name__ == "__main__":
    sys.exit(main())
