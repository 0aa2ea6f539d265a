"""The style in which DVC writes YAML.

`dvc exp run --set-param` reads params.yaml and writes all of it anew, by ruamel.yaml. A text that is in this form
already then differs in the one value that was set. Others change in style; and of a value that needs quotes within
braces, such as `{model: "timm:resnet18"}`, DVC drops the quotes, which no YAML parser of C reads any more.
"""

from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.events import CollectionEndEvent, CollectionStartEvent, ScalarEvent


def in_dvc_form(text: str) -> str:
    r"""The same values as DVC would write them; what needs quotes within braces comes to lines of its own.

    >>> in_dvc_form('a: { b: 1 } # one\nc: { model: "timm:resnet18", source: timm }\n')
    'a: {b: 1}   # one\nc:\n  model: timm:resnet18\n  source: timm\n'
    """
    yaml = YAML()
    yaml.default_flow_style = False
    contents = yaml.load(text)
    _unfold(contents)
    out = StringIO()
    yaml.dump(contents, out)
    return out.getvalue()


def broken_by_dvc(text: str) -> tuple[int, str] | None:
    r"""The first value that DVC would write without the quotes that it needs, and its line from 1; None: there is none.

    >>> broken_by_dvc('a:\n  b: {model: "timm:resnet18"}\n')
    (2, 'timm:resnet18')
    >>> broken_by_dvc('a: "timm:resnet18"\nb: ["x: y", z]\n')
    """
    flow = [False]
    for event in YAML(typ="safe").parse(text):
        if isinstance(event, CollectionStartEvent):
            flow.append(flow[-1] or bool(event.flow_style))
        elif isinstance(event, CollectionEndEvent):
            flow.pop()
        elif isinstance(event, ScalarEvent) and flow[-1] and _loses_quotes(event.value):
            return event.start_mark.line + 1, event.value
    return None


def _loses_quotes(value: str) -> bool:
    """Whether a value is quoted here, as it needs to be, and by ruamel.yaml's rules need not be."""
    return ":" in value and ": " not in value and not value.endswith(":")


def _unfold(value: Any) -> bool:
    """Writes on lines of their own what holds a text that needs quotes within braces; whether this does."""
    if isinstance(value, str):
        return ":" in value
    if not isinstance(value, CommentedMap | CommentedSeq):
        return False
    parts = value.values() if isinstance(value, CommentedMap) else value
    needs_lines = sum(map(_unfold, parts)) > 0  # not any(): each part is to be looked at
    if needs_lines:
        value.fa.set_block_style()
    return needs_lines
