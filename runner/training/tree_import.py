"""Import the modules of one source tree under a root of its own, beside any others of the same names.

`projects.cifar.model` of tree 0123… becomes `tree_0123….projects.cifar.model` in sys.modules. Inside that tree,
`import projects.cifar.model` and `importlib.import_module("projects.cifar.model")` mean the tree's own module, at any
time: its modules have an `__import__` of their own. `runner`, the standard library and installed packages are everybody's.
"""

import builtins
import importlib
import sys
import sysconfig
import types
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from typing import Any

_trees: dict[str, "Tree"] = {}


def tree_at(folder: Path, tree: str) -> "Tree":
    """The importable tree in `folder`; each is set up once a process."""
    name = f"tree_{tree[:16]}"
    found = _trees.get(name)
    if found is None or found.folder != folder:
        if found is not None:  # its folder was damaged and made again elsewhere
            found.forget()
        found = _trees[name] = Tree(folder, name)
        sys.meta_path.insert(0, found)
    return found


class Tree:
    """One source tree; a finder of sys.meta_path for the names below its root."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self._own: dict[str, bool] = {}
        self._builtins = {**vars(builtins), "__import__": self._import}
        self._importlib = types.ModuleType("importlib")

    def import_module(self, name: str, package: str | None = None) -> types.ModuleType:
        """As importlib.import_module, from this tree where it has the module."""
        if not name.startswith(".") and self.has(name.partition(".")[0]):
            name = f"{self.name}.{name}"
        return importlib.import_module(name, package)

    def has(self, top: str) -> bool:
        """Whether a top-level name means this tree's module."""
        if top not in self._own:
            self._own[top] = self._is_own(top)
        return self._own[top]

    def _is_own(self, top: str) -> bool:
        """As with PYTHONPATH: before installed packages, but a folder without __init__.py only where none is installed."""
        if top == "runner" or top in sys.stdlib_module_names:
            return False
        if (self.folder / f"{top}.py").is_file() or (self.folder / top / "__init__.py").is_file():
            return True
        paths = sysconfig.get_paths()
        spec = PathFinder.find_spec(top, [paths["purelib"], paths["platlib"]])
        return (self.folder / top).is_dir() and (spec is None or spec.origin is None)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module of this tree; None for every other."""
        if fullname == self.name:
            root = ModuleSpec(fullname, None, is_package=True)
            root.submodule_search_locations = [str(self.folder)]
            return root
        if not fullname.startswith(f"{self.name}."):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path, self._builtins)
        return spec

    def forget(self) -> None:
        """Import nothing more from here; modules that are in use stay alive."""
        sys.meta_path.remove(self)
        for name in [name for name in sys.modules if name == self.name or name.startswith(f"{self.name}.")]:
            del sys.modules[name]

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> types.ModuleType:
        top = name.partition(".")[0]
        if level or not self.has(top):
            found = builtins.__import__(name, globals, locals, fromlist or (), level)
            if found is importlib:
                found = self._importlib
                vars(found).update({**vars(importlib), "import_module": self.import_module})
            return found
        found = builtins.__import__(f"{self.name}.{name}", globals, locals, fromlist or (), 0)
        return found if fromlist else sys.modules[f"{self.name}.{top}"]


class _Loader(SourceFileLoader):
    """Runs a module of a tree with the tree's builtins, and writes no byte code beside it."""

    def __init__(self, name: str, path: str, names: Mapping[str, Any]) -> None:
        super().__init__(name, path)
        self._builtins = names

    def exec_module(self, module: types.ModuleType) -> None:
        """Run the module's code."""
        vars(module)["__builtins__"] = dict(self._builtins)
        super().exec_module(module)

    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
        """The folder stays as the tree id says."""
