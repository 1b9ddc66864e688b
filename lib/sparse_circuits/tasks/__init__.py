"""Token streams and prompt pairs whose right answers are known.

`code_tokens` is real code, `MiniPython` writes programs with exact truth beside them, `contrast_pairs` asks one
question at a time, and the least possible loss is known of `KeyValueRecall`, `MixedLanguage` and `addition_problems`.
Names are loaded on first use.
"""

from importlib import import_module

# Public name -> the module of this package that defines it.
_EXPORTS = {
    "CodeTokenizer": "tokenizer",
    "load_tokenizer": "tokenizer",
    "code_tokens": "code",
    "source_files": "code",
    "MiniPython": "mini.program",
    "Program": "mini.program",
    "mini_python_tokens": "mini_python",
    "Truth": "mini.pieces",
    "CONTRAST_TASKS": "contrast",
    "ContrastBatch": "contrast",
    "ContrastTask": "contrast",
    "contrast_pairs": "contrast",
    "KeyValueRecall": "recall",
    "MixedLanguage": "mixed",
    "mixed_questions": "mixed_questions",
    "addition_problems": "addition",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers: {', '.join(__all__)}.")
    value = getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
