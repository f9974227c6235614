"""From what a user writes after --judge to a judge; nothing heavy is imported before it is named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from reasonx_eval.errors import ReasonXError, UsageError, unknown
from reasonx_eval.io.plugins import Registry
from reasonx_eval.models.loading.options import option_parameters, parse_options
from reasonx_ft.annotation.questions import Questions
from reasonx_ft.types import Judge

if TYPE_CHECKING:
    from reasonx_ft.annotation.photos import Recent

JUDGES: Final = Registry("judge", {
    "oracle": "reasonx_ft.judges.oracle:Oracle",
    "tiny": "reasonx_ft.judges.tiny:TinyJudge",
    "mllm": "reasonx_ft.judges.mllm:Mllm",
    "server": "reasonx_ft.judges.server:Server",
    "reasonx": "reasonx_ft.judges.internvl_chat:InternvlChat",
}, "reasonx_ft.judges")  # fmt: skip

#: judges whose spec goes on after a colon, and what with
_WITH_SOURCE: Final[Mapping[str, str]] = {"mllm": "FOLDER or owner/name", "server": "URL", "reasonx": "FOLDER"}
#: judges that have a source of their own
_SOURCE_OPTIONAL: Final = ("reasonx",)

FORMS: Final[tuple[tuple[str, str], ...]] = (
    ("oracle", "ground truth of a dataset with set error rates"),
    ("tiny", "the small network of this package"),
    ("mllm:FOLDER, mllm:OWNER/NAME", "a vision-language model in transformers' format"),
    ("server:URL", "an OpenAI-compatible endpoint"),
    ("reasonx, reasonx:FOLDER", "the published judge (its own licence, and code: --trust-remote-code)"),
    ("FILE.py:Class, pkg.mod:Class", "a class of your own: info and ask(questions)"),
)


@dataclass(frozen=True)
class Request:
    """What a user wrote.

    spec : one of FORMS
    options : ``-O key=value``; text is parsed to the types of the judge's signature
    questions : the wording, for judges that read it
    dataset : where the photos come from, for judges that know its ground truth
    device, dtype, batch_size, trust_remote_code : for judges with networks; None is the judge's own default
    """

    spec: str
    options: Mapping[str, Any] = field(default_factory=dict)
    questions: Questions | None = None
    dataset: Recent | None = None
    device: str | None = None
    dtype: str | None = None
    batch_size: int | None = None
    trust_remote_code: bool = False


def load_judge(spec: str, **how: Any) -> Judge:
    """The judge that `spec` names.

    Parameters
    ----------
    spec, how : see `Request`

    Raises
    ------
    UsageError
        An unknown judge (with the nearest match) or option, text that is not of an option's type, a missing file, a
        class that is no judge.
    """
    request = Request(spec, **how)
    factory, source = _factory(request)
    judge = _build(factory, source, request)
    if request.batch_size is not None:
        if request.batch_size < 1:
            raise UsageError(f"--batch-size is {request.batch_size}; needs 1 or more", where=spec)
        judge.batch_size = request.batch_size
    return judge


def needs_targets(spec: str) -> tuple[str, ...]:
    """The targets that photos of a dataset must come with for this judge; () for one that only looks."""
    factory, _ = _factory(Request(spec))
    return tuple(getattr(factory, "needs_targets", ()))


def _factory(request: Request) -> tuple[Any, str | None]:
    """The class behind a spec, and what follows its name."""
    spec = request.spec
    name, colon, source = spec.partition(":")
    if name in _WITH_SOURCE and spec not in _SOURCE_OPTIONAL:
        if not source:
            raise UsageError(f"nothing follows the name; expected {name}:{_WITH_SOURCE[name]}", where=spec)
        return JUDGES.load(name), source
    if spec in JUDGES:
        return JUDGES.load(spec), None
    if colon and (spec.rpartition(":")[0].endswith(".py") or "." in name):
        from reasonx_eval.models.loading.plugin import load_attribute

        return load_attribute(spec), None
    if Path(spec).is_dir():
        raise UsageError("a folder is no judge by itself", where=spec, fix=f"--judge mllm:{spec}")
    raise unknown("judge", spec, [form for form, _ in FORMS])


def _build(factory: Any, source: str | None, request: Request) -> Judge:
    spec = request.spec
    if not callable(factory):
        raise UsageError(f"not a class, but a value of type {type(factory).__name__}", where=spec)
    takes = list(option_parameters(factory))
    own_source = takes[:1] if spec.partition(":")[0] in _WITH_SOURCE else []
    arguments = parse_options(factory, request.options, where=spec,
                              hidden=(*own_source, "questions", "dataset", "runtime"))  # fmt: skip
    ours = {"questions": request.questions, "dataset": request.dataset, "device": request.device,
            "dtype": request.dtype, "batch_size": request.batch_size,
            "trust_remote_code": request.trust_remote_code or None}  # fmt: skip
    if "runtime" in takes:
        ours = {k: ours[k] for k in ("questions", "dataset", "batch_size")}
        arguments["runtime"] = _runtime(request)
    elif request.device is not None and "device" not in takes:
        raise UsageError("this judge has no --device", where=spec)
    arguments |= {k: v for k, v in ours.items() if k in takes and k not in arguments and v is not None}
    try:
        judge = factory(*([source] if source is not None else []), **arguments)
    except ReasonXError:
        raise
    except Exception as error:
        if factory.__module__.startswith("reasonx_ft."):
            raise
        raise UsageError(f"can't be constructed: {type(error).__name__}: {error}", where=spec) from error
    if not isinstance(judge, Judge):
        raise UsageError(f"{type(judge).__name__} is not derived from reasonx_ft.types.Judge", where=spec)
    return judge


def _runtime(request: Request) -> Any:
    from reasonx_eval.models.loading.runtime import Runtime

    runtime = Runtime(request.device or "auto", request.dtype or "float32", request.batch_size or 1,
                      request.trust_remote_code)  # fmt: skip
    _ = runtime.torch_device, runtime.torch_dtype
    return runtime
