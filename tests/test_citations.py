"""Every layer can be cited, with the paper that its own file names."""

import inspect
import re

import pytest

import longstate
from longstate import layers
from longstate._citations import PAPERS, cite
from longstate.cli import main
from longstate.errors import InputError

LAYERS = sorted(
    name
    for name, value in vars(layers).items()
    if inspect.isclass(value)
    and issubclass(value, layers.Layer)
    and value is not layers.Layer
    and value is not layers.LinearRNN  # it has no paper of its own
)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_cited_by_the_paper_that_its_file_names(name):
    entry = cite(name)
    module = inspect.getdoc(inspect.getmodule(getattr(layers, name)))
    numbers = re.findall(r"eprint = \{([\d.]+)\}", entry)
    assert numbers or PAPERS[name].journal
    assert all(f"arXiv:{number}" in module for number in numbers)
    (title,) = re.findall(r"title = \{\{(.*)\}\}", entry)
    said = re.findall(r'"([^"]+)",', module.replace("\n", " "))
    assert any(title.startswith(part) for part in said), f"{title} is not in {said}"


@pytest.mark.parametrize("paper", PAPERS.values(), ids=PAPERS)
def test_an_entry_is_complete(paper):
    entry = paper.bibtex()
    assert entry.count("{") == entry.count("}")
    assert re.match(r"@(article|inproceedings|misc)\{[a-z]+\d{4}[a-z0-9]+,\n", entry)
    assert f"{paper.year}" in paper.key
    assert all("," in author for author in paper.authors.split(" and "))


def test_keys_are_unique():
    assert len({paper.key for paper in PAPERS.values()}) == len(PAPERS)


@pytest.mark.parametrize("name", ["s4d", "S4D", "Mamba-2", "falcon_mamba", "hippo"])
def test_names_may_be_written_in_any_usual_way(name):
    assert cite(name).startswith("@")


def test_the_library_cites_itself():
    assert longstate.__version__ in longstate.cite("longstate")


def test_for_an_unknown_name_similar_ones_are_named():
    with pytest.raises(InputError, match="no citation for 's4e'; did you mean 'S4"):
        cite("s4e")


def test_the_command_prints_entries_or_lists_names(capsys):
    assert main(["cite", "s5", "dss"]) == 0
    printed = capsys.readouterr().out
    assert printed == f"{cite('s5')}\n\n{cite('dss')}\n"
    assert main(["cite"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert set(names) >= {name.lower() for name in [*LAYERS, "HiPPO", "longstate"]}
    assert main(["cite", "mamba22"]) == 2
    assert "did you mean" in capsys.readouterr().err
