"""The mark of an accelerator is put back, and nothing else is taken for one."""

import pytest
from test_placeholders import translated

from dragoman.text.accelerators import find_accelerator, restore_accelerator


def accelerator_of(text):
    found = find_accelerator(text)
    assert found is not None
    return found


MARKED = {
    "&File": "File",
    "E&xit": "Exit",
    "Save &As…": "Save As…",
    "_File": "File",
    "Save _As": "Save As",
    "E_xit": "Exit",
    "文件(&F)": "文件",
    "&Remember this password": "Remember this password",
    "&Open {file_name}": "Open {file_name}",
}
PLAIN = [
    "R&D",
    "AT&T",
    "Q&A",
    "snake_case",
    "The _private variable here",
    "a && b",
    "&lt; x",
    "__name__",
    "Tom & Jerry",
]
PLAIN += [
    "{user_name} is",
    "Bed&Breakfast",
    "my_file.txt",
    "http://a.b?x=1&y=2",
    "R&D and &File",
    "OK_BUTTON",
    "a & b_c",
]


@pytest.mark.parametrize("text", MARKED)
def test_a_mark_is_taken_out_before_translation(text):
    assert accelerator_of(text).bare == MARKED[text]


@pytest.mark.parametrize("text", PLAIN)
def test_other_ampersands_and_lower_bars_are_text(text):
    assert find_accelerator(text) is None


@pytest.mark.parametrize(
    ("source", "target", "marked"),
    [
        ("&File", "Archivo final", "Archivo &final"),
        ("&File", "Archivo", "&Archivo"),
        ("E&xit", "Salir de Xfce", "Salir de &Xfce"),
        ("_Open", "Archivo nuevo", "Archiv_o nuevo"),
        ("&Open {o}", "{o} mostrar", "{o} m&ostrar"),
        ("&File…", "文件…", "文件(&F)…"),
        ("&File", "", ""),
    ],
)
def test_the_mark_goes_before_its_letter_or_the_first_or_behind(source, target, marked):
    assert restore_accelerator(accelerator_of(source), target) == marked


def test_a_text_with_an_accelerator_is_translated_without_it_and_has_one_again():
    words = {"File": "Fichero", "Save As…": "Guardar como…"}
    assert translated("&File", words.get).text == "&Fichero"
    answer = translated("Save &As…", words.get)
    assert answer.text == "Gu&ardar como…" and answer.source == "Save &As…" and not answer.warnings
