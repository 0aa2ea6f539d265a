"""The recipes of examples/recipes as modules."""

import importlib.util

from project import ROOT

RECIPES = ROOT / "examples" / "recipes"


def load_recipe(name):
    spec = importlib.util.spec_from_file_location(f"recipe_{name}", RECIPES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
