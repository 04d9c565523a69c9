"""`make_vocabulary`: a recipe's tokenizer settings and its models' small files -> the output's vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from pymerge.config.values import MergeConfig, ModelRef, Template, TokenizerSetting
from pymerge.errors import InternalError, Problem, RecipeError
from pymerge.vocabulary.fates import remark_fates, tell_fates
from pymerge.vocabulary.reading import FAST, read_files, read_tokenizer
from pymerge.vocabulary.rows import choose_defaults, choose_rows
from pymerge.vocabulary.specials import CONFIG, GENERATION, compare_specials, move_ids
from pymerge.vocabulary.templates import check_markers, choose_template, compare_templates, find_template, put_template
from pymerge.vocabulary.union import blend_tokens
from pymerge.vocabulary.values import Notes, Tokenizer, Vocabulary, list_some
from pymerge.vocabulary.writing import write_files

__all__ = ["make_vocabulary"]


def make_vocabulary(
    config: MergeConfig,
    models: Mapping[ModelRef, Path],
    embedding_rows: Mapping[ModelRef, int],
    others: Mapping[ModelRef, Path] | None = None,
) -> Vocabulary | None:
    """Make the vocabulary that a recipe asks for. Reads tokenizer files and configs; no weights.

    Args:
        config: the recipe.
        models: the folders of all models that are merged, in the recipe's order (a base that is not listed last).
        embedding_rows: rows of each model's token embedding, padding included; of `others`, where they have one.
        others: folders of models that only `config.tokenizer` names (its `references`). Their rows are taken where a
            rule says so, or where no merged model has a token.

    Returns:
        None if the recipe says nothing of tokenizer and chat template.

    Raises:
        RecipeError: settings that cannot work; carries every problem that was found.
        FormatError: a file is damaged, or has to be converted and cannot be.
    """
    donor = config.base_model or next(iter(models), None)
    if donor is None or (config.tokenizer is None and config.chat_template is None):
        return None
    notes = Notes()
    if config.tokenizer is None:
        assert config.chat_template is not None
        return _change_template(config.chat_template, models, donor, embedding_rows.get(donor, 0), notes)
    setting = config.tokenizer
    tokenizers = _read_all(models, embedding_rows, donor, notes)
    extra = [_read(ref, folder, embedding_rows.get(ref)) for ref, folder in (others or {}).items() if ref not in models]
    merged = list(tokenizers.values())
    base = tokenizers[donor]
    like = _find_like(setting, merged, extra, base)
    _remark_beyond([*merged, *extra], notes)
    blend = blend_tokens(like, merged, extra, setting.tokens, setting.source == "union", notes)
    preferred = base if config.base_model else None
    defaults = choose_defaults(blend.ids, merged, extra, preferred, setting.tokens, notes)
    notes.check()
    size = max(blend.ids.values(), default=-1) + 1
    rows = _count_rows(size, like.rows or 0, setting)
    forced = frozenset(token for token, rule in setting.tokens.items() if rule.force)
    fates = tell_fates(blend, merged, defaults, forced)
    remark_fates(fates, notes)
    choices = {each.ref: choose_rows(each, rows, blend.ids, defaults, forced) for each in merged}
    files = write_files(blend, notes)
    compare_specials([*merged, *(each for each in extra if each is like)], like, notes)
    files, template = _settle_template(config, [*merged, *extra], like, files, notes)
    return Vocabulary(
        size=size,
        rows=rows,
        files=files,
        choices={ref: choice for ref, choice in choices.items() if choice is not None},
        ids=blend.ids,
        fates=fates,
        config_ids=move_ids(base, like, blend.ids, CONFIG, notes),
        generation_ids=move_ids(base, like, blend.ids, GENERATION, notes),
        template=template,
        remarks=tuple(dict.fromkeys(notes.remarks)),
    )


def _read_all(
    models: Mapping[ModelRef, Path], embedding_rows: Mapping[ModelRef, int], donor: ModelRef, notes: Notes
) -> dict[ModelRef, Tokenizer]:
    """Read the tokenizers of the models that are merged, keyed in their order."""
    for ref in models:
        if ref not in embedding_rows:
            hint = "remove tokenizer and tokenizer_source"
            notes.add(f'"{ref}" has no token embedding whose rows could be arranged', ref.where, hint)
    notes.check()
    base = _read(donor, models[donor], embedding_rows[donor])
    found: dict[ModelRef, Tokenizer] = {}
    for ref, folder in models.items():
        read = base if ref == donor else read_tokenizer(ref, folder, embedding_rows[ref], (base, *found.values()))
        if read is None and embedding_rows[ref] == base.rows:
            notes.remarks.append(f'"{ref}" has no tokenizer files: its tokens are taken to be those of {base.label}')
            read = replace(base, ref=ref, folder=folder, files={})
        if read is None:
            notes.add(
                f'"{ref}" has no tokenizer files, and {embedding_rows[ref]} rows where {base.label} has {base.rows}',
                ref.where,
                "put the tokenizer files that it was trained with into its folder",
            )
        else:
            found[ref] = read
    notes.check()
    return found


def _read(ref: ModelRef, folder: Path, rows: int | None) -> Tokenizer:
    """Read a tokenizer that has to be there."""
    found = read_tokenizer(ref, folder, rows, ())
    if found is None:
        _refuse_empty(ref)
    return found


def _refuse_empty(ref: ModelRef) -> NoReturn:
    hint = "name a model that has, by base_model or tokenizer_source"
    raise RecipeError([Problem(f'"{ref}" has no tokenizer files', ref.where, hint)])


def _find_like(
    setting: TokenizerSetting, merged: Sequence[Tokenizer], extra: Sequence[Tokenizer], base: Tokenizer
) -> Tokenizer:
    """The tokenizer whose ids the output keeps."""
    if isinstance(setting.source, str):
        return base
    named = {each.ref: each for each in (*extra, *merged)}.get(setting.source)
    if named is None:
        raise InternalError(f'the folder of the tokenizer source "{setting.source}" is not given')
    if not named.files:
        _refuse_empty(setting.source)
    return named


def _remark_beyond(tokenizers: Sequence[Tokenizer], notes: Notes) -> None:
    for each in tokenizers:
        if each.beyond:
            notes.remarks.append(
                f"{each.label} has {each.rows} rows, but its tokenizer gives {len(each.beyond)} ids from there on, "
                f"which are left out: {list_some(list(each.beyond))}"
            )


def _count_rows(size: int, stored: int, setting: TokenizerSetting) -> int:
    """Rows of the output: padding that the kept tokenizer's model has stays."""
    multiple = setting.pad_to_multiple_of or 1
    return -(-max(size, stored) // multiple) * multiple


def _settle_template(
    config: MergeConfig,
    tokenizers: Sequence[Tokenizer],
    like: Tokenizer,
    files: dict[str, bytes],
    notes: Notes,
) -> tuple[dict[str, bytes], str | None]:
    """Files and text of the output's chat template."""
    found = {each.label: find_template(each.folder, each.files) for each in tokenizers}
    own = found[like.label]
    if config.chat_template is None:
        compare_templates(found, like.label, notes)
        return files, own
    text = choose_template(config.chat_template, found, notes)
    check_markers(config.chat_template, files[FAST].decode(), notes)
    return (files, own) if text in (None, own) else (put_template(files, like.folder, text or "", notes), text)


def _change_template(
    template: Template, models: Mapping[ModelRef, Path], donor: ModelRef, rows: int, notes: Notes
) -> Vocabulary:
    """The donor's tokenizer as it is, with another chat template."""
    files = {ref: read_files(folder) for ref, folder in models.items()}
    if not files[donor]:
        notes.add(f'"{donor}" has no tokenizer files to attach a chat template to', template.where, "remove the line")
    notes.check()
    found = {f'"{ref}"': find_template(models[ref], content) for ref, content in files.items()}
    own, text = found[f'"{donor}"'], choose_template(template, found, notes)
    if FAST in files[donor]:
        check_markers(template, files[donor][FAST].decode(errors="replace"), notes)
    changed = files[donor] if text in (None, own) else put_template(files[donor], models[donor], text or "", notes)
    return Vocabulary(rows, rows, changed, {}, {}, tuple(notes.remarks), template=text or own)
