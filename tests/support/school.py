"""Params of a small school on digits: three levels, a teacher of all classes, all nine views."""

import copy

from project import tiny_params

LEVELS = ("primary", "middle", "university")


def params():
    """Three school levels, a full teacher, all nine views in float32 and three files; and ED with a single level."""
    tiny = copy.deepcopy(tiny_params())
    tiny["datasets"]["digits"]["max_per_class"] = 8
    tiny["partitions"] = {"thirds": {"subsets": list(LEVELS)}, "whole": {"subsets": ["everything"]}}
    tiny["teachers"]["specialists"]["partition"] = "thirds"
    tiny["soft_labels"]["digits"] = {
        "space": {"augment": {"kind": "pad_crop", "padding": 1, "flip": False}, "exhaustive": True},
        "views": {"per_file": 4},
        "storage": {"precision": "float32"},
    }
    common = {**tiny["experiments"]["kd"], "partition": "thirds"}
    budget = {"images": 64, "learning_rate": 0.05}
    tiny["experiments"] = {
        "ed": {**common, "method": {"name": "ed", "teacher": "specialists"}, "stages": dict.fromkeys(LEVELS, budget)},
        "kd": {**common, "method": {"name": "kd", "teacher": "general"}, "stages": {"only": budget}},
        "one_level": {
            **common,
            "partition": "whole",
            "method": {"name": "ed", "teacher": "general"},
            "stages": {"everything": budget},
        },
    }
    tiny["tracked"] = []
    return tiny
