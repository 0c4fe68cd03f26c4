"""Jobspecs as people write them: YAML (RFC 14), of which JSON is a part."""

from __future__ import annotations

import json

from flux_mpi.formats.jobspec import JobspecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_ALIASES = 1000
"""Mentions of anchors: each stands for all that it names."""


def load(text: str) -> Any:
    """What a document says. Raises `JobspecError` with the place of what makes no sense."""
    if text.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(text)
        except RecursionError:
            raise JobspecError("document", "endless nesting", "a JSON object") from None
        except ValueError as error:
            # Flow style of YAML looks like JSON too, but a broken JSON file is more likely.
            raise JobspecError("document", f"no JSON ({error})", "a JSON object or YAML") from None
    # Not needed for JSON, and slow to import.
    import yaml  # type: ignore[import-untyped]

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        aliases = sum(isinstance(e, yaml.AliasEvent) for e in yaml.parse(text, Loader=loader))
        if aliases > MAX_ALIASES:
            raise JobspecError("document", f"{aliases} aliases", f"at most {MAX_ALIASES}")
        return yaml.load(text, Loader=loader)
    except RecursionError:
        raise JobspecError("document", "endless nesting", "a mapping") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "document"
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise JobspecError(where, str(what), "YAML or JSON") from None
