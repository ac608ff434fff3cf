"""Instructions by which a model writes pairs, out of a JSON file that users change.

    {"end": "”",
     "labels": {"same": {"score": 1, "instruction": "… “{text}” … “", "against": []},
                "other": {"score": 0, "instruction": "…", "against": ["same"]}}}

score: of the pairs of this label. {text}: where the text comes. against: labels whose instructions are held against
what is written by this one; all others, where it is left out. end: what is written ends before this mark; "": nowhere.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.files.atomic import read_json
from training.files.errors import DataError

DEFAULT = Path(__file__).with_name("templates.json")
TEXT = "{text}"
_FIELDS = {"score", "instruction", "against"}
_REMEDY = "mend it as retrieval/pairs/templates.py says"


@dataclass(frozen=True)
class Label:
    name: str
    score: float
    instruction: str  # has {text} once
    against: tuple[str, ...]  # names of other labels

    def prompt(self, text: str) -> str:
        return self.instruction.replace(TEXT, text)


@dataclass(frozen=True)
class Templates:
    labels: tuple[Label, ...]
    end: str = ""

    def prompts(self, label: Label, text: str) -> list[str]:
        """The label's prompt, and then those that it is held against."""
        by_name = {other.name: other for other in self.labels}
        return [one.prompt(text) for one in (label, *(by_name[name] for name in label.against))]

    def ended(self, written: str) -> str:
        """What was written up to the mark."""
        return (written.partition(self.end)[0] if self.end else written).strip()


def read_templates(path: Path | str = "") -> Templates:
    """The templates of a file, by default those that come with the project. Raises DataError, with the label."""
    file = Path(path or DEFAULT)
    about = read_json(file, "name a file of templates")
    labels, end = about.get("labels"), about.get("end", "")
    if not isinstance(labels, dict) or not labels or not isinstance(end, str) or {*about} - {"labels", "end"}:
        raise DataError(f"{file}: it needs labels, each with its instruction, and may have an end; {_REMEDY}")
    return Templates(tuple(_label(file, name, fields, [*labels]) for name, fields in labels.items()), end)


def _label(file: Path, name: str, fields: Any, names: list[str]) -> Label:
    def refused(why: str) -> DataError:
        return DataError(f"{file}, label {name!r}: {why}; {_REMEDY}")

    if not isinstance(fields, dict) or not {"score", "instruction"} <= {*fields} <= _FIELDS:
        raise refused(f"it has score, instruction and perhaps against, not {fields!r:.60}")
    score, instruction = fields["score"], fields["instruction"]
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        raise refused(f"score is {score!r:.40}, not a number")
    if not isinstance(instruction, str) or instruction.count(TEXT) != 1:
        raise refused(f"its instruction has {TEXT} {str(instruction).count(TEXT)} times, and needs it once")
    against = fields.get("against", [other for other in names if other != name])
    if not isinstance(against, list) or any(other not in names or other == name for other in against):
        raise refused(f"against is {against!r:.60}: it names other labels, of {', '.join(names)}")
    return Label(name, float(score), instruction, tuple(dict.fromkeys(against)))
