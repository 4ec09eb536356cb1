"""On import, builds all models that are imported. Otherwise each fork builds them on their first use."""

from __future__ import annotations

from collections.abc import Iterator

import pydantic


def _subclasses(parent: type[pydantic.BaseModel]) -> Iterator[type[pydantic.BaseModel]]:
    for model in parent.__subclasses__():
        yield model
        yield from _subclasses(model)


for _model in set(_subclasses(pydantic.BaseModel)):
    if _model.__module__.startswith("st4sd_async."):
        _model.model_rebuild()
