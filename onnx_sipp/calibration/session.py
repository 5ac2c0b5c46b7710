"""Sessions of onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.calibration.runtime import runtime
from onnx_sipp.calibration.specs import Feed
from onnx_sipp.errors import SippError, UsageError

__all__ = ["first_line", "open_session", "run_session"]

Tensor = NDArray[Any]


def open_session(
    data: bytes | Path,
    *,
    folder: Path | None,
    threads: int | None,
    providers: Sequence[str] | None,
    settings: Mapping[str, Mapping[str, str]] | None = None,
    libraries: Sequence[Path] = (),
    lent: Mapping[str, Tensor] | None = None,
    idle: bool = False,
    brief: bool = False,
    optimized: Path | None = None,
) -> Any:
    """Open an onnxruntime session that logs nothing.

    Args:
        data: a serialised model, or the file of one.
        folder: of the external data of a serialised model, None if it has none.
        threads: intra-op threads, None for onnxruntime's default.
        providers: execution providers, None for the CPU.
        settings: options of single providers, by their name.
        libraries: files with operators that the model needs.
        lent: elements of constants of which a serialised model has only the type.
        idle: nothing will be run, so that no constant has to be loaded or prepared.
        brief: so little will be run that to prepare constants would take longer.
        optimized: file for the model with its constants folded, in standard operators.

    Raises:
        UsageError: this onnxruntime lacks a provider, or cannot load a library.
        SippError: onnxruntime refuses the model.
    """
    ort = runtime()
    _refuse_unknown(providers or ())
    options = _session_options(folder, threads, idle=idle, brief=brief, optimized=optimized)
    _register(options, libraries)
    values = {n: ort.OrtValue.ortvalue_from_numpy(array) for n, array in (lent or {}).items()}
    if values:
        options.add_external_initializers(list(values), list(values.values()))
    try:
        chosen = [
            (name, dict(settings[name])) if settings and name in settings else name
            for name in providers or ["CPUExecutionProvider"]
        ]
        source = str(data) if isinstance(data, Path) else data
        session = ort.InferenceSession(source, options, providers=chosen)
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise SippError(
            f"onnxruntime {ort.__version__} refuses the model: {first_line(error)}"
        ) from error
    session.lent = values  # the session may read them as long as it lives
    return session


def _refuse_unknown(providers: Sequence[str]) -> None:
    available = runtime().get_available_providers()
    for provider in providers:
        if provider not in available:
            raise UsageError(
                f"this onnxruntime has no execution provider {provider!r}; "
                f"it has {', '.join(available)}"
            )


def _session_options(
    folder: Path | None, threads: int | None, *, idle: bool, brief: bool, optimized: Path | None
) -> Any:
    """Options of a session that logs nothing; see `open_session`."""
    ort = runtime()
    options = ort.SessionOptions()
    options.log_severity_level = 4  # refusals arrive as exceptions; the rest is noise here
    # Its threads would otherwise spin between runs, at the cost of whatever runs meanwhile.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if idle:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if idle or brief:
        options.add_session_config_entry("session.disable_prepacking", "1")
    if optimized is not None:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(optimized)
        key = "session.optimized_model_external_initializers_file_name"
        options.add_session_config_entry(key, f"{optimized.name}.data")
    if threads is not None:
        options.intra_op_num_threads = threads
    if folder is not None:
        key = "session.model_external_initializers_file_folder_path"
        options.add_session_config_entry(key, str(folder))
    return options


def _register(options: Any, libraries: Sequence[Path]) -> None:
    ort = runtime()
    for library in libraries:
        try:
            options.register_custom_ops_library(str(library))
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise UsageError(
                f"onnxruntime {ort.__version__} cannot load the operators of {str(library)!r}: "
                f"{first_line(error)}"
            ) from error


def run_session(
    session: Any, outputs: Sequence[str] | None, feed: Feed, own: Mapping[str, Tensor] | None = None
) -> list[Any]:
    """Run a session.

    Args:
        session: an onnxruntime session.
        outputs: to ask for, None for all.
        feed: what comes from the samples.
        own: what comes from the model.

    Raises:
        SippError: the runtime fails on this input.
    """
    try:
        values: list[Any] = session.run(
            None if outputs is None else list(outputs), {**feed, **(own or {})}
        )
    except Exception as error:  # see above
        shapes = ", ".join(f"{name} {list(np.shape(value))}" for name, value in feed.items())
        raise SippError(
            f"onnxruntime fails on the input ({shapes}): {first_line(error)}\n"
            "Check the data, or the shapes of made-up inputs (--input-shapes)"
        ) from error
    return values


def first_line(error: Exception) -> str:
    """What an exception of onnxruntime says, without its trace."""
    text = str(error).strip()
    return (text.splitlines()[0] if text else type(error).__name__)[:400]
