"""Sections of a tier's configuration that name the models of its benchmarks."""

from typing import Literal, NotRequired

from pydantic import ConfigDict
from typing_extensions import TypedDict

from progrpo.typed import PathText, SourceName


class GenEvalSettings(TypedDict):
    """Models of GenEval."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]  # pydantic's own way for a TypedDict
    detector: PathText
    color_classifier: PathText
    sources: NotRequired[list[SourceName]]


class CompBenchSettings(TypedDict):
    """Models of T2I-CompBench++; a tokenizer stands only beside an original .pth."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]  # pydantic's own way for a TypedDict
    vqa: PathText
    spatial_detector: PathText
    chunker: Literal["auto", "spacy", "template"]
    tokenizer: NotRequired[PathText]
    sources: NotRequired[list[SourceName]]


class Benchmarks(TypedDict, total=False):
    """Settings by benchmark."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]  # pydantic's own way for a TypedDict
    geneval: GenEvalSettings
    compbench: CompBenchSettings
