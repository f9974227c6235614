"""A vision-language model's files: where they are, its processor without torchvision, its LoRA adapter; and the base of
judges that have such files."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any, Final

import torch

from reasonx_eval.errors import UsageError, one_line
from reasonx_eval.io.digests import sha256_text
from reasonx_eval.io.files import canonical_json
from reasonx_eval.models.adapters.transformers_weights import count_parameters, load_network
from reasonx_eval.models.loading.checkpoint import Checkpoint, find_checkpoint, read_json, tensor_shapes
from reasonx_eval.models.loading.runtime import Runtime
from reasonx_ft.annotation.markers import Painter
from reasonx_ft.annotation.questions import Questions, read_questions
from reasonx_ft.types import Judge, JudgeInfo

_ADAPTER: Final = "adapter_model.safetensors"
#: text around pictures decides answers too, and is not among the files that weights need
_TEMPLATES: Final = ("*.jinja", "additional_chat_templates/*.jinja")


class CheckpointJudge(Judge):
    """A vision-language model with a checkpoint, whose weights are read when the first question is asked.

    Parameters
    ----------
    checkpoint : its files
    runtime : where and how it computes
    questions : the wording; default: the package's
    name : shown in tables
    trained_on : datasets that it was tuned on
    batch_size : questions at a time
    """

    def __init__(self, checkpoint: Checkpoint, runtime: Runtime, questions: Questions | None, name: str,
                 trained_on: tuple[str, ...], batch_size: int) -> None:  # fmt: skip
        self._checkpoint, self._runtime, self._where = checkpoint, runtime, checkpoint.source
        self._questions = read_questions() if questions is None else questions
        self._name, self._trained_on, self.batch_size = name, trained_on, batch_size
        self._painter = Painter()
        self._loaded: Any = None

    def _info(self, options: Mapping[str, Any], decides: Mapping[str, Any], *, words: bool) -> JudgeInfo:
        """Who answers; `decides` is what can change an answer besides weights, wording and number type.

        words : answers are read from its words
        """
        decides = {"weights": self._checkpoint.digest, "dtype": self._runtime.dtype, **decides,
                   "questions": {m: t.digest for m, t in self._questions.templates.items()}}  # fmt: skip
        return JudgeInfo(self._name, sha256_text(canonical_json(decides))[:32],
                         reading="words" if words else "log-probabilities",
                         parameters=count_parameters(self._checkpoint), trained_on=self._trained_on,
                         options={**options, **self._runtime.describe()})  # fmt: skip

    def close(self) -> None:
        self._loaded = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def find_model(spec: str, *, code: bool = False) -> Checkpoint:
    """The files of a folder or hub id, with chat templates, and with Python files if `code` may run.

    Raises
    ------
    UsageError
        As `reasonx_eval.models.loading.checkpoint.find_checkpoint`.
    """
    checkpoint = find_checkpoint(spec)
    if checkpoint.revision is not None:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        patterns = [*_TEMPLATES, *(["*.py"] if code else [])]
        # out of reach: what is missing is named when it is needed
        with suppress(LocalEntryNotFoundError, HfHubHTTPError, OSError):
            snapshot_download(spec.partition("@")[0], revision=checkpoint.revision, allow_patterns=patterns)
    return checkpoint


def check_architecture(checkpoint: Checkpoint, runtime: Runtime) -> str:
    """The model type of config.json.

    Raises
    ------
    UsageError
        No config.json, no image-text-to-text model, or one that needs the checkpoint's own code without leave.
    """
    config = checkpoint.config
    if config is None:
        raise UsageError("no config.json of a vision-language model", where=checkpoint.source)
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as KNOWN

    kind = str(config.get("model_type"))
    if kind == "internvl_chat":
        raise UsageError("an InternVL chat checkpoint with code of its own", where=checkpoint.source,
                         fix="--judge reasonx:FOLDER --trust-remote-code, or the -hf version of it")  # fmt: skip
    if kind not in KNOWN and not runtime.trust_remote_code:
        if config.get("auto_map"):
            raise UsageError("config.json names Python code that came with the checkpoint (auto_map); it is not run",
                             where=checkpoint.source, fix="--trust-remote-code, after reading that code")  # fmt: skip
        raise UsageError(f"'{kind}' is no image-text-to-text model of transformers", where=checkpoint.source,
                         fix="the -hf version of the checkpoint")  # fmt: skip
    return kind


class _NoVideos:
    """Stands where a processor wants a video processor, which needs torchvision; no question has a video."""

    model_input_names: tuple[str, ...] = ()
    unused_input_names: tuple[str, ...] = ()


class _WithoutVideos:
    def __repr__(self) -> str:
        return type(self).__name__  # the library's own writes all parts as JSON

    def check_argument_for_proper_class(self, name: str, argument: Any) -> Any:
        if name == "video_processor":
            return _NoVideos
        return super().check_argument_for_proper_class(name, argument)  # type: ignore[misc]  # of the library's class


def load_processor(checkpoint: Checkpoint, runtime: Runtime) -> Any:
    """The processor of a checkpoint with its image processor on Pillow, the same with and without torchvision.

    Raises
    ------
    UsageError
        Files are missing, or the library can't make a processor of them.
    """
    folder, trust = str(checkpoint.folder), runtime.trust_remote_code
    try:
        library: Any = import_module("transformers")  # its functions have no types
        cls = _processor_class(checkpoint, library)
        if cls is None:
            return library.AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=trust)
        made = {
            "image_processor": lambda: library.AutoImageProcessor.from_pretrained(
                folder, backend="pil", local_files_only=True, trust_remote_code=trust
            ),
            "tokenizer": lambda: library.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=trust
            ),
            "video_processor": _NoVideos,
        }  # fmt: skip
        parts = [made[name]() for name in cls.get_attributes()]
        settings, more = cls.get_processor_dict(folder, local_files_only=True)
        made_up: Any = type(cls.__name__, (_WithoutVideos, cls), {})
        return made_up.from_args_and_dict(parts, settings, **more)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"transformers can't load its processor: {one_line(error)}", where=checkpoint.source,
                         fix="copy or download the folder again, with its tokenizer and "
                             "preprocessor_config.json") from None  # fmt: skip


def _processor_class(checkpoint: Checkpoint, library: Any) -> Any | None:
    """The library's class; None if it is of the checkpoint's own code."""
    known: Any = import_module("transformers.models.auto.processing_auto").PROCESSOR_MAPPING_NAMES
    files = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
    found = [read_json(checkpoint.folder / name) or {} for name in files]
    kind = str((checkpoint.config or {}).get("model_type"))
    named = [str(f["processor_class"]) for f in found if f.get("processor_class")]
    for name in (*named, known.get(kind)):
        if name == "SmolVLMProcessor":
            # its own class refuses to exist without num2words, which only videos need; text and pictures are the same
            return library.Idefics3Processor
        cls = getattr(library, str(name), None)
        if cls is not None and hasattr(cls, "get_attributes"):
            return cls
    return None


def limit_tiles(processor: Any, most: int) -> Mapping[str, Any]:
    """Have a processor cut a 512 x 512 picture into at most `most` tiles (besides an overview of the whole).

    Returns
    -------
    The settings that were changed; empty for models that take a picture whole or by rules in their configuration.
    """
    images = processor.image_processor
    changed: dict[str, Any] = {}
    if hasattr(images, "max_patches") and hasattr(images, "crop_to_patches"):
        changed = {"max_patches": min(most, int(images.max_patches))}
    elif hasattr(images, "do_image_splitting") and getattr(images, "max_image_size", None):
        side = int(images.max_image_size["longest_edge"])
        rows = min(int(most**0.5), int(images.size["longest_edge"] or side) // side) or 1
        # without this a picture is first enlarged to the size of all tiles
        changed = {"do_image_splitting": bool(images.do_image_splitting and rows > 1),
                   "size": {"longest_edge": rows * side}}  # fmt: skip
    for name, value in changed.items():
        setattr(images, name, value)
    return changed


def load_model(checkpoint: Checkpoint, adapter: Checkpoint | None, runtime: Runtime) -> Any:
    """The network, with its adapter, in evaluation mode on its device.

    Raises
    ------
    UsageError
        Weights that are missing, don't fit, or are no safetensors.
    """
    from transformers import AutoModelForImageTextToText

    network = load_network(checkpoint, AutoModelForImageTextToText, dtype=runtime.torch_dtype,
                           trust_remote_code=runtime.trust_remote_code)  # fmt: skip
    if adapter is not None:
        network = _with_adapter(network, adapter)
    return network.to(runtime.torch_device).eval()


def find_adapter(spec: str) -> Checkpoint:
    """The files of a LoRA adapter in peft's format.

    Raises
    ------
    UsageError
        No adapter_config.json, or weights that are not in safetensors.
    """
    adapter = find_checkpoint(spec)
    if read_json(adapter.folder / "adapter_config.json") is None:
        raise UsageError("no adapter_config.json: not a LoRA adapter in peft's format", where=spec)
    weights = adapter.folder / _ADAPTER
    if not weights.is_file():
        raise UsageError(f"no {_ADAPTER}; pickled weights are not read", where=spec,
                         fix="save_pretrained(folder) of a current peft")  # fmt: skip
    tensor_shapes(weights)
    return adapter


def _with_adapter(network: Any, adapter: Checkpoint) -> Any:
    from peft import PeftModel, get_peft_model_state_dict

    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            tuned = PeftModel.from_pretrained(network, str(adapter.folder), is_trainable=False)
    except Exception as error:
        raise UsageError(f"the adapter doesn't fit the model: {one_line(error)}", where=adapter.source) from None
    # peft only warns of tensors that it lacks, leaving them at their start, and drops those that it has no use for
    lacking = [str(w.message)[:200] for w in said if "missing adapter keys" in str(w.message)]
    given, used = len(tensor_shapes(adapter.folder / _ADAPTER)), len(get_peft_model_state_dict(tuned))
    if lacking or given > used:
        detail = lacking[0] if lacking else f"{given} tensors, of which the model has places for {used}"
        raise UsageError(f"the adapter doesn't fit the model: {detail}", where=adapter.source)
    return tuned
