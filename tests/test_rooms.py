"""Which file may import which, read from the syntax trees."""

import ast

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
