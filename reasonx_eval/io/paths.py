"""Where datasets lie: flag > environment > user file."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from reasonx_eval.errors import UsageError
from reasonx_eval.io.documents import read_toml
from reasonx_eval.io.validation import explain


class UserConfig(BaseModel):
    """``~/.config/reasonx/config.toml``: a [roots] table, dataset name -> folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    roots: dict[str, str] = {}


def config_path() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "reasonx" / "config.toml"


def user_config() -> UserConfig:
    """The user's file, or the defaults where there is none.

    Raises
    ------
    UsageError
        The file is not valid TOML or has an unknown key.
    """
    path = config_path()
    if not path.is_file():
        return UserConfig()
    try:
        return UserConfig.model_validate(read_toml(path))
    except ValidationError as error:
        raise UsageError(f"{explain(error)}. Known: [roots] NAME = \"folder\"", where=str(path)) from None


def dataset_root(name: str, flag: str | Path | None) -> Path | None:
    """The folder of a dataset, or None when nothing names one.

    ``--root``, then ``REASONX_DATA_<NAME>`` (dashes as underscores), then the folder NAME in
    ``REASONX_DATA``, then [roots] in the user's file.
    """
    if flag is not None:
        return _expanded(flag)
    own = os.environ.get("REASONX_DATA_" + name.upper().replace("-", "_"))
    if own:
        return _expanded(own)
    shared = os.environ.get("REASONX_DATA")
    if shared and (_expanded(shared) / name).is_dir():
        return _expanded(shared) / name
    listed = user_config().roots.get(name)
    return _expanded(listed) if listed else None


def _expanded(path: str | Path) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError("names the home folder of a user who does not exist", where=str(path)) from None
