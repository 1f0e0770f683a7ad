"""Which file may import which, and what names mean, read from the syntax trees."""

import ast
from collections import defaultdict

from conftest import ROOT

SOURCE = ROOT / "src"
FILES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in SOURCE.rglob("*.py")
}
SCRIPTS = {
    name
    for name, path in FILES.items()
    if "." not in name and "__main__" in path.read_text("utf-8")
}


def calls_and_imports(name):
    """The names of the functions that a file calls, and of the files of ours that it imports."""
    called, imported = set(), set()
    for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called.add(ast.unparse(node.func))
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            imported |= parts & FILES.keys() or {node.module}
    return called, imported & FILES.keys()


CALLS, IMPORTS = ({name: calls_and_imports(name)[i] for name in FILES} for i in (0, 1))


def test_no_file_needs_itself_by_way_of_others():
    for name in FILES:
        needed, new = set(), {name}
        while new:
            needed |= (new := set().union(*(IMPORTS[file] for file in new)) - needed)
        assert name not in needed


def test_the_core_knows_nothing_of_the_package_and_nothing_imports_a_script():
    for name, imported in IMPORTS.items():
        assert not imported & SCRIPTS, f"{name} imports a script"
        if "." not in name and name not in SCRIPTS | {"gpt2"}:
            assert not [file for file in imported if file.startswith("gpt2")], name


def test_a_folder_of_the_package_is_imported_by_itself_and_by_those_above_it():
    """Evaluation and training know nothing of each other, and no room below a folder imports it."""
    may_import = {"training": {"sampling"}}
    for name, imported in IMPORTS.items():
        room, *inside = name.removeprefix("gpt2.").split(".")
        for file in imported if name.startswith("gpt2.") else ():
            other, *parts = file.removeprefix("gpt2.").split(".")
            if parts and (other != room or not inside):
                assert other in may_import.get(room, ()), f"{name} imports {file}"


def test_only_scripts_import_the_flags():
    assert {name for name in FILES if "gpt2.command_line" in IMPORTS[name]} <= SCRIPTS


def test_only_scripts_print():
    """All others return, yield or log. Exceptions print for all scripts, or run as a script."""
    exceptions = {"gpt2.command_line", "gpt2.installation"}
    for name in FILES.keys() - SCRIPTS - exceptions:
        assert not CALLS[name] & {"print", "tqdm.write"}, name


def top_level_names(tree):
    """The names that a file defines, each with the source that tells equal constants apart."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, object()
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {
                part.id
                for target in targets
                for part in ast.walk(target)
                if isinstance(part, ast.Name)
            }
            yield from ((name, ast.unparse(node)) for name in names)


def test_no_name_stands_for_two_things():
    """The exceptions are fast or slow twins, and `convert`, which each kind of conversion has."""
    meanings = defaultdict(set)
    for path in [*FILES.values(), ROOT / "download_model.py"]:
        for name, source in top_level_names(ast.parse(path.read_text(encoding="utf-8"))):
            meanings[name].add(source)
    twins = {"causal_attention", "gelu", "generate", "linear"}
    several = {name for name, sources in meanings.items() if len(sources) > 1}
    assert several - twins - {"__all__", "convert", "log"} == set()
